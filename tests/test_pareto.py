import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobjrec.pareto import dominates, front, hypervolume, igd_plus, knee, nearest, simplex, spread, stationarity

# Few values, so that ties and equal points occur.
POINTS = {k: hnp.arrays(np.float64, (6, k), elements=st.integers(-1, 4)) for k in (1, 2, 3, 4)}


def cells(points):
    """Volume above 0 by counting the unit cells that some point reaches."""
    corners = np.stack(np.meshgrid(*[np.arange(1, 5)] * points.shape[1], indexing="ij"), -1).reshape(
        -1, points.shape[1]
    )
    return sum(bool((points >= corner).all(1).any()) for corner in corners)


@pytest.mark.parametrize("k", POINTS)
def test_hypervolume_counts_the_cells_that_are_reached(k):
    @given(POINTS[k])
    def holds(points):
        assert hypervolume(points, np.zeros(k)) == cells(points)
        assert hypervolume(points + 2.5, np.full(k, 2.5)) == cells(points)
        assert hypervolume(points[front(points)], np.zeros(k)) == cells(points)

    holds()


@given(POINTS[3])
def test_a_front_is_what_nothing_dominates(points):
    kept = front(points)
    assert kept.any()
    for index, point in enumerate(points):
        better = [other for other in points if (other >= point).all() and (other > point).any()]
        assert kept[index] == (not better)


