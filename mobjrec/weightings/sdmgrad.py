"""Between the mean gradient and the one that helps the least helped objective most."""

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_at_least_0, preferring, shares, solving
from mobjrec.weightings.solvers import Solution, shifted_point


def sdmgrad(pull: float = 0.3, preference: PerObjective = ()) -> Weighting:
    """Weights between `mgda`'s and the mean's, as far apart as `pull` says. Xiao, Ban & Ji 2023 (SDMGrad), eq. 4.

    (v + pull p) / (1 + pull), v the hull's weights that make sum_k v_k g_k + pull g_p shortest, with the gradients of
    one batch and the inner problem solved.
    g_p is the preferred mean (`preference` over its sum, the step's if none is set, else all alike). pull, lambda in
    the paper: 0 is `mgda`, a large one the mean. It may hurt an objective. The paper's inner loop of 20 steps at the
    rate 10 swings around this solution. Invariant to one factor on all losses. Breaks like `mgda` where gradients'
    lengths differ. ValueError unless 0 <= pull < inf and preferences are one an objective, finite, not negative nor
    all 0.
    """
    check_at_least_0("pull", pull)

    def solve(signals: Signals) -> Solution:
        return sdmgrad_weights(signals.gram, signals.present, shares(preference, signals), pull)

    return solving(solve, preferring(preference))


def sdmgrad_weights(gram: Array, present: Array, preference: Array, pull: Array | float) -> Solution:
    """[K] weights that sum to 1."""
    found = shifted_point(gram, present, 1.0, pull * preference)
    return found._replace(weights=(found.weights + pull * preference) / (1.0 + pull))
