"""Smooth forms of metrics that count what is among the first k."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.ranks import check_lists, soft_ranks
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
    cut = k / 2 if temperature_cut is None else temperature_cut
    if not (temperature_rank > 0 and cut > 0):
        raise ValueError(f"temperature_rank is {temperature_rank} and temperature_cut {cut}; both must be above 0")
    relevant = where & (jnp.where(where, labels, 0.0) > 0)
    inside = jax.nn.sigmoid((k + offset - soft_ranks(scores, where, temperature_rank)) / cut)
    weight = jnp.where(relevant, 1.0 if weights is None else weights, 0.0)
    count = jnp.maximum(jnp.sum(relevant, axis=-1), 1)
    return jnp.sum(weight, axis=-1) / count - jnp.sum(weight * inside, axis=-1) / jnp.minimum(count, k)
