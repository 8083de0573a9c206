import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobjrec import search

ROWS = 3 * 4 * search.GROUP


@jax.jit
def found(scores):
    best = search.empty(len(scores), 3)
    for begin in range(0, ROWS, 4 * search.GROUP):
        best = search.merged(best, scores[:, begin : begin + 4 * search.GROUP], begin)
    return best


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 1000]), st.booleans())
def test_the_best_are_those_of_a_stable_sort_whatever_ties(seed, levels, many_gone):
    random = np.random.default_rng(seed)
    scores = random.integers(0, levels, (2, ROWS)).astype(np.float32)
    scores[random.random(scores.shape) < (0.9995 if many_gone else 0.3)] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    best = found(scores)
    np.testing.assert_array_equal(best.value, np.take_along_axis(scores, order, 1))
    there = np.isfinite(best.value)
    np.testing.assert_array_equal(np.asarray(best.row)[there], order[there])


def test_few_groups_and_a_k_above_what_there_is():
    best = search.merged(search.empty(1, 4), np.array([[1.0, 3.0, 3.0]], np.float32), 10)
    np.testing.assert_array_equal(best.value, [[3.0, 3.0, 1.0, -np.inf]])
    assert np.asarray(best.row)[0, :3].tolist() == [11, 12, 10]


def test_only_the_rows_of_this_block_are_taken_out():
    left = search.without(jnp.zeros((2, 4)), np.array([[5, -1, 8], [4, 7, 2]]), 4)
    np.testing.assert_array_equal(np.isinf(left), [[False, True, False, False], [True, False, False, True]])
