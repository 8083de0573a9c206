"""The few small exact solvers that weightings share: fixed shapes, inside jit and vmap, scale-free."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array


class Solution(NamedTuple):
    """weights: [K]   residual: how far from optimal, 0 at the optimum, in units of the largest squared norm"""

    weights: Array
    residual: Array


class Unit(NamedTuple):
    """Rows g_k made u_k = g_k / n_k of length 1, so that no row drowns in another's rounding.

    cosines: [K, K]   price: [K], the shortest row's length over n_k; a point sum_k v_k u_k of the hull, in lengths of the
    shortest row, has price . v = 1 and weights price * v
    """

    cosines: Array
    price: Array


class Corral(NamedTuple):
    """Wolfe's state. point: [K], >= 0   inside: [K] bool, rows it may use   seek: a new row is due"""

    point: Array
    inside: Array
    seek: Array
    done: Array
    rounds: Array


def nearest_point(gram: Array, present: Array) -> Solution:
    """Weights of the point nearest to 0 in the convex hull of the present rows. Wolfe 1976, the active-set method.

    gram [K, K], present [K] bool. Weights are >= 0, sum to 1, and are 0 where absent; all absent: all 0. Optimal where
    g_k . d >= |d|^2 for all present k, d being the point; the residual is the largest violation. Unlike there, rows are
    divided by their lengths, for norms from 1e-4 to 1e4 lost all digits. Frank-Wolfe, the usual choice, is 0.06-15 %
    off after 100 steps on ordinary matrices.
    """
    count = len(gram)
    gram = jnp.where(present[:, None] & present[None, :], gram, 0.0)
    squares = jnp.where(present, jnp.diagonal(gram), jnp.inf)
    shortest = jnp.argmin(squares)
    rows = unit_rows(gram, present)
    # A row of 0 is the answer itself.
    solved = ~jnp.any(present) | ~(squares[shortest] > 0)

    def violation(point: Array, inside: Array) -> Array:
        slope = rows.cosines @ point
        below = rows.price * (point @ slope) - slope - rounding(rows.cosines, point)
        return jnp.where(present, below, -jnp.inf)

    def whole(point: Array) -> Array:
        return point / jnp.sum(rows.price * point)

    start = jax.nn.one_hot(shortest, count, dtype=gram.dtype)
    point = active_set(start, solved, violation, lambda inside: affine_point(rows, inside), whole)
    weights = jnp.where(jnp.any(present), jnp.where(solved, start, rows.price * point), 0.0)
    return Solution(weights, residual(gram, present, weights))


def shifted_point(gram: Array, present: Array, own: Array | float, shift: Array) -> Solution:
    """Weights v [K] of the point nearest to 0 in the hull of own * g_k + sum_j shift_j g_j. shift [K], 0 where absent."""
    rows = own * jnp.eye(len(gram), dtype=gram.dtype) + shift[None, :]
    return nearest_point(rows @ gram @ rows.T, present)


def cone_point(cosines: Array, present: Array, start: Array) -> Array:
    """y [K] >= 0 such that x = sum_k (start_k + y_k) u_k is nearest to sum_k start_k u_k of all x with u_k . x >= 0.

    The projection on the dual cone of the present unit rows u_k, which have these cosines [K, K]; 0 where absent.
    Lawson & Hanson 1974, chapter 23: at the solution y_k is 0 or u_k . x is.
    """
    target = cosines @ start

    def violation(point: Array, inside: Array) -> Array:
        below = -(cosines @ point + target) - rounding(cosines, point) - rounding(cosines, start)
        # A row that depends on those inside has the product 0 that they have; what is seen of it is their rounding.
        mixes = eliminated(bounded(cosines, inside), jnp.where(inside[:, None], cosines, 0.0))
        mixes = jnp.eye(len(start), dtype=start.dtype) - jnp.where(inside[:, None], mixes, 0.0)
        apart = jnp.sum(mixes * (cosines @ mixes), axis=0)
        forgiven = jnp.sum(jnp.abs(mixes) * rounding(cosines, mixes), axis=0)
        return jnp.where(present & (inside | (apart > forgiven)), below, -jnp.inf)

    def free_point(inside: Array) -> Array:
        best = eliminated(bounded(cosines, inside), jnp.where(inside, -target, 0.0)[:, None])
        return jnp.where(inside, best[:, 0], 0.0)

    return active_set(jnp.zeros_like(start), jnp.zeros((), bool), violation, free_point, lambda point: point)


def cone_residual(cosines: Array, present: Array, start: Array, point: Array) -> Array:
    """How far y = `point` is from `cone_point`'s condition, that y_k or u_k . x is 0 and the other >= 0, over |x|'s parts."""
    size = jnp.sum(jnp.abs(start) + jnp.abs(point))
    missed = jnp.abs(jnp.minimum(point, cosines @ (start + point)))
    return jnp.max(jnp.where(present, missed, 0.0)) / jnp.where(size > 0, size, 1.0)


