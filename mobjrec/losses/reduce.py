"""Reductions over a list's items. Over lists there is one only: objectives.mean_over_lists."""

import jax
import jax.numpy as jnp

from mobjrec.types import Array


def masked_mean(values: Array, where: Array, weights: Array | None = None) -> Array:
    """The mean over the last axis of what is in `where`, each item's value times its weight; 0 where there is none.

    values, where, weights [..., L] -> [...]. The divisor is the number of items, not the weights' sum: a propensity
    weight must not cancel itself. What stands under the mask, NaN too, has no influence on value or gradient.
    """
    values = jnp.where(where, values if weights is None else values * jnp.where(where, weights, 0.0), 0.0)
    return jnp.sum(values, axis=-1) / jnp.maximum(jnp.sum(where, axis=-1), 1)


def not_below_zero(value: Array) -> Array:
    """A value that rounding alone takes below 0, as 0 there; its gradient stays, which that of a maximum would not."""
    return value + jax.lax.stop_gradient(jnp.maximum(value, 0.0) - value)
