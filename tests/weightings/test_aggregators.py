"""Weightings of the Gram matrix against published exact values: one compilation a method and precision.

All matrices of a method are stacked to eight objectives, those they do not have being absent.
"""

import json
from functools import cache
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import weightings
from mobjrec.types import Signals
from mobjrec.weightings.aligned_mtl import aligned_weights
from mobjrec.weightings.cagrad import cagrad_weights
from mobjrec.weightings.dual_cone import dualproj_weights, upgrad_weights
from mobjrec.weightings.epo import adjustment, epo_weights
from mobjrec.weightings.equal_angles import config_weights, imtl_g_weights
from mobjrec.weightings.linear import linear_program
from mobjrec.weightings.nash import fair_weights
from mobjrec.weightings.pcgrad import gradvac_weights, pcgrad_weights
from mobjrec.weightings.pcgrad import orders as draw
from mobjrec.weightings.pe_ltr import pe_ltr_weights
from mobjrec.weightings.sdmgrad import sdmgrad_weights

# A program for every method: proofs, run in CI by name.
pytestmark = pytest.mark.slow

COUNT = 8
PLAIN = ("well_", "conflict_", "positive_", "large_", "ortho")


@pytest.fixture(scope="module")
def book(shared):
    return json.loads((shared / "reference" / "aggregators.json").read_text())


def filled(values):
    return np.concatenate([values, np.zeros(COUNT - len(values))])


def preference(entry, count):
    given = entry["params"].get("pref", "uniform")
    return filled(np.full(count, 1 / count) if isinstance(given, str) else given)


def orders(entry, count):
    """[COUNT, COUNT]: the entry's own order of the others first, then who is absent or oneself."""
    own = entry["params"]["orders"] + [[]] * (COUNT - count)
    return np.array([[*one, *(k for k in range(COUNT) if k not in one)] for one in own])


def number(key, default):
    return lambda entry, count: np.float64(entry["params"].get(key, default))


def bounds(entry, count):
    return filled(entry["params"]["c"])


def vaccinated(gram, present, orders, second):
    weights, cosine = gradvac_weights(gram, present, orders, jnp.zeros_like(gram), 0.5)
    again, _ = gradvac_weights(gram, present, orders, cosine, 0.5)
    return jnp.where(second == 2, again, weights)


def fair(gram, present, alpha, most):
    """Nash-MTL is alpha = 1; |d|^2 is then the number of objectives."""
    weights = fair_weights(gram, present, 1 / alpha).weights
    return weights * jnp.where(most > 0, most / jnp.sqrt(jnp.sum(present)), 1.0)


def aligned(scale):
    return lambda gram, present, wish: aligned_weights(gram, present, wish, scale)


# What solves a method's entries, what it reads of an entry, and which entries are its own.
METHODS = {
    "MGDA_lower_bounds": (pe_ltr_weights, [bounds], lambda e: True),
    "PCGrad": (pcgrad_weights, [orders], lambda e: isinstance(e["params"]["orders"], list)),
    "GradVac": (vaccinated, [orders, number("call", 1)], lambda e: True),
    "CAGrad": (cagrad_weights, [number("c", None)], lambda e: True),
    "IMTLG": (imtl_g_weights, [], lambda e: e["equal_projections"]),
    "NashMTL": (fair, [number("alpha", 1), number("max_norm", 0)], lambda e: True),
    "FairGrad": (fair, [number("alpha", 1), number("max_norm", 0)], lambda e: True),
    "AlignedMTL_min": (aligned("min"), [preference], lambda e: e["params"]["scale_mode"] == "min"),
    "AlignedMTL_median": (aligned("median"), [preference], lambda e: e["params"]["scale_mode"] == "median"),
    "AlignedMTL_rmse": (aligned("rmse"), [preference], lambda e: e["params"]["scale_mode"] == "rmse"),
    "UPGrad": (upgrad_weights, [preference], lambda e: True),
    "DualProj": (dualproj_weights, [preference], lambda e: True),
    "ConFIG": (config_weights, [], lambda e: True),
    "SDMGrad_limit": (sdmgrad_weights, [preference, number("lam", None)], lambda e: True),
}
# Where the Gram matrix in 64 bits no longer holds what the answer needs: |d| is 1e-6 of the rows and its square is
# rounding, or singular values are 1e8 apart. What is allowed there, in units of the longest row and of the answer.
LOST = {("NashMTL", "nearly_stationary_k3"): (1e-3, 0), ("FairGrad", "nearly_stationary_k3"): (1e-3, 0.5)}
LOST |= {(f"AlignedMTL_{s}", m): (1e-5, 0) for s in ("median", "rmse") for m in ("nearly_stationary_k3", "scales_k5")}


