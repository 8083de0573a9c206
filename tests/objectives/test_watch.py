"""Times and amounts as objectives: what they predict, and D2Q from the durations on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.data.corpus import events_from, table_from
from mobjrec.data.labels import quantile
from mobjrec.testing import check_objective
from mobjrec.types import Corpus

OBJECTIVES = {
    "watch_time": objectives.watch_time("time", head="watch"),
    "tweedie": objectives.tweedie("time", power=1.3),
    "ziln": objectives.ziln("time"),
    "d2q": objectives.d2q("time"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_promises(name):
    check_objective(OBJECTIVES[name], "binary" if name == "d2q" else "positive")


def test_each_is_its_loss_and_predicts_a_mean(batch_of, scored, now):
    labels, known = [[0.0, 3.0, 5.0]], [[True, True, False]]
    given = batch_of({"time": labels}, {"time": known}, weights=[[1.0, 2.0, 1.0]])
    s, three = np.array([[0.3, -1.0, 90.0]], np.float32), np.linspace(-1, 1, 9, dtype=np.float32).reshape(1, 3, 3)
    settings = {"where": given.where & known, "weights": given.weights}
    for name, scores, loss in (
        ("watch_time", s, losses.watch_time_logistic),
        ("tweedie", s, lambda *a, **k: losses.tweedie(*a, **k, power=1.3)),
        ("ziln", three, losses.ziln),
    ):
        one = OBJECTIVES[name]
        outputs = scored(**{next(iter(one.heads)): scores})
        value, speaks, _ = one.value(outputs, given, (), (), now())
        np.testing.assert_allclose(value, loss(scores, given.labels["time"], **settings), rtol=1e-6)
        assert speaks.tolist() == [True] and one.expectation and one.label == "time" and one.takes == ("gain",)
        found = one.predict(outputs, (), ())
        wanted = (
            losses.ziln_mean(three) if name == "ziln" else np.exp(np.minimum(s, 40.0)) * (1 + np.maximum(s - 40, 0))
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert np.isfinite(found).all() and one.positive == (name != "ziln")


def test_d2q_from_durations_to_the_loss_is_the_reference(reference_of, batch_of, scored, now):
    entry = reference_of("d2q_mse")
    inputs, count = entry["inputs"], len(entry["inputs"]["scores"])
    events = events_from(
        user=np.zeros(count, int),
        item=np.arange(count),
        time=np.arange(count),
        feedback={"watched": np.array(inputs["watch_time"])},
    )
    items = table_from(ids=[str(n) for n in range(count)], numbers={"duration": np.array(inputs["duration"])})
    corpus = Corpus(table_from(ids=["u"]), items, events._replace(split=np.zeros(count, np.int8)), {})
    made = quantile("watched", "duration", groups=entry["params"]["groups"])(corpus, {})
    np.testing.assert_allclose(made.value, entry["expected"]["target_quantile"], rtol=1e-6)
    one, given = objectives.d2q("time"), batch_of({"time": [made.value]})

    def value(scores):
        return one.value(scored(time=scores[None]), given, (), (), now())[0].sum()

    found, grad = jax.value_and_grad(value)(jnp.array(inputs["scores"]))
    np.testing.assert_allclose(found, entry["value"], rtol=1e-5)
    np.testing.assert_allclose(grad, entry["grad"]["scores"], atol=1e-6)
    np.testing.assert_allclose(one.predict(scored(time=[[0.0, np.log(3)]]), (), ()), [[0.5, 0.75]], rtol=1e-6)
    assert one.takes == ("share",) and not one.probability


def test_a_power_that_is_no_tweedie_is_refused_before_any_data():
    with pytest.raises(ValueError, match=r"power is 1; it must be between 1 and 2"):
        objectives.tweedie("time", power=1)
