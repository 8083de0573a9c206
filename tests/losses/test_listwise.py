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
softmax = jax.jit(losses.softmax)


def reference(scores, labels, where, weights):
    s, gain = scores[where].astype(np.float64), (labels * weights)[where]
    return -np.sum(gain * (s - np.logaddexp.reduce(s))) if where.any() else 0.0


@given(SCORES, LABELS, WHERE, WEIGHTS)
def test_softmax_is_the_formula_on_the_items_that_are_there(scores, labels, where, weights):
    found = softmax(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, reference(scores, labels, where, weights), rtol=1e-4, atol=1e-3)


@given(SCORES, LABELS, WHERE, st.floats(-10, 10, width=32))
def test_one_number_added_to_all_scores_changes_no_softmax(scores, labels, where, shift):
    found = softmax(scores + np.float32(shift), labels, where=where)
    np.testing.assert_allclose(found, softmax(scores, labels, where=where), rtol=1e-4, atol=1e-3)


def test_the_gradient_is_the_softmax_times_the_gain_less_the_labels():
    scores, labels, where = (
        jnp.array([0.0, jnp.log(3.0), 7.0]),
        jnp.array([2.0, 1.0, 9.0]),
        jnp.array([True, True, False]),
    )
    grad = jax.grad(lambda s: losses.softmax(s, labels, where=where))(scores)
    np.testing.assert_allclose(grad, [3 / 4 - 2, 9 / 4 - 1, 0], rtol=1e-6)


def test_a_list_without_gain_gives_zero_without_gradient():
    scores, where = jnp.array([1.0, -2.0, jnp.nan]), jnp.array([True, True, False])
    value, grad = jax.value_and_grad(lambda s: losses.softmax(s, jnp.zeros(3), where=where))(scores)
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros(3))
