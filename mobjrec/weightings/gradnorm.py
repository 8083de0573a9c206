"""Weights are learnt so that all weighted gradients have the length that their objectives' progress asks for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import check_at_least_0, check_rate, proportions, sound

# The paper's rule lets a weight cross 0, after which it pushes its loss up.
LEAST = 1e-3


class Lengths(NamedTuple):
    """All [K]. weights: as of the next step   first: each objective's first loss   seen: bool, whether there was one"""

    weights: Array
    first: Array
    seen: Array


def gradnorm(alpha: float = 1.5, learning_rate: float = 0.025) -> Weighting:
    """Weights that step along the slope of sum_k | w_k |g_k| - mean_j(w_j |g_j|) r_k^alpha |. Chen et al. 2018, alg. 1.

    r_k is L_k over its first value, over the mean of these: who lags shall have the longer gradient; alpha = 0 makes all
    weighted gradients alike. Weights start at 1, are read before they move, stay above 0.001 (unlike the paper's), and
    the present ones keep their sum, K. An absent objective keeps its weight. Reads the gradients' lengths alone. Needs
    losses above 0 and lengths near 1: the step is learning_rate * |g_k|. Guarantees nothing; breaks where a first loss is
    no typical one. ValueError unless 0 <= alpha < inf and 0 < learning_rate < inf.
    """
    check_at_least_0("alpha", alpha)
    check_rate("learning_rate", learning_rate)

    def init(count: int) -> Lengths:
        return Lengths(jnp.ones(count), jnp.ones(count), jnp.zeros(count, bool))

    def update(signals: Signals, state: Lengths) -> tuple[Array, Lengths]:
        signals = sound(signals)
        present, weights = signals.present, jnp.where(signals.present, state.weights, 0.0)
        first = jnp.where(state.seen, state.first, signals.losses)
        length = jnp.sqrt(jnp.maximum(jnp.diagonal(signals.gram), 0.0))
        ratio = jnp.where(present & (first > 0), signals.losses / jnp.where(first > 0, first, 1.0), 0.0)
        # In units of the largest, so that no power leaves 32 bits.
        ratio = ratio / jnp.maximum(jnp.max(ratio), 1e-30)
        count = jnp.maximum(jnp.sum(present), 1)
        wanted = (jnp.clip(ratio, 0.0, None) / jnp.maximum(jnp.sum(ratio) / count, 1e-30)) ** alpha
        aim = jnp.sum(weights * length) / count * wanted
        moved = jnp.maximum(weights - learning_rate * length * jnp.sign(weights * length - aim), LEAST)
        moved = proportions(jnp.where(present, moved, 0.0)) * jnp.sum(weights)
        after = Lengths(moved, first, jnp.ones_like(state.seen))
        kept = jax.tree.map(lambda new, old: jnp.where(present, new, old).astype(old.dtype), after, state)
        return weights, kept

    return Weighting(init, update, needs_gram=True, needs_positive=True)
