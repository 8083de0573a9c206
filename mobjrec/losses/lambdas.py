"""Losses of pairs that weigh as a metric would change if the two items changed places: LambdaRank and LambdaLoss.

sum of w_ij softplus(-(s_i - s_j)) over the pairs with y_i > y_j, w from the hard ranks of the scores, ties in order of
appearance, held constant. A sum, as in the papers: w already makes shares of it. A pair weighs as its better item does.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from mobjrec.losses.approximate import gains, ideal
from mobjrec.losses.facts import states
from mobjrec.losses.pairs import Of, pair_sum
from mobjrec.ranks import check_lists, ranks, relevant_in
from mobjrec.types import Array

# (i, j) -> [..., M, L]: how much the metric changes when the two items of a pair, y_i > y_j, swap; i(x) and j(x) look up
# what an array x [..., L] of the list says of either.
Change = Callable[[Of, Of], Array]
# (labels, 0 under the mask, ranks from 1, where [..., L], k) -> Change
Swap = Callable[[Array, Array, Array, int | None], Change]

Named = Literal["ndcg", "ndcg2", "mrr", "average_precision", "precision", "recall"]


@states("grade", order=True, relevant=True)
def lambda_rank(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, k: int | None = None
) -> Array:
    """Logistic pair loss with |change of NDCG@k| as weights, summed over pairs. Burges et al. 2006 (LambdaRank).

    w = |2^y_i - 2^y_j| |D(r_i) - D(r_j)| / IDCG@k, D(r) = 1 / log2(1 + r), 0 below rank k; None: the whole list. rax
    multiplies by L.

    scores [..., L]; labels [..., L] grades >= 0. Returns [...], 0 for a list without a pair. ValueError for k below 1.
    """
    return swap_loss(ndcg, scores, labels, where=where, weights=weights, k=k)


@states("grade", order=True, relevant=True)
def lambda_loss(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    metric: Named = "ndcg2",
    k: int | None = None,
) -> Array:
    """Logistic pair loss with a metric's weights, summed over pairs. Wang et al. 2018 (LambdaLoss).

    metric: ndcg2, their NDCG-Loss2, a tighter bound than ndcg, with k that of Jagerman et al. 2022 (LambdaLoss@K);
    ndcg as `lambda_rank`; mrr, average_precision, precision and recall: the change of that metric at k when the two
    items swap, as `mobjrec.metrics` has it by default. Precision and recall need a k, and k is best the metric's own.

    scores [..., L]; labels [..., L] grades >= 0, relevant where > 0. Returns [...], 0 for a list without a pair.
    ValueError for another metric, k below 1 or a k that is missing.
    """
    if metric not in SWAPS:
        raise ValueError(f"metric is {metric!r}; it may be {', '.join(SWAPS)}")
    if k is None and metric in ("precision", "recall"):
        raise ValueError(f"k is None; {metric} changes with a cut alone, so name it: k >= 1")
    return swap_loss(SWAPS[metric], scores, labels, where=where, weights=weights, k=k)


def swap_loss(
    swap: Swap, scores: Array, labels: Array, *, where: Array, weights: Array | None = None, k: int | None = None
) -> Array:
    """Logistic pair loss with the weights of any `swap`, one of this file or your own, summed over pairs.

    Returns [...], at least float32; long lists are counted in blocks, so `swap` must not make an [L, L] array itself.
    """
    check_lists(scores, labels, where, weights, k)
    where = jnp.asarray(where)
    dtype = jnp.promote_types(scores.dtype, jnp.float32)
    labels = jnp.where(where, labels, 0.0).astype(dtype)
    change = swap(labels, ranks(scores, where), where, k)

    def value(difference: Array, i: Of, j: Of) -> Array:
        return jax.lax.stop_gradient(change(i, j)) * jax.nn.softplus(-difference)

    return pair_sum(value, scores, labels, where=where, weights=weights)


def ndcg(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """|change of NDCG@k|, gain 2^y - 1."""
    share, kept = _gain_shares(labels, where, k), _discount(rank, labels.dtype) * _within(rank, k)
    return lambda i, j: (i(share) - j(share)) * jnp.abs(i(kept) - j(kept))


def ndcg2(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """NDCG-Loss2: D of the ranks' distance less D of the next one, raised by 1 / (1 - D(r)) where the lower r is below k."""
    share = _gain_shares(labels, where, k)

    def change(i: Of, j: Of) -> Array:
        apart = jnp.abs(i(rank) - j(rank))
        found = (i(share) - j(share)) * (_discount(apart, labels.dtype) - _discount(apart + 1, labels.dtype))
        if k is None:
            return found
        lower = jnp.maximum(i(rank), j(rank))
        # Rank 1, whose D is 1, is never below k.
        raised = 1.0 / (1.0 - _discount(jnp.maximum(lower, 2), labels.dtype))
        return jnp.where(lower > k, found * raised, found)

    return change


