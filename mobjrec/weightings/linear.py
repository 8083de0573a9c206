"""A small linear program, solved inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array
from mobjrec.weightings.solvers import Solution, eliminated


class Path(NamedTuple):
    """x, slack: [N] > 0, the variables and their dual slacks   price: [M], of the equations   best: [N], with its residual"""

    x: Array
    price: Array
    slack: Array
    best: Array
    residual: Array
    rounds: Array


def linear_program(cost: Array, matrix: Array, right: Array) -> Solution:
    """x [N] >= 0 that makes cost . x least with matrix @ x = right. Mehrotra 1992, the predictor-corrector method.

    cost [N], matrix [M, N] of full row rank, right [M], all of size near 1. The residual is the largest of how far x is
    from meeting the equations, its price from meeting the dual's, and their gap; large where no x meets the equations.
    Where several are best, one from the middle of them.
    """
    count, epsilon = len(cost), jnp.finfo(cost.dtype).eps

    def solve(weight: Array, vector: Array) -> Array:
        """(matrix diag(weight) matrix^T)^-1 vector, in units that make the diagonal 1."""
        normal = (matrix * weight) @ matrix.T
        scale = 1.0 / jnp.sqrt(jnp.maximum(jnp.diagonal(normal), jnp.finfo(cost.dtype).tiny))
        normal = normal * scale[:, None] * scale[None, :] + epsilon * jnp.eye(len(right), dtype=cost.dtype)
        return scale * eliminated(normal, (scale * vector)[:, None])[:, 0]

    def misses(x: Array, price: Array, slack: Array) -> tuple[Array, Array]:
        return right - matrix @ x, cost - matrix.T @ price - slack

    def residual(x: Array, price: Array, slack: Array) -> Array:
        primal, dual = misses(x, price, slack)
        return jnp.maximum(jnp.maximum(jnp.max(jnp.abs(primal)), jnp.max(jnp.abs(dual))), x @ slack)

    def longest(at: Array, step: Array) -> Array:
        """The largest share of a step, at most 1, that keeps all above 0."""
        return jnp.minimum(1.0, jnp.min(jnp.where(step < 0, -at / jnp.where(step < 0, step, 1.0), jnp.inf)))

    def direction(at: Path, aim: Array) -> tuple[Array, Array, Array]:
        """The step that meets all equations and x * slack = x * slack - aim, to first order."""
        primal, dual = misses(at.x, at.price, at.slack)
        weight = at.x / at.slack
        price = solve(weight, primal + matrix @ (weight * dual + aim / at.slack))
        slack = dual - matrix.T @ price
        return -aim / at.slack - weight * slack, price, slack

    def turn(at: Path) -> Path:
        product = at.x * at.slack
        mean = jnp.sum(product) / count
        x, _, slack = direction(at, product)
        ahead = (at.x + longest(at.x, x) * x) @ (at.slack + longest(at.slack, slack) * slack) / count
        centre = (ahead / mean) ** 3 * mean
        x, price, slack = direction(at, product + x * slack - centre)
        far, deep = 0.995 * longest(at.x, x), 0.995 * longest(at.slack, slack)
        after = (at.x + far * x, at.price + deep * price, at.slack + deep * slack)
        found = residual(*after)
        better = found < at.residual
        return Path(*after, jnp.where(better, after[0], at.best), jnp.where(better, found, at.residual), at.rounds + 1)

    def go_on(at: Path) -> Array:
        return (at.residual > 64 * epsilon) & (at.rounds < 40)

    ones = jnp.ones_like(cost)
    x = matrix.T @ solve(ones, right)
    price = solve(ones, matrix @ cost)
    slack = cost - matrix.T @ price
    x, slack = (one + jnp.maximum(-1.5 * jnp.min(one), 0.0) + 0.1 for one in (x, slack))
    found = jax.lax.while_loop(go_on, turn, Path(x, price, slack, x, jnp.full((), jnp.inf, cost.dtype), jnp.int32(0)))
    return Solution(found.best, found.residual)