def entries_of(book, method):
    own = METHODS[method][2]
    name = method if method in ("MGDA_lower_bounds", "SDMGrad_limit") else method.split("_")[0]
    return [e for e in book["entries"] if (e["method"], e["kind"]) == (name, "exact") and own(e)]


@cache
def compiled(method):
    return jax.jit(jax.vmap(METHODS[method][0]))


def solved(book, method, dtype):
    """The method's entries, their Jacobians, and the weights of each."""
    entries = entries_of(book, method)
    jacobians = [np.array(book["matrices"][e["matrix"]]["J"], np.float64) for e in entries]
    grams, present = np.zeros((len(entries), COUNT, COUNT)), np.zeros((len(entries), COUNT), bool)
    for place, jacobian in enumerate(jacobians):
        count = len(jacobian)
        grams[place, :count, :count], present[place, :count] = jacobian @ jacobian.T, True
    read = [np.stack([one(e, len(j)) for e, j in zip(entries, jacobians, strict=True)]) for one in METHODS[method][1]]
    read = [np.asarray(one, dtype) if one.dtype.kind == "f" else one for one in read]
    found = compiled(method)(grams.astype(dtype), present, *read)
    weights = np.asarray(getattr(found, "weights", found))
    # Far below what counts as not solved; its |d| is 1e-6 of the rows, and the square of that is rounding.
    sizes = np.where([e["matrix"] == "nearly_stationary_k3" for e in entries], 1e-6, 1e-10)
    assert np.all(getattr(found, "residual", 0.0) <= (sizes if dtype == np.float64 else 1e-4))
    assert np.isfinite(weights).all() and (weights[~present] == 0).all()
    return entries, jacobians, [w[: len(j)].astype(np.float64) for w, j in zip(weights, jacobians, strict=True)]


def as_good(entry, jacobian, weights):
    """CAGrad's rule where the best direction is not unique, or better known than in the entry."""
    mean, found, c = jacobian.mean(0), weights @ jacobian, entry["params"]["c"]
    best = entry.get("optimal_value")
    best = (jacobian @ (np.array(entry["weights"]) @ jacobian)).min() if best is None else best
    inside = np.linalg.norm(found - mean) <= c * np.linalg.norm(mean) * (1 + 1e-6)
    return inside and (jacobian @ found).min() >= best - 1e-6 * (jacobian**2).sum(1).max()


@pytest.mark.parametrize("method", METHODS)
def test_published_directions_in_64_bit(book, method):
    with jax.enable_x64(True):
        entries, jacobians, solutions = solved(book, method, np.float64)
    assert len(entries) >= 30
    for entry, jacobian, weights in zip(entries, jacobians, solutions, strict=True):
        if entry.get("undefined") or (method == "CAGrad" and as_good(entry, jacobian, weights)):
            continue
        wanted = np.array(entry["vector"] if "vector" in entry else np.array(entry["weights"]) @ jacobian)
        error, at = np.linalg.norm(weights @ jacobian - wanted), (method, entry["matrix"])
        if at in LOST:
            longest, length = np.linalg.norm(jacobian, axis=1).max(), np.linalg.norm(wanted)
            allowed = LOST[at][0] * longest + LOST[at][1] * length
            assert error <= allowed, (at, entry["params"], error)
            continue
        assert error <= entry["tol_vector"], (at, entry["params"], error)
        if entry.get("weights_unique"):
            assert np.linalg.norm(weights - entry["weights"]) <= entry["tol_weights"], (at, entry["params"])


@pytest.mark.parametrize("method", METHODS)
def test_published_directions_in_32_bit(book, method):
    entries, jacobians, solutions = solved(book, method, np.float32)
    for entry, jacobian, weights in zip(entries, jacobians, solutions, strict=True):
        if not entry["matrix"].startswith(PLAIN):
            continue
        wanted = np.array(entry["vector"] if "vector" in entry else np.array(entry["weights"]) @ jacobian)
        error = np.linalg.norm(weights @ jacobian - wanted) / np.linalg.norm(jacobian, axis=1).max()
        assert error < 1e-3, (entry["matrix"], entry["params"], error)


def test_the_mean_over_all_orders_of_pcgrad_is_the_published_one(book):
    entries = [e for e in book["entries"] if e["method"] == "PCGrad" and e["kind"] == "exact"]
    entries = [e for e in entries if isinstance(e["params"]["orders"], str)]
    assert entries
    with jax.enable_x64(True):
        for entry in entries:
            jacobian = np.array(book["matrices"][entry["matrix"]]["J"])
            count = len(jacobian)
            gram = np.zeros((COUNT, COUNT))
            gram[:count, :count] = jacobian @ jacobian.T
            # Each gradient's order is drawn apart, so the mean over one order for all is the mean over all.
            drawn = [[*one, *range(count, COUNT)] for one in permutations(range(count))]
            drawn = np.stack([np.broadcast_to(one, (COUNT, COUNT)) for one in drawn])
            solve = jax.jit(jax.vmap(pcgrad_weights, in_axes=(None, None, 0)))
            weights = np.asarray(solve(gram, np.arange(COUNT) < count, drawn)).mean(0)[:count]
            assert np.linalg.norm(weights @ jacobian - entry["vector"]) <= entry["tol_vector"]


