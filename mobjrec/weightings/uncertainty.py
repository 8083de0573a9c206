"""Each objective's scale is learnt beside the model: homoscedastic uncertainty, and the loss balance of IMTL."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import check_rate, sound

# Losses from 1e-9 to 2e8 have their stationary log-variance inside; beyond, weights would end at infinity.
LIMIT = 20.0


class Uncertainty(NamedTuple):
    """log_variance: [K]   moments: Adam's, each objective with a count of its own, so all leaves are [K]"""

    log_variance: Array
    moments: Any


def uncertainty(learning_rate: float = 1e-3, start: float = 0.0) -> Weighting:
    """Weights exp(-s_k) with s_k learnt to minimise sum_k exp(-s_k) L_k + s_k / 2. Kendall, Gal & Cipolla 2018, eq. 10.

    s = log sigma^2; the paper's classification form for every objective (its regression form halves the weights). At
    the optimum 2 exp(-s_k) L_k = 1: objectives weigh inversely to their losses, so no scale decides. s is updated by
    Adam at `learning_rate` after the weights of a step are read, so it moves by about that much a step; an absent
    objective keeps its s and its moments, as if the step had not been. Breaks where a loss reaches 0: s falls and takes
    over; unlike the paper it stops at -20. ValueError unless 0 < learning_rate < inf and |start| <= 20.
    """
    if not abs(start) <= LIMIT:
        raise ValueError(f"start is {start}; it must be a log-variance from {-LIMIT} to {LIMIT}")
    return _learnt(learning_rate, start, 0.5)


def imtl_l(learning_rate: float = 1e-3, start: float = 0.0) -> Weighting:
    """Weights exp(s_k) with s_k learnt to minimise sum_k exp(s_k) L_k - s_k. Liu et al. 2021 (IMTL-L), eq. 6.

    At the optimum every scaled loss exp(s_k) L_k is 1, so no scale decides: `uncertainty` without its factor of a half,
    with the same updates, state and limits. Breaks where a loss reaches 0. ValueError as there.
    """
    if not abs(start) <= LIMIT:
        raise ValueError(f"start is {start}; it must be a logarithm from {-LIMIT} to {LIMIT}")
    return _learnt(learning_rate, -start, 1.0)


def _learnt(learning_rate: float, start: float, price: float) -> Weighting:
    """Weights exp(-s) with s learnt to minimise sum_k exp(-s_k) L_k + price * s_k."""
    check_rate("learning_rate", learning_rate)
    adam = optax.adam(learning_rate)

    def init(count: int) -> Uncertainty:
        log_variance = jnp.full(count, start, jnp.float32)
        return Uncertainty(log_variance, jax.vmap(adam.init)(log_variance))

    def update(signals: Signals, state: Uncertainty) -> tuple[Array, Uncertainty]:
        signals = sound(signals)
        weights = jnp.where(signals.present, jnp.exp(-state.log_variance), 0.0)
        slope = (price - weights * signals.losses).astype(jnp.float32)
        change, moments = jax.vmap(adam.update)(slope, state.moments)
        after = Uncertainty(jnp.clip(state.log_variance + change, -LIMIT, LIMIT), moments)
        return weights, jax.tree.map(lambda new, old: jnp.where(signals.present, new, old), after, state)

    return Weighting(init, update, needs_positive=True)
