"""The geometric mean of the losses."""

import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import sound


def gls() -> Weighting:
    """Weights of the gradient of the geometric mean of the present losses. Chennupati et al. 2019, in its log form.

    w_k = (prod_j L_j)^(1/K) / (K L_k): the critical points are those of sum_k log L_k, so no scale decides. Needs losses
    above 0; invariant to a factor on any loss. Breaks where a loss reaches 0: that objective takes over and the others
    are given up (a loss below 1e-9 of the largest counts as that, so weights stay finite).
    """

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals = sound(signals)
        present, count = signals.present, jnp.maximum(jnp.sum(signals.present), 1)
        largest = jnp.max(jnp.where(present, signals.losses, 0.0))
        # In units of the largest: the product of many losses leaves 32 bits.
        share = jnp.where(present, signals.losses, 1.0) / jnp.where(largest > 0, largest, 1.0)
        logs = jnp.where(present, jnp.log(jnp.clip(share, 1e-9, 1.0)), 0.0)
        return jnp.where(present, jnp.exp(jnp.sum(logs) / count - logs) / count, 0.0), state

    return Weighting(lambda count: (), update, needs_positive=True)
