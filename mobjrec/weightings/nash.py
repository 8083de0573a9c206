"""Bargaining: each objective's gain is set by its weight. Nash-MTL and FairGrad, one equation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import check_rate, solving
from mobjrec.weightings.solvers import Solution, eliminated, nearest_point, residual


class Newton(NamedTuple):
    """log: [K], logarithms of the weights   residual, rounds: scalars"""

    log: Array
    residual: Array
    rounds: Array


def nash_mtl(max_norm: float | None = 1.0) -> Weighting:
    """Weights a > 0 with (G a)_k a_k = 1 for all k: the Nash bargaining solution. Navon et al. 2022 (Nash-MTL), eq. 4.

    Every objective gains, each loss's gain in proportion to how far it can come; the update is the same whatever
    positive factor a loss has. Before clipping |d|^2 = K; where |d| is above max_norm (null: never), d is scaled to it.
    Solved by damped Newton steps on log a: the authors' scheme sometimes returns its start. A gradient of 0 is left out.
    Where the gradients surround 0 (Pareto stationary) there is no solution, and near it weights grow without bound:
    where the equation is not met to 1 %, `mgda`'s weights stand in, whose step is 0 there. ValueError unless
    0 < max_norm < inf.
    """
    if max_norm is not None:
        check_rate("max_norm", max_norm)

    def solve(signals: Signals) -> Solution:
        found = fair_weights(signals.gram, signals.present, 1.0)
        weights, missed = found.weights, _missed(signals, found)
        if max_norm is not None:
            # |d|^2 is the sum of (G a)_k a_k, each of which is 1.
            length = jnp.sqrt(jnp.sum(weights > 0).astype(weights.dtype))
            clipped = weights * jnp.minimum(1.0, max_norm / jnp.maximum(length, 1.0))
            weights = jnp.where(found.residual <= LOOSE, clipped, weights)
        return Solution(weights, missed)

    return solving(solve)


def fairgrad(alpha: float = 2.0) -> Weighting:
    """Weights a > 0 with (G a)_k = a_k^(-1 / alpha) for all k: alpha-fair gains. Ban & Ji 2024 (FairGrad), eq. 6.

    alpha = 1 is Nash-MTL, unclipped; a large one makes the gains alike (max-min), alpha to 0 the weighted sum. Every
    objective gains. Solver, gradients of 0 and where there is no solution: as `nash_mtl`; the authors' least squares
    fail where gradients' lengths differ. ValueError unless 0 < alpha < inf.
    """
    check_rate("alpha", alpha)

    def solve(signals: Signals) -> Solution:
        found = fair_weights(signals.gram, signals.present, 1.0 / alpha)
        return Solution(found.weights, _missed(signals, found))

    return solving(solve)


# A weight equation met less well than this has no solution within the precision.
LOOSE = 1e-2


def fair_weights(gram: Array, present: Array, power: Array | float) -> Solution:
    """Weights a [K] with (G a)_k = a_k^-power over the present rows that are not 0; the residual is relative.

    The minimiser of a G a / 2 - sum_k a_k^(1 - power) / (1 - power), convex in a: Newton's step relative to a, shortened
    while it is long, in variables that make the matrix's diagonal the gains' shares. Where the residual stays above
    1 %: the nearest point's weights. All 0 where nothing is present.
    """
    count, tiny = len(gram), jnp.finfo(gram.dtype).tiny
    there = present & (jnp.diagonal(gram) > 0)
    length = jnp.sqrt(jnp.where(there, jnp.diagonal(gram), 1.0))
    cosines = jnp.where(there[:, None] & there[None, :], gram / length[:, None] / length[None, :], 0.0)
    cosines = jnp.where(jnp.eye(count, dtype=bool), there, cosines)
    longest = jnp.max(jnp.where(there, length, tiny))
    log_length = jnp.where(there, jnp.log(length / longest), 0.0)

    def parts(log: Array) -> tuple[Array, Array, Array]:
        """M = D^-1/2 A G A D^-1/2, q = D^1/2, and M q - q, for A = diag(a), D = diag(a^(1 - power))."""
        root = jnp.exp((1 - power) / 2 * log)
        size = jnp.exp(log_length + (1 + power) / 2 * log)
        matrix = cosines * size[:, None] * size[None, :]
        return matrix, root, jnp.where(there, matrix @ root - root, 0.0)

    def turn(at: Newton) -> Newton:
        matrix, root, slope = parts(at.log)
        step = -eliminated(matrix + power * jnp.eye(count, dtype=gram.dtype), slope[:, None])[:, 0] / root
        decrement = jnp.sqrt(jnp.sum(jnp.square(step)) * jnp.maximum(power, 1.0))
        share = jnp.where(decrement < 0.25, 1.0, 1.0 / (1.0 + decrement))
        log = jnp.where(there, at.log + jnp.log1p(share * step), 0.0)
        return Newton(log, _residual(parts(log)), at.rounds + 1)

    def go_on(at: Newton) -> Array:
        return (at.residual > 4 * count * jnp.finfo(gram.dtype).eps) & (at.rounds < 100)

    start = jnp.where(there, -2 / (1 + power) * log_length, 0.0)
    found = jax.lax.while_loop(go_on, turn, Newton(start, _residual(parts(start)), jnp.int32(0)))
    # Lengths were in units of the longest: G a = a^-power gives a its -2 / (1 + power)th power.
    weights = jnp.where(there, jnp.exp(found.log - 2 / (1 + power) * jnp.log(longest)), 0.0)
    residual = jnp.where(jnp.isfinite(found.residual), found.residual, jnp.inf)
    met = jnp.any(there) & (residual <= LOOSE) & jnp.all(jnp.isfinite(weights))
    return Solution(jnp.where(met, weights, nearest_point(gram, present).weights), residual)


def _missed(signals: Signals, found: Solution) -> Array:
    """The equation's residual; where gradients all but surround 0 and have no solution, that of the point that stands in."""
    squares = jnp.where(signals.present & (jnp.diagonal(signals.gram) > 0), jnp.diagonal(signals.gram), jnp.inf)
    stands = found.weights @ signals.gram @ found.weights <= 1e-3 * jnp.min(squares)
    stood = residual(signals.gram, signals.present, found.weights)
    return jnp.where((found.residual > LOOSE) & stands, stood, found.residual)


def _residual(parts: tuple[Array, Array, Array]) -> Array:
    _, root, slope = parts
    return jnp.max(jnp.abs(slope / root))
