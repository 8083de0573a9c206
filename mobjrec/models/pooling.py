"""Packed rows -> one vector a text."""

import jax
import jax.numpy as jnp

from mobjrec.types import Array


def pool_mean(hidden: Array, slot: Array, slots: int) -> Array:
    """Each text's mean over its tokens. hidden [R, T, D], slot [R, T] (0 = padding) -> [R, S, D]; empty slot: 0."""
    member = jax.nn.one_hot(slot - 1, slots, dtype=hidden.dtype)
    total = jnp.einsum("rts,rtd->rsd", member, hidden, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(member.sum(1), 1.0)[..., None]


def pool_cls(hidden: Array, slot: Array, position: Array, slots: int) -> Array:
    """Each text's first token. hidden [R, T, D], slot and position [R, T] -> [R, S, D]; empty slot: 0."""
    first = jax.nn.one_hot(jnp.where(position == 0, slot, 0) - 1, slots, dtype=hidden.dtype)
    return jnp.einsum("rts,rtd->rsd", first, hidden, precision=jax.lax.Precision.HIGHEST)
