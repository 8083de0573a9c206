"""The nearest point: against an enumeration of supports, published matrices, and its optimality certificate."""

import json
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.weightings.cagrad import cagrad_weights
from mobjrec.weightings.nash import fair_weights
from mobjrec.weightings.solvers import cone_point, nearest_point, residual

solve = jax.jit(nearest_point)


def enumerated(jacobian):
    """The shortest point of the hull [P], float64: the best of the affine solutions of all supports that are inside."""
    best = min(jacobian, key=np.linalg.norm)
    for size in range(2, len(jacobian) + 1):
        for support in combinations(range(len(jacobian)), size):
            rows = jacobian[list(support)]
            edges = rows[1:] - rows[0]
            part = np.linalg.lstsq(edges.T, -rows[0], rcond=None)[0]
            weights = np.array([1 - part.sum(), *part])
            if (weights >= -1e-12).all() and np.linalg.norm(weights @ rows) < np.linalg.norm(best):
                best = weights @ rows
    return best


def in_64_bit(jacobian, present=None):
    with jax.enable_x64(True):
        jacobian = np.asarray(jacobian, np.float64)
        present = np.ones(len(jacobian), bool) if present is None else present
        return np.asarray(solve(jacobian @ jacobian.T, present).weights)


def drawn(count, width, seed, kind):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    if kind == "duplicate":
        rows[-1] = rows[0]
    if kind == "opposite":
        rows[-1] = -2.0 * rows[0]
    if kind == "zero":
        rows[-1] = 0.0
    if kind == "alike":
        rows = rows[0] + 0.1 * rows
    if kind == "scales":
        rows *= np.logspace(-3, 3, count)[:, None]
    return rows


@pytest.mark.parametrize("kind", ["plain", "duplicate", "opposite", "zero", "alike", "scales"])
@pytest.mark.parametrize("count", range(2, 9))
def test_weights_are_those_of_the_best_support(count, kind):
    for seed in range(4):
        jacobian = drawn(count, (3, count + 2)[seed % 2], seed, kind)
        weights = in_64_bit(jacobian)
        wanted = enumerated(jacobian)
        assert (weights >= 0).all() and abs(weights.sum() - 1) < 1e-12
        np.testing.assert_allclose(np.linalg.norm(weights @ jacobian), np.linalg.norm(wanted), atol=1e-9)
        np.testing.assert_allclose(weights @ jacobian, wanted, atol=1e-7)


@pytest.mark.parametrize("jacobian, weights", [
    ([[1, 0], [0, 2]], [0.8, 0.2]),    # between two corners
    ([[1, 0], [3, 0]], [1.0, 0.0]),    # the shorter gradient is the answer
    ([[1, 0], [-1, 0]], [0.5, 0.5]),   # Pareto-stationary
    ([[1, 0], [-3, 0]], [0.75, 0.25]),
    ([[1, 0], [0, 0]], [0.0, 1.0]),    # a gradient of 0 stops the step
    ([[0, 0], [0, 0]], [1.0, 0.0]),
    ([[7, 0]], [1.0]),
])  # fmt: skip
def test_cases_by_hand(jacobian, weights):
    jacobian = np.array(jacobian, np.float32)
    found = solve(jacobian @ jacobian.T, np.ones(len(jacobian), bool))
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    np.testing.assert_allclose(found.residual, 0.0, atol=1e-6)


@pytest.mark.parametrize("method", ["MGDA", "MGDA_unit_rows"])
def test_published_matrices_in_64_bit(shared, method):
    book = json.loads((shared / "reference" / "aggregators.json").read_text())
    entries = [e for e in book["entries"] if e["method"] == method and e["kind"] == "exact"]
    assert len(entries) >= 45
    for entry in entries:
        jacobian = rows_of(book, entry)
        weights = in_64_bit(jacobian)
        wanted = np.array(entry.get("vector", np.array(entry["weights"]) @ jacobian))
        assert np.linalg.norm(weights @ jacobian - wanted) <= entry["tol_vector"], entry["matrix"]
        if entry["weights_unique"]:
            assert np.linalg.norm(weights - entry["weights"]) <= entry["tol_weights"], entry["matrix"]


