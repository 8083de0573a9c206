"""Homoscedastic uncertainty: each objective's log-variance is learnt beside the model."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from mobjrec.types import Array, Signals, Weighting


class Uncertainty(NamedTuple):
    """log_variance: [K]   moments: Adam's"""

    log_variance: Array
    moments: Any


def uncertainty(learning_rate: float = 1e-3, start: float = 0.0) -> Weighting:
    """Weights exp(-s_k) with s_k learnt to minimise sum_k exp(-s_k) L_k + s_k / 2. Kendall, Gal & Cipolla 2018, eq. 10.

    At the optimum 2 exp(-s_k) L_k = 1: objectives weigh inversely to their losses, so no scale decides. s is updated by
    Adam at `learning_rate` after the weights of a step are read; an absent objective keeps its s. Breaks where a loss
    reaches 0: s falls without end and takes over. ValueError unless learning_rate > 0.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be above 0")
    adam = optax.adam(learning_rate)

    def init(count: int) -> Uncertainty:
        log_variance = jnp.full(count, start, jnp.float32)
        return Uncertainty(log_variance, adam.init(log_variance))

    def update(signals: Signals, state: Uncertainty) -> tuple[Array, Uncertainty]:
        weights = jnp.where(signals.present, jnp.exp(-state.log_variance), 0.0)
        slope = jnp.where(signals.present, 0.5 - weights * signals.losses, 0.0)
        change, moments = adam.update(slope, state.moments)
        return weights, Uncertainty(state.log_variance + jnp.where(signals.present, change, 0.0), moments)

    return Weighting(init, update, needs_positive=True)
