"""Directions that hurt no objective: projections on the cone of those that do not."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import preferring, shares, solving
from mobjrec.weightings.solvers import Solution, cone_point, cone_residual, unit_rows


def upgrad(preference: PerObjective = ()) -> Weighting:
    """Weights of the mean of all gradients, each projected on {d: g_k . d >= 0 for all k}. Quinton & Rey 2024.

    No objective gets worse to first order; where no two gradients conflict it is the mean; each objective's part grows
    in proportion to its gradient; a gradient of 0 contributes nothing and stops nobody. preference: the share of each
    in the mean, the step's if none is set, else all alike. Solved exactly on unit gradients: the authors' code adds
    1e-4 of the trace to the Gram matrix, which lets small gradients be hurt by large ones, and takes the mean where
    all gradients are small. Invariant to one factor on all losses. Breaks as every method that follows unequal scales:
    the larger gradient still decides where there is no conflict. ValueError unless preferences are one an objective,
    finite, not negative nor all 0.
    """
    return _projected(preference, upgrad_weights)


def dualproj(preference: PerObjective = ()) -> Weighting:
    """Weights of the mean gradient projected on {d: g_k . d >= 0 for all k}. Lopez-Paz & Ranzato 2017 (as GEM).

    The nearest direction to the mean that hurts no objective to first order, so the mean itself where that hurts none.
    preference, invariance and ValueError as `upgrad`; a long gradient that all others conflict with pulls the mean
    along.
    """
    return _projected(preference, dualproj_weights)


def _projected(preference: PerObjective, project: Callable[[Array, Array, Array], Solution]) -> Weighting:
    def solve(signals: Signals) -> Solution:
        return project(signals.gram, signals.present, shares(preference, signals))

    return solving(solve, preferring(preference))


def upgrad_weights(gram: Array, present: Array, preference: Array) -> Solution:
    """[K] weights of the preferred mean of the projected gradients."""
    rows = unit_rows(gram, present)
    inverse, length = _lengths(gram)
    each, missed = jax.vmap(lambda one: _cone(rows.cosines, present, one))(jnp.eye(len(gram), dtype=gram.dtype))
    residual = jnp.max(jnp.where(present, missed, 0.0))
    return Solution(preference + ((preference * length) @ each) * inverse, residual)


def dualproj_weights(gram: Array, present: Array, preference: Array) -> Solution:
    """[K] weights of the projected preferred mean of the gradients."""
    rows = unit_rows(gram, present)
    inverse, length = _lengths(gram)
    point, residual = _cone(rows.cosines, present, preference * length)
    return Solution(preference + point * inverse, residual)


def _cone(cosines: Array, present: Array, start: Array) -> Solution:
    point = cone_point(cosines, present, start)
    return Solution(point, cone_residual(cosines, present, start, point))


def _lengths(gram: Array) -> tuple[Array, Array]:
    """1 / length (0 for a row of 0) and the length of each row, in units of the longest."""
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
    longest = jnp.max(length)
    length = length / jnp.where(longest > 0, longest, 1.0)
    return jnp.where(length > 0, 1.0 / jnp.where(length > 0, length, 1.0), 0.0), length
