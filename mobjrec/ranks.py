"""Ranks of scores within a list: hard, soft, and whether an item is in the top k. What `where` masks does not exist.

Shared by losses and metrics, with what both refuse at trace time.
"""

from collections.abc import Callable, Mapping
from numbers import Integral

import jax
import jax.numpy as jnp

from mobjrec.types import Array

# Lists longer than this count soft ranks block by block, so that no [L, L] array is kept.
BLOCK = 512
# Bisection is at the last bit of float64 after these.
HALVINGS = 60


def check_lists(scores: Array, labels: Array, where: Array, weights: Array | None = None, k: int | None = None) -> None:
    """ValueError for scalars, shapes that differ, a mask that is not bool, or k no whole number from 1, naming it."""
    if where is None:
        raise ValueError(f"where is None; expected a bool array of scores' shape, {jnp.shape(scores)}")
    if not jnp.shape(scores):
        raise ValueError("scores is a single number; expected an array whose last axis is a list's items")
    for name, array in (("labels", labels), ("where", where), ("weights", weights)):
        if array is not None and jnp.shape(array) != jnp.shape(scores):
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected that of scores, {jnp.shape(scores)}")
    if jnp.asarray(where).dtype != jnp.bool_:
        raise ValueError(f"where is {jnp.asarray(where).dtype}; expected bool, True for a real item")
    if k is not None and (isinstance(k, bool) or not isinstance(k, Integral)):
        raise ValueError(f"k is {k}; it must be a whole number")
    if k is not None and k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")


def check_above(settings: Mapping[str, float]) -> None:
    """ValueError for a setting that is not above 0, naming it; a traced number, such as one that falls, is not seen."""
    for name, value in settings.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0")


def relevant_in(labels: Array, where: Array) -> Array:
    """[..., L] bool: the real items with a label above 0."""
    return where & (jnp.where(where, labels, 0.0) > 0)


def ranks(scores: Array, where: Array) -> Array:
    """Ranks from 1, highest score first, ties in order of appearance; masked items come after all others.

    scores, where [..., L] -> [..., L] int32. No gradient.
    """
    # Masked items are last by a key of their own: no number under the mask is below every real score.
    order = jnp.lexsort((-jax.lax.stop_gradient(scores), ~jnp.asarray(where)), axis=-1)
    return jnp.argsort(order, axis=-1).astype(jnp.int32) + 1


def top_k(scores: Array, where: Array, k: int) -> Array:
    """[..., L] bool: whether a real item is among the k highest scores."""
    return (ranks(scores, where) <= k) & where


def soft_ranks(scores: Array, where: Array, temperature: float) -> Array:
    """1 + sum over the other real items j of sigmoid((s_j - s_i) / temperature). Qin et al. 2010, eq. 9.

    scores, where [..., L] -> [..., L], at least float32: half precision errs by more than a whole rank on long lists.
    """
    kept = jnp.where(where, scores.astype(_counting(scores)), 0.0)
    return by_blocks(lambda some, place: _counted(kept, where, some, place, temperature), kept)


