import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from mobjrec import losses

WIDTH = 6
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.floats(-20, 20, width=32))
LABELS = hnp.arrays(np.int32, WIDTH, elements=st.integers(0, 3))
WEIGHTS = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 4, width=32))
WHERE = hnp.arrays(bool, WIDTH)
softmax = jax.jit(losses.softmax)


def lists_mean(loss):
    return lambda given, params: loss(**given, **params).mean(where=given["where"].any(-1))


CASES = {
    "poly1_softmax": losses.poly_1_softmax,
    "listmle": losses.list_mle,
    "listnet_softmax_labels": losses.listnet,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, lists_mean(CASES[case]))


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


def test_a_temperature_divides_the_scores_and_one_is_none_to_the_bit():
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(2, 5, WIDTH)).astype(np.float32)
    where = random.random((5, WIDTH)) < 0.7
    cold = jax.jit(lambda s: losses.softmax(s, jnp.abs(labels), where=where, temperature=0.25))
    np.testing.assert_allclose(cold(scores), softmax(4 * scores, np.abs(labels), where=where), rtol=1e-6)
    assert np.isfinite(cold(np.where(where, scores, np.finfo(np.float32).min))).all()
    one = jax.jit(lambda s: losses.softmax(s, jnp.abs(labels), where=where, temperature=1.0))
    np.testing.assert_array_equal(one(scores), softmax(scores, np.abs(labels), where=where))
    with pytest.raises(ValueError, match=r"temperature is 0\.0; it must be above 0"):
        losses.softmax(scores, labels, where=where, temperature=0.0)


def test_each_list_loss_is_a_slow_loop_with_weights():
    random = np.random.default_rng(1)
    scores, weights = random.normal(size=(20, WIDTH)) * 3, random.uniform(0.5, 2, (20, WIDTH))
    labels, where = random.integers(0, 3, (20, WIDTH)), random.random((20, WIDTH)) < 0.7

    def loop(s, y, w):
        p = np.exp(s) / np.exp(s).sum()
        target = np.exp(y) / np.exp(y).sum()
        order = np.argsort(-y, kind="stable")
        drawn = sum(w[i] * (np.log(np.exp(s[order[n:]]).sum()) - s[i]) for n, i in enumerate(order))
        moved = w * y * (-np.log(p) + 0.5 * (1 - p) / max(y.sum(), 1))
        return [moved.sum(), -(w * target * np.log(p)).sum(), drawn]

    given = (scores.astype(np.float32), labels.astype(np.float32))
    settings = {"where": where, "weights": weights.astype(np.float32)}
    found = jax.jit(
        lambda s, y: (
            losses.poly_1_softmax(s, y, **settings, epsilon=0.5),
            losses.listnet(s, y, **settings),
            losses.list_mle(s, y, **settings),
        )
    )(*given)
    wanted = [loop(s[m], y[m], w[m]) for s, y, w, m in zip(scores, labels, weights, where, strict=True)]
    np.testing.assert_allclose(np.transpose(found), wanted, rtol=1e-4, atol=1e-5)


def test_equal_labels_of_a_list_are_drawn_in_order_of_appearance():
    scores, where = jnp.array([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]]), jnp.ones((2, 3), bool)
    found = losses.list_mle(scores, jnp.array([[1, 1, 0], [1, 1, 0]]), where=where)
    first = np.log(np.exp(1) + np.exp(2) + np.exp(3))
    np.testing.assert_allclose(found, [first - 1 + np.log1p(np.exp(-1)), first - 3 + np.log1p(np.exp(1))], rtol=1e-6)


def test_listnet_is_least_where_the_scores_are_the_labels_but_for_a_constant():
    labels, where = jnp.array([2.0, 0.0, 1.0]), jnp.ones(3, bool)
    grad = jax.grad(lambda s: losses.listnet(s, labels, where=where))
    np.testing.assert_allclose(grad(labels + 3.0), np.zeros(3), atol=1e-6)
    assert grad(labels[::-1])[0] < -0.1


def test_the_likelihood_of_an_order_is_the_same_in_lists_of_several_groups():
    random = np.random.default_rng(3)
    scores = random.normal(size=(2, 150)).astype(np.float32) * np.float32([[1], [40]])
    labels, where = random.permuted(np.tile(np.arange(150.0), (2, 1)), axis=1), random.random((2, 150)) < 0.7
    found, grad = jax.jit(jax.value_and_grad(lambda s: losses.list_mle(s, labels, where=where).sum()))(
        np.where(where, scores, np.nan)
    )
    wanted, slope = 0.0, np.zeros((2, 150))
    for q in range(2):
        order = [i for i in np.argsort(-labels[q]) if where[q, i]]
        for n, i in enumerate(order):
            rest = scores[q, order[n:]].astype(np.float64)
            total = np.logaddexp.reduce(rest)
            wanted += total - scores[q, i]
            slope[q, order[n:]] += np.exp(rest - total)
            slope[q, i] -= 1
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, slope, atol=1e-4)
