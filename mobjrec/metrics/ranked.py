"""A list as ranked: the one sort that all metrics of a list share when they are compiled together, and its ties."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.ranks import check_lists
from mobjrec.types import Array

Ties = Literal["appearance", "expected"]
# From this length on, and where no more than a part in so many is asked for, the first k are selected, not sorted: a tenth
# of the time on a CPU.
LONG, PART = 512, 8


class Groups(NamedTuple):
    """Runs of equal scores. first, last: [..., L] the first and last place of each place's run, from 1"""

    first: Array
    last: Array


class Ranked(NamedTuple):
    """A list in falling order of its scores, masked items last: [..., L] each, `place` [L] the ranks from 1.

    Of a long list that is asked for its first k alone, these: k stands for L.

    labels: 0 for masked items   real: bool   items: [...] how many are real   relevant: [...] how many of these are
    ties: None where equal scores keep the order of appearance
    """

    labels: Array
    real: Array
    place: Array
    items: Array
    relevant: Array
    ties: Groups | None = None


def ranked(scores: Array, labels: Array, where: Array, k: int | None, ties: Ties = "appearance") -> Ranked:
    """The list as ranked. ValueError for shapes that differ, a mask that is not bool, k below 1, and other ties."""
    check_lists(scores, labels, where, None, k)
    if ties not in ("appearance", "expected"):
        raise ValueError(f"ties is {ties}; it must be appearance or expected")
    where = jnp.asarray(where)
    if ties == "appearance" and _selects(scores, k):
        item, keys = highest(scores, where, k), None
    else:
        item, keys = in_order(scores, where)
    labels = clean(scores, labels, where)
    place, items = jnp.arange(1, item.shape[-1] + 1), where.sum(-1)
    real = place <= items[..., None]
    groups = runs(keys, real) if ties == "expected" else None
    relevant = (labels > 0).sum(-1)
    return Ranked(jnp.take_along_axis(labels, item, -1), real, place, items, relevant, groups)


def clean(scores: Array, labels: Array, where: Array) -> Array:
    """Labels as float, at least float32, 0 under the mask."""
    return jnp.where(where, labels, 0.0).astype(jnp.promote_types(jnp.asarray(scores).dtype, jnp.float32))


def in_order(scores: Array, where: Array) -> tuple[Array, Array]:
    """([..., L] int32 items by place, the keys they were sorted by); masked items last, ties in order of appearance."""
    scores = jax.lax.stop_gradient(jnp.asarray(scores))
    length, axis = scores.shape[-1], scores.ndim - 1
    if scores.dtype.itemsize > 4:
        item = jax.lax.broadcasted_iota(jnp.int32, scores.shape, axis)
        # By 0 - s, as -s would put 0.0 before -0.0.
        _, keys, item = jax.lax.sort((~where, 0 - scores, item), num_keys=2, is_stable=True)
        return item, keys
    keys = ~_keys(scores, where)
    # One whole number per item, score above place: sorted seven times as fast on a CPU as the pair.
    with jax.enable_x64(True):
        packed = jax.lax.shift_left(keys.astype(jnp.int64), jnp.int64(32))
        packed = jax.lax.sort(packed | jax.lax.iota(jnp.int64, length))
        item = (packed & jnp.int64(2**32 - 1)).astype(jnp.int32)
        keys = jax.lax.shift_right_arithmetic(packed, jnp.int64(32)).astype(jnp.int32)
    return item, keys


def highest(scores: Array, where: Array, k: int) -> Array:
    """[..., k] int32: the first k of `in_order`. scores of 32 bits at most"""
    scores = jax.lax.stop_gradient(jnp.asarray(scores)).astype(jnp.float32)
    # The four lowest numbers tell -inf, NaN and what is masked apart: a selection has one key, and floats are the fast one.
    least = np.finfo(np.float32).min
    next_to = np.nextafter(least, np.float32(0))
    lowest = np.nextafter(next_to, np.float32(0))
    keys = jnp.where(scores == 0, 0.0, jnp.where(scores < lowest, lowest, scores))
    keys = jnp.where(scores == -jnp.inf, next_to, jnp.where(jnp.isnan(scores), least, keys))
    return jax.lax.top_k(jnp.where(where, keys, -jnp.inf), k)[1].astype(jnp.int32)


def _selects(scores: Array, k: int | None) -> bool:
    length = jnp.shape(scores)[-1]
    return k is not None and length >= LONG and k * PART <= length and jnp.asarray(scores).dtype.itemsize <= 4


def runs(keys: Array, real: Array) -> Groups:
    """The runs of equal keys, real items and masked ones apart."""
    length, axis = keys.shape[-1], keys.ndim - 1
    place = jnp.arange(1, length + 1)
    step = (keys[..., 1:] != keys[..., :-1]) | (real[..., 1:] != real[..., :-1])
    edge = jnp.ones((*keys.shape[:-1], 1), bool)
    first = jax.lax.cummax(jnp.where(jnp.concatenate([edge, step], -1), place, 0), axis)
    last = jax.lax.cummin(jnp.where(jnp.concatenate([step, edge], -1), place, length), axis, reverse=True)
    return Groups(first, last)


def mean_of_ties(values: Array, ties: Groups | None) -> Array:
    """[..., L] values by place -> what each place holds on average over the orders of its run; as they are without ties."""
    if ties is None:
        return values
    length = values.shape[-1]
    row = jnp.arange(values.size // length).reshape(*values.shape[:-1], 1) * length
    # By segments: a running sum would leave the small gains of a long list to rounding.
    sums = jax.ops.segment_sum(values.reshape(-1), (row + ties.first - 1).reshape(-1), values.size)
    sums = jnp.take_along_axis(sums.reshape(values.shape), ties.first - 1, -1)
    return sums / (ties.last - ties.first + 1)


def falling(values: Array, where: Array, k: int | None = None) -> Array:
    """[..., L] values in falling order, masked ones last as 0; of long lists the first k alone."""
    if _selects(values, k):
        found = jnp.take_along_axis(values, highest(values, where, k), -1)
    elif values.dtype.itemsize > 4:
        rising = jnp.sort(jnp.where(where, -values, jnp.inf), axis=-1)
        found = -rising
    else:
        rising = jax.lax.sort(~_keys(values, where))
        found = jax.lax.bitcast_convert_type(_mirrored(~rising), jnp.float32)
    return jnp.where(jnp.arange(1, found.shape[-1] + 1) <= where.sum(-1, keepdims=True), found, 0.0)


def refuse_negative(labels: Array, where: Array) -> None:
    """ValueError where an array that is no tracer holds a label below 0 of a real item: it has no gain."""
    if isinstance(labels, jax.core.Tracer) or isinstance(where, jax.core.Tracer):
        return
    labels = np.asarray(labels)
    bad = np.argwhere(np.asarray(where) & (labels < 0))
    if len(bad):
        place = tuple(bad[0].tolist())
        raise ValueError(
            f"labels, of shape {labels.shape}, holds {labels[place]} at {place}; expected gains of 0 or more"
        )


def _keys(values: Array, where: Array) -> Array:
    """int32 in the order of the values, which are of 32 bits at most; NaN below all real ones, masked below that."""
    values = values.astype(jnp.float32)
    bits = _mirrored(jax.lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), jnp.int32))
    least = jnp.iinfo(jnp.int32).min
    return jnp.where(where, jnp.where(jnp.isnan(values), least + 1, bits), least)


def _mirrored(bits: Array) -> Array:
    """A float32's bits with those of negative ones turned, so that they rise with the number; its own inverse."""
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
