"""Exact preferences: a Pareto-stationary point at which preferred losses are all the same."""

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_rate, preferring, shares, solving
from mobjrec.weightings.linear import linear_program
from mobjrec.weightings.solvers import Solution, nearest_point


def epo(preference: PerObjective = (), tolerance: float = 1e-4) -> Weighting:
    """Weights that lead to the front's point with r_1 L_1 = ... = r_K L_K. Mahapatra & Rajan 2020 (EPO), algorithm 2.

    r is the preference over its sum, the step's where none is set, else all alike: a preferred objective ends with the
    smaller loss. While the r_k L_k are uneven (their divergence from even shares is above `tolerance`), the linear
    program of balance: the weights, of the sum 1, whose direction evens them out the most while no objective that this
    lets rise rises more than it must, and the worst never; then the one of descent, where none rises and all fall the
    most together. The official code's two programs, solved to rounding; where a program has no solution, `mgda`'s
    weights. An objective of preference 0 is left out: no ray says where it should end. Needs losses above 0. Invariant to a
    factor on all losses. Breaks where the ray misses the front, and far
    off the ray: where one objective dominates, the balance undoes each step. ValueError unless preferences are one an
    objective, finite, not negative nor all 0, and 0 < tolerance < inf.
    """
    check_rate("tolerance", tolerance)

    def solve(signals: Signals) -> Solution:
        wish = shares(preference, signals)
        there = signals.present & (wish > 0)
        gram = jnp.where(there[:, None] & there[None, :], signals.gram, 0.0)
        return epo_weights(gram, there, jnp.where(there, signals.losses, 1.0), wish, tolerance)

    return solving(solve, preferring(preference), needs_positive=True)


def epo_weights(gram: Array, present: Array, losses: Array, wish: Array, tolerance: Array | float) -> Solution:
    """[K] weights for the preference `wish` [K], which is 0 where absent."""
    largest = jnp.max(jnp.diagonal(gram))
    gram = gram / jnp.where(largest > 0, largest, 1.0)
    uneven, anchor = adjustment(present, losses, wish)
    gains = gram @ anchor
    size = jnp.max(jnp.abs(gains))
    unit = gains / jnp.where(size > 0, size, 1.0)
    balance = uneven > tolerance
    worst = present & (wish * losses >= jnp.max(jnp.where(present, wish * losses, 0.0)))
    # -2 bounds nothing: no product of the scaled rows is below -1.
    bounds = jnp.where(gains > 0, -2.0, gains)
    bounds = jnp.where(jnp.any(gains > 0), jnp.where(worst, 0.0, bounds), 0.0)
    bounds = jnp.where(present, jnp.where(balance, bounds, 0.0), -2.0)
    restricted = jnp.where(balance, -2.0, jnp.minimum(jnp.max(jnp.where(present, unit, -jnp.inf)), 0.0))
    aim = jnp.where(balance, unit, jnp.sum(gram, axis=0))

    count, identity = len(gram), jnp.eye(len(gram), dtype=gram.dtype)
    side = jnp.zeros((count, 1), gram.dtype)
    matrix = jnp.block([
        [gram, -identity, side],
        [unit[None, :], jnp.zeros((1, count), gram.dtype), -jnp.ones((1, 1), gram.dtype)],
        [present.astype(gram.dtype)[None, :], jnp.zeros((1, count + 1), gram.dtype)],
    ])  # fmt: skip
    # An absent objective's weight costs and buys nothing.
    cost = jnp.concatenate([jnp.where(present, -aim, 1.0), jnp.zeros(count + 1, gram.dtype)])
    found = linear_program(cost, matrix, jnp.concatenate([bounds, restricted[None], jnp.ones(1, gram.dtype)]))
    weights = jnp.where(present, found.weights[:count], 0.0)
    met = found.residual <= jnp.sqrt(jnp.finfo(gram.dtype).eps)
    return Solution(jnp.where(met, weights, nearest_point(gram, present).weights), found.residual)


def adjustment(present: Array, losses: Array, wish: Array) -> tuple[Array, Array]:
    """How uneven the r_k L_k are, as a divergence from equal shares, and the anchor [K] that evens them. Section 3.2."""
    count = jnp.maximum(jnp.sum(present), 1)
    weighted = jnp.where(present, jnp.maximum(wish * losses, 0.0), 0.0)
    total = jnp.sum(weighted)
    share = jnp.where(present, jnp.maximum(weighted / jnp.where(total > 0, total, 1.0), 1e-12), 1.0)
    logs = jnp.log(share * count)
    # Shares that are even but for rounding have no anchor: its direction would be noise.
    logs = jnp.where(present & (jnp.abs(logs) > 16 * jnp.finfo(losses.dtype).eps), logs, 0.0)
    uneven = jnp.sum(jnp.where(present, share * logs, 0.0))
    return uneven, jnp.where(present, wish * (logs - uneven), 0.0)
