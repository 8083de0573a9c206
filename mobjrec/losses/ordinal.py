"""Losses of grades 0, 1 ... W by W thresholds, of which a grade passes those below it."""

import jax.numpy as jnp
from jax.nn import log_sigmoid

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import masked_mean
from mobjrec.losses.regression import check_wide
from mobjrec.types import Array


@states("gain")
def coral(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of passing each threshold: sum_k sp(z_k) - z_k [y > k], mean over the items. Cao et al. 2020.

    z_k is the logit of y > k, k = 0 ... W - 1. CORAL's own, s + b_k with b falling, keeps them in order:
    `scores[..., None] + biases`; the objective `coral` trains such biases. Any other logits may stand here too.

    scores [..., L, W]; labels, where, weights [..., L]; a label between two grades passes what is below it. Returns
    [...], 0 for a list without items.
    """
    check_wide("coral", scores, labels, where, weights)
    return masked_mean(jnp.sum(_entropies(scores, labels, where), axis=-1), where, weights)


@states("gain")
def corn(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of passing threshold k among the items that passed the one before. Shi et al. 2021.

    sum over items and k with y > k - 1 of sp(z_k) - z_k [y > k], divided by how many these are: z_k is the logit of
    y > k given y > k - 1, so the product of the first k sigmoids is P(y > k - 1), in order whatever the scores.

    As `coral`, but for the divisor: the terms of the list, so an item of a high grade counts more often.
    """
    check_wide("corn", scores, labels, where, weights)
    asked = where[..., None] & (jnp.where(where, labels, 0.0)[..., None] > jnp.arange(scores.shape[-1]) - 1)
    each = jnp.where(asked, _entropies(scores, labels, where), 0.0)
    if weights is not None:
        each = each * jnp.where(where, weights, 0.0)[..., None]
    return jnp.sum(each, axis=(-2, -1)) / jnp.maximum(jnp.sum(asked, axis=(-2, -1)), 1)


def _entropies(scores: Array, labels: Array, where: Array) -> Array:
    """[..., L, W] cross-entropy of passing each threshold."""
    scores = jnp.where(where[..., None], scores, 0.0)
    passed = jnp.where(where, labels, 0.0)[..., None] > jnp.arange(scores.shape[-1])
    return -log_sigmoid(jnp.where(passed, scores, -scores))
