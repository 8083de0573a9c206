"""What every loss refuses, at trace time."""

import jax.numpy as jnp

from mobjrec.types import Array


def check(scores: Array, labels: Array, where: Array, weights: Array | None = None, k: int | None = None) -> None:
    """ValueError for shapes that differ, a mask that is not bool, or k below 1, naming the argument."""
    for name, array in (("labels", labels), ("where", where), ("weights", weights)):
        if array is not None and jnp.shape(array) != jnp.shape(scores):
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected that of scores, {jnp.shape(scores)}")
    if jnp.asarray(where).dtype != jnp.bool_:
        raise ValueError(f"where is {jnp.asarray(where).dtype}; expected bool, True for a real item")
    if k is not None and k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
