"""Ragged lists: losses and metrics of flat arrays, each item with the number of its list."""

from collections.abc import Callable

import jax.numpy as jnp

from mobjrec.types import Array


def by_segment(function: Callable[..., Array], lists: int, length: int) -> Callable[..., Array]:
    """A loss or metric of padded lists as one of flat arrays: (scores [N], labels [N], segments [N], ...) -> [lists].

    segments: int, the list of each item, from 0, in any order; a number below 0 is padding. Items of a list keep their
        order, which breaks ties
    lists, length: how many lists there are and the most items of one, both known before compiling
    weights, log_q: [N] too, where the function takes them; bind settings first, with functools.partial. Scores may be [N, W].

    The value and gradient are those of the padded call: [lists, length] arrays are made, so a batch whose lists differ much
    in length is better cut by length. Nothing is lost in silence: a list of more than `length` items is NaN, and a segment
    of `lists` or more makes all NaN. ValueError for shapes that differ, segments that are no whole numbers, and no items.
    """

    def flat(
        scores: Array, labels: Array, segments: Array, weights: Array | None = None, log_q: Array | None = None
    ) -> Array:
        count = jnp.shape(scores)[0]
        given = {name: array for name, array in {"weights": weights, "log_q": log_q}.items() if array is not None}
        for name, array in {"labels": labels, "segments": segments, **given}.items():
            if jnp.shape(array) != (count,):
                raise ValueError(f"{name} has shape {jnp.shape(array)}; expected one entry per score, {(count,)}")
        segments = jnp.asarray(segments)
        if not count or not jnp.issubdtype(segments.dtype, jnp.integer):
            raise ValueError(f"segments are {count} of {segments.dtype}; expected whole numbers, the list of each item")
        # What belongs to no list comes behind all lists.
        own = jnp.where((segments >= 0) & (segments < lists), segments, lists)
        order, sizes = jnp.argsort(own, stable=True), jnp.bincount(own, length=lists + 1)[:lists]
        place = jnp.cumsum(sizes)[:, None] - sizes[:, None] + jnp.arange(length)
        where, item = jnp.arange(length) < sizes[:, None], order[jnp.minimum(place, count - 1)]
        rest = {name: jnp.asarray(array)[item] for name, array in given.items()}
        found = function(jnp.asarray(scores)[item], jnp.asarray(labels)[item], where=where, **rest)
        return jnp.where((sizes <= length) & ~(segments >= lists).any(), found, jnp.nan)

    return flat
