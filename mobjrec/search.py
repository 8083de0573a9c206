"""The largest of many scores, block by block: exact, in memory that does not grow with the catalogue."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array

GROUP = 128


class Best(NamedTuple):
    """The largest so far, best first. value: [B, k], -inf where there are fewer   row: [B, k] int32"""

    value: Array
    row: Array


def empty(count: int, k: int) -> Best:
    """Nothing found yet for so many lists."""
    return Best(jnp.full((count, k), -jnp.inf, jnp.float32), jnp.full((count, k), -1, jnp.int32))


def merged(best: Best, scores: Array, first: Array) -> Best:
    """The k best of those so far and of a block [B, L] whose items are rows first, first + 1, ...; blocks come in order.

    Of equal scores the lower row is first. L is a multiple of GROUP, or below it.
    """
    k = best.value.shape[1]
    value, row = largest(scores, min(k, scores.shape[1]))
    # What was found before comes first, as its rows are lower: top_k takes the first of equals.
    values, rows = jnp.concatenate([best.value, value], 1), jnp.concatenate([best.row, first + row], 1)
    value, place = jax.lax.top_k(values, k)
    return Best(value, jnp.take_along_axis(rows, place, 1))


def largest(scores: Array, k: int) -> tuple[Array, Array]:
    """values and places [B, k] of each row's k largest, the first of equals first.

    Only the k groups of GROUP whose maxima are largest are sorted: an item of any other is behind k maxima. Maxima run at
    the speed of memory, where sorting whole rows took most of the time.
    """
    count, length = scores.shape
    groups = length // GROUP
    if groups <= k:
        return jax.lax.top_k(scores, k)
    parts = scores.reshape(count, groups, GROUP)
    _, chosen = jax.lax.top_k(parts.max(-1), k)
    # In the order of their rows, so that of equals the lower one stays first.
    chosen = jnp.sort(chosen, axis=1)
    value, place = jax.lax.top_k(jnp.take_along_axis(parts, chosen[..., None], 1).reshape(count, k * GROUP), k)
    return value, jnp.take_along_axis(chosen, place // GROUP, 1) * GROUP + place % GROUP


def without(scores: Array, gone: Array, first: Array) -> Array:
    """scores [B, L] of rows first, first + 1, ..., -inf at the rows `gone` [B, M], -1 for none."""
    count, length = scores.shape
    inside = (gone >= first) & (gone < first + length)
    place = jnp.where(inside, gone - first, length)
    return scores.at[jnp.arange(count)[:, None], place].set(-jnp.inf, mode="drop")
