import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobjrec.pareto import dominates, front, hypervolume

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
