"""Metrics of a whole ranking with soft ranks in the place of ranks."""

import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import masked_mean, not_below_zero
from mobjrec.ranks import check_above, check_lists, relevant_in, soft_ranks
from mobjrec.types import Array


@states("grade", order=True, relevant=True)
def approx_ndcg(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, temperature: float = 0.1
) -> Array:
    """One minus a smooth NDCG: 1 - sum_i (2^y_i - 1) / log2(1 + r_i) / IDCG, r soft ranks. Qin et al. 2010, ApproxNDCG.

    The temperature is in the scores' unit: at 1 soft ranks of long lists never reach the top, at 0.01 little has a
    gradient. Weights multiply gains, in the ideal order too, and the whole with their mean over gains.

    scores [..., L]; labels [..., L] grades >= 0. Returns [...] from 0 to 1 (the mean weight), 0 for a list without
    gain. ValueError unless temperature > 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    found = soft_ranks(scores, where, temperature)
    gain, weight = gains(labels, where, weights, found.dtype)
    total = jnp.sum(gain / jnp.log2(1.0 + found), axis=-1)
    return not_below_zero(weight * (1.0 - total / ideal(gain)))


@states("gain", order=True, relevant=True)
def approx_mrr(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, temperature: float = 0.1
) -> Array:
    """One minus a smooth reciprocal rank: 1 - max_P 1 / r_i, r soft ranks. Qin et al. 2010.

    Only the best relevant item has a gradient. Weights multiply 1 / r_i, and the 1 is the largest of P.

    labels [..., L], relevant where > 0. Returns [...] from 0 to 1, 0 for a list without relevant items. ValueError
    unless temperature > 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    found = soft_ranks(scores, where, temperature)
    relevant = relevant_in(labels, where)
    weight = jnp.where(relevant, 1.0 if weights is None else weights, 0.0).astype(found.dtype)
    return not_below_zero(jnp.max(weight, axis=-1, initial=0.0) - jnp.max(weight / found, axis=-1, initial=0.0))


@states("gain", order=True, relevant=True)
def smooth_ap(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, temperature: float = 0.1
) -> Array:
    """One minus a smooth average precision: 1 - mean_P r^P_i / r_i, r^P the soft rank within P. Brown et al. 2020.

    Theirs is for cosine scores, with temperature 0.01. Weights multiply an item's 1 - r^P_i / r_i.

    labels [..., L], relevant where > 0. Returns [...] from 0 to 1, 0 for a list without relevant items. ValueError
    unless temperature > 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    relevant = relevant_in(labels, where)
    share = soft_ranks(scores, relevant, temperature) / soft_ranks(scores, where, temperature)
    return not_below_zero(masked_mean(1.0 - share, relevant, weights))


def gains(labels: Array, where: Array, weights: Array | None, dtype: jnp.dtype) -> tuple[Array, Array]:
    """2^y - 1, each times its weight [..., L], and the weights' mean over gains [...]; 0 where there is no gain.

    Gains are divided by 2^(largest y of the list), which no ratio of them sees: 2^y alone is infinite from 128 on.
    """
    labels = jnp.where(where, labels, 0.0).astype(dtype)
    top = jnp.max(labels, axis=-1, keepdims=True, initial=0.0)
    plain = jnp.where(where, jnp.exp2(labels - top) - jnp.exp2(-top), 0.0)
    gain = plain if weights is None else plain * jnp.where(where, weights, 0.0)
    total = jnp.sum(plain, axis=-1)
    return gain, jnp.sum(gain, axis=-1) / jnp.where(total > 0, total, 1.0)


def ideal(gain: Array, k: int | None = None) -> Array:
    """The DCG of the first k in the order of falling gain, 1 where it is 0."""
    place = jnp.arange(gain.shape[-1])
    discount = jnp.where(place < (gain.shape[-1] if k is None else k), 1.0 / jnp.log2(2.0 + place), 0.0)
    best = jnp.sum(-jnp.sort(-gain, axis=-1) * discount, axis=-1)
    return jnp.where(best > 0, best, 1.0)