def rounding(cosines: Array, point: Array) -> Array:
    """[K], how far a product of rows with the point may be off by rounding alone."""
    return 8 * len(point) * jnp.finfo(point.dtype).eps * (jnp.abs(cosines) @ jnp.abs(point))


def active_set(
    start: Array,
    solved: Array,
    violation: Callable[[Array, Array], Array],
    optimum: Callable[[Array], Array],
    whole: Callable[[Array], Array],
) -> Array:
    """The point [K] >= 0 that no row violates, from `start` on: rows come in one by one, and go where they turn negative.

    violation: (point, rows inside) -> [K], by how much a row asks to come in, <= 0 where it does not   optimum: rows
    inside [K] -> the best point of these rows alone, entries of any sign   whole: what holds of a point is made to hold
    again. Rows inside that depend on each other by rounding end it, at the point so far.
    """
    count = len(start)

    def add(at: Corral) -> Corral:
        gap = violation(at.point, at.inside)
        fresh = jax.nn.one_hot(jnp.argmax(jnp.where(at.inside, -jnp.inf, gap)), count, dtype=bool)
        done = ~jnp.any(fresh & (gap > 0))
        return at._replace(inside=jnp.where(done, at.inside, at.inside | fresh), seek=done, done=done)

    def shrink(at: Corral) -> Corral:
        best = optimum(at.inside)
        falls = at.inside & (best <= 0)
        room = jnp.where(falls, at.point / jnp.where(falls & (at.point > best), at.point - best, 1.0), jnp.inf)
        stays = ~jnp.any(falls)
        share = jnp.where(stays, 1.0, jnp.clip(jnp.min(room), 0.0, 1.0))
        inside = at.inside & ~(falls & (room <= jnp.min(room)))
        point = jnp.where(inside, jnp.maximum(at.point + share * (best - at.point), 0.0), 0.0)
        moved = at._replace(point=whole(point), inside=inside, seek=stays)
        sound = jnp.all(jnp.isfinite(moved.point))
        return jax.tree.map(lambda new, old: jnp.where(sound, new, old), moved, at._replace(done=jnp.ones((), bool)))

    def go_on(at: Corral) -> Array:
        return ~at.done & (at.rounds < 6 * count + 20)

    def turn(at: Corral) -> Corral:
        return jax.lax.cond(at.seek, add, shrink, at)._replace(rounds=at.rounds + 1)

    first = Corral(start, start > 0, jnp.ones((), bool), solved, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(go_on, turn, first).point


def residual(gram: Array, present: Array, weights: Array) -> Array:
    """The largest |d|^2 - g_k . d of the present rows, at least 0, in units of the largest squared norm."""
    scale = jnp.max(jnp.where(present, jnp.diagonal(gram), 0.0))
    slope = (gram / jnp.where(scale > 0, scale, 1.0)) @ weights
    return jnp.max(jnp.where(present, jnp.maximum(weights @ slope - slope, 0.0), 0.0))


def unit_rows(gram: Array, present: Array) -> Unit:
    """Cosines and price of the present rows; an absent row or one of 0 has no cosine and price 1."""
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
    there = present & (length > 0)
    inverse = jnp.where(there, 1.0 / jnp.where(there, length, 1.0), 0.0)
    price = jnp.min(jnp.where(there, length, jnp.inf)) * inverse
    # One factor after the other: their product may overflow.
    return Unit(gram * inverse[:, None] * inverse[None, :], jnp.where(there, price, 1.0))


def affine_point(rows: Unit, inside: Array) -> Array:
    """The point nearest to 0 in the affine hull of the rows inside, [K]: parts may be negative, price . v = 1."""
    count = len(rows.price)
    matrix = bounded(rows.cosines, inside)
    border = jnp.where(inside, rows.price, 0.0)
    system = jnp.block([[matrix, border[:, None]], [border[None, :], jnp.zeros((1, 1), rows.price.dtype)]])
    right = jnp.zeros(count + 1, rows.price.dtype).at[count].set(1.0)
    return jnp.where(inside, jnp.linalg.solve(system, right)[:count], 0.0)


def bounded(cosines: Array, inside: Array) -> Array:
    """The cosines of the rows inside; an identity for the others."""
    both = inside[:, None] & inside[None, :]
    return jnp.where(both, cosines, 0.0) + jnp.diag(jnp.where(inside, 0.0, 1.0))


def eliminated(matrix: Array, right: Array) -> Array:
    """X of matrix @ X = right, [K, K] positive definite and [K, N]: Gauss and Jordan, without pivots.

    LAPACK is called once a matrix of a batch, which costs a vmapped solver of small systems most of its time.
    """
    count = len(matrix)

    def turn(at: Array, row: Array) -> tuple[Array, None]:
        own = jnp.arange(count) == row
        lead = at[row] / at[row, row]
        return jnp.where(own[:, None], lead[None, :], at - at[:, row, None] * lead[None, :]), None

    done, _ = jax.lax.scan(turn, jnp.concatenate([matrix, right], axis=1), jnp.arange(count))
    return done[:, count:]
