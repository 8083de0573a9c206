"""Multiple-gradient descent: the direction that helps the least helped objective most."""

from typing import Literal, get_args

import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import solving
from mobjrec.weightings.solvers import Solution, nearest_point

Normalise = Literal["none", "norm", "loss", "loss_norm"]


def mgda(normalise: Normalise = "none") -> Weighting:
    """Weights of the shortest vector in the convex hull of the gradients. Desideri 2012; Sener & Koltun 2018, eq. 3.

    d = sum w_k g_k has g_k . d >= |d|^2 for all k, and is 0 exactly where no direction helps all (Pareto stationary).
    It follows the smallest gradient; a gradient of 0 of a present objective stops the step. Absent objectives are left
    out of the problem. Invariant to one factor on all losses.

    normalise: gradients are divided by their norm, loss, or both before the problem is solved, and the weights then
    apply to the losses as they are (Sener & Koltun's code), so the step may hurt an objective. A loss below 1e-9 of the
    largest counts as that, so near its minimum an objective's weight goes to 0. ValueError for another word.
    """
    if normalise not in get_args(Normalise):
        raise ValueError(f"normalise is {normalise!r}; it must be one of {', '.join(get_args(Normalise))}")

    def solve(signals: Signals) -> Solution:
        gram = signals.gram
        if "norm" in normalise.split("_"):
            gram = divided(gram, jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0)))
        if "loss" in normalise.split("_"):
            losses = jnp.where(signals.present, jnp.abs(signals.losses), 0.0)
            largest = jnp.max(losses)
            # In units of the largest, so that a square neither overflows nor vanishes.
            gram = divided(gram, jnp.maximum(losses / jnp.where(largest > 0, largest, 1.0), 1e-9))
        return nearest_point(gram, signals.present)

    return solving(solve, needs_positive="loss" in normalise.split("_"))


def divided(gram: Array, scale: Array) -> Array:
    """Gram matrix of gradients divided by scale [K], one factor after the other; a gradient of scale 0 is 0."""
    inverse = jnp.where(scale > 0, 1.0 / jnp.where(scale > 0, scale, 1.0), 0.0)
    return gram * inverse[:, None] * inverse[None, :]
