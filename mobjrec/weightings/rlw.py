"""Weights drawn anew each step."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import proportions, softmax, sound

Distribution = Literal["normal", "dirichlet"]


def rlw(distribution: Distribution = "normal") -> Weighting:
    """Random weights that sum to 1, each with the mean 1 / K: on average the equal weights' minimiser. Lin et al. 2022.

    RLW: the softmax of K standard normal draws (`normal`), or a uniform draw from the simplex (`dirichlet`), over the
    present objectives. From the step's key, so a step that is run again draws the same. Needs nothing; invariant to
    losses. Breaks by noise: the more objectives, the larger the variance of the direction. ValueError for another word.
    """
    if distribution not in get_args(Distribution):
        raise ValueError(f"distribution is {distribution!r}; it must be one of {', '.join(get_args(Distribution))}")

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        shape, dtype, present = signals.losses.shape, signals.losses.dtype, sound(signals).present
        if distribution == "normal":
            return softmax(jax.random.normal(signals.key, shape, dtype), present), state
        return proportions(jnp.where(present, jax.random.exponential(signals.key, shape, dtype), 0.0)), state

    return Weighting(lambda count: (), update)