def preferred(book):
    """EPO's entries, and weights, anchors and how uneven the losses are, of each."""
    entries = [e for e in book["entries"] if (e["method"], e["kind"]) == ("EPO", "exact")]
    jacobians = [np.array(book["matrices"][e["matrix"]]["J"]) for e in entries]
    grams, present = np.zeros((len(entries), COUNT, COUNT)), np.zeros((len(entries), COUNT), bool)
    for place, jacobian in enumerate(jacobians):
        count = len(jacobian)
        grams[place, :count, :count], present[place, :count] = jacobian @ jacobian.T, True
    losses, wish = (np.stack([filled(e["params"][key]) for e in entries]) for key in ("losses", "preference"))
    return entries, jacobians, (grams, present, losses, wish)


@pytest.mark.parametrize("dtype, allowed", [(np.float64, 1e-8), (np.float32, 1e-4)])
def test_published_programs_of_exact_preferences(book, dtype, allowed):
    entries, jacobians, given = preferred(book)
    with jax.enable_x64(dtype == np.float64):
        given = [one if one.dtype == bool else one.astype(dtype) for one in given]
        solve = jax.jit(jax.vmap(lambda *one: (epo_weights(*one, 1e-4), adjustment(*one[1:]))))
        solutions, (uneven, anchors) = jax.tree.map(np.asarray, solve(*given))
    assert len(entries) == 88
    for entry, jacobian, row, mu, anchor in zip(entries, jacobians, solutions.weights, uneven, anchors, strict=True):
        count, weights = len(jacobian), row[: len(jacobian)].astype(np.float64)
        gram = jacobian @ jacobian.T / (jacobian**2).sum(1).max()
        np.testing.assert_allclose(mu, entry["mu"], atol=allowed)
        np.testing.assert_allclose(anchor[:count], entry["anchor"], atol=allowed)
        balance, gains = entry["mode"] == "balance", gram @ np.array(entry["anchor"])
        objective = weights @ gains if balance else (gram @ weights).sum()
        assert abs(objective - entry["lp_objective"]) < allowed, (entry["matrix"], entry["mode"], objective)
        weighted = np.array(entry["params"]["losses"]) * np.array(entry["params"]["preference"])
        bounds = np.where(gains > 0, -2.0, gains) if balance and (gains > 0).any() else np.zeros(count)
        bounds = np.where(balance & (weighted >= weighted.max()), 0.0, bounds)
        assert (gram @ weights >= bounds - allowed).all() and abs(weights.sum() - 1) < allowed
        assert (weights >= 0).all() and (row[count:] == 0).all()


def test_a_program_without_a_solution_is_told_by_its_residual():
    cost, matrix = np.float32([1.0, 2.0, 0.0]), np.float32([[1.0, 1.0, 0.0], [1.0, 0.0, -1.0]])
    solve = jax.jit(linear_program)
    # The weight of the cheaper one is at least 1/4; all of it is best.
    found = solve(cost, matrix, np.float32([1.0, 0.25]))
    np.testing.assert_allclose(found.weights, [1.0, 0.0, 0.75], atol=1e-5)
    assert found.residual < 1e-5
    assert solve(cost, matrix, np.float32([1.0, 2.0])).residual > 1e-2


