import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import weightings
from mobjrec.types import Signals


def signals(losses, present=None):
    present = np.ones(len(losses), bool) if present is None else np.array(present)
    zero = jnp.int32(0)
    return Signals(np.float32(losses), present, None, None, zero, zero, jax.random.key(0))


def test_weights_are_the_published_ones_of_the_classification_form(shared):
    cases = json.loads((shared / "reference" / "scalarizers.json").read_text())["cases"]
    cases = [case for case in cases if case["method"] == "UW_sigma_classification"]
    assert len(cases) == 5
    weighting = weightings.uncertainty()
    update = jax.jit(weighting.update)
    for case in cases:
        log_variance = 2 * np.log(case["params"]["sigma"])
        state = weighting.init(len(log_variance))._replace(log_variance=jnp.asarray(log_variance, jnp.float32))
        weights, _ = update(signals(case["inputs"]["losses"]), state)
        np.testing.assert_allclose(weights, case["outputs"]["weights"], rtol=1e-5)


def test_variances_move_against_the_slope_and_settle_where_each_product_is_one_half():
    weighting = weightings.uncertainty(learning_rate=0.05)
    losses = np.array([0.2, 1.0, 6.0], np.float32)
    update = jax.jit(weighting.update)
    state = weighting.init(3)
    _, once = update(signals(losses), state)
    # d/ds = 1/2 - exp(-s) L at s = 0: 0.3, -0.5, -5.5; Adam's first step is the learning rate.
    np.testing.assert_allclose(once.log_variance, [-0.05, 0.05, 0.05], rtol=1e-4)
    for _ in range(400):
        weights, state = update(signals(losses), state)
    np.testing.assert_allclose(2 * weights * losses, np.ones(3), rtol=1e-2)


def test_an_absent_objective_keeps_its_variance():
    weighting = weightings.uncertainty(learning_rate=0.1, start=0.5)
    state = weighting.init(2)
    for _ in range(5):
        weights, state = weighting.update(signals([1.0, 9.0], [True, False]), state)
    assert weights[1] == 0 and state.log_variance[1] == 0.5 and state.log_variance[0] != 0.5


def adam(slope, steps, rate):
    """s from 0 after so many steps of Adam as published, in plain numpy."""
    s, mean, square = 0.0, 0.0, 0.0
    for step in range(1, steps + 1):
        g = slope(s)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        s -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return s


def test_a_gap_leaves_an_objective_exactly_where_it_was():
    weighting, losses = weightings.uncertainty(learning_rate=0.1), np.array([0.4, 2.0], np.float32)
    update = jax.jit(weighting.update)
    before = weighting.init(2)
    for _ in range(5):
        _, before = update(signals(losses), before)
    after = before
    for _ in range(50):
        weights, after = update(signals([0.4, np.nan], [True, False]), after)
    assert weights[1] == 0 and np.isfinite(weights).all()
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert old[1] == new[1] and old[0] != new[0]
    _, after = update(signals(losses), after)
    # Six steps of its own, moments and bias correction too, whatever the other one did meanwhile.
    wanted = adam(lambda s: 0.5 - np.exp(-s) * 2.0, 6, 0.1)
    np.testing.assert_allclose(after.log_variance[1], wanted, atol=2e-5)


def test_a_loss_of_0_ends_at_a_finite_weight():
    weighting = weightings.uncertainty(learning_rate=1.0)
    update, state = jax.jit(weighting.update), weighting.init(2)
    for _ in range(120):
        weights, state = update(signals([0.0, 1.0]), state)
    np.testing.assert_allclose(weights[0], np.exp(20.0), rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("start", [21.0, -21.0, float("nan")])
def test_a_start_must_be_a_log_variance_in_range(start):
    with pytest.raises(ValueError, match="start is"):
        weightings.uncertainty(start=start)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_must_be_above_0(rate):
    with pytest.raises(ValueError, match="learning_rate is"):
        weightings.uncertainty(learning_rate=rate)


def test_fixed_weights():
    state = weightings.static((1.0, 0.0, 2.5)).init(3)
    weights, after = weightings.static((1.0, 0.0, 2.5)).update(signals([3.0, 2.0, 1.0], [True, True, False]), state)
    assert weights.tolist() == [1.0, 0.0, 0.0] and after == state
    assert weightings.equal().update(signals([3.0, 2.0], [True, False]), ())[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "weights", [(-1.0, 2.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0), (1e300, 1.0), ()]
)
def test_impossible_fixed_weights_are_refused(weights):
    with pytest.raises(ValueError, match="must be finite, not negative, and not all 0"):
        weightings.static(weights)


def test_fixed_weights_of_another_count_are_refused():
    with pytest.raises(ValueError, match="2 entries for 3 objectives"):
        weightings.static((1.0, 1.0)).init(3)
