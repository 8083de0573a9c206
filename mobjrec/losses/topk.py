"""Smooth forms of metrics that count what is among the first k."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import not_below_zero
from mobjrec.ranks import check_above, check_lists, relevant_in, soft_ranks, soft_top_k
from mobjrec.types import Array


@states("gain", order=True, relevant=True, positive=False)
def recall_at_k(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 20,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
) -> Array:
    """One minus a smooth recall at k: 1 - sum_P sigmoid((k + offset - r_i) / temperature_cut) / min(k, |P|), r soft.

    Patel et al. 2022 (RS@k), who have offset 0; with it an item exactly at rank k counts one half at any temperature,
    with 1/2 the cut lies between ranks. temperature_cut is k / 2 by default: near 1 items far from the cut get no
    gradient and training stays stuck from a random start. The sum is not clipped at k: the clip kills the gradient.
    So the value may fall a little below 0 (to about -0.1 at the defaults) where |P| > k. Weights multiply an item's
    part of the sum and of the 1, which becomes their mean over P: twice the weights, twice the loss.

    scores [..., L]; labels [..., L], relevant where > 0, whatever the grade. Returns [...], 0 for a list without
    relevant items. ValueError for k below 1 or temperatures that are not above 0.
    """
    check_lists(scores, labels, where, weights, k)
    inside = _inside(scores, where, k, offset, temperature_rank, temperature_cut)
    relevant = relevant_in(labels, where)
    return _short(inside, relevant, weights, jnp.minimum(jnp.sum(relevant, axis=-1), k))


@states("gain", order=True, relevant=True, positive=False)
def precision_at_k(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 5,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
) -> Array:
    """One minus a smooth precision at k: as `recall_at_k`, divided by min(k, items) instead of min(k, |P|).

    In a list of fewer than k relevant items the least value is above 0, and it pulls as a list of k does.
    """
    check_lists(scores, labels, where, weights, k)
    inside = _inside(scores, where, k, offset, temperature_rank, temperature_cut)
    relevant = relevant_in(labels, where)
    return _short(inside, relevant, weights, jnp.minimum(jnp.sum(where, axis=-1), k))


@states("gain", order=True, relevant=True)
def f_beta_at_k(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 20,
    beta: float = 1.0,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
) -> Array:
    """One minus a smooth F-beta at k: 1 - (1 + b^2) sum_P c / (b^2 |P| + sum c), c = sigmoid((k + offset - r) / cut).

    Settings as in `recall_at_k`; beta above 1 leans to recall. An item counts as often as it weighs, and the whole is
    times the mean weight of P.

    labels [..., L], relevant where > 0. Returns [...] from 0 to 1, 0 for a list without relevant items. ValueError for
    k below 1, or beta or temperatures that are not above 0.
    """
    check_lists(scores, labels, where, weights, k)
    inside = _inside(scores, where, k, offset, temperature_rank, temperature_cut)
    return _f_beta(inside, labels, where, weights, beta)


@states("gain", relevant=True)
def f_beta(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    beta: float = 1.0,
    temperature: float = 1.0,
) -> Array:
    """One minus F-beta of soft counts: as `f_beta_at_k` with c = sigmoid(s / temperature), free of any k.

    It learns where 0 lies: an item above it is retrieved. Otherwise as `f_beta_at_k`.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    scores = jnp.where(where, scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), 0.0)
    return _f_beta(jax.nn.sigmoid(scores / temperature), labels, where, weights, beta)


@states("gain", order=True, relevant=True)
def top_k_recall(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 20,
    temperature: float = 1.0,
) -> Array:
    """One minus recall of soft shares in the first k: 1 - sum_P m_i / min(k, |P|), m as in `soft_top_k`.

    O(L) where soft ranks are O(L^2). The shares of all items sum to k, so the value is from 0 to 1 (the largest weight
    of P: weights multiply an item's share, and the 1 is the largest of them).

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items. ValueError for k below 1 or
    a temperature, in the scores' unit, that is not above 0.
    """
    check_lists(scores, labels, where, weights, k)
    check_above({"temperature": temperature})
    relevant = relevant_in(labels, where)
    return _left(soft_top_k(scores, where, k, temperature), relevant, weights, jnp.sum(relevant, axis=-1), k)


@states("gain", order=True, relevant=True)
def top_k_precision(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 5,
    temperature: float = 1.0,
) -> Array:
    """One minus precision of soft shares in the first k: as `top_k_recall`, divided by min(k, items)."""
    check_lists(scores, labels, where, weights, k)
    check_above({"temperature": temperature})
    relevant = relevant_in(labels, where)
    return _left(soft_top_k(scores, where, k, temperature), relevant, weights, jnp.sum(where, axis=-1), k)


def _inside(
    scores: Array, where: Array, k: int, offset: float, temperature_rank: float, temperature_cut: float | None
) -> Array:
    """How far each item's soft rank is inside the first k [..., L]."""
    cut = k / 2 if temperature_cut is None else temperature_cut
    check_above({"temperature_rank": temperature_rank, "temperature_cut": cut})
    return jax.nn.sigmoid((k + offset - soft_ranks(scores, where, temperature_rank)) / cut)


def _short(inside: Array, relevant: Array, weights: Array | None, divisor: Array) -> Array:
    """The mean weight of the relevant items less what of them is inside, over `divisor` [...]."""
    weight = jnp.where(relevant, 1.0 if weights is None else weights, 0.0)
    count = jnp.maximum(jnp.sum(relevant, axis=-1), 1)
    return jnp.sum(weight, axis=-1) / count - jnp.sum(weight * inside, axis=-1) / jnp.maximum(divisor, 1)


def _left(shares: Array, relevant: Array, weights: Array | None, count: Array, k: int) -> Array:
    """The largest weight of the relevant items less their shares, over the lesser of `count` [...] and k."""
    weight = jnp.where(relevant, 1.0 if weights is None else weights, 0.0)
    left = jnp.max(weight, axis=-1, initial=0.0) - jnp.sum(weight * shares, axis=-1) / jnp.clip(count, 1, k)
    # Of high scores the shares sum to k but for rounding, and the loss is declared positive.
    return not_below_zero(left)


def _f_beta(inside: Array, labels: Array, where: Array, weights: Array | None, beta: float) -> Array:
    """One minus F-beta of the items inside [..., L], times the mean weight of the relevant ones."""
    check_above({"beta": beta})
    relevant = relevant_in(labels, where)
    weight = jnp.where(where, 1.0 if weights is None else weights, 0.0)
    wanted = jnp.sum(weight, axis=-1, where=relevant)
    found = jnp.sum(weight * inside, axis=-1, where=relevant)
    below = beta**2 * wanted + jnp.sum(weight * inside, axis=-1, where=where)
    scale = wanted / jnp.maximum(jnp.sum(relevant, axis=-1), 1)
    return not_below_zero(scale * (1.0 - (1.0 + beta**2) * found / jnp.where(wanted > 0, below, 1.0)))
