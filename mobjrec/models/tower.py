"""What is known of a user or an item, joined into one vector; a user also reads the vectors of the items it chose."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from mobjrec.models.dropout import dropout, kept
from mobjrec.types import Array, Column, Input, SideSpec

# Spread of a new id row: small beside a text's part, so that a rarely seen id does not drown what the text says.
ID_SPREAD = 0.1


def check_layers(layers: tuple[int, ...]) -> None:
    """ValueError unless every hidden layer has a unit."""
    if any(size < 1 for size in layers):
        raise ValueError(f"layers is {list(layers)}; each size must be at least 1")


class Table(nnx.Module):
    """Embeddings of a categorical column, [size, width]; row 0 (unseen or empty) is zero and stays it.

    ids [..., slots] int32 -> [..., width]: the mean over the slots that are not 0, and 0 where all are.
    """

    def __init__(self, column: Column, width: int, *, rngs: nnx.Rngs):
        rows = ID_SPREAD * jax.random.normal(rngs.params(), (column.size, width))
        self.rows = nnx.Param(rows.at[0].set(0.0))

    def __call__(self, ids: Array) -> Array:
        there = ids > 0
        rows = self.rows[...][ids] * there[..., None]
        return rows.sum(-2) / jnp.maximum(there.sum(-1, keepdims=True), 1)


class Join(nnx.Module):
    """Sum of a text's projection, the columns' embeddings and a linear map of the numbers: [..., width].

    Without a bias: one on the item's side would add the same to all items of a list, which a shift-invariant loss
    cannot see. With ids alone the sum is the table's row itself. A text that is absent comes as zeros and adds nothing.

    text [..., text_width] or None; ids [..., C] and features [..., F] in the order of `side`, of which `ids` and
    `numbers` are read. Returns zeros [..., width] if nothing is read.
    """

    def __init__(
        self,
        side: SideSpec,
        ids: tuple[str, ...],
        numbers: tuple[str, ...],
        text_width: int,
        width: int,
        *,
        rngs: nnx.Rngs,
    ):
        columns = tuple(column for column in side.ids if column.name in ids)
        self.width = width
        self.spans = tuple((column.name, *span(side, column.name)) for column in columns)
        self.places = tuple(side.numbers.index(name) for name in numbers)
        self.text = _projection(text_width, width, rngs) if text_width else None
        self.ids = nnx.Dict({column.name: Table(column, width, rngs=rngs) for column in columns})
        self.numbers = _projection(len(numbers), width, rngs) if numbers else None

    def __call__(self, text: Array | None, ids: Array, features: Array) -> Array:
        parts = [] if self.text is None else [self.text(text)]
        parts += [self.ids[name](ids[..., start:stop]) for name, start, stop in self.spans]
        parts += [] if self.numbers is None else [self.numbers(features[..., self.places])]
        return sum(parts[1:], start=parts[0]) if parts else jnp.zeros((*ids.shape[:-1], self.width))


class Hidden(nnx.Module):
    """Layers x -> dropout(gelu(W x + b)), then a linear map without bias to `width`; dropout(x) where `layers` is empty.

    x [N, ..., width], keys [N] or None.
    """

    def __init__(self, width: int, layers: tuple[int, ...], rate: float, *, rngs: nnx.Rngs):
        sizes = (width, *layers)
        self.rate = rate
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.out = nnx.Linear(sizes[-1], width, use_bias=False, rngs=rngs) if layers else None

    def __call__(self, x: Array, keys: Array | None) -> Array:
        for place, layer in enumerate(self.layers):
            x = dropout(jax.nn.gelu(layer(x)), self.rate, keys, 1 + place)
        return dropout(x, self.rate, keys, 1) if self.out is None else self.out(x)


class ItemTower(nnx.Module):
    """An item's vector from its text, ids and numbers.

    In training the item's own id ("item") is set to 0 with probability `id_dropout`, item by item, where anything else
    is known of it.

    text [N, ..., text_width] or None, ids [N, ..., C], features [N, ..., F], keys [N] or None -> [N, ..., width].
    """

    def __init__(
        self,
        side: SideSpec,
        given: Input,
        text_width: int,
        width: int,
        layers: tuple[int, ...],
        rate: float,
        id_dropout: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.own = span(side, "item") if "item" in given.ids and not _alone(given) else None
        self.id_dropout = id_dropout
        self.join = Join(side, given.ids, given.numbers, text_width, width, rngs=rngs)
        self.hidden = Hidden(width, layers, rate, rngs=rngs)

    def __call__(self, text: Array | None, ids: Array, features: Array, keys: Array | None) -> Array:
        ids = without_own(ids, self.own, self.id_dropout, keys)
        return self.hidden(self.join(text, ids, features), keys)


class UserTower(nnx.Module):
    """A user's vector from text, ids, numbers and history, or, for `sequence`, that vector and the history's vectors.

    What is known of the user itself is joined as for an item, with a bias unless its own id is all there is: it is what
    a user without text or history has. The history is pooled by attention with that vector as query (a learnt one where
    only the history is read) and added; an empty history adds 0. For `sequence` nothing is pooled, and a history vector
    that is not there is all zeros.

    text [B, text_width] or None, ids [B, C], features [B, F], history [B, H, width] or None, where [B, H] or None, keys
    [B] or None -> [B, 1, width], or [B, 1 + H, width].
    """

    def __init__(
        self,
        side: SideSpec,
        given: Input,
        text_width: int,
        width: int,
        layers: tuple[int, ...],
        rate: float,
        id_dropout: float,
        sequence: bool,
        *,
        rngs: nnx.Rngs,
    ):
        self.own = span(side, "user") if "user" in given.ids and not _alone(given) else None
        self.id_dropout = id_dropout
        self.sequence = sequence
        self.join = Join(side, given.ids, given.numbers, text_width, width, rngs=rngs)
        self.bias = None if _alone(given) else nnx.Param(jnp.zeros(width))
        knows = bool(given.text or given.ids or given.numbers)
        self.pool = HistoryPool(width, learnt=not knows, rngs=rngs) if given.history and not sequence else None
        self.hidden = Hidden(width, layers, rate, rngs=rngs)

    def __call__(
        self,
        text: Array | None,
        ids: Array,
        features: Array,
        history: Array | None,
        where: Array | None,
        keys: Array | None,
    ) -> Array:
        user = self.join(text, without_own(ids, self.own, self.id_dropout, keys), features)
        if self.pool is not None:
            user = user + self.pool(user, history, where)
        if self.bias is not None:
            user = user + self.bias[...]
        user = self.hidden(user, keys)[:, None]
        if not self.sequence or history is None:
            return user
        return jnp.concatenate([user, jnp.where(where[..., None], history, 0.0)], axis=1)


class HistoryPool(nnx.Module):
    """Attention pooling of a history's vectors: V sum_h softmax(q' W h / sqrt(D))_h h, V starting as the identity.

    query [B, D] (not read where the query is learnt), history [B, H, D], where [B, H] -> [B, D]; 0 if it is empty.
    """

    def __init__(self, width: int, learnt: bool, *, rngs: nnx.Rngs):
        draw = nnx.initializers.normal(ID_SPREAD)
        self.learnt = nnx.Param(draw(rngs.params(), (width,))) if learnt else None
        self.query = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, width, use_bias=False, kernel_init=_identity, rngs=rngs)

    def __call__(self, query: Array, history: Array, where: Array) -> Array:
        history = jnp.where(where[..., None], history, 0.0)
        asked = self.query(query if self.learnt is None else jnp.broadcast_to(self.learnt[...], query.shape))
        logits = jnp.einsum("bd,bhd->bh", asked, history) / jnp.sqrt(asked.shape[-1])
        weights = jax.nn.softmax(jnp.where(where, logits, jnp.finfo(logits.dtype).min), axis=-1) * where
        return self.value(jnp.einsum("bh,bhd->bd", weights, history))


def without_own(ids: Array, own: tuple[int, int] | None, rate: float, keys: Array | None) -> Array:
    """ids with the columns own[0]:own[1] set to 0 at `rate`, drawn per user or item; as they are without key or `own`.

    ids [N, ..., C]; keys [N] or None.
    """
    if own is None or keys is None or rate == 0.0:
        return ids
    stays = kept(ids.shape[1:-1], rate, keys)[..., None]
    return ids.at[..., own[0] : own[1]].multiply(stays)


def span(side: SideSpec, name: str) -> tuple[int, int]:
    """First and one past the last of the ids that belong to column `name`."""
    before = [column.name for column in side.ids].index(name)
    start = sum(column.slots for column in side.ids[:before])
    return start, start + side.ids[before].slots


def _alone(given: Input) -> bool:
    return not (given.text or given.numbers or given.history) and given.ids in (("user",), ("item",))


def _projection(size: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    # Entries of width ** -1/4 for inputs of size 1: the product of two such vectors starts near 1, whatever the width.
    start = nnx.initializers.variance_scaling(width**-0.5, "fan_in", "normal")
    return nnx.Linear(size, width, use_bias=False, kernel_init=start, rngs=rngs)


def _identity(key: Array, shape: tuple[int, int], dtype: jnp.dtype, out_sharding: object = None) -> Array:
    return jnp.eye(*shape, dtype=dtype)
