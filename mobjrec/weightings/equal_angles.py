"""Directions with the same product with every unit gradient: IMTL-G and ConFIG."""

from typing import NamedTuple

import jax.numpy as jnp

from mobjrec.types import Array, Weighting
from mobjrec.weightings.given import solving
from mobjrec.weightings.solvers import Solution, unit_rows


def imtl_g() -> Weighting:
    """Weights, of the sum 1, whose direction has equal projections on all gradients. Liu et al. 2021 (IMTL-G), eq. 4.

    Solved on unit gradients: the paper's form squares the lengths. The direction is invariant to a factor on any loss.
    Weights may be negative, and the direction may then hurt every objective at once, even where none conflict. Gradients
    that depend on each other have no such direction but 0: the nearest in the least-squares sense; opposite ones: 0, and
    weights of 1 / K where their sum is 0. A gradient of 0 is left out; if all are, weights are 1 / K.
    """
    return solving(lambda signals: imtl_g_weights(signals.gram, signals.present))


def config() -> Weighting:
    """Weights of a direction with the same, positive cosine to all gradients, as long as its products with them.

    Liu et al. 2025 (ConFIG), eq. 2 and 3: x = pinv(U) 1 of unit gradients U, d = sum_k (g_k . x) x / |x|^2. Hurts no
    objective where the gradients are independent; where they depend on each other, or are more than parameters, it may.
    Opposite gradients have x = 0: all weights are then 0 (the authors' code scales a rounding error up). The direction is
    invariant to a factor on any loss. A gradient of 0 is left out; if all are, weights are 1 / K.
    """
    return solving(lambda signals: config_weights(signals.gram, signals.present))


def imtl_g_weights(gram: Array, present: Array) -> Solution:
    """[K] weights of the sum 1."""
    even = _even(gram, present)
    # Where 1 is all in the null space, its part there is the weights with which unit gradients cancel.
    cancels = even.seen <= 64 * len(gram) * jnp.finfo(gram.dtype).eps
    raw = jnp.where(cancels, even.null, even.mixes) * even.inverse
    total, size = jnp.sum(raw), jnp.sum(jnp.abs(raw))
    count = jnp.maximum(jnp.sum(present), 1)
    clear = jnp.abs(total) > 8 * len(gram) * jnp.finfo(gram.dtype).eps * size
    return Solution(jnp.where(clear, raw / jnp.where(clear, total, 1.0), present / count), even.residual)


def config_weights(gram: Array, present: Array) -> Solution:
    """[K] weights, all 0 where unit gradients cancel."""
    even = _even(gram, present)
    products = even.cosines @ even.mixes
    square = even.mixes @ products
    clear = square > jnp.sqrt(jnp.finfo(gram.dtype).eps)
    found = even.mixes * even.inverse * (even.length @ products) / jnp.where(clear, square, 1.0)
    still = ~jnp.any(even.length > 0)
    weights = jnp.where(still, present / jnp.maximum(jnp.sum(present), 1), jnp.where(clear, found, 0.0))
    return Solution(weights, even.residual)


class Even(NamedTuple):
    """Of the rows that are not 0. cosines: C [K, K]   mixes, null: [K], pinv(C) 1 and 1's part in C's null space

    seen: scalar, the square of 1's other part, over their number   length, inverse: [K], in units of the longest
    residual: scalar, how far C (C x - 1) is from 0, over the size of what it is summed of
    """

    cosines: Array
    mixes: Array
    null: Array
    seen: Array
    length: Array
    inverse: Array
    residual: Array


def _even(gram: Array, present: Array) -> Even:
    rows = unit_rows(gram, present)
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
    longest = jnp.max(length)
    length = length / jnp.where(longest > 0, longest, 1.0)
    there = length > 0
    values, vectors = jnp.linalg.eigh(rows.cosines)
    large = values > len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
    ones = there.astype(gram.dtype)
    part = jnp.where(large, vectors.T @ ones, 0.0)
    mixes = vectors @ jnp.where(large, part / jnp.where(large, values, 1.0), 0.0)
    inverse = jnp.where(there, 1.0 / jnp.where(there, length, 1.0), 0.0)
    seen = part @ part / jnp.maximum(jnp.sum(ones), 1.0)
    null = jnp.where(there, ones - vectors @ part, 0.0)
    missed = jnp.max(jnp.abs(rows.cosines @ (rows.cosines @ mixes - ones)))
    residual = missed / (len(gram) ** 2 * (1.0 + jnp.max(jnp.abs(mixes))))
    return Even(rows.cosines, jnp.where(there, mixes, 0.0), null, seen, length, inverse, residual)
