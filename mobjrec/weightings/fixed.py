"""Weights that stay as they are."""

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_count, check_preference, sound


def static(weights: PerObjective) -> Weighting:
    """Fixed weights: the minimiser of their weighted sum. Reaches the convex part of a front only.

    Needs losses on comparable scales. ValueError unless there is one weight per objective, none negative, not all 0.
    """
    check_preference("weights", weights)

    def init(count: int) -> tuple[()]:
        check_count("weights", weights, count)
        return ()

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        return jnp.where(sound(signals).present, jnp.asarray(weights, signals.losses.dtype), 0.0), state

    return Weighting(init, update)


def equal() -> Weighting:
    """Weight 1 for every objective that is present."""

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        return sound(signals).present.astype(signals.losses.dtype), state

    return Weighting(lambda count: (), update)
