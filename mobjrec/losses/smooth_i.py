"""Metrics at k of soft indicators of ranks: O(k L), no pair of items is ever looked at."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from mobjrec.losses.approximate import gains, ideal
from mobjrec.losses.facts import states
from mobjrec.losses.reduce import not_below_zero
from mobjrec.ranks import check_above, check_lists, relevant_in
from mobjrec.types import Array


@states("gain", order=True, relevant=True)
def smooth_i_precision(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 5,
    alpha: float = 1.0,
    delta: float = 0.1,
    stop_gradient: bool = True,
) -> Array:
    """One minus precision at k of soft indicators: 1 - sum_{r <= k} sum_P I^r_i / min(k, items). Thonet et al. 2022, SmoothI.

    I^r = softmax(alpha (s - min s) prod_{l < r} (1 - I^l - delta)): what is found at a rank is all but gone at the
    next. The minimum is over real items. stop_gradient: none flows through the product, as in the authors' code.
    alpha 100 is dead on long lists. Weights multiply indicators, and the 1 is the largest weight of P.

    labels [..., L], relevant where > 0. Returns [...] from 0 to 1, 0 for a list without relevant items. ValueError for k
    below 1, alpha not above 0 or delta outside of 0 to 0.5.
    """
    check_lists(scores, labels, where, weights, k)
    relevant = relevant_in(labels, where)
    weight = jnp.where(relevant, 1.0 if weights is None else weights, 0.0)
    found = sum(jnp.sum(weight * one, axis=-1) for one in _indicators(scores, where, k, alpha, delta, stop_gradient))
    return not_below_zero(jnp.max(weight, axis=-1, initial=0.0) - found / jnp.clip(jnp.sum(where, axis=-1), 1, k))


@states("grade", order=True, relevant=True, positive=False)
def smooth_i_ndcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 10,
    alpha: float = 1.0,
    delta: float = 0.1,
    stop_gradient: bool = True,
) -> Array:
    """One minus NDCG at k of soft indicators: 1 - sum_{r <= k} sum_i (2^y_i - 1) I^r_i / log2(1 + r) / IDCG@k, I as above.

    The expected gain; the authors have the gain of the expected label, and their code no -1. An item may be at several
    ranks at once, so a value can fall below 0. Settings as in `smooth_i_precision`, weights as in `approx_ndcg`.

    labels [..., L] grades >= 0. Returns [...], 0 for a list without gain.
    """
    check_lists(scores, labels, where, weights, k)
    indicators = _indicators(scores, where, k, alpha, delta, stop_gradient)
    gain, weight = gains(labels, where, weights, jnp.promote_types(scores.dtype, jnp.float32))
    found = sum(jnp.sum(gain * one, axis=-1) / jnp.log2(2.0 + rank) for rank, one in enumerate(indicators))
    return weight * (1.0 - found / ideal(gain, k))


def _indicators(
    scores: Array, where: Array, k: int, alpha: float, delta: float, stop_gradient: bool
) -> Iterator[Array]:
    """I^1 ... I^k [..., L] each, those of ranks past a list's items being 0."""
    check_above({"alpha": alpha})
    if not 0 < delta < 0.5:
        raise ValueError(f"delta is {delta}; it must be between 0 and 0.5")
    kept = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    largest = jnp.finfo(kept.dtype).max
    least = jnp.min(kept, axis=-1, keepdims=True, where=where, initial=largest)
    above = jnp.where(where, jnp.where(where, kept, 0.0) - jnp.where(where, least, 0.0), 0.0)
    count, left = jnp.sum(where, axis=-1, keepdims=True), jnp.ones_like(above)
    for rank in range(min(k, scores.shape[-1])):
        logits = jnp.where(where, alpha * above * left, -largest)
        one = jnp.where(where & (rank < count), jax.nn.softmax(logits, axis=-1), 0.0)
        yield one
        step = 1.0 - one - delta
        left = left * (jax.lax.stop_gradient(step) if stop_gradient else step)
