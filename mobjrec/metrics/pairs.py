"""Metrics of the pairs of a list: how many stand in the right order. Sort-based, no [L, L] array. Ties count by definition."""

import jax
import jax.numpy as jnp

from mobjrec.metrics.ranked import clean, ranked, runs
from mobjrec.ranks import check_lists
from mobjrec.types import Array


def auc(scores: Array, labels: Array, *, where: Array) -> Array:
    """Share of (relevant, other) pairs in the right order, equal scores counting half. NaN where one kind is absent."""
    found = ranked(scores, labels, where, None, "expected")
    # As floats: the pairs of a long list are more than an int32 holds.
    positives, items = (count.astype(found.labels.dtype) for count in (found.relevant, found.items))
    middle = jnp.sum((found.ties.first + found.ties.last) / 2.0, axis=-1, where=found.labels > 0)
    wrong = middle - positives * (positives + 1) / 2.0
    pairs = positives * (items - positives)
    return jnp.where(pairs > 0, (pairs - wrong) / jnp.maximum(pairs, 1), jnp.nan)


def kendall(scores: Array, labels: Array, *, where: Array) -> Array:
    """Kendall's tau-b of scores and labels, in [-1, 1]: pairs in order minus pairs out of order. Kendall 1945.

    (C - D) / sqrt((N - N_s) (N - N_y)) with N pairs, N_s tied in score and N_y in label; 0 where all scores are equal, as
    over random orders of them. By merging, Knight 1966. NaN where all labels are equal, or there are fewer than two items.
    """
    check_lists(scores, labels, where)
    labels, where = clean(scores, labels, where), jnp.asarray(where)
    scores = jnp.where(where, scores, 0.0).astype(labels.dtype)
    # By score, equal ones by falling label: then a pair that stands wrong differs in both.
    masked, s, y = jax.lax.sort((~where, 0 - scores, 0 - labels), num_keys=3)
    total = _pairs(where.sum(-1).astype(labels.dtype))
    tied_scores, tied_both = (_tied(key, ~masked) for key in (s, _numbered(s, y)))
    apart = _inverted(jnp.where(masked, jnp.inf, y))
    masked, y = jax.lax.sort((~where, 0 - labels), num_keys=2)
    tied_labels = _tied(y, ~masked)
    excess = total - tied_scores - tied_labels + tied_both - 2 * apart
    scale = jnp.sqrt(total - tied_scores) * jnp.sqrt(total - tied_labels)
    return jnp.where(total > tied_labels, excess / jnp.where(scale > 0, scale, 1.0), jnp.nan)


def _pairs(count: Array) -> Array:
    return count * (count - 1) / 2


def _numbered(s: Array, y: Array) -> Array:
    """A number per run of equal (s, y)."""
    step = (s[..., 1:] != s[..., :-1]) | (y[..., 1:] != y[..., :-1])
    return jnp.pad(jnp.cumsum(step, axis=-1), [(0, 0)] * (s.ndim - 1) + [(1, 0)])


def _tied(keys: Array, real: Array) -> Array:
    """[...] pairs of real items with equal keys, which are sorted."""
    ties = runs(keys, real)
    return jnp.sum((ties.last - ties.first) / 2.0, axis=-1, where=real)


def _inverted(values: Array) -> Array:
    """[...] pairs of which the earlier is the larger one: runs of twice the length are merged, again and again."""
    length = values.shape[-1]
    size = 1 << max(length - 1, 0).bit_length()
    values = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, size - length)], constant_values=jnp.inf)
    count, half = jnp.zeros(values.shape[:-1], values.dtype), 1
    while half < size:
        blocks = values.reshape(*values.shape[:-1], -1, 2 * half)
        right = jnp.broadcast_to(jnp.arange(2 * half) >= half, blocks.shape)
        blocks, right = jax.lax.sort((blocks, right), num_keys=1, is_stable=True)
        behind = half - jnp.cumsum(~right, axis=-1)
        count += jnp.sum(behind.astype(values.dtype), axis=(-2, -1), where=right)
        values, half = blocks.reshape(values.shape), 2 * half
    return count