def test_cases_by_hand():
    points = np.array([[3.0, 1.0], [1.0, 2.0], [1.0, 1.0], [3.0, 1.0]])
    assert front(points).tolist() == [True, True, False, True]
    # 3 x 1 plus the 1 x 1 above it.
    assert hypervolume(points, np.zeros(2)) == 4.0
    assert hypervolume(points, np.array([2.0, 0.5])) == 0.5
    assert hypervolume(np.zeros((0, 2)), np.zeros(2)) == 0.0 and front(np.zeros((0, 2))).shape == (0,)
    assert hypervolume([[1.0, 1.0, 1.0, 1.0], [2.0, 0.5, 1.0, 1.0]], np.zeros(4)) == 1.5
    assert dominates(points[0], points[2]) and not dominates(points[0], points[1])
    assert not dominates(points[0], points[3])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"reference is .*; expected 2 finite numbers"):
        hypervolume(np.ones((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="without NaN"):
        front(np.array([[np.nan, 1.0]]))


FRONTS = (
    "fonseca_fleming zdt1 zdt2 zdt3 quad2_isotropic quad2_anisotropic quad3_triangle dtlz2_3obj circle_concave "
    "ranking_linear"
)


@pytest.mark.parametrize("name", FRONTS.split())
def test_hypervolume_of_known_fronts(name, shared):
    known = json.loads((shared / "reference/toy_fronts.json").read_text())[name]
    # Losses there: lower is better.
    found = hypervolume(-np.array(known["front"]), -np.array(known["reference_point"]))
    assert found == pytest.approx(known["hypervolume_of_listed_points"], rel=1e-12)


def test_igd_plus_counts_what_is_lacking_alone():
    reference = np.array([[0.0, 4.0], [2.0, 2.0], [4.0, 0.0]])
    assert igd_plus(reference, reference) == 0.0
    # More than asked for is no fault: Ishibuchi et al. 2015 gave IGD+ for that.
    assert igd_plus(reference + [3.0, 0.0], reference) == 0.0
    # (1, 1) lacks (0, 3), (1, 1), (3, 0).
    assert igd_plus([[1.0, 1.0]], reference) == pytest.approx((3 + math.sqrt(2) + 3) / 3)
    assert igd_plus(np.zeros((0, 2)), reference) == math.inf
    with pytest.raises(ValueError, match=r"reference has shape \(0, 2\)"):
        igd_plus(reference, np.zeros((0, 2)))


@given(POINTS[2], POINTS[2])
def test_igd_plus_never_prefers_a_dominated_set(points, reference):
    assert igd_plus(points + 1, reference) <= igd_plus(points, reference)


def test_spread_is_0_for_even_gaps_and_by_hand_for_others():
    line = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    assert spread(line) == pytest.approx(0.0) and spread(np.concatenate([line, line[:1]])) == pytest.approx(0.0)
    # Gaps to the nearest: 1, 1, 4 (in sqrt 2); mean 2: (1 + 1 + 2) / 6.
    assert spread([[0.0, 6.0], [1.0, 5.0], [5.0, 1.0]]) == pytest.approx(4 / 6)
    assert math.isnan(spread([[1.0, 2.0]])) and math.isnan(spread(np.zeros((0, 2))))


def test_a_knee_is_where_the_front_bulges():
    points = np.array([[0.0, 10.0], [1.0, 9.5], [6.0, 8.0], [9.0, 2.0], [10.0, 0.0], [5.0, 5.0]])
    assert knee(points) == 2
    # Units of a column do not matter, nor do points that are dominated.
    assert knee(points * [1000.0, 1.0]) == 2 and knee(points[[5, 2, 0, 4]]) == 1
    # Three objectives: all but one are in the plane x + y + z = 1.
    assert knee([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.2, 0.3, 0.5], [0.4, 0.4, 0.4]]) == 4
    assert knee([[3.0], [5.0], [4.0]]) == 1 and knee([[1.0, 1.0]]) == 0
    with pytest.raises(ValueError, match="no points"):
        knee(np.zeros((0, 2)))


def test_the_nearest_preference_is_so_by_its_shares():
    known = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 3.0]])
    assert [nearest(known, wish) for wish in ([5, 0.1], [2, 2], [0, 1], [2, 5])] == [0, 1, 2, 2]
    for bad in ([1.0, -1.0], [0.0, 0.0], [np.inf, 1.0]):
        with pytest.raises(ValueError, match="finite, not negative, and not all 0"):
            nearest(known, bad)
    with pytest.raises(ValueError, match="expected 2 numbers"):
        nearest(known, [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    "count, objectives", [(2, 2), (16, 2), (3, 3), (16, 3), (15, 3), (21, 3), (16, 4), (1, 1), (3, 1)]
)
def test_preferences_are_as_many_as_asked_all_different_and_hold_the_corners(count, objectives):
    found = simplex(count, objectives)
    assert found.shape == (count, objectives) and (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    if objectives > 1:
        assert len(np.unique(found, axis=0)) == count
        assert {tuple(row) for row in np.eye(objectives)} <= {tuple(row) for row in found}
        assert found[0].tolist() == np.eye(objectives)[0].tolist()
        assert found[-1].tolist() == np.eye(objectives)[-1].tolist()


def test_preferences_by_hand():
    np.testing.assert_allclose(simplex(5, 2)[:, 0], [1, 0.75, 0.5, 0.25, 0])
    assert [tuple(row) for row in simplex(6, 3)] == [
        (1, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 1, 0), (0, 0.5, 0.5), (0, 0, 1)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="2 preferences of 3 objectives"):
        simplex(2, 3)


def shortest(gram):
    """The squared length of the shortest combination, by trying every set of rows."""
    best = np.diagonal(gram).min()
    for size in range(2, len(gram) + 1):
        for rows in itertools.combinations(range(len(gram)), size):
            sub = gram[np.ix_(rows, rows)]
            system = np.block([[sub, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            weights = np.linalg.lstsq(system, np.append(np.zeros(size), 1.0), rcond=None)[0][:size]
            if (weights >= 0).all():
                weights = weights / weights.sum()
                best = min(best, weights @ sub @ weights)
    return max(best, 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_stationarity_is_the_shortest_combination_of_unit_gradients(count):
    random = np.random.default_rng(count)
    for shift in (0.0, 0.3, 1.0):
        rows = random.normal(size=(count, 6)) + shift
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        # Lengths do not matter.
        scaled = units * 10.0 ** random.integers(-6, 6, (count, 1))
        assert stationarity(scaled @ scaled.T) == pytest.approx(math.sqrt(shortest(units @ units.T)), abs=1e-6)


def test_stationarity_by_hand():
    assert stationarity([[4.0, 0.0], [0.0, 1.0]]) == pytest.approx(math.sqrt(0.5))
    assert stationarity([[1.0, -3.0], [-3.0, 9.0]]) == pytest.approx(0.0, abs=1e-7)
    assert stationarity([[4.0, 2.0], [2.0, 1.0]]) == pytest.approx(1.0)
    assert stationarity([[4.0, 0.0], [0.0, 0.0]]) == 0.0
    with pytest.raises(ValueError, match="on its diagonal"):
        stationarity([[-1.0]])
    with pytest.raises(ValueError, match="of finite numbers"):
        stationarity([[np.nan]])
