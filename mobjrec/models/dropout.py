"""Dropout whose mask depends on a list's own key alone, so it is the same in any layout of lists over devices."""

import jax
import jax.numpy as jnp

from mobjrec.types import Array


def check_rate(name: str, rate: float) -> None:
    """ValueError unless the rate is in [0, 1)."""
    if not 0 <= rate < 1:
        raise ValueError(f"{name} is {rate}; it must be at least 0 and below 1")


def dropout(x: Array, rate: float, keys: Array | None, place: int | Array = 0) -> Array:
    """x with entries zeroed at `rate` and the rest scaled by 1 / (1 - rate). Srivastava et al. 2014.

    x [N, ...]; keys [N], one per leading entry, or None: x as it is. `place` tells apart the masks drawn from one key.
    """
    if keys is None or rate == 0.0:
        return x
    return jnp.where(kept(x.shape[1:], rate, keys, place), x / (1.0 - rate), 0.0)


def kept(shape: tuple[int, ...], rate: float, keys: Array, place: int | Array = 0) -> Array:
    """[N, *shape] bool, True with probability 1 - rate, drawn for each of the keys [N] by itself."""
    return jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, place), 1.0 - rate, shape))(keys)
