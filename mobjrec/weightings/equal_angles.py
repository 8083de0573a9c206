"""Directions with the same product with every unit gradient: IMTL-G and ConFIG."""

import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import sound
from mobjrec.weightings.solvers import unit_rows


def imtl_g() -> Weighting:
    """Weights, of the sum 1, whose direction has equal projections on all gradients. Liu et al. 2021 (IMTL-G), eq. 4.

    Solved on unit gradients: the paper's form squares the lengths. The direction is invariant to a factor on any loss.
    Weights may be negative, and the direction may then hurt every objective at once, even where none conflict. Gradients
    that depend on each other, and opposite ones, have no such direction: the nearest in the least-squares sense, and
    weights of 1 / K where their sum is 0. A gradient of 0 is left out; if all are, weights are 1 / K.
    """

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals = sound(signals)
        return imtl_g_weights(signals.gram, signals.present), state

    return Weighting(lambda count: (), update, needs_gram=True)


def config() -> Weighting:
    """Weights of a direction with the same, positive cosine to all gradients, as long as its products with them.

    Liu et al. 2025 (ConFIG), eq. 2 and 3: x = pinv(U) 1 of unit gradients U, d = sum_k (g_k . x) x / |x|^2. Hurts no
    objective where the gradients are independent; where they depend on each other, or are more than parameters, it may.
    Opposite gradients have x = 0: all weights are then 0 (the authors' code scales a rounding error up). The direction is
    invariant to a factor on any loss. A gradient of 0 is left out; if all are, weights are 1 / K.
    """

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals = sound(signals)
        return config_weights(signals.gram, signals.present), state

    return Weighting(lambda count: (), update, needs_gram=True)


def imtl_g_weights(gram: Array, present: Array) -> Array:
    """[K] weights of the sum 1."""
    mixes, _, inverse, _ = _even(gram, present)
    raw = mixes * inverse
    total, size = jnp.sum(raw), jnp.sum(jnp.abs(raw))
    count = jnp.maximum(jnp.sum(present), 1)
    clear = jnp.abs(total) > 8 * len(gram) * jnp.finfo(gram.dtype).eps * size
    return jnp.where(clear, raw / jnp.where(clear, total, 1.0), present / count)


def config_weights(gram: Array, present: Array) -> Array:
    """[K] weights, all 0 where unit gradients cancel."""
    mixes, cosines, inverse, length = _even(gram, present)
    products = cosines @ mixes
    square = mixes @ products
    clear = square > jnp.sqrt(jnp.finfo(gram.dtype).eps)
    found = mixes * inverse * (length @ products) / jnp.where(clear, square, 1.0)
    still = ~jnp.any(length > 0)
    return jnp.where(still, present / jnp.maximum(jnp.sum(present), 1), jnp.where(clear, found, 0.0))


def _even(gram: Array, present: Array) -> tuple[Array, Array, Array, Array]:
    """pinv(C) 1 of the cosines C of the rows that are not 0; C; 1 / length and length, in units of the longest."""
    rows = unit_rows(gram, present)
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
    longest = jnp.max(length)
    length = length / jnp.where(longest > 0, longest, 1.0)
    there = length > 0
    values, vectors = jnp.linalg.eigh(rows.cosines)
    large = values > len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
    part = jnp.where(large, (vectors.T @ there.astype(gram.dtype)) / jnp.where(large, values, 1.0), 0.0)
    mixes = jnp.where(there, vectors @ part, 0.0)
    return mixes, rows.cosines, jnp.where(there, 1.0 / jnp.where(there, length, 1.0), 0.0), length
