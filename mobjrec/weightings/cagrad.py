"""Near the mean gradient, the direction that helps the least helped objective most."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Weighting
from mobjrec.weightings.dual_cone import dualproj_weights
from mobjrec.weightings.given import check_at_least_0, proportions, solving
from mobjrec.weightings.solvers import Solution, nearest_point, shifted_point


class Bracket(NamedTuple):
    """Logarithms of the shift, with `high` and `low` being the function's values at the left and right end.

    left, right, high, low: scalars   point: [K], the hull's weights at the shift `at`   rounds: int32
    """

    left: Array
    right: Array
    high: Array
    low: Array
    at: Array
    point: Array
    miss: Array
    rounds: Array


def cagrad(c: float = 0.4) -> Weighting:
    """Weights of the d with |d - g_0| <= c |g_0| that has the largest min_k g_k . d, g_0 the mean. Liu et al. 2021.

    d = g_0 + c |g_0| g_w / |g_w|, not divided by 1 + c^2 as the authors' code does. c = 0 is the mean; for c < 1 a limit
    is the mean's minimiser, for c >= 1 it is Pareto stationary alone. Some objective may be hurt. Solved exactly: g_w is
    the nearest point of the hull of g_k + s g_0 for the one s with |g_w| = s c |g_0|. Where no such s is there (the
    gradients surround 0), d is the nearest to g_0 of those that are as good, `dualproj`. Mean gradient 0: weights 1 / K.
    Invariant to one factor on all losses; breaks where lengths differ: a long gradient is the mean. ValueError unless
    0 <= c < inf.
    """
    check_at_least_0("c", c)
    return solving(lambda signals: cagrad_weights(signals.gram, signals.present, c))


def cagrad_weights(gram: Array, present: Array, c: Array | float) -> Solution:
    """[K] weights >= 1 / K for the radius c. The residual is how far the least product is from its upper bound."""
    epsilon = jnp.finfo(gram.dtype).eps
    scale = jnp.max(jnp.diagonal(gram))
    gram = gram / jnp.where(scale > 0, scale, 1.0)
    mean = proportions(present.astype(gram.dtype))
    # A row of 0 has the product 0 with every d, so that it decides nothing.
    rows = present & (jnp.diagonal(gram) > 0)
    radius = c * _length(gram, mean)
    # A mean of rounding errors has no direction.
    still = ~(radius > c * jnp.sqrt(8 * epsilon * (mean @ jnp.abs(gram) @ mean)))
    radius = jnp.where(still, 1.0, radius)

    def miss(at: Array) -> tuple[Array, Array]:
        """How far the hull's point is too long for the shift, as a logarithm, and its weights [K]."""
        point = shifted_point(gram, rows, 1.0, jnp.exp(at) * mean).weights
        return jnp.log(jnp.maximum(_length(gram, point), epsilon)) - at - jnp.log(radius), point

    def turn(at: Bracket) -> Bracket:
        share = jnp.clip(at.high / (at.high - at.low), 0.01, 0.99)
        middle = at.left + share * (at.right - at.left)
        found, point = miss(middle)
        rises = found > 0
        # Illinois: the value of an end that stays is halved, so that both ends move.
        return Bracket(
            jnp.where(rises, middle, at.left),
            jnp.where(rises, at.right, middle),
            jnp.where(rises, found, at.high / 2),
            jnp.where(rises, at.low / 2, found),
            middle,
            point,
            found,
            at.rounds + 1,
        )

    def go_on(at: Bracket) -> Array:
        return (jnp.abs(at.miss) > epsilon**0.75) & (at.rounds < 60)

    nearest = nearest_point(gram, rows).weights
    size = jnp.sqrt(nearest @ jnp.abs(gram) @ nearest)
    surrounded = _length(gram, nearest) <= 30 * jnp.sqrt(epsilon) * size
    harmless = dualproj_weights(gram, rows, mean).weights
    done = still | (surrounded & (_length(gram, harmless - mean) <= radius))
    # Where 0 is in the hull, the point's length is rounding alone; at this shift it is not yet.
    least = jnp.where(surrounded, jnp.maximum(epsilon**0.4 * size, epsilon), _length(gram, nearest))
    left, right = jnp.log(least / radius), jnp.log(2.0 / radius)
    high, point = miss(left)
    first = Bracket(left, right, high, -jnp.ones_like(high), left, point, jnp.where(done, 0.0, jnp.inf), jnp.int32(0))
    found = jax.lax.while_loop(go_on, turn, first)
    near = mean + found.point * jnp.exp(-found.at)
    weights = jnp.where(still, mean, jnp.where(done, harmless, near))
    # Every point v of the hull bounds the least product of a d in the ball: by g_v . g_0 + radius |g_v|.
    hull = jnp.where(done, nearest, found.point)
    bound = hull @ gram @ mean + radius * _length(gram, hull)
    gap = jnp.maximum(bound - jnp.min(jnp.where(rows, gram @ weights, jnp.inf)), _length(gram, weights - mean) - radius)
    return Solution(weights, jnp.where(still, 0.0, jnp.maximum(gap, 0.0)))


def _length(gram: Array, weights: Array) -> Array:
    return jnp.sqrt(jnp.maximum(weights @ gram @ weights, 0.0))
