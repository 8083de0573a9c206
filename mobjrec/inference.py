"""A model in use, without dropout: texts -> embeddings -> item matrix -> scores. What eval, rank and export share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.data.batching import Feed, item_sequences, reads_users, remembered, user_sequences
from mobjrec.data.packing import Packing, cells, lay, pack
from mobjrec.data.store import States, taken
from mobjrec.data.tokens import Ragged
from mobjrec.search import Best, merged, without
from mobjrec.types import Array, Lists, Model, Objective, Outputs, Texts, Tree

TEXTS = 4096  # texts packed at a time
TOKENS = 8192  # tokens encoded at a time
FEW = 512  # the same where no more are needed, as for one user: one shape more, and a sixteenth of the time


class Users(NamedTuple):
    """What the model reads of B users. text: [B, D] embeddings or None   ids [B, C], features [B, F]

    history: [B, H] rows of the item matrix, newest first, -1 for none; None where the model reads no item vectors
    """

    text: np.ndarray | None
    ids: np.ndarray
    features: np.ndarray
    history: np.ndarray | None


class Functions(NamedTuple):
    """A model's functions, each compiled once per shape.

    encode_users, encode_items: (params["encoder"], Texts) -> [R, S, D]
    vectors: (params, Users, matrix) -> [B, S, D], the users as the scorer reads them
    best: (params, memory, users [B, S, D], matrix, first, count, Best, gone [B, M], scale [2, K], weights [K], context,
        context_ids, preference) -> Best of those before and of the L rows of the matrix from `first` on, by utility; rows
        from `count` on and those that are gone are left out
    freeze: ({name: params of that encoder}, Texts) -> Texts, see `Model`; None where all trains
    items: (params, text [N, D] or None, ids, features) -> [N, D], the item matrix
    predict: (params, memory, Users, matrix [N, D], items [B or 1, L], context, context_ids, preference [K] or None)
        -> {objective: [B, L]}; the preference is `wished`
    """

    encode_users: Callable
    encode_items: Callable
    items: Callable
    predict: Callable
    vectors: Callable
    best: Callable
    freeze: Callable | None


def compiled(model: Model, objectives: dict[str, Objective]) -> Functions:
    """The functions of a model and its objectives under jit."""

    def vectors(params: Tree, users: Users, matrix: Array) -> Array:
        history = where = None
        if users.history is not None:
            where = users.history >= 0
            history = jnp.where(where[..., None], matrix[jnp.maximum(users.history, 0)], 0.0)
        return model.user(params, users.text, users.ids, users.features, history, where, None)

    def told(params: Tree, memory: Tree, who: Array, what: Array, *given: Array | None) -> dict[str, Array]:
        outputs = Outputs(model.score(params, who, what, *given, None), who, what)
        return {name: o.predict(outputs, params["objectives"][name], memory[name]) for name, o in objectives.items()}

    def predict(
        params: Tree,
        memory: Tree,
        users: Users,
        matrix: Array,
        items: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None = None,
    ) -> dict[str, Array]:
        who = vectors(params, users, matrix)
        what = matrix[jnp.maximum(items, 0)]
        return told(params, memory, who, what, context, context_ids, preference)

    def best(
        params: Tree,
        memory: Tree,
        who: Array,
        matrix: Array,
        first: Array,
        count: Array,
        found: Best,
        gone: Array,
        scale: Array,
        weights: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None = None,
    ) -> Best:
        length = context.shape[1]
        what = jax.lax.dynamic_slice_in_dim(matrix, first, length)[None]
        values = told(params, memory, who, what, context, context_ids, preference)
        terms = zip(weights, values.values(), *scale, strict=True)
        total = sum(weight * (value - mean) / deviation for weight, value, mean, deviation in terms)
        total = jnp.where(first + jnp.arange(length) < count, total, -jnp.inf)
        return merged(found, without(total, gone, first), first)

    return Functions(
        jax.jit(lambda encoder, texts: model.encode_users(encoder, texts, None)),
        jax.jit(lambda encoder, texts: model.encode_items(encoder, texts, None)),
        jax.jit(lambda params, text, ids, features: model.item(params, text, ids, features, None)),
        jax.jit(predict),
        jax.jit(vectors),
        jax.jit(best, donate_argnums=6),
        None if model.freeze is None else jax.jit(model.freeze),
    )


def wished(model: Model, names: Iterable[str], preference: Mapping[str, float] | None) -> np.ndarray | None:
    """[K] what a conditioned model is told of a preference by name, its numbers over their sum; None for other models.

    Equal where there is none. ValueError where all are 0.
    """
    if not model.conditioned:
        return None
    numbers = np.array([1.0 if preference is None else preference.get(name, 0.0) for name in names])
    if not numbers.sum() > 0:
        raise ValueError(f"preference is {dict(preference or {})}; one number at least must be above 0")
    return (numbers / numbers.sum()).astype(np.float32)


def width_of(encode: Callable, encoder: Tree) -> int:
    """Numbers in a text's embedding."""
    cell, used = jax.ShapeDtypeStruct((1, 4), np.int32), jax.ShapeDtypeStruct((1, 1), bool)
    return jax.eval_shape(encode, encoder, Texts(cell, cell, cell, used)).shape[-1]


class Block(NamedTuple):
    """Up to TEXTS packed texts. which: [n] their rows   parts: their packed rows, in one compiled shape after the other

    places: [rows, T] which of all tokens a cell holds, -1 for padding
    """

    which: np.ndarray
    packing: Packing
    parts: list[Texts]
    places: np.ndarray


