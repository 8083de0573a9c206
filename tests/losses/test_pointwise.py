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
REALS = hnp.arrays(np.float32, WIDTH, elements=st.floats(-5, 5, width=32))
SHARES = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 1, width=32))
WEIGHTS = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 4, width=32))
WHERE = hnp.arrays(bool, WIDTH)
entropy, squared, huber = (jax.jit(f) for f in (losses.sigmoid_cross_entropy, losses.squared, losses.huber))
focal, poly = jax.jit(losses.focal), jax.jit(losses.poly_1)


@pytest.mark.parametrize("case", ["focal_g2", "focal_g1"])
def test_focal_is_the_reference(agrees, case):
    agrees(case, lambda given, params: losses.focal(**given, where=jnp.ones(len(given["scores"]), bool), **params))


@given(SCORES, SHARES, WHERE, WEIGHTS)
def test_focal_and_poly_are_their_formulas_mixed_by_the_share(scores, labels, where, weights):
    p, y = 1 / (1 + np.exp(-scores.astype(np.float64))), labels.astype(np.float64)
    values = -0.25 * y * (1 - p) ** 2 * np.log(p) - 0.75 * (1 - y) * p**2 * np.log(1 - p)
    found = focal(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, mean(values, where, weights), rtol=1e-4, atol=1e-5)
    values = -y * np.log(p) - (1 - y) * np.log(1 - p) + y * (1 - p) + (1 - y) * p
    found = poly(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, mean(values, where, weights), rtol=1e-4, atol=1e-4)


def test_without_their_settings_focal_and_poly_are_the_entropy():
    scores, labels = jnp.array([2.0, -1.0, 0.5]), jnp.array([1.0, 0.3, 0.0])
    where = jnp.ones(3, bool)
    wanted = losses.sigmoid_cross_entropy(scores, labels, where=where)
    found = losses.focal(scores, labels, where=where, alpha=0.5, gamma=0.0)
    np.testing.assert_allclose(found, wanted / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.poly_1(scores, labels, where=where, epsilon=0.0), wanted, rtol=1e-6)


def test_focal_has_a_finite_gradient_where_the_probability_rounds_to_one():
    grad = jax.grad(lambda s: losses.focal(s, jnp.array([1.0, 0.0]), where=jnp.ones(2, bool), gamma=0.5))
    np.testing.assert_allclose(grad(jnp.array([200.0, -200.0])), [0, 0], atol=1e-20)
    np.testing.assert_allclose(grad(jnp.array([-200.0, 200.0])), [-0.125, 0.375], rtol=1e-5)


def mean(values, where, weights):
    return np.sum((values * weights)[where]) / where.sum() if where.any() else 0.0


@given(SCORES, SHARES, WHERE, WEIGHTS)
def test_entropy_is_minus_the_log_likelihood_of_the_items_that_are_there(scores, labels, where, weights):
    s, y = scores.astype(np.float64), labels.astype(np.float64)
    values = y * np.log1p(np.exp(-s)) + (1 - y) * np.log1p(np.exp(s))
    found = entropy(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, mean(values, where, weights), rtol=1e-4, atol=1e-4)


@given(SCORES, REALS, WHERE, WEIGHTS)
def test_squared_and_huber_are_their_formulas(scores, labels, where, weights):
    error = np.abs(scores.astype(np.float64) - labels)
    found = squared(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, mean(error**2, where, weights), rtol=1e-5, atol=1e-5)
    wanted = mean(np.where(error <= 1, error**2 / 2, error - 0.5), where, weights)
    np.testing.assert_allclose(huber(scores, labels, where=where, weights=weights), wanted, rtol=1e-5, atol=1e-5)


def test_huber_joins_its_pieces_at_delta():
    scores, where = jnp.array([0.0, 2.0, -2.0, 3.0]), jnp.ones(4, bool)
    one_by_one = jax.vmap(lambda s: losses.huber(s[None], jnp.zeros(1), where=jnp.ones(1, bool), delta=2.0))
    np.testing.assert_allclose(one_by_one(scores), [0.0, 2.0, 2.0, 4.0])
    grad = jax.grad(lambda s: 4 * losses.huber(s, jnp.zeros(4), where=where, delta=2.0))(scores)
    np.testing.assert_allclose(grad, [0.0, 2.0, -2.0, 2.0])


def test_a_share_is_a_soft_label_with_its_logit_as_minimum():
    share, where = jnp.array([0.2, 0.7]), jnp.ones(2, bool)
    logit = jnp.log(share / (1 - share))
    grad = jax.grad(lambda s: losses.sigmoid_cross_entropy(s, share, where=where))(logit)
    np.testing.assert_allclose(grad, [0, 0], atol=1e-7)


def test_entropy_of_a_certain_mistake_is_the_logit_itself():
    scores, where = jnp.array([[1e4], [-1e4]]), jnp.ones((2, 1), bool)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(scores, jnp.array([[0.0], [1.0]]), where=where), [1e4, 1e4])
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(scores, jnp.array([[1.0], [0.0]]), where=where), [0, 0])


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan")])
def test_huber_refuses_a_delta_that_is_not_above_zero(delta):
    with pytest.raises(ValueError, match=f"delta is {delta}; it must be above 0"):
        losses.huber(jnp.zeros(2), jnp.zeros(2), where=jnp.ones(2, bool), delta=delta)


@pytest.mark.parametrize(
    "loss, settings, message",
    [
        (losses.focal, {"alpha": 1.5}, "alpha is 1.5; it is the share of the positives, from 0 to 1"),
        (losses.focal, {"alpha": float("nan")}, "alpha is nan"),
        (losses.focal, {"gamma": -1.0}, "gamma is -1.0; it must be at least 0"),
        (losses.poly_1, {"epsilon": -1.5}, "epsilon is -1.5; it must be at least -1"),
        (losses.poly_1_softmax, {"epsilon": -1.5}, "epsilon is -1.5; it must be at least -1"),
    ],
)
def test_settings_of_focal_and_poly_out_of_range_are_refused(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        loss(jnp.zeros(2), jnp.zeros(2), where=jnp.ones(2, bool), **settings)
