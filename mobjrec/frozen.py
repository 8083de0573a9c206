"""What an encoder's untrained part makes of the texts: computed once, kept on disk, read by batches and evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mobjrec.data.batching import item_sequences, reads_users, user_sequences
from mobjrec.data.store import States, key_of, stored
from mobjrec.data.tokens import Ragged
from mobjrec.inference import encoded, lowered
from mobjrec.parts import Parts
from mobjrec.types import Texts, Tree

# Lower layers' outputs take 4 H bytes a token: beyond this many bytes a side they are computed anew in each step.
LARGEST = 8 << 30
Sequences = Callable[[np.ndarray], Ragged]


def with_store(parts: Parts, params: Tree) -> Parts:
    """The parts with what frozen encoders, or their frozen lower layers, make of all texts; computed now if not stored."""
    feed, changes = parts.feed, {}
    if parts.model.freeze is None or parts.tokenizer is None:
        return parts
    kind = {side: filled(parts, params, side) for side in ("user", "item")}
    if feed.item_tokens is not None and kind["item"]:
        count = len(feed.item_tokens.start) - 1
        fill = _vectors if kind["item"] == "vector" else _states
        found = fill(parts, params, "item", lambda rows: item_sequences(feed, rows), count, feed.item_row)
        changes["stored_items" if kind["item"] == "vector" else "lower_items"] = found
    if reads_users(feed) and kind["user"]:
        fill = _vectors if kind["user"] == "vector" else _states
        found = {}
        for lists in (parts.dataset.train, parts.dataset.valid, parts.dataset.test):

            def sequences(rows: np.ndarray, lists: Any = lists) -> Ragged:
                return user_sequences(feed, lists.user[rows], lists.history[rows])

            found[lists.split] = fill(parts, params, "user", sequences, len(lists.user), feed.user_row)
        if all(one is not None for one in found.values()):
            changes["stored_users" if kind["user"] == "vector" else "lower_users"] = found
    return parts._replace(feed=feed._replace(**changes))


def filled(parts: Parts, params: Tree, side: str) -> str:
    """What `freeze` fills on this side: "vector", "hidden", or "" where all trains or nothing is read."""
    encoder = _encoder(params, side)
    if not encoder:
        return ""
    found = _filled(parts, encoder)
    return "vector" if found.vector is not None else "hidden" if found.hidden is not None else ""


def without_store(parts: Parts, params: Tree) -> Parts:
    """Zeros in place of what is stored: their shape is all that a trace needs. params: shapes."""
    feed, changes = parts.feed, {}
    if parts.model.freeze is None or parts.tokenizer is None:
        return parts
    if feed.item_tokens is not None and (kind := filled(parts, params, "item")):
        name = "stored_items" if kind == "vector" else "lower_items"
        changes[name] = _zeros(parts, params, "item", len(feed.item_tokens.start) - 1)
    if reads_users(feed) and (kind := filled(parts, params, "user")):
        name = "stored_users" if kind == "vector" else "lower_users"
        changes[name] = {s.split: _zeros(parts, params, "user", len(s.user)) for s in parts.dataset[2:5]}
    return parts._replace(feed=feed._replace(**changes))


def _zeros(parts: Parts, params: Tree, side: str, count: int) -> np.ndarray | States:
    found = _filled(parts, _encoder(params, side))
    if found.vector is not None:
        return np.zeros((count, found.vector.shape[-1]), np.float32)
    return States(np.zeros(count, np.int64), np.zeros((1 << 16, found.hidden.shape[-1]), np.float32))


def _vectors(parts: Parts, params: Tree, side: str, sequences: Sequences, count: int, row_length: int) -> np.ndarray:
    """[count, D]: the stored vectors of these sequences."""
    if not count:
        return np.zeros((0, 1), np.float32)
    encode = parts.functions.encode_users if side == "user" else parts.functions.encode_items
    width = _filled(parts, _encoder(params, side)).vector.shape[-1]
    key = key_of(_weights(parts, params, side), *sequences(np.arange(count))[:2], row_length)
    fill = encoded(encode, params["encoder"], sequences, count, row_length)
    return stored(parts.cache / "vectors", key, count, width, lambda: fill)


def _states(parts: Parts, params: Tree, side: str, sequences: Sequences, count: int, row_length: int) -> States | None:
    """The lower layers' states of these sequences; None where they would be larger than LARGEST."""
    encoder = _encoder(params, side)
    width = _filled(parts, encoder).hidden.shape[-1]
    if not count:
        return States(np.zeros(0, np.int64), np.zeros((1, width), np.float32))
    every = sequences(np.arange(count))
    if 4 * width * len(every.token) > LARGEST:
        return None
    key = key_of("lower", _weights(parts, params, side), every.start, every.token, row_length)
    fill = lowered(parts.functions.freeze, encoder, sequences, count, row_length)
    return States(every.start[:-1], stored(parts.cache / "vectors", key, len(every.token), width, lambda: fill))


def _encoder(params: Tree, side: str) -> Tree:
    """{name: parameters} of the encoder that reads this side's texts; {} where none does."""
    return {name: tree for name, tree in params["encoder"].items() if name in ("both", side)}


def _filled(parts: Parts, encoder: Tree) -> Texts:
    """The shapes of what `freeze` makes of one short row."""
    cell, used = jax.ShapeDtypeStruct((1, 4), np.int32), jax.ShapeDtypeStruct((1, 1), bool)
    return jax.eval_shape(parts.model.freeze, encoder, Texts(cell, cell, cell, used))


def _weights(parts: Parts, params: Tree, side: str) -> str:
    """A hash over the parameters that do not train; the others may have moved on since."""
    trained = parts.model.trainable(params)["encoder"]
    pairs = zip(
        jax.tree.leaves(_encoder(params, side)), jax.tree.leaves(_encoder({"encoder": trained}, side)), strict=True
    )
    return key_of(*(np.asarray(leaf) for leaf, trains in pairs if not trains))