def test_orders_are_permutations_drawn_from_the_key():
    first, again, other = (np.asarray(draw(jax.random.key(key), 6)) for key in (0, 0, 1))
    np.testing.assert_array_equal(np.sort(first, axis=1), np.broadcast_to(np.arange(6), (6, 6)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any() and len({tuple(one) for one in first}) > 1


def given(jacobian, losses=None, present=None):
    rows = np.asarray(jacobian)
    losses = np.ones(len(rows), rows.dtype) if losses is None else np.asarray(losses)
    present = np.ones(len(rows), bool) if present is None else np.array(present)
    zero = np.int32(0)
    return Signals(losses, present, rows @ rows.T, None, zero, zero, jax.random.key(0))


def test_published_steps_of_gradvac(book):
    sequences = [(s, r) for s in book["sequences"] for r in s["results"] if r["method"] == "GradVac" and "tol" in r]
    assert sequences
    with jax.enable_x64(True):
        for sequence, result in sequences:
            weighting = weightings.gradvac(result["params"]["beta"])
            state = weighting.init(sequence["K"])
            assert sequence["K"] == 2
            for jacobian, step in zip(sequence["J"], result["steps"], strict=True):
                jacobian = np.float64(jacobian)
                weights, state = weighting.update(given(jacobian), state)
                np.testing.assert_allclose(weights @ jacobian, step["vector"], atol=result["tol"])
                np.testing.assert_allclose(state.cosine, step["phi"], atol=result["tol"])


def test_published_steps_of_gradnorm(shared):
    cases = json.loads((shared / "reference" / "scalarizers.json").read_text())["cases"]
    cases = [case for case in cases if case["method"] == "GradNorm"]
    assert len(cases) == 5
    with jax.enable_x64(True):
        for case in cases:
            inputs, lengths = case["inputs"], np.array(case["inputs"]["grad_norms_unweighted"])
            weighting = weightings.gradnorm(case["params"]["alpha"], case["params"]["lr"])
            state = weighting.init(len(lengths))
            weights, state = weighting.update(given(np.diag(lengths), inputs["initial_losses"]), state)
            np.testing.assert_array_equal(weights, np.ones(len(lengths)))
            state = state._replace(weights=np.array(inputs["w"]))
            weights, state = weighting.update(given(np.diag(lengths), inputs["losses"]), state)
            np.testing.assert_allclose(weights, inputs["w"])
            np.testing.assert_allclose(state.weights, case["outputs"]["w"], rtol=case["tol"])


def test_gradnorm_without_alpha_makes_weighted_gradients_alike():
    weighting = weightings.gradnorm(alpha=0.0, learning_rate=0.002)
    signals = given(np.diag(np.float32([1.0, 2.0, 4.0])))

    def step(state, _):
        weights, state = weighting.update(signals, state)
        return state, weights

    weights = np.asarray(jax.lax.scan(step, weighting.init(3), length=600)[1][-1])
    np.testing.assert_allclose(weights * [1, 2, 4], np.full(3, 3 / 1.75), rtol=0.02)


ALONE = {
    "pe_ltr": lambda: weightings.pe_ltr((0.5,)),
    "static": lambda: weightings.static((2.0,)),
    # One objective cannot be both free and bounded.
    "constrained": lambda: weightings.constrained((1.0, np.inf)),
}


@pytest.mark.parametrize(
    "name", [name for name in weightings.__all__ if name not in ("smoothed", "every", "normalised")]
)
def test_one_objective_alone_and_gradients_of_0(name):
    weighting = ALONE.get(name, getattr(weightings, name))()
    if name != "constrained":
        weights, _ = weighting.update(given(np.float32([[3.0, 4.0]])), weighting.init(1))
        assert np.isfinite(weights).all() and weights[0] > 0
    if name not in ALONE:
        weights, _ = weighting.update(given(np.zeros((2, 2), np.float32)), weighting.init(2))
        assert np.isfinite(weights).all() and np.sum(weights) > 0


@pytest.mark.parametrize("make, message", [
    (lambda: weightings.pe_ltr((0.7, 0.7)), "sums to 1.4; lower bounds must sum to at most 1"),
    (lambda: weightings.pe_ltr((-0.1, 0.7)), "lower is .* not negative"),
    (lambda: weightings.pe_ltr((0.1, 0.7)).init(3), "lower has 2 entries for 3 objectives"),
    (lambda: weightings.pe_ltr(()).init(3), "lower has 0 entries for 3 objectives"),
    (lambda: weightings.gradvac(1.0), "rate is 1.0; it must be from 0 to below 1"),
    (lambda: weightings.cagrad(-0.1), "c is -0.1; it must be finite and not negative"),
    (lambda: weightings.gradnorm(learning_rate=0.0), "learning_rate is 0.0"),
    (lambda: weightings.nash_mtl(0.0), "max_norm is 0.0; it must be finite and above 0"),
    (lambda: weightings.fairgrad(0.0), "alpha is 0.0"),
    (lambda: weightings.aligned_mtl(scale="max"), "scale is 'max'; it must be one of min, median, rmse"),
    (lambda: weightings.aligned_mtl((1.0, -1.0)), "preference is .* not negative"),
    (lambda: weightings.upgrad((1.0, 1.0)).init(3), "preference has 2 entries for 3 objectives"),
    (lambda: weightings.dualproj((0.0, 0.0)), "not all 0"),
    (lambda: weightings.epo((1.0, 1.0)).init(3), "preference has 2 entries for 3 objectives"),
    (lambda: weightings.epo(tolerance=0.0), "tolerance is 0.0"),
    (lambda: weightings.sdmgrad(float("nan")), "pull is nan"),
])  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
