"""Gradients are changed one after the other, pair by pair: gradient surgery, and gradient vaccine."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import check_share, sound


class Targets(NamedTuple):
    """cosine: [K, K], of the first objective's gradient as changed so far with the second's"""

    cosine: Array


def pcgrad() -> Weighting:
    """Weights of the sum of gradients, each made orthogonal to those it conflicts with, in random order. Yu et al. 2020.

    g_i loses its part along g_j wherever g_i . g_j < 0, for j in an order drawn for each i from the step's key. With two
    objectives none is hurt; with more one may be, and what an order gives is not what another does. A gradient of 0
    changes nothing. Invariant to one factor on all losses.
    """

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals = sound(signals)
        return pcgrad_weights(signals.gram, signals.present, orders(signals.key, len(signals.losses))), state

    return Weighting(lambda count: (), update, needs_gram=True)


def gradvac(rate: float = 0.01) -> Weighting:
    """Weights of the sum of gradients, each turned towards those it agrees with less than it used to. Wang et al. 2021.

    Where cos(g_i, g_j) is below its running mean phi_ij, g_j is added to g_i until the cosine is phi_ij (eq. 5), for j in
    an order drawn for each i from the step's key; then phi moves by `rate` (beta) towards the cosine found. It starts at
    0, where this is `pcgrad`. A pair with an absent objective keeps its mean. May hurt objectives. Breaks where a mean
    nears 1 or -1 (it stops at 0.999). ValueError unless 0 <= rate < 1.
    """
    check_share("rate", rate)

    def update(signals: Signals, state: Targets) -> tuple[Array, Targets]:
        signals = sound(signals)
        drawn = orders(signals.key, len(signals.losses))
        weights, cosine = gradvac_weights(signals.gram, signals.present, drawn, state.cosine, rate)
        return weights, Targets(cosine)

    return Weighting(lambda count: Targets(jnp.zeros((count, count))), update, needs_gram=True)


def orders(key: Array, count: int) -> Array:
    """[K, K], for each objective an order of all."""
    return jax.vmap(lambda one: jax.random.permutation(one, count))(jax.random.split(key, count))


def pcgrad_weights(gram: Array, present: Array, orders: Array) -> Array:
    """[K] weights for these orders [K, K]; an objective's own place in its order does nothing."""

    def turn(mixes: Array, others: Array) -> tuple[Array, None]:
        product = jnp.sum(mixes * gram[others], axis=1)
        square = jnp.diagonal(gram)[others]
        cuts = _pairs(present, others) & (product < 0) & (square > 0)
        part = jnp.where(cuts, product / jnp.where(square > 0, square, 1.0), 0.0)
        return mixes - part[:, None] * jax.nn.one_hot(others, len(gram), dtype=gram.dtype), None

    mixes, _ = jax.lax.scan(turn, jnp.eye(len(gram), dtype=gram.dtype), orders.T)
    return present @ mixes


def gradvac_weights(
    gram: Array, present: Array, orders: Array, cosine: Array, rate: Array | float
) -> tuple[Array, Array]:
    """[K] weights for these orders and targets [K, K], and the targets after."""
    each = jnp.arange(len(gram))

    def turn(carry: tuple[Array, Array], others: Array) -> tuple[tuple[Array, Array], None]:
        mixes, cosine = carry
        length = jnp.sqrt(jnp.maximum(jnp.sum((mixes @ gram) * mixes, axis=1), 0.0))
        other = jnp.sqrt(jnp.maximum(jnp.diagonal(gram)[others], 0.0))
        there = _pairs(present, others) & (length > 0) & (other > 0)
        # One factor after the other: their product may overflow.
        found = jnp.sum(mixes * gram[others], axis=1) / jnp.where(there, length, 1.0) / jnp.where(there, other, 1.0)
        found, target = jnp.clip(found, -1.0, 1.0), cosine[each, others]
        wide = jnp.sqrt(jnp.maximum(1.0 - jnp.square(target), 1e-6))
        part = (
            length / jnp.where(there, other, 1.0) * (target * jnp.sqrt(1.0 - jnp.square(found)) - found * wide) / wide
        )
        part = jnp.where(there & (found < target), part, 0.0)
        moved = jnp.clip((1 - rate) * target + rate * found, -0.999, 0.999)
        cosine = cosine.at[each, others].set(jnp.where(there, moved, target).astype(cosine.dtype))
        return (mixes + part[:, None] * jax.nn.one_hot(others, len(gram), dtype=gram.dtype), cosine), None

    (mixes, cosine), _ = jax.lax.scan(turn, (jnp.eye(len(gram), dtype=gram.dtype), cosine), orders.T)
    return present @ mixes, cosine


def _pairs(present: Array, others: Array) -> Array:
    """[K], whether an objective meets another one at this place of its order."""
    return present & present[others] & (others != jnp.arange(len(others)))
