"""Some losses are kept below bounds, the others are minimised: an augmented Lagrangian."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_at_least_0, check_count, check_preference, check_rate, check_share, sound


class Multipliers(NamedTuple):
    """All [K]. multiplier: >= 0   excess: running mean of the share above the bound   seen: its share of a full mean"""

    multiplier: Array
    excess: Array
    seen: Array


def constrained(
    bounds: PerObjective,
    slack: float = 0.0,
    weights: PerObjective = (),
    learning_rate: float = 0.01,
    penalty: float = 1.0,
    smoothing: float = 0.9,
) -> Weighting:
    """Weights of: minimise the free objectives' weighted sum, such that L_k <= (1 + slack) b_k for the bounded ones.

    bounds: b, for each objective a loss above 0, or infinity for a free one; with the loss of a reference run as b,
    slack is how far from it is allowed. The method of multipliers (Hestenes 1969; Powell 1969) step by step: with e_k
    the running mean of L_k / ((1 + slack) b_k) - 1, a bounded objective's weight is max(0, m_k + penalty e_k) over
    (1 + slack) b_k, and m_k moves by learning_rate e_k, not below 0. weights: of the free objectives, 1 if not given.

    At a fixed point every bound holds, with a multiplier of 0 where it holds by itself. Needs losses as the bounds
    measure them: a mean over the batch, so a bound holds on average over the last 1 / (1 - smoothing) batches. An absent
    objective keeps its multiplier. Breaks where no model meets all bounds: multipliers then grow step by step, up to
    1e6, and the free objectives are given up. ValueError unless bounds are above 0, one is free and one is not, slack and
    penalty are finite and not negative, learning_rate above 0, 0 <= smoothing < 1.
    """
    if not all(bound > 0 for bound in bounds):
        raise ValueError(f"bounds is {tuple(bounds)}; its entries must be losses above 0, infinity where there is none")
    free = [math.isinf(bound) for bound in bounds]
    if all(free) or not any(free):
        which = "every one" if not any(free) else "none"
        raise ValueError(f"bounds is {tuple(bounds)}; {which} is bounded, but some must be and some must be free")
    check_at_least_0("slack", slack)
    check_at_least_0("penalty", penalty)
    check_rate("learning_rate", learning_rate)
    check_share("smoothing", smoothing)
    if weights:
        check_preference("weights", weights)

    def init(count: int) -> Multipliers:
        check_count("bounds", bounds, count)
        check_count("weights", weights, count)
        return Multipliers(*jnp.zeros((3, count)))

    def update(signals: Signals, state: Multipliers) -> tuple[Array, Multipliers]:
        signals = sound(signals)
        dtype = signals.losses.dtype
        limit = jnp.asarray(
            [1.0 if one else (1 + slack) * bound for bound, one in zip(bounds, free, strict=True)], dtype
        )
        excess = smoothing * state.excess + (1 - smoothing) * (signals.losses / limit - 1)
        seen = smoothing * state.seen + (1 - smoothing)
        above = jnp.where(jnp.asarray(free), 0.0, jnp.clip(excess / seen, -1e6, 1e6))
        priced = jnp.clip(state.multiplier + penalty * above, 0.0, 1e6) / limit
        wish = jnp.asarray(weights, dtype) if weights else jnp.ones_like(limit)
        found = jnp.where(jnp.asarray(free), wish, priced)
        after = Multipliers(jnp.clip(state.multiplier + learning_rate * above, 0.0, 1e6), excess, seen)
        after = jax.tree.map(lambda new, old: jnp.where(signals.present, new, old).astype(old.dtype), after, state)
        return jnp.where(signals.present, found, 0.0), after

    return Weighting(init, update)
