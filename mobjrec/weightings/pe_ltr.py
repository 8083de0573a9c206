"""The shortest vector of the gradients' hull, no objective below its bound."""

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_numbers, solving
from mobjrec.weightings.solvers import Solution, shifted_point


def pe_ltr(lower: PerObjective) -> Weighting:
    """Weights of the shortest sum_k w_k g_k with w_k >= c_k and sum w = 1. Lin et al. 2019 (PE-LTR), eq. 7.

    c is `lower`: all 0 is `mgda`, bounds that sum to 1 are fixed weights. The problem as the paper states it, solved
    exactly; the paper's algorithm solves it without the bounds and projects, which is another point. A limit is Pareto
    stationary for weights of at least c. It may hurt an objective. Bounds of absent objectives are left out. Invariant to
    one factor on all losses; breaks like `mgda` where gradients' lengths differ. ValueError unless there is one bound per
    objective, none negative, and they sum to at most 1.
    """
    check_numbers("lower", lower)
    # Three thirds of a config may sum to a little more.
    if sum(lower) > 1 + 1e-6:
        raise ValueError(f"lower is {tuple(lower)}, which sums to {sum(lower):g}; lower bounds must sum to at most 1")

    def fits(count: int) -> None:
        if len(lower) != count:
            raise ValueError(f"lower has {len(lower)} entries for {count} objectives")

    def solve(signals: Signals) -> Solution:
        return pe_ltr_weights(signals.gram, signals.present, jnp.asarray(lower, signals.losses.dtype))

    return solving(solve, fits)


def pe_ltr_weights(gram: Array, present: Array, lower: Array) -> Solution:
    """[K] weights of the present objectives >= lower [K], which sum to 1."""
    least = jnp.where(present, lower, 0.0)
    rest = jnp.maximum(1.0 - jnp.sum(least), 0.0)
    found = shifted_point(gram, present, rest, least)
    return found._replace(weights=least + rest * found.weights)