def mrr(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """|change of the reciprocal rank at k|: of the first relevant item, or one that comes before it."""
    relevant = relevant_in(labels, where)
    value = _reciprocal(rank, k, labels.dtype)
    worth = jnp.where(relevant, value, 0.0)
    first = jnp.max(worth, axis=-1, keepdims=True)
    others = jnp.where(worth == first, jnp.max(worth, axis=-1, keepdims=True, where=worth < first, initial=0.0), first)

    def change(i: Of, j: Of) -> Array:
        after = jnp.maximum(j(value), i(others))
        return jnp.where(j(relevant), 0.0, jnp.abs(after - first[..., None]))

    return change


def average_precision(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """|change of AP@k|, AP over min(k, |P|): the precisions at both places, and 1 / r for relevant items between them."""
    relevant = relevant_in(labels, where)
    value = _reciprocal(rank, k, labels.dtype)
    above, sums = _running(relevant.astype(labels.dtype), rank), _running(jnp.where(relevant, value, 0.0), rank)
    size = _at_most(jnp.sum(relevant, axis=-1), k).astype(labels.dtype)[..., None, None]

    def change(i: Of, j: Of) -> Array:
        own, other = i(above) * i(value), j(above) * j(value)
        falls = own - other + j(sums) - i(sums)
        rises = other + j(value) - own + i(sums) - i(value) - j(sums)
        found = jnp.where(i(rank) < j(rank), falls, rises)
        return jnp.where(j(relevant), 0.0, found) / size

    return change


def precision(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """1 / min(k, items) where one of a relevant item and another is among the first k."""
    return _cut(labels, rank, where, k, _at_most(jnp.sum(where, axis=-1), k))


def recall(labels: Array, rank: Array, where: Array, k: int | None) -> Change:
    """1 / |P| where one of a relevant item and another is among the first k."""
    return _cut(labels, rank, where, k, jnp.maximum(jnp.sum(relevant_in(labels, where), axis=-1), 1))


SWAPS: dict[str, Swap] = {
    "ndcg": ndcg,
    "ndcg2": ndcg2,
    "mrr": mrr,
    "average_precision": average_precision,
    "precision": precision,
    "recall": recall,
}


def _cut(labels: Array, rank: Array, where: Array, k: int | None, size: Array) -> Change:
    inside, relevant = _within(rank, k), relevant_in(labels, where)
    worth = (1.0 / size.astype(labels.dtype))[..., None, None]
    return lambda i, j: jnp.where((i(inside) != j(inside)) & ~j(relevant), worth, 0.0)


def _gain_shares(labels: Array, where: Array, k: int | None) -> Array:
    """The gains 2^y - 1 over the ideal DCG@k."""
    gain, _ = gains(labels, where, None, labels.dtype)
    return gain / ideal(gain, k)[..., None]


def _discount(rank: Array, dtype: jnp.dtype) -> Array:
    """D(r) = 1 / log2(1 + r); that of rank 0, an item with itself, as of 1."""
    return 1.0 / jnp.log2(1.0 + jnp.maximum(rank, 1).astype(dtype))


def _reciprocal(rank: Array, k: int | None, dtype: jnp.dtype) -> Array:
    return jnp.where(_within(rank, k), 1.0 / rank.astype(dtype), 0.0)


def _within(rank: Array, k: int | None) -> Array:
    return jnp.ones(rank.shape, bool) if k is None else rank <= k


def _at_most(count: Array, k: int | None) -> Array:
    return jnp.maximum(count if k is None else jnp.minimum(count, k), 1)


def _running(values: Array, rank: Array) -> Array:
    """The sum of `values` over the items down to each one's rank, itself with them."""
    order = jnp.argsort(rank, axis=-1)
    sums = jnp.cumsum(jnp.take_along_axis(values, order, axis=-1), axis=-1)
    return jnp.take_along_axis(sums, rank - 1, axis=-1)
