"""The whole catalogue for many users: every item's vector, encoded once and kept on disk; the best items of each user."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec import __version__, search
from mobjrec.data.store import key_of, stored
from mobjrec.inference import Users, item_matrix, width_of, wished
from mobjrec.parts import Parts
from mobjrec.types import Tree

# Users and items that are scored at a time, and bytes that a program may take for it beyond what it is given.
USERS, ITEMS, LARGEST = 256, 64 * search.GROUP, 1 << 30


def matrix(parts: Parts, params: Tree) -> np.ndarray:
    """Every item's vector [N, D] float32, memory-mapped from the cache, or computed and put there.

    Its name there is a hash over the parameters that make it, the items' tokens and columns, the model's settings and the
    kind of device: whatever changes it gets a file of its own.
    """
    feed = parts.feed
    own = {name: tree for name, tree in params["encoder"].items() if name in ("both", "item")}
    texts = (
        () if feed.item_tokens is None else (*feed.item_tokens[:2], feed.item_text, feed.cls, feed.sep, feed.item_row)
    )
    told = (__version__, jax.default_backend(), str(parts.config.model), *texts, feed.item_ids, feed.item_features)
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves((own, params["item"])))
    count = len(feed.item_ids)
    text = (
        None if feed.item_tokens is None else np.zeros((1, width_of(parts.functions.encode_items, params["encoder"])))
    )
    width = jax.eval_shape(parts.functions.items, params, text, feed.item_ids[:1], feed.item_features[:1]).shape[-1]

    def fill():
        yield np.arange(count), item_matrix(parts.functions, params, feed)

    return stored(parts.cache / "items", key_of(*told, *leaves), count, width, fill)


def best(
    parts: Parts,
    params: Tree,
    memory: Tree,
    items: jax.Array,
    users: Users,
    gone: list[np.ndarray],
    k: int,
    scale: Mapping[str, tuple[float, float]],
    prefer: Mapping[str, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, k] of `items` and utilities [n, k] of each user's k best, best first; -1 and -inf where there are fewer.

    Exact for any scorer whose score of an item reads no other item: USERS x ITEMS scores at a time, fewer users where the
    compiled program would take more than LARGEST, of which the best are merged. Of equal ones the lower row is first.
    gone: the rows that a user is not to see
    """
    count, total = len(items), len(users.ids)
    length = min(ITEMS, search.GROUP * -(-count // search.GROUP))
    padded = jnp.pad(items, ((0, -count % length), (0, 0)))
    weights = np.array([prefer[name] for name in parts.objectives], np.float32)
    pairs = np.array([scale[name] for name in parts.objectives], np.float32).T
    most = 1 << max(max(map(len, gone), default=0) - 1, 0).bit_length()
    wish, at = wished(parts.model, parts.objectives, prefer), min(USERS, 1 << (total - 1).bit_length())

    def inputs(begin: int, at: int) -> tuple:
        """A block's user vectors, the rows it is not to see, and its context, of which nothing is known."""
        these = np.minimum(np.arange(begin, begin + at), total - 1)
        who = parts.functions.vectors(params, jax.tree.map(lambda a: a[these], users), padded)
        away = np.full((at, most), -1, np.int32)
        for place, row in enumerate(these.tolist()):
            away[place, : len(gone[row])] = gone[row]
        return who, away, *unknown(parts, at, length)

    def asked(first: int, found: search.Best, who: jax.Array, away: np.ndarray, *context: np.ndarray) -> tuple:
        return params, memory, who, padded, first, count, found, away, pairs, weights, *context, wish

    def compiled(at: int) -> Any:
        return parts.functions.best.lower(*asked(0, search.empty(at, k), *inputs(0, at))).compile()

    program = compiled(at)
    takes = getattr(program.memory_analysis(), "temp_size_in_bytes", 0)
    if takes > LARGEST and at > 1:
        at = max(1, at * LARGEST // takes)
        program = compiled(at)
    rows, values = np.empty((total, k), np.int32), np.empty((total, k), np.float32)
    for begin in range(0, total, at):
        given, found = inputs(begin, at), search.empty(at, k)
        for first in range(0, len(padded), length):
            found = program(*asked(first, found, *given))
        stop = min(begin + at, total)
        values[begin:stop], rows[begin:stop] = (np.asarray(array)[: stop - begin] for array in found)
    return np.where(np.isfinite(values), rows, -1), values


def unknown(parts: Parts, lists: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Context [lists, items, ...] of which nothing is known: numbers and ids."""
    context = parts.spec.context
    ids = sum(column.slots for column in context.ids)
    return np.zeros((lists, items, len(context.numbers)), np.float32), np.zeros((lists, items, ids), np.int32)
