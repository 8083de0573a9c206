"""Ranks of scores within a list: hard, soft, and whether an item is in the top k. What `where` masks does not exist.

Shared by losses and metrics, with what both refuse at trace time.
"""

import jax
import jax.numpy as jnp

from mobjrec.types import Array

# Lists longer than this count soft ranks block by block, so that no [L, L] array is kept.
BLOCK = 512


def check_lists(scores: Array, labels: Array, where: Array, weights: Array | None = None, k: int | None = None) -> None:
    """ValueError for shapes that differ, a mask that is not bool, or k below 1, naming the argument."""
    for name, array in (("labels", labels), ("where", where), ("weights", weights)):
        if array is not None and jnp.shape(array) != jnp.shape(scores):
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected that of scores, {jnp.shape(scores)}")
    if jnp.asarray(where).dtype != jnp.bool_:
        raise ValueError(f"where is {jnp.asarray(where).dtype}; expected bool, True for a real item")
    if k is not None and k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")


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
    length = scores.shape[-1]
    if length <= BLOCK:
        return _counted(kept, where, kept, jnp.arange(length), temperature)
    blocks = -(-length // BLOCK)
    padded = jnp.pad(kept, [(0, 0)] * (kept.ndim - 1) + [(0, blocks * BLOCK - length)])
    starts = jnp.arange(blocks) * BLOCK

    def block(start: Array) -> Array:
        some = jax.lax.dynamic_slice_in_dim(padded, start, BLOCK, -1)
        return _counted(kept, where, some, start + jnp.arange(BLOCK), temperature)

    found = jax.lax.map(jax.checkpoint(block, prevent_cse=False), starts)
    return jnp.moveaxis(found, 0, -2).reshape(*scores.shape[:-1], -1)[..., :length]


def _counted(kept: Array, where: Array, some: Array, place: Array, temperature: float) -> Array:
    """Soft ranks of `some` [..., M], which stand at `place` [M] in the list."""
    others = where[..., None, :] & (place[:, None] != jnp.arange(kept.shape[-1]))
    above = jax.nn.sigmoid((kept[..., None, :] - some[..., :, None]) / temperature)
    return 1.0 + jnp.sum(above, axis=-1, where=others)


def _counting(scores: Array) -> jnp.dtype:
    return jnp.promote_types(scores.dtype, jnp.float32)