def blocks(
    sequences: Callable[[np.ndarray], Ragged], count: int, row_length: int, lower: States | None = None
) -> Iterator[Block]:
    """`count` texts packed block by block. sequences: rows [n] -> their token sequences, each at most row_length long."""
    rows, few = max(1, TOKENS // row_length), max(1, FEW // row_length)
    slots, before = 1, 0
    for begin in range(0, count, TEXTS):
        which = np.arange(begin, min(begin + TEXTS, count))
        found = sequences(which)
        lengths = np.diff(found.start)
        packing = pack(lengths, row_length)
        if count <= TEXTS and packing.rows <= few:
            rows = few
        # Powers of two, never shrinking: a few shapes at most.
        slots = max(slots, 1 << max(packing.slots - 1, 0).bit_length())
        whole = -(-packing.rows // rows) * rows
        texts = lay(found.token, lengths, packing, whole, slots, row_length)
        first = before + found.start[:-1] if lower is None else lower.begin[which]
        places = cells(first, lengths, packing, whole, row_length)
        parts = [jax.tree.map(lambda a, at=at, stop=at + rows: a[at:stop], texts) for at in range(0, whole, rows)]
        if lower is not None:
            parts = [
                part._replace(hidden=taken(lower.states, places[n * rows : (n + 1) * rows]))
                for n, part in enumerate(parts)
            ]
        yield Block(which, packing, parts, places)
        before += int(lengths.sum())


def encoded(
    encode: Callable,
    encoder: Tree,
    sequences: Callable[[np.ndarray], Ragged],
    count: int,
    row_length: int,
    lower: States | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which [n], embeddings [n, D]) of `count` texts, block by block; from the lower layers' states where given."""
    for block in blocks(sequences, count, row_length, lower):
        parts = [np.asarray(encode(encoder, part)) for part in block.parts]
        yield block.which, np.concatenate(parts)[block.packing.row, block.packing.slot]


def lowered(
    freeze: Callable, encoder: Tree, sequences: Callable[[np.ndarray], Ragged], count: int, row_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which tokens [n], states [n, H]) that the frozen lower layers make of `count` texts, part by part."""
    for block in blocks(sequences, count, row_length):
        rows = len(block.places) // len(block.parts)
        for number, part in enumerate(block.parts):
            places = block.places[number * rows : (number + 1) * rows]
            hidden = np.asarray(freeze(encoder, part).hidden, np.float32)
            yield places[places >= 0], hidden[places >= 0]


def gathered(parts: Iterator[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """The blocks as one array [count, D]; [0, 1] for no text at all."""
    whole = None
    for which, vectors in parts:
        if whole is None:
            whole = np.empty((count, vectors.shape[1]), np.float32)
        whole[which] = vectors
    return np.zeros((0, 1), np.float32) if whole is None else whole


def item_texts(functions: Functions, params: Tree, feed: Feed) -> np.ndarray | None:
    """Embeddings [texts, D] of the distinct item texts, from the store where the encoder is frozen."""
    if feed.item_tokens is None:
        return None
    if feed.stored_items is not None:
        return feed.stored_items
    count = len(feed.item_tokens.start) - 1
    found = encoded(
        functions.encode_items,
        params["encoder"],
        lambda rows: item_sequences(feed, rows),
        count,
        feed.item_row,
        feed.lower_items,
    )
    return gathered(found, count)


def item_matrix(functions: Functions, params: Tree, feed: Feed) -> np.ndarray:
    """Every item's vector [N, D]: each distinct text encoded once, then the tower."""
    texts = item_texts(functions, params, feed)
    text = None if texts is None else texts[feed.item_text]
    return np.asarray(functions.items(params, text, feed.item_ids, feed.item_features))


def users_of(functions: Functions, params: Tree, feed: Feed, lists: Lists, rows: np.ndarray) -> Users:
    """What the model reads of the users of these lists; -1 is a padding list."""
    who = np.where(rows >= 0, lists.user[rows], -1)
    spans = np.where((rows >= 0)[:, None], lists.history[rows], 0)
    text = None
    if reads_users(feed):
        if feed.stored_users is not None:
            text = feed.stored_users[lists.split][rows]
        else:
            text = user_texts(functions, params, feed, who, spans, lists, rows)
    real = (who >= 0)[:, None]
    ids, features = np.where(real, feed.user_ids[who], 0), np.where(real, feed.user_features[who], 0.0)
    return Users(text, ids.astype(np.int32), features.astype(np.float32), remembered(feed, spans))


def user_texts(
    functions: Functions, params: Tree, feed: Feed, who: np.ndarray, spans: np.ndarray, lists: Lists, rows: np.ndarray
) -> np.ndarray:
    """Embeddings [B, D] of users' texts, each distinct (user, history) once."""
    keys, first, inverse = np.unique(
        np.concatenate([who[:, None], spans], 1), axis=0, return_index=True, return_inverse=True
    )
    lower = None
    if feed.lower_users is not None:
        lower = feed.lower_users[lists.split]
        # A padding list, -1, takes the first real list's states: nobody reads what becomes of them.
        lower = lower._replace(begin=lower.begin[np.maximum(rows[first], 0)])

    def sequences(rows: np.ndarray) -> Ragged:
        return user_sequences(feed, keys[rows, 0], keys[rows, 1:])

    found = encoded(functions.encode_users, params["encoder"], sequences, len(keys), feed.user_row, lower)
    return gathered(found, len(keys))[inverse.reshape(-1)]
