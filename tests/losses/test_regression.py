"""Losses of times, amounts and quantiles: beside the reference, and what each is least at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def every(inputs):
    return inputs.get("where", jnp.ones(inputs["scores"].shape, bool))


def pinball(inputs, params):
    return losses.quantile(inputs["scores"], inputs["targets"], where=every(inputs), tau=params["tau"])


def watched(inputs, params):
    labels = inputs["clicks"] * inputs["watch_time"]
    return losses.watch_time_logistic(inputs["scores"], labels, where=every(inputs))


def amounts(inputs, params):
    return losses.tweedie(inputs["scores"], inputs["targets"], where=every(inputs), power=params["power"])


def inflated(inputs, params):
    return losses.ziln(inputs["params3"], inputs["targets"], where=jnp.ones(inputs["targets"].shape, bool))


CASES = {
    "pinball_0.5": pinball,
    "pinball_0.9": pinball,
    "watch_time_weighted_logistic": watched,
    "tweedie_1.5": amounts,
    "tweedie_1.2": amounts,
    "ziln": inflated,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


def least(loss, labels, at):
    """The score of `at` at which one number for all labels loses least."""
    values = jax.vmap(lambda s: loss(jnp.full(labels.shape, s), labels, where=jnp.ones(labels.shape, bool)))(at)
    return at[np.argmin(values)]


@pytest.mark.slow
def test_one_score_for_all_ends_at_what_it_is_said_to_estimate():
    labels = jnp.asarray(np.r_[np.zeros(60), np.arange(1.0, 41.0)].astype(np.float32))
    at = jnp.linspace(-2.0, 45.0, 471)
    assert least(lambda *a, **k: losses.quantile(*a, **k, tau=0.9), labels, at) == pytest.approx(30.5, abs=0.55)
    logs = jnp.linspace(-2.0, 5.0, 1401)
    # 20.5 on the 40 of 100 that clicked.
    assert np.exp(least(losses.tweedie, labels, logs)) == pytest.approx(8.2, rel=0.01)
    assert np.exp(least(losses.watch_time_logistic, labels, logs)) == pytest.approx(8.2 / 0.6, rel=0.01)


def test_what_is_not_clicked_weighs_one_and_a_click_its_time():
    value = losses.watch_time_logistic(jnp.zeros(3), jnp.array([0.0, 30.0, 9.0]), where=jnp.array([True, True, False]))
    np.testing.assert_allclose(value, (np.log(2) + 30 * np.log(2)) / 2, rtol=1e-6)


def test_the_mean_of_a_zero_inflated_lognormal_is_that_of_its_samples():
    random = np.random.default_rng(0)
    scores = np.array([0.4, 0.3, -0.2], np.float32)
    deviation = np.log1p(np.exp(-0.2))
    drawn = (random.random(10**6) < 1 / (1 + np.exp(-0.4))) * random.lognormal(0.3, deviation, 10**6)
    assert float(losses.ziln_mean(jnp.asarray(scores))) == pytest.approx(drawn.mean(), rel=5e-3)
    assert np.isfinite(losses.ziln_mean(jnp.full(3, 1e4)))


def test_an_amount_of_nothing_teaches_the_first_score_alone():
    scores, where = jnp.array([[0.5, 1.0, -1.0]]), jnp.ones(1, bool)
    grad = jax.grad(lambda s: losses.ziln(s, jnp.zeros(1), where=where))(scores)
    np.testing.assert_allclose(grad, [[1 / (1 + np.exp(-0.5)), 0.0, 0.0]], rtol=1e-6)


def test_the_exponential_rises_without_overflow_and_is_itself_below_forty():
    at = jnp.array([-3.0, 0.0, 39.9, 40.0, 41.0, 1e4])
    found, slope = losses.tame_exp(at), jax.vmap(jax.grad(losses.tame_exp))(at)
    np.testing.assert_allclose(found[:4], np.exp(at[:4]), rtol=1e-6)
    np.testing.assert_allclose(found[4], 2 * np.exp(40.0), rtol=1e-5)
    assert (np.diff(found) > 0).all() and np.isfinite(found).all()
    np.testing.assert_allclose(slope[3:], np.exp(40.0), rtol=1e-5)


@pytest.mark.parametrize(
    "loss, setting, says",
    [
        (losses.quantile, {"tau": 1.0}, r"tau is 1\.0; it must be between 0 and 1"),
        (losses.tweedie, {"power": 2.0}, r"power is 2\.0; it must be between 1 and 2"),
    ],
)
def test_settings_without_a_meaning_are_refused(loss, setting, says):
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(lambda s: loss(s, s, where=jnp.ones(3, bool), **setting), jnp.zeros(3))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2), (1, 2, 3, 3)])
def test_scores_that_are_not_three_an_item_are_refused_with_where_to_turn(shape):
    with pytest.raises(ValueError, match=r"scores has shape .* ziln takes \[\.\.\., L, 3\].* the objective ziln"):
        jax.eval_shape(lambda s: losses.ziln(s, jnp.zeros((2, 3)), where=jnp.ones((2, 3), bool)), jnp.zeros(shape))
