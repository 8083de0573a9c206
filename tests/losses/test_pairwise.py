import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given

from mobjrec import losses

WIDTH = 6
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.floats(-20, 20, width=32))
LABELS = hnp.arrays(np.int32, WIDTH, elements=st.integers(0, 3))
WEIGHTS = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 4, width=32))
WHERE = hnp.arrays(bool, WIDTH)
logistic = jax.jit(losses.pairwise_logistic)


def reference(scores, labels, where, weights):
    s = scores.astype(np.float64)
    there = np.flatnonzero(where)
    pairs = [(i, j) for i in there for j in there if labels[i] > labels[j]]
    return np.mean([weights[i] * np.logaddexp(0, s[j] - s[i]) for i, j in pairs]) if pairs else 0.0


@given(SCORES, LABELS, WHERE, WEIGHTS)
def test_logistic_is_the_mean_over_pairs_each_weighing_as_its_better_item(scores, labels, where, weights):
    found = logistic(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, reference(scores, labels, where, weights), rtol=1e-4, atol=1e-5)


@given(SCORES, LABELS, WHERE, st.floats(-10, 10, width=32))
def test_one_number_added_to_all_scores_changes_nothing(scores, labels, where, shift):
    found = logistic(scores + np.float32(shift), labels, where=where)
    np.testing.assert_allclose(found, logistic(scores, labels, where=where), atol=1e-4)


def test_a_list_of_equal_labels_gives_zero_without_gradient():
    labels = jnp.array([[2.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    where = jnp.array([[True, True, True], [True, True, False]])
    scores = jnp.array([[1.0, 2.0, 3.0], [1.0, -1.0, jnp.nan]])
    value, back = jax.vjp(lambda s: losses.pairwise_logistic(s, labels, where=where), scores)
    np.testing.assert_array_equal(value, [0, 0])
    np.testing.assert_array_equal(back(jnp.ones(2))[0], np.zeros((2, 3)))


def test_one_pair_by_hand():
    value = losses.pairwise_logistic(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0]), where=jnp.ones(2, bool))
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)
