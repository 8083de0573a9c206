"""Every weighting keeps its promises, and the suite notices when one does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import weightings
from mobjrec.testing import check_weighting
from mobjrec.testing.weightings import jacobians, signals
from mobjrec.types import Weighting
from mobjrec.weightings.given import solving
from mobjrec.weightings.solvers import Solution, residual

CLAIMS = {
    "static": {"scale_invariant"},
    "equal": {"scale_invariant"},
    "rlw": {"convex", "scale_invariant"},
    "uncertainty": set(),
    "imtl_l": set(),
    "dwa": {"scale_invariant"},
    "gls": {"scale_invariant"},
    "chebyshev": {"scale_invariant"},
    "smooth_chebyshev": set(),
    "famo": {"convex", "scale_invariant"},
    "constrained": set(),
    "preferred": {"convex", "scale_invariant"},
    "cosmos": set(),
    "gradnorm": set(),
    "pe_ltr": {"convex", "scale_invariant", "solved"},
    "pcgrad": {"scale_invariant"},
    "gradvac": {"scale_invariant"},
    "cagrad": {"scale_invariant", "solved"},
    "imtl_g": {"scale_invariant", "solved"},
    "config": {"scale_invariant", "solved"},
    "nash_mtl": {"non_conflicting", "scale_invariant", "solved"},
    "fairgrad": {"non_conflicting", "scale_invariant", "solved"},
    "aligned_mtl": {"scale_invariant", "solved"},
    "upgrad": {"non_conflicting", "scale_invariant", "solved"},
    "dualproj": {"non_conflicting", "scale_invariant", "solved"},
    "sdmgrad": {"convex", "scale_invariant", "solved"},
    "epo": {"convex", "solved"},
    "smoothed": {"scale_invariant", "solved"},
    "every": {"scale_invariant", "solved"},
    "normalised": {"scale_invariant"},
    "mgda": {"convex", "non_conflicting", "scale_invariant", "solved", "stationary"},
}
INFINITY = float("inf")
BUILT = {
    "static": lambda: weightings.static((1.0, 2.0, 0.0, 0.5)),
    "chebyshev": lambda: weightings.chebyshev((1.0, 2.0, 0.5, 0.5), share_of_all=0.1),
    "pe_ltr": lambda: weightings.pe_ltr((0.3, 0.1, 0.0, 0.2)),
    "upgrad": lambda: weightings.upgrad((1.0, 2.0, 0.5, 0.5)),
    "smoothed": lambda: weightings.smoothed(weightings.mgda()),
    "every": lambda: weightings.every(weightings.dualproj(), steps=3),
    "normalised": lambda: weightings.normalised(weightings.equal()),
    "constrained": lambda: weightings.constrained((INFINITY, 0.5, 1.5, INFINITY)),
}


@pytest.mark.parametrize("name", weightings.__all__)
def test_promises(name):
    check_weighting(BUILT.get(name, getattr(weightings, name))(), frozenset(CLAIMS[name]))


@pytest.mark.parametrize("name", weightings.__all__)
def test_a_loss_that_is_not_a_number_leaves_finite_weights_and_state(name):
    weighting = BUILT.get(name, getattr(weightings, name))()
    given = signals(weighting, jacobians()["plain"])
    gram = given.gram if given.gram is None else np.where(np.eye(4)[1] + np.eye(4)[:, [1]] > 0, np.nan, given.gram)
    given = given._replace(losses=np.where(np.arange(4) == 1, np.float32(np.nan), given.losses), gram=gram)
    weights, state = weighting.update(given, weighting.init(4))
    assert np.isfinite(weights).all() and weights[1] == 0 and np.any(np.delete(weights, 1) != 0)
    if weighting.observe is not None:
        state = weighting.observe(given.losses, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("normalise", ["norm", "loss", "loss_norm"])
def test_promises_of_mgda_on_normalised_gradients(normalise):
    check_weighting(weightings.mgda(normalise), frozenset({"convex", "scale_invariant"}))


@pytest.mark.parametrize("made", [
    lambda: weightings.normalised(weightings.upgrad(), by="log"),
    lambda: weightings.normalised(weightings.famo(), by="first"),
    lambda: weightings.every(weightings.famo(), steps=2),
    lambda: weightings.smoothed(weightings.uncertainty()),
])  # fmt: skip
def test_promises_of_weightings_inside_others(made):
    check_weighting(made(), frozenset())


def fixed(update, init=lambda count: ()):
    return Weighting(init, update, needs_gram=True)


def test_the_suite_notices_what_is_not_solved_and_what_reads_gradients_out_of_turn():
    lazy = solving(lambda given: nearest(given, given.present / jnp.maximum(given.present.sum(), 1)))
    check_weighting(lazy)
    for weighting, complaint in (
        (lazy, "not solved, the residual is 0"),
        (weightings.equal(), "claims to be solved, but has no residual"),
        (lazy._replace(residual=lambda state: state + 2), r"the residual is 2\.\d+, not a number from 0 to 1"),
        (lazy._replace(due=lambda signals, state: False), "not due, but the Gram matrix has an influence"),
    ):
        with pytest.raises(AssertionError, match=complaint):
            check_weighting(weighting, frozenset({"solved"} if "solved" in complaint else ()))


def nearest(given, weights):
    return Solution(weights, residual(given.gram, given.present, weights))


def present_only(signals, weights):
    return jnp.where(signals.present, weights, 0.0)


BROKEN = {
    "not finite": (lambda s, t: (present_only(s, 1.0 / jnp.diagonal(s.gram)), t), set()),
    "absent objective has the weight": (lambda s, t: (jnp.ones(4), t), set()),
    "changes the weights": (lambda s, t: (present_only(s, jnp.nan_to_num(jnp.full(4, jnp.sum(s.losses)))), t), set()),
    "state changed": (lambda s, t: (present_only(s, jnp.ones(4)), t + 1.0), set()),
    "objective's state changed": (lambda s, t: (present_only(s, jnp.ones(4)), 0.9 * t + s.present), set()),
    "changed its form": (lambda s, t: (present_only(s, jnp.ones(4)), (t, t)), set()),
    "not convex": (lambda s, t: (present_only(s, jnp.ones(4)), t), {"convex"}),
    "hurts": (lambda s, t: (present_only(s, jnp.ones(4)), t), {"non_conflicting"}),
    "factor": (lambda s, t: (present_only(s, jnp.exp(-jnp.abs(jnp.nan_to_num(s.losses)))), t), {"scale_invariant"}),
    "stationary": (lambda s, t: (present_only(s, jnp.ones(4)), t), {"stationary"}),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_the_suite_notices(complaint):
    update, claims = BROKEN[complaint]
    with pytest.raises(AssertionError, match=complaint):
        check_weighting(fixed(update, lambda count: jnp.zeros(count)), frozenset(claims))


def test_an_unknown_claim_is_named():
    with pytest.raises(ValueError, match="no claim monotone; there are convex"):
        check_weighting(weightings.equal(), frozenset({"monotone"}))
