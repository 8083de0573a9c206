"""Inner products of the objectives' gradients."""

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Tree


def gram(rows: Tree) -> Array:
    """Gram matrix [K, K], float32, of K gradients. rows: a tree whose leaves are [K, ...], one row per objective.

    The sum over leaves of R R'. A tree without leaves has no K: ValueError.
    """
    leaves = jax.tree.leaves(rows)
    if not leaves:
        raise ValueError("there is no gradient to compare: no leaf is trained and shared")

    def product(leaf: Array) -> Array:
        flat = leaf.reshape(len(leaf), -1).astype(jnp.float32)
        return jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)

    return sum(product(leaf) for leaf in leaves)


def norms(gram: Array) -> Array:
    """The gradients' lengths [K]."""
    return jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))


def cosines(gram: Array) -> Array:
    """The gradients' cosines [K, K]; 0 where one of them is 0."""
    length = norms(gram)
    scale = length[:, None] * length[None, :]
    return jnp.where(scale > 0, gram / jnp.where(scale > 0, scale, 1.0), 0.0)
