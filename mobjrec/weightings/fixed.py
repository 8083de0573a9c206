"""Weights that stay as they are."""

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting


def static(weights: PerObjective) -> Weighting:
    """Fixed weights: the minimiser of their weighted sum. Reaches the convex part of a front only.

    Needs losses on comparable scales. ValueError unless there is one weight per objective, none negative, not all 0.
    """
    largest = float(jnp.finfo(jnp.float32).max)
    if not all(0 <= weight <= largest for weight in weights) or not any(weights):
        raise ValueError(f"weights are {tuple(weights)}; they must be finite, not negative, and not all 0")

    def init(count: int) -> tuple[()]:
        if len(weights) != count:
            raise ValueError(f"weights has {len(weights)} entries for {count} objectives")
        return ()

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        return jnp.where(signals.present, jnp.asarray(weights, signals.losses.dtype), 0.0), state

    return Weighting(init, update)


def equal() -> Weighting:
    """Weight 1 for every objective that is present."""

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        return signals.present.astype(signals.losses.dtype), state

    return Weighting(lambda count: (), update)
