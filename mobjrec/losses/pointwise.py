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


@states("share")
def focal(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Array:
    """Cross-entropy that fades as the item is right: alpha_y (1 - p_y)^gamma (-log p_y), mean over items. Lin et al. 2017.

    p_y is the probability of the label, alpha_y alpha for 1 and 1 - alpha for 0; a share mixes the two. At alpha 1/2 and
    gamma 0 it is half of `sigmoid_cross_entropy`.

    scores [..., L] logits; labels [..., L] in [0, 1]. Returns [...], 0 for a list without items. ValueError unless alpha
    is in [0, 1] and gamma >= 0.
    """
    check_lists(scores, labels, where, weights)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is the share of the positives, from 0 to 1")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; it must be at least 0")
    scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)
    missed, false = jax.nn.softplus(-scores), jax.nn.softplus(scores)
    # The power as an exponential: (1 - p)^gamma has no finite gradient where p rounds to 1.
    positive = alpha * labels * jnp.exp(-gamma * false) * missed
    return masked_mean(positive + (1 - alpha) * (1 - labels) * jnp.exp(-gamma * missed) * false, where, weights)


@states("share")
def poly_1(scores: Array, labels: Array, *, where: Array, weights: Array | None = None, epsilon: float = 1.0) -> Array:
    """Cross-entropy with its first polynomial coefficient moved: -log p_y + epsilon (1 - p_y). Leng et al. 2022.

    p_y is the probability of the label; a share mixes both. scores [..., L] logits; labels [..., L] in [0, 1]. Returns
    [...], mean over items, 0 for a list without one. ValueError unless epsilon >= -1, below which it falls under 0.
    """
    check_lists(scores, labels, where, weights)
    check_epsilon(epsilon)
    scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)
    wrong = labels * jax.nn.sigmoid(-scores) + (1 - labels) * jax.nn.sigmoid(scores)
    return masked_mean(jax.nn.softplus(scores) - labels * scores + epsilon * wrong, where, weights)


def check_epsilon(epsilon: float) -> None:
    """ValueError for a coefficient of the poly-1 losses below -1."""
    if not epsilon >= -1:
        raise ValueError(f"epsilon is {epsilon}; it must be at least -1")


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
