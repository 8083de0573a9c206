"""Losses of one item at a time: means over the list's real items."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import masked_mean
from mobjrec.ranks import check_lists
from mobjrec.types import Array


@states("share")
def sigmoid_cross_entropy(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of a probability: softplus(s) - y s, mean over the items in `where`.

    scores [..., L] logits; labels [..., L] in [0, 1], taken as they are: a share is a soft label, but with a grade
    above 1 there is no minimum, so cut grades to 0/1 first. Returns [...], 0 for a list without items.
    """
    check_lists(scores, labels, where, weights)
    scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)
    return masked_mean(jax.nn.softplus(scores) - labels * scores, where, weights)


@states(value=True)
def squared(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """(s - y)^2, mean over the items in `where`.

    labels [..., L] in any unit. Returns [...], 0 for a list without items.
    """
    check_lists(scores, labels, where, weights)
    return masked_mean(jnp.square(jnp.where(where, scores, 0.0) - jnp.where(where, labels, 0.0)), where, weights)


@states(value=True)
def huber(scores: Array, labels: Array, *, where: Array, weights: Array | None = None, delta: float = 1.0) -> Array:
    """Squared near 0, linear beyond delta, mean over the items in `where`. Huber 1964.

    e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond, e = s - y. Returns [...], 0 for a list without items.
    ValueError unless delta > 0.
    """
    check_lists(scores, labels, where, weights)
    if not delta > 0:
        raise ValueError(f"delta is {delta}; it must be above 0")
    error = jnp.abs(jnp.where(where, scores, 0.0) - jnp.where(where, labels, 0.0))
    near = jnp.minimum(error, delta)
    return masked_mean(0.5 * near**2 + delta * (error - near), where, weights)
