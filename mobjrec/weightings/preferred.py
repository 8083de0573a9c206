"""The preference itself as weights, and beside a pull towards its direction: what a conditioned model learns by."""

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_at_least_0, preferring, shares, sound


def preferred(preference: PerObjective = ()) -> Weighting:
    """The preference over its sum: the minimiser of that weighted sum, for each preference that steps draw its own.

    preference: that of the step where none is set, else all alike; where one is set it is `static`. As there, reaches
    the convex part of a front only and needs losses on comparable scales. ValueError where the preference has negatives,
    is all 0, or has not one number per objective.
    """
    return Weighting(preferring(preference), lambda signals, state: (shares(preference, sound(signals)), state))


def cosmos(penalty: float = 1.0, preference: PerObjective = ()) -> Weighting:
    """Weights of sum_k p_k L_k - penalty cos(p, L): the weighted sum, drawn towards losses in proportion to p.

    w_k = p_k - penalty (p_k / |p| - cos(p, L) L_k / |L|) / |L|, p the preference over its sum, as for `preferred`. Ruchte &
    Grabocka 2021 (COSMOS), there with a preference drawn each step and a penalty of 0.01 to 8 by data set. The two terms
    ask for opposite ends: a large p_k wants L_k small in the first and large in the second, so a penalty that rules turns
    preferences round. No guarantee; weights may be negative, and of no gradient where all losses are 0: then it is the
    weighted sum. Needs losses on comparable scales. ValueError as for `preferred`, and unless 0 <= penalty < inf.
    """
    check_at_least_0("penalty", penalty)

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals = sound(signals)
        wish, losses = shares(preference, signals), jnp.where(signals.present, signals.losses, 0.0)
        direction, (towards, size) = _unit(wish)[0], _unit(losses)
        slope = (direction - (direction @ towards) * towards) / jnp.where(size > 0, size, 1.0)
        return jnp.where(signals.present, wish - penalty * jnp.where(size > 0, slope, 0.0), 0.0), state

    return Weighting(preferring(preference), update)


def _unit(values: Array) -> tuple[Array, Array]:
    """Values [K] at length 1, and their length; divided by the largest first, whose square might not fit."""
    largest = jnp.max(jnp.abs(values))
    scaled = values / jnp.where(largest > 0, largest, 1.0)
    length = jnp.sqrt(jnp.sum(scaled * scaled))
    return scaled / jnp.where(length > 0, length, 1.0), largest * length