def by_blocks(function: Callable[[Array, Array], Array], scores: Array) -> Array:
    """function(some [..., M], their places in the list [M]) -> [..., M], over all items of `scores` [..., L] -> [..., L].

    M is L, or BLOCK for longer lists, whose blocks are computed again on the way back: no [L, L] array is kept.
    """
    length = scores.shape[-1]
    if length <= BLOCK:
        return function(scores, jnp.arange(length))
    blocks = -(-length // BLOCK)
    padded = jnp.pad(scores, [(0, 0)] * (scores.ndim - 1) + [(0, blocks * BLOCK - length)])
    starts = jnp.arange(blocks) * BLOCK

    def block(start: Array) -> Array:
        return function(jax.lax.dynamic_slice_in_dim(padded, start, BLOCK, -1), start + jnp.arange(BLOCK))

    found = jax.lax.map(jax.checkpoint(block, prevent_cse=False), starts)
    return jnp.moveaxis(found, 0, -2).reshape(*scores.shape[:-1], -1)[..., :length]


def soft_top_k(scores: Array, where: Array, k: int, temperature: float) -> Array:
    """Shares of the first k places: sigmoid((s_i - tau) / temperature), tau such that they sum to min(k, items).

    The maximum of s'm + temperature H(m) over 0 <= m <= 1 with sum k, H the binary entropies: Amos et al. 2019 (limited
    multi-label projection), which is also Xie et al. 2020's entropic transport onto the two places in and out. tau is
    found by bisection and has its implicit gradient, so time and memory are O(L). Unlike a cut of soft ranks, the
    shares see scores alone: a shift changes nothing, and the temperature is in their unit.

    scores, where [..., L] -> [..., L], at least float32, 0 under the mask; 1 for all of a list of k items or fewer.
    """
    kept = jnp.where(where, scores.astype(_counting(scores)), 0.0)
    # Near large scores tau has too few bits; a shift changes no share.
    largest = jnp.max(kept, axis=-1, keepdims=True, where=where, initial=jnp.finfo(kept.dtype).min)
    # Half the range is far below any tau, and does not overflow.
    below = jnp.maximum(kept - jax.lax.stop_gradient(largest), 0.5 * jnp.finfo(kept.dtype).min)
    kept = jnp.where(where, below, 0.0)
    count = jnp.sum(where, axis=-1, keepdims=True)
    many = count > k
    # In a list of k or fewer no tau will do: it is found for half the items, and not used.
    size = jnp.where(many, k, 0.5 * jnp.maximum(count, 1)).astype(kept.dtype)

    def shares(tau: Array) -> Array:
        return jnp.where(where, jax.nn.sigmoid((kept - tau) / temperature), 0.0)

    tau = jax.lax.stop_gradient(_threshold(kept, where, size, temperature))
    fixed = jax.lax.stop_gradient(shares(tau))
    slope = jnp.sum(fixed * (1.0 - fixed), axis=-1, keepdims=True) / temperature
    # 0 as a value; as a gradient d tau = sum_i m'_i ds_i / sum_i m'_i, of the sum that stays k.
    total = jnp.sum(shares(tau), axis=-1, keepdims=True)
    tau = tau + (total - jax.lax.stop_gradient(total)) / jnp.maximum(slope, jnp.finfo(kept.dtype).tiny)
    return jnp.where(where, jnp.where(many, shares(tau), 1.0), 0.0)


def _threshold(kept: Array, where: Array, size: Array, temperature: float) -> Array:
    """[..., 1] tau of `soft_top_k` for 0 < size < items; between the lowest and the highest score it is for equal ones."""
    kept, size = jax.lax.stop_gradient(kept), jax.lax.stop_gradient(size)
    count = jnp.maximum(jnp.sum(where, axis=-1, keepdims=True), 1)
    equal = temperature * (jnp.log(size) - jnp.log(jnp.maximum(count - size, 0.5)))
    largest = jnp.finfo(kept.dtype).max
    low = jnp.min(kept, axis=-1, keepdims=True, where=where, initial=largest)
    high = jnp.max(kept, axis=-1, keepdims=True, where=where, initial=-largest)
    there = jnp.any(where, axis=-1, keepdims=True)

    def halved(_: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = 0.5 * (low + high)
        above = jnp.sum(jax.nn.sigmoid((kept - middle) / temperature), axis=-1, keepdims=True, where=where) > size
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    start = jnp.where(there, low, 0.0) - equal, jnp.where(there, high, 0.0) - equal
    low, high = jax.lax.fori_loop(0, HALVINGS, halved, start)
    return 0.5 * (low + high)


def _counted(kept: Array, where: Array, some: Array, place: Array, temperature: float) -> Array:
    """Soft ranks of `some` [..., M], which stand at `place` [M] in the list."""
    others = where[..., None, :] & (place[:, None] != jnp.arange(kept.shape[-1]))
    above = jax.nn.sigmoid((kept[..., None, :] - some[..., :, None]) / temperature)
    return 1.0 + jnp.sum(above, axis=-1, where=others)


def _counting(scores: Array) -> jnp.dtype:
    return jnp.promote_types(scores.dtype, jnp.float32)
