import json

import jax
import numpy as np
import pytest

from mobjrec import weightings
from mobjrec.types import Signals


def signals(losses=None, jacobian=None, present=None, step=0):
    rows = None if jacobian is None else np.asarray(jacobian)
    losses = np.ones(len(rows), rows.dtype) if losses is None else np.asarray(losses)
    present = np.ones(len(losses), bool) if present is None else np.array(present)
    counter, gram = np.int32(step), None if rows is None else rows @ rows.T
    return Signals(losses, present, gram, None, counter, counter, jax.random.key(0))


def test_published_steps_of_smoothed_mgda(shared):
    book = json.loads((shared / "reference" / "aggregators.json").read_text())
    with jax.enable_x64(True):
        for sequence in book["sequences"]:
            (result,) = [r for r in sequence["results"] if r["method"] == "CR-MOGM over MGDA"]
            weighting = weightings.smoothed(weightings.mgda(), result["params"]["alpha"])
            update, state = jax.jit(weighting.update), weighting.init(sequence["K"])
            for jacobian, wanted in zip(sequence["J"], result["steps"], strict=True):
                weights, state = update(signals(jacobian=np.float64(jacobian)), state)
                np.testing.assert_allclose(weights, wanted, atol=result["tol"])


def test_a_smoothed_weight_waits_for_an_absent_objective():
    weighting = weightings.smoothed(weightings.gls(), rate=0.5)
    _, state = weighting.update(signals(np.float32([1.0, 4.0])), weighting.init(2))
    weights, state = weighting.update(signals(np.float32([1.0, np.nan]), present=[True, False]), state)
    # sqrt(1 * 4) / 2 = 1 and 1/4 first; alone, the first one's is 1.
    assert weights.tolist() == [1.0, 0.0] and state.weights.tolist() == [1.0, 0.25]
    weights, _ = weighting.update(signals(np.float32([4.0, 1.0])), state)
    np.testing.assert_allclose(weights, [0.5 + 0.125, 0.125 + 0.5])


def test_weights_serve_their_steps_and_are_solved_for_who_comes_new():
    weighting = weightings.every(weightings.gls(), steps=3)
    update, state = jax.jit(weighting.update), weighting.init(3)
    found = []
    for second in (4.0, 1.0, 9.0, 9.0):
        weights, state = update(signals(np.float32([1.0, second, np.nan]), present=[True, True, False]), state)
        found.append(weights.tolist())
    np.testing.assert_allclose(found, [[1, 0.25, 0]] * 3 + [[1.5, 1 / 6, 0]], rtol=1e-6)
    weights, state = update(signals(np.float32([1.0, 1.0, 8.0])), state)
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 1 / 12], rtol=1e-6)


def test_only_the_steps_that_ask_are_observed():
    inner = weightings.famo(optimizer="sgd")
    weighting = weightings.every(inner, steps=2)
    _, state = weighting.update(signals(np.float32([1.0, 2.0])), weighting.init(2))
    first = weighting.observe(np.float32([0.5, 1.9]), state)
    assert first.inner.logits[0] != 0
    _, second = weighting.update(signals(np.float32([0.5, 1.9])), first)
    second = weighting.observe(np.float32([0.1, 1.8]), second)
    np.testing.assert_array_equal(second.inner.logits, first.inner.logits)


def test_what_is_said_of_the_problem_inside_is_passed_on_and_nothing_between_its_steps():
    made = weightings.mgda()
    doubtful = made._replace(residual=lambda state: state + 0.25)
    weighting = weightings.normalised(weightings.smoothed(weightings.every(doubtful, steps=2)))
    given, state = signals(jacobian=np.eye(2, dtype=np.float32)), weighting.init(2)
    told = []
    for _ in range(4):
        told.append(bool(weighting.due(given._replace(gram=None), state)))
        _, state = weighting.update(given, state)
        told.append(round(float(weighting.residual(state)), 3))
    assert told == [True, 0.25, False, 0.0] * 2
    for plain in (weightings.smoothed(weightings.gls()), weightings.normalised(weightings.pcgrad())):
        assert plain.residual is None and plain.due is None
    assert weightings.every(weightings.gls()).residual is None and weightings.smoothed(made).residual is not None


def test_losses_are_divided_by_their_first_value_their_running_size_or_themselves():
    means = {"first": [[2.0, 4.0], [2.0, 4.0]], "running": [[2.0, 4.0], [1.75, 5.0]], "log": [[2.0, 4.0], [1.0, 8.0]]}
    for by, wanted in means.items():
        weighting = weightings.normalised(weightings.static((1.0, 3.0)), by, rate=0.75)
        state = weighting.init(2)
        for losses, scale in zip(([2.0, 4.0], [1.0, 8.0]), wanted, strict=True):
            weights, state = weighting.update(signals(np.float32(losses)), state)
            np.testing.assert_allclose(weights, np.array([1.0, 3.0]) / scale, rtol=1e-6)


def test_the_published_log_sum_is_equal_weights_of_log_losses(shared):
    cases = json.loads((shared / "reference" / "scalarizers.json").read_text())["cases"]
    weighting = weightings.normalised(weightings.equal(), "log")
    for case in [case for case in cases if case["method"] == "SI"]:
        losses = np.float32(case["inputs"]["losses"])
        np.testing.assert_allclose(
            weighting.update(signals(losses), weighting.init(len(losses)))[0], case["outputs"]["weights"], rtol=1e-5
        )


@pytest.mark.parametrize("by", ["first", "running", "log"])
def test_a_normalised_direction_does_not_know_the_losses_units(by):
    weighting = weightings.normalised(weightings.mgda(), by)
    jacobian = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    losses, units = np.float32([0.5, 2.0, 3.0]), np.float32([1.0, 100.0, 0.01])
    plain, _ = weighting.update(signals(losses, jacobian), weighting.init(3))
    other, _ = weighting.update(signals(losses * units, jacobian * units[:, None]), weighting.init(3))
    np.testing.assert_allclose(other @ (jacobian * units[:, None]), plain @ jacobian, rtol=1e-4, atol=1e-6)


def test_impossible_settings_are_refused():
    for make, message in (
        (lambda: weightings.smoothed(weightings.equal(), 1.0), "rate is 1.0"),
        (lambda: weightings.every(weightings.equal(), 0), "steps is 0; it must be at least 1"),
        (
            lambda: weightings.normalised(weightings.equal(), "mean"),
            "by is 'mean'; it must be one of first, running, log",
        ),
        (lambda: weightings.normalised(weightings.gls(), "log"), "may go below 0, but the weighting in `of`"),
        (lambda: weightings.smoothed(weightings.static((1.0,))).init(2), "weights has 1 entries for 2 objectives"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