def test_published_matrices_in_32_bit(shared):
    book = json.loads((shared / "reference" / "aggregators.json").read_text())
    plain = ("well_", "conflict_", "positive_", "large_", "ortho")
    for entry in book["entries"]:
        if (entry["method"], entry["kind"]) != ("MGDA", "exact"):
            continue
        jacobian = rows_of(book, entry)
        gram = (jacobian @ jacobian.T).astype(np.float32)
        found = solve(gram, np.ones(len(gram), bool))
        longest = np.linalg.norm(jacobian, axis=1).max()
        assert np.isfinite(found.weights).all() and found.residual < 1e-6, entry["matrix"]
        if entry["matrix"].startswith(plain):
            wanted = np.array(entry["weights"]) @ jacobian
            assert np.linalg.norm(np.asarray(found.weights) @ jacobian - wanted) < 1e-3 * longest, entry["matrix"]


def rows_of(book, entry):
    jacobian = np.array(book["matrices"][entry["matrix"]]["J"], np.float64)
    if entry["method"] == "MGDA_unit_rows":
        length = np.linalg.norm(jacobian, axis=1, keepdims=True)
        return jacobian / np.where(length > 0, length, 1.0)
    return jacobian


@pytest.mark.parametrize("count", [3, 8, 16, 32])
def test_many_objectives_are_optimal_to_1e_6(count):
    random = np.random.default_rng(count)
    jacobians = random.normal(size=(40, count, count + 4)) + random.uniform(0, 2, (40, 1, 1))
    grams = np.einsum("nkp,nlp->nkl", jacobians, jacobians).astype(np.float32)
    found = jax.jit(jax.vmap(nearest_point))(grams, np.ones((40, count), bool))
    assert (found.weights >= 0).all() and float(found.residual.max()) < 1e-6
    np.testing.assert_allclose(found.weights.sum(1), 1.0, atol=1e-5)


@given(st.lists(st.floats(-4, 4, width=32), min_size=12, max_size=12), st.lists(st.booleans(), min_size=4, max_size=4))
def test_absent_rows_are_left_out_and_the_rest_is_optimal(numbers, present):
    jacobian, present = np.array(numbers, np.float64).reshape(4, 3), np.array(present)
    jacobian = np.where(np.abs(jacobian) < 1e-3, 0.0, jacobian)
    weights = in_64_bit(np.where(present[:, None], jacobian, 7.7), present)
    assert (weights[~present] == 0).all() and (weights >= 0).all()
    assert abs(weights.sum() - present.any()) < 1e-12
    products = jacobian @ (weights @ jacobian)
    assert (products[present] >= np.sum((weights @ jacobian) ** 2) - 1e-9).all()


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e3, 1e12])
def test_one_factor_on_all_rows_changes_nothing(factor):
    gram = np.array(drawn(5, 7, 3, "plain"), np.float32)
    gram = gram @ gram.T
    present = np.ones(5, bool)
    wanted = solve(gram, present).weights
    np.testing.assert_allclose(solve(gram * np.float32(factor), present).weights, wanted, atol=1e-5)


def test_vmap_agrees_with_single_calls():
    jacobians = np.random.default_rng(5).normal(size=(20, 4, 3)).astype(np.float32)
    grams = np.einsum("nkp,nlp->nkl", jacobians, jacobians)
    present = np.random.default_rng(6).random((20, 4)) < 0.7
    many = jax.vmap(nearest_point)(grams, present)
    for gram, there, weights in zip(grams, present, many.weights, strict=True):
        np.testing.assert_allclose(solve(gram, there).weights, weights, atol=1e-6)


def test_residual_names_the_violation():
    gram = jnp.array([[1.0, 0.0], [0.0, 4.0]])
    # d = (1, 0): g_2 . d = 0 where |d|^2 = 1 is due; in units of the longer row's 4.
    np.testing.assert_allclose(residual(gram, jnp.array([True, True]), jnp.array([1.0, 0.0])), 0.25)
    np.testing.assert_allclose(residual(gram, jnp.array([True, False]), jnp.array([1.0, 0.0])), 0.0)


def projected(rows, start):
    """The point [P] nearest to start @ rows of all x with rows @ x >= 0: the best of those that supports leave free."""
    target, best = start @ rows, None
    for size in range(len(rows) + 1):
        for support in combinations(range(len(rows)), size):
            tight = rows[list(support)]
            x = target - np.linalg.pinv(tight) @ (tight @ target) if size else target
            nearer = best is None or np.linalg.norm(x - target) < np.linalg.norm(best - target)
            if nearer and (rows @ x >= -1e-9).all():
                best = x
    return best


