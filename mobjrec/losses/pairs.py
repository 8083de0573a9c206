"""Sums over the pairs of a list's items that its labels order, without an [L, L] array for long lists."""

from collections.abc import Callable

import jax.numpy as jnp

from mobjrec.ranks import by_blocks
from mobjrec.types import Array

# An array of the list [..., L] -> what it says of one item of each pair: of the first [..., M, 1], the second [..., 1, L].
Of = Callable[[Array], Array]
# (s_i - s_j [..., M, L], i, j) -> [..., M, L], what a pair counts.
Value = Callable[[Array, Of, Of], Array]


def pair_sum(value: Value, scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """sum of w_i value(s_i - s_j, i, j) over the pairs of real items with y_i > y_j.

    M is L, or a block of it. `value` must be finite for any pair: masked scores are 0. scores, labels, where, weights
    [..., L] -> [...], at least float32; 0 for a list without a pair.
    """
    where = jnp.asarray(where)
    kept = jnp.where(where, scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), 0.0)

    def rows(some: Array, place: Array) -> Array:
        i = first(place)
        difference = some[..., :, None] - second(kept)
        return jnp.sum(value(difference, i, second), axis=-1, where=_ordered(labels, where, i))

    found = by_blocks(rows, kept)
    return jnp.sum(found if weights is None else found * jnp.where(where, weights, 0.0), axis=-1)


def pair_mean(value: Value, scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """`pair_sum` over the number of these pairs; 0 for a list without one."""
    where = jnp.asarray(where)
    total = pair_sum(value, scores, labels, where=where, weights=weights)

    def rows(some: Array, place: Array) -> Array:
        # Each row counts in whole numbers, their sum does not: a list of 100,000 has more pairs than an int32.
        return jnp.sum(_ordered(labels, where, first(place)), axis=-1).astype(total.dtype)

    return total / jnp.maximum(jnp.sum(by_blocks(rows, jnp.zeros(where.shape, total.dtype)), axis=-1), 1.0)


def first(place: Array) -> Of:
    """Of the items at `place` [M], all of the list or a block; the last one may go on behind it, to be cut away."""

    def of(array: Array) -> Array:
        whole = array.shape[-1] == place.shape[-1]
        return (array if whole else jnp.take(array, place, axis=-1, mode="clip"))[..., :, None]

    return of


def second(array: Array) -> Array:
    """Of every item."""
    return array[..., None, :]


def _ordered(labels: Array, where: Array, i: Of) -> Array:
    labels = jnp.where(where, labels, 0.0)
    return (i(labels) > second(labels)) & i(where) & second(where)
