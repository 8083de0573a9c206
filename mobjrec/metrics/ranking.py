"""Metrics of one ranked list: (scores, labels, *, where) of [..., L] each -> [...] per list, NaN where undefined.

Items are ranked by score, ties in order of appearance. An item is relevant where its label is above 0. k = None counts
the whole list. All are in [0, 1] and higher is better, but for `mean_label`, which has the label's unit.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from mobjrec.ranks import check_lists, ranks
from mobjrec.types import Array


def ndcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    gain: Literal["exponential", "linear"] = "exponential",
) -> Array:
    """Discounted gain of the order over that of the best order. Burges et al. 2005.

    sum over ranks r <= k of g(y) / log2(r + 1), g = 2^y - 1 or y, over the same sum with labels in falling order. NaN
    where the best is not above 0. ValueError for another gain.
    """
    if gain not in ("exponential", "linear"):
        raise ValueError(f"gain is {gain}; it must be exponential or linear")
    place, labels = _ranked(scores, labels, where, k)
    gains = jnp.where(where, jnp.exp2(labels) - 1.0 if gain == "exponential" else labels, 0.0)
    best = _discounted(gains, ranks(labels, where), where, k)
    return _ratio(_discounted(gains, place, where, k), best)


def mrr(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """One over the rank of the first relevant item, 0 where it stands below k. NaN without relevant items."""
    place, labels = _ranked(scores, labels, where, k)
    relevant = where & (labels > 0)
    first = jnp.min(jnp.where(relevant, place, jnp.iinfo(place.dtype).max), axis=-1)
    found = jnp.where(True if k is None else first <= k, 1.0 / first, 0.0)
    return jnp.where(relevant.any(-1), found, jnp.nan)


def average_precision(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """Mean over relevant items of the precision at their rank, over min(|P|, k) of them. NaN without relevant items."""
    place, labels = _ranked(scores, labels, where, k)
    relevant = where & (labels > 0)
    order = jnp.argsort(place, axis=-1)
    hits = jnp.take_along_axis(relevant, order, -1)
    rank = jnp.arange(1, scores.shape[-1] + 1)
    precision = jnp.cumsum(hits, axis=-1) / rank
    inside = hits if k is None else hits & (rank <= k)
    count = relevant.sum(-1)
    return _ratio(jnp.sum(precision, axis=-1, where=inside), count if k is None else jnp.minimum(count, k))


def precision(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """Relevant items among the first k over min(k, items of the list). NaN without relevant items."""
    hits, relevant = _hits(scores, labels, where, k)
    count = where.sum(-1)
    return jnp.where(relevant > 0, _ratio(hits, count if k is None else jnp.minimum(count, k)), jnp.nan)


def recall(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """Relevant items among the first k over all relevant items. NaN without relevant items."""
    return _ratio(*_hits(scores, labels, where, k))


def hit(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """1 where a relevant item is among the first k, else 0. NaN without relevant items."""
    hits, count = _hits(scores, labels, where, k)
    return jnp.where(count > 0, (hits > 0).astype(scores.dtype), jnp.nan)


def mean_label(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """The mean label of the first k items, in the label's unit: click rate, satisfaction of what is shown.

    NaN without items.
    """
    place, labels = _ranked(scores, labels, where, k)
    inside = where if k is None else where & (place <= k)
    return _ratio(jnp.sum(labels, axis=-1, where=inside), inside.sum(-1))


def auc(scores: Array, labels: Array, *, where: Array) -> Array:
    """Share of (relevant, other) pairs in the right order, equal scores counting half. NaN where one kind is absent.

    By sorting: no [L, L] array.
    """
    check_lists(scores, labels, where)
    relevant = where & (jnp.where(where, labels, 0.0) > 0)
    # Masked items stand after all others by a key of their own, so that they tie with none, be it infinite.
    order = jnp.lexsort((scores, ~jnp.asarray(where)), axis=-1)
    ordered, inside, hits = (jnp.take_along_axis(a, order, -1) for a in (scores, jnp.asarray(where), relevant))
    step = (ordered[..., 1:] != ordered[..., :-1]) | (inside[..., 1:] != inside[..., :-1])
    edge = jnp.ones((*scores.shape[:-1], 1), bool)
    place, axis = jnp.arange(scores.shape[-1]), scores.ndim - 1
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, step], -1), place, 0), axis)
    last = jax.lax.cummin(jnp.where(jnp.concatenate([step, edge], -1), place, scores.shape[-1]), axis, reverse=True)
    middle = 1.0 + (first + last) / 2.0
    positives = relevant.sum(-1)
    above = jnp.sum(middle, axis=-1, where=hits) - positives * (positives + 1) / 2.0
    return _ratio(above, positives * (where.sum(-1) - positives))


def _ranked(scores: Array, labels: Array, where: Array, k: int | None) -> tuple[Array, Array]:
    check_lists(scores, labels, where, None, k)
    return ranks(scores, where), jnp.where(where, labels, 0.0).astype(jnp.promote_types(scores.dtype, jnp.float32))


def _hits(scores: Array, labels: Array, where: Array, k: int | None) -> tuple[Array, Array]:
    """Relevant items among the first k, and all of them."""
    place, labels = _ranked(scores, labels, where, k)
    relevant = where & (labels > 0)
    inside = relevant if k is None else relevant & (place <= k)
    return inside.sum(-1), relevant.sum(-1)


def _discounted(gains: Array, place: Array, where: Array, k: int | None) -> Array:
    inside = where if k is None else where & (place <= k)
    return jnp.sum(gains / jnp.log2(place + 1.0), axis=-1, where=inside)


def _ratio(above: Array, below: Array) -> Array:
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan)
