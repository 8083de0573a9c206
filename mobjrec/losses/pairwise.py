"""Losses of pairs of items with different labels."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.ranks import check_lists
from mobjrec.types import Array


@states(order=True)
def pairwise_logistic(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """softplus(-(s_i - s_j)) over the pairs with y_i > y_j, mean over these pairs. Burges et al. 2005 (RankNet).

    labels [..., L] of any grades; a pair weighs as its better item does. Returns [...], 0 for a list without a pair.
    Keeps an [L, L] array per list.
    """
    check_lists(scores, labels, where, weights)
    scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)
    pairs = (labels[..., :, None] > labels[..., None, :]) & where[..., :, None] & where[..., None, :]
    values = jax.nn.softplus(scores[..., None, :] - scores[..., :, None])
    if weights is not None:
        values = values * jnp.where(where, weights, 0.0)[..., :, None]
    return jnp.sum(values, axis=(-2, -1), where=pairs) / jnp.maximum(jnp.sum(pairs, axis=(-2, -1)), 1)
