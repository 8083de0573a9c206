"""Multiple-gradient descent: the direction that helps the least helped objective most."""

from typing import Literal

import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.solvers import nearest_point


def mgda(normalise: Literal["none", "norm", "loss", "loss_norm"] = "none") -> Weighting:
    """Weights of the shortest vector in the convex hull of the gradients. Desideri 2012; Sener & Koltun 2018, eq. 3.

    d = sum w_k g_k has g_k . d >= |d|^2 for all k, and is 0 exactly where no direction helps all (Pareto stationary).
    It follows the smallest gradient; a gradient of 0 of a present objective stops the step. Absent objectives are left
    out of the problem. Invariant to one factor on all losses.

    normalise: gradients are divided by their norm, loss, or both before the problem is solved, and the weights then
    apply to the losses as they are (Sener & Koltun's code), so the step may hurt an objective.
    """

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        scale = jnp.ones_like(signals.losses)
        if normalise in ("norm", "loss_norm"):
            scale = scale * jnp.sqrt(jnp.maximum(jnp.diagonal(signals.gram), 0.0))
        if normalise in ("loss", "loss_norm"):
            scale = scale * jnp.abs(signals.losses)
        inverse = jnp.where(scale > 0, 1.0 / jnp.where(scale > 0, scale, 1.0), 0.0)
        gram = signals.gram * inverse[:, None] * inverse[None, :]
        return nearest_point(gram, signals.present).weights, state

    return Weighting(lambda count: (), update, needs_gram=True)
