"""Metrics of one ranked list: (scores, labels, *, where) of [..., L] each -> [...] per list, NaN where undefined.

Items are ranked by score, ties in order of appearance. An item is relevant where its label is above 0. k = None counts
the whole list. All are in [0, 1] and higher is better, but for `mean_label`, which has the label's unit.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.ranks import check_lists
from mobjrec.types import Array


class Ranked(NamedTuple):
    """A list as ranked, masked items last: [..., L] each, `place` [L] the ranks from 1.

    labels: 0 for masked items   scores: with their sign turned   real: bool   inside: real, and among the first k
    """

    labels: Array
    scores: Array
    real: Array
    place: Array
    inside: Array


def ndcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    gain: Literal["exponential", "linear"] = "exponential",
) -> Array:
    """Discounted gain of the order over that of the best order. Burges et al. 2005.

    sum over ranks r <= k of g(y) / log2(r + 1), g = 2^y - 1 or y, over the same sum with labels in falling order. 2^y is
    for grades of a few levels; for labels in natural units (seconds, euros) take the linear gain, as trec_eval and
    scikit-learn do. Labels of any size: neither overflows. NaN where the best is not above 0. ValueError for another gain.
    """
    if gain not in ("exponential", "linear"):
        raise ValueError(f"gain is {gain}; it must be exponential or linear")
    ranked = _ranked(scores, labels, where, k)
    best = jnp.sort(jnp.where(where, labels, -jnp.inf).astype(ranked.labels.dtype), axis=-1, descending=True)
    top = jnp.maximum(best[..., :1], 0.0)
    return _ratio(_discounted(ranked.labels, top, ranked, gain), _discounted(best, top, ranked, gain))


def mrr(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """One over the rank of the first relevant item, 0 where it stands below k. NaN without relevant items."""
    ranked = _ranked(scores, labels, where, k)
    relevant = ranked.labels > 0
    reciprocal = jnp.max(relevant / ranked.place.astype(ranked.labels.dtype), axis=-1, where=ranked.inside, initial=0.0)
    return jnp.where(relevant.any(-1), reciprocal, jnp.nan)


def average_precision(scores: Array, labels: Array, *, where: Array, k: int | None = None) -> Array:
    """Mean over relevant items of the precision at their rank, over min(|P|, k) of them. NaN without relevant items."""
    ranked = _ranked(scores, labels, where, k)
    hits = ranked.labels > 0
    precision = jnp.cumsum(hits, axis=-1) / ranked.place.astype(ranked.labels.dtype)
    count = hits.sum(-1)
    found = jnp.sum(precision, axis=-1, where=hits & ranked.inside)
    return _ratio(found, count if k is None else jnp.minimum(count, k))


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
    ranked = _ranked(scores, labels, where, k)
    return _ratio(jnp.sum(ranked.labels, axis=-1, where=ranked.inside), ranked.inside.sum(-1))


def auc(scores: Array, labels: Array, *, where: Array) -> Array:
    """Share of (relevant, other) pairs in the right order, equal scores counting half. NaN where one kind is absent.

    By sorting: no [L, L] array.
    """
    ranked = _ranked(scores, labels, where, None)
    hits, length = ranked.labels > 0, ranked.place.size
    # Items tie where neither score nor mask changes: padding ties with no real item, be its score infinite.
    step = (ranked.scores[..., 1:] != ranked.scores[..., :-1]) | (ranked.real[..., 1:] != ranked.real[..., :-1])
    edge = jnp.ones((*hits.shape[:-1], 1), bool)
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, step], -1), ranked.place, 0), hits.ndim - 1)
    last = jnp.where(jnp.concatenate([step, edge], -1), ranked.place, length)
    last = jax.lax.cummin(last, hits.ndim - 1, reverse=True)
    positives = hits.sum(-1)
    middle = jnp.sum((first + last) / 2.0, axis=-1, where=hits)
    wrong = middle - positives * (positives + 1) / 2.0
    pairs = positives * (ranked.real.sum(-1) - positives)
    return _ratio(pairs - wrong, pairs)


def _ranked(scores: Array, labels: Array, where: Array, k: int | None) -> Ranked:
    check_lists(scores, labels, where, None, k)
    scores, where = jnp.asarray(scores), jnp.asarray(where)
    labels = jnp.where(where, labels, 0.0).astype(jnp.promote_types(scores.dtype, jnp.float32))
    # One sort, the same whatever the metric and k, so that many metrics compiled together share it.
    masked, scores, labels = jax.lax.sort((~where, -scores, labels), num_keys=2, is_stable=True)
    place = jnp.arange(1, scores.shape[-1] + 1)
    return Ranked(labels, scores, ~masked, place, ~masked if k is None else ~masked & (place <= k))


def _hits(scores: Array, labels: Array, where: Array, k: int | None) -> tuple[Array, Array]:
    """Relevant items among the first k, and all of them."""
    ranked = _ranked(scores, labels, where, k)
    relevant = ranked.labels > 0
    return (relevant & ranked.inside).sum(-1), relevant.sum(-1)


def _discounted(labels: Array, top: Array, ranked: Ranked, gain: str) -> Array:
    """The discounted gains over 2^top or top, the largest label [..., 1]: a ratio of two does not see the divisor."""
    # 2^y alone is infinite from labels of 128 on, and infinity over infinity NaN.
    exponential = gain == "exponential"
    gains = jnp.exp2(labels - top) - jnp.exp2(-top) if exponential else labels / jnp.where(top > 0, top, 1.0)
    return jnp.sum(gains / jnp.log2(ranked.place + 1.0), axis=-1, where=ranked.inside)


def _ratio(above: Array, below: Array) -> Array:
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), jnp.nan)
