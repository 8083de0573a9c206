"""How a preference [K] is drawn for each training step: numbers from 0 up that sum to 1, one per objective.

A factory returns a function (key, K) -> [K]. A new one is a function here and its name in `__all__`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting

__all__ = ["dirichlet"]
Draw = Callable[[Array, int], Array]


def dirichlet(concentration: float = 1.0) -> Draw:
    """Preferences from the symmetric Dirichlet distribution.

    1: uniform over all of them; below 1 most are near one objective alone (Navon et al. 2021 draw with 0.2), above 1 near
    the equal one. Returns (key, K) -> [K] float32 >= 0 that sum to 1. ValueError unless 0 < concentration < inf.
    """
    if not 0 < concentration < float("inf"):
        raise ValueError(f"concentration is {concentration}; it must be finite and above 0")
    return lambda key, count: jax.random.dirichlet(key, jnp.full(count, concentration, jnp.float32))


def reads(weighting: Weighting, count: int) -> bool:
    """Whether a weighting of so many objectives looks at the preference of a step, by its traced program."""

    def update(preference: Array) -> tuple:
        # All made while tracing: an array of its own would take the devices before several processes are joined.
        ones, zero = jnp.ones(count), jnp.int32(0)
        gram = jnp.eye(count) if weighting.needs_gram else None
        signals = Signals(ones, ones > 0, gram, preference, zero, zero, jax.random.key(0))
        return weighting.update(signals, weighting.init(count))

    program = jax.make_jaxpr(update)(jax.ShapeDtypeStruct((count,), jnp.float32)).jaxpr
    read = [name for line in program.eqns for name in line.invars] + program.outvars
    return any(name is program.invars[0] for name in read)
