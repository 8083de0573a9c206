"""Sums over the pairs of a list's items that its labels order, without an [L, L] array for long lists."""

from collections.abc import Callable

import jax.numpy as jnp

from mobjrec.ranks import by_blocks
from mobjrec.types import Array

# (s_i - s_j [..., M, L], i [M, 1], j [1, L]) -> [..., M, L], what the pair of places i and j counts.
Value = Callable[[Array, Array, Array], Array]


def pair_sum(value: Value, scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """sum of w_i value(s_i - s_j, i, j) over the pairs of real items with y_i > y_j.

    M is L, or a block of it. `value` must be finite for any pair: masked scores are 0. scores, labels, where, weights
    [..., L] -> [...], at least float32; 0 for a list without a pair.
    """
    where = jnp.asarray(where)
    kept = jnp.where(where, scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), 0.0)

    def rows(some: Array, place: Array) -> Array:
        difference = some[..., :, None] - kept[..., None, :]
        i, j = _places(place, kept.shape[-1])
        return jnp.sum(value(difference, i, j), axis=-1, where=_ordered(labels, where, i, j))

    found = by_blocks(rows, kept)
    return jnp.sum(found if weights is None else found * jnp.where(where, weights, 0.0), axis=-1)


def pair_mean(value: Value, scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """`pair_sum` over the number of these pairs; 0 for a list without one."""
    where = jnp.asarray(where)
    total = pair_sum(value, scores, labels, where=where, weights=weights)

    def rows(some: Array, place: Array) -> Array:
        # Each row counts in whole numbers, their sum does not: a list of 100,000 has more pairs than an int32.
        return jnp.sum(_ordered(labels, where, *_places(place, where.shape[-1])), axis=-1).astype(total.dtype)

    return total / jnp.maximum(jnp.sum(by_blocks(rows, jnp.zeros(where.shape, total.dtype)), axis=-1), 1.0)


def _places(place: Array, length: int) -> tuple[Array, Array]:
    """i [M, 1] and j [1, L]; the last block may go on behind the list, and what it finds there is cut away."""
    return jnp.minimum(place, length - 1)[:, None], jnp.arange(length)[None, :]


def _ordered(labels: Array, where: Array, i: Array, j: Array) -> Array:
    labels = jnp.where(where, labels, 0.0)
    return (labels[..., i] > labels[..., j]) & where[..., i] & where[..., j]