def test_the_point_of_the_dual_cone_is_that_of_the_best_support():
    kinds, count = ("plain", "duplicate", "opposite", "zero", "alike"), 5
    rows = np.stack([drawn(count, (3, 7)[seed % 2], seed, kind)[:, :3] for kind in kinds for seed in range(8)])
    length = np.linalg.norm(rows, axis=2, keepdims=True)
    rows = rows / np.where(length > 0, length, 1.0)
    starts = np.random.default_rng(1).normal(size=(len(rows), count))
    with jax.enable_x64(True):
        cosines = np.einsum("nkp,nlp->nkl", rows, rows)
        points = np.asarray(jax.jit(jax.vmap(cone_point))(cosines, np.ones((len(rows), count), bool), starts))
    assert (points >= 0).all() and (points.max(axis=1) > 0.1).any()
    for row, start, point in zip(rows, starts, points, strict=True):
        np.testing.assert_allclose((start + point) @ row, projected(row, start), atol=1e-8)


@pytest.mark.parametrize("dtype, allowed", [(np.float64, 1e-7), (np.float32, 2e-3)])
def test_rows_that_depend_on_each_other_by_rounding_end_the_search(dtype, allowed):
    # On a Pareto-stationary point the best point is 0, which two rows in a plane hold; the third then adds nothing.
    angles = np.random.default_rng(4).uniform(0, 2 * np.pi, (300, 3))
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    with jax.enable_x64(dtype == np.float64):
        cosines = np.einsum("nkp,nlp->nkl", rows, rows).astype(dtype)
        starts = np.full((300, 3), 1 / 3, dtype)
        points = np.asarray(jax.jit(jax.vmap(cone_point))(cosines, np.ones((300, 3), bool), starts), np.float64)
    found = np.einsum("nk,nkp->np", points + 1 / 3, rows)
    wanted = np.stack([projected(row, np.full(3, 1 / 3)) for row in rows])
    assert np.isfinite(points).all() and (np.linalg.norm(wanted, axis=1) < 1e-6).sum() > 20
    np.testing.assert_allclose(found, wanted, atol=allowed)


@pytest.fixture(scope="module")
def thirty_two():
    """Gram matrices of 32 gradients each, from in one half-space to all around 0."""
    random = np.random.default_rng(2)
    jacobians = random.normal(size=(20, 32, 40)) + random.uniform(0, 2, (20, 1, 1))
    return np.einsum("nkp,nlp->nkl", jacobians, jacobians)


def test_many_objectives_in_the_dual_cone_are_optimal_to_1e_6(thirty_two):
    length = np.sqrt(np.einsum("nkk->nk", thirty_two))
    cosines = (thirty_two / length[:, :, None] / length[:, None, :]).astype(np.float32)
    starts = np.random.default_rng(3).normal(size=(20, 32)).astype(np.float32)
    points = np.asarray(jax.jit(jax.vmap(cone_point))(cosines, np.ones((20, 32), bool), starts), np.float64)
    products = np.einsum("nkl,nl->nk", cosines.astype(np.float64), points + starts)
    size = np.abs(points + starts).sum(1, keepdims=True)
    assert (points >= 0).all() and (points > 0).any()
    assert (products >= -1e-6 * size).all() and (np.abs(products * points) <= 1e-6 * size**2).all()


def test_many_objectives_bargain_to_1e_6(thirty_two):
    with jax.enable_x64(True):
        solve = jax.jit(jax.vmap(fair_weights, in_axes=(0, None, None)))
        for power in (0.5, 1.0, 2.0):
            found = solve(thirty_two, np.ones(32, bool), power)
            weights = np.asarray(found.weights)
            assert found.residual.max() < 1e-9
            np.testing.assert_allclose(np.einsum("nkl,nl->nk", thirty_two, weights), weights**-power, rtol=1e-6)


def test_the_best_of_many_objectives_near_the_mean_is_optimal_to_1e_6(thirty_two):
    with jax.enable_x64(True):
        solve = jax.jit(jax.vmap(cagrad_weights, in_axes=(0, None, None)))
        weights, missed = map(np.asarray, solve(thirty_two, np.ones(32, bool), 0.4))
    assert missed.max() < 1e-9
    part, mean = weights - 1 / 32, np.full(32, 1 / 32)
    long = np.sqrt(np.einsum("nk,nkl,nl->n", part, thirty_two, part))
    np.testing.assert_allclose(long, 0.4 * np.sqrt(mean @ thirty_two @ mean), rtol=1e-6)
    # Optimal where no objective with a weight gains more than the least helped one.
    gains = np.einsum("nkl,nl->nk", thirty_two, weights)
    share = part / part.sum(1, keepdims=True)
    scale = np.einsum("nkk->nk", thirty_two).max(1)
    assert (share >= 0).all() and ((share * gains).sum(1) - gains.min(1) <= 1e-6 * scale).all()
