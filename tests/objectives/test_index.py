"""A satisfaction index learnt from sparse answers: the regression, the head, and what nobody knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import objectives
from mobjrec.objectives import index_weights
from mobjrec.testing import check_objective
from mobjrec.types import LabelSpec, SideSpec, Spec

LABELS = {"like": LabelSpec("", 0.3, 0.5), "dwell": LabelSpec("s", 20.0, 10.0), "survey": LabelSpec("", 3.0, 2.0)}
SPEC = Spec(0, SideSpec(), SideSpec(), SideSpec(), LABELS, 1, 1)
ONE = objectives.index(("like", "dwell"), "survey", head="satisfied", ridge=1.0)


def test_promises():
    check_objective(ONE, "real")


@pytest.fixture(scope="module")
def given(batch_of):
    random = np.random.default_rng(0)
    like, dwell = random.integers(0, 2, (8, 12)), random.uniform(0, 60, (8, 12))
    survey = 1.0 + 1.5 * like + 0.04 * dwell + 0.02 * random.normal(size=like.shape)
    seen = {"like": random.random(like.shape) < 0.9, "dwell": random.random(like.shape) < 0.8}
    seen["survey"] = random.random(like.shape) < 0.3
    weights = random.uniform(0.5, 2.0, like.shape)
    return batch_of({"like": like, "dwell": dwell, "survey": survey}, seen, weights=weights)


def solved(given, ridge):
    """Ridge regression in float64, item by item: weights of the standardised signals, then of the constant."""
    squares, products = ridge * np.eye(3), np.zeros(3)
    for place in np.ndindex(given.where.shape):
        if all(seen[place] for seen in given.observed.values()):
            x = np.array([(given.labels["like"][place] - 0.3) / 0.5, (given.labels["dwell"][place] - 20.0) / 10.0, 1.0])
            y = (given.labels["survey"][place] - 3.0) / 2.0
            squares += given.weights[place] * np.outer(x, x)
            products += given.weights[place] * x * y
    return np.linalg.solve(squares, products)


def test_the_index_is_the_regression_and_the_head_learns_it_where_only_signals_are_known(given, scored, now):
    params, memory = ONE.init(jax.random.key(0), SPEC)
    scores = np.random.default_rng(1).normal(size=given.where.shape)
    known = given.observed["like"] & given.observed["dwell"]
    first, speaks, memory = ONE.value(scored(satisfied=scores), given, params, memory, now())
    # Before any answer the index is the label's mean, 0 standardised.
    np.testing.assert_allclose(first, (scores**2 * given.weights).mean(-1, where=known), rtol=1e-5)
    weights = solved(given, 1.0)
    np.testing.assert_allclose(index_weights(memory), weights, rtol=1e-3)
    x = np.stack([(given.labels["like"] - 0.3) / 0.5, (given.labels["dwell"] - 20.0) / 10.0, np.ones(known.shape)], -1)
    value, _, again = ONE.value(scored(satisfied=scores), given, params, memory, now())
    wanted = ((scores - x @ weights) ** 2 * given.weights).mean(-1, where=known)
    np.testing.assert_allclose(value, wanted, rtol=1e-3)
    assert speaks.all() and ONE.label == "survey" and ONE.expectation
    # Sums grow by what the same lists give, so devices' parts add up.
    np.testing.assert_allclose(again["squares"], 2 * memory["squares"], rtol=1e-5)
    np.testing.assert_allclose(ONE.predict(scored(satisfied=[[0.5]]), params, memory), [[4.0]])


def test_the_weights_find_what_made_the_answers(given, scored, now):
    params, memory = ONE.init(jax.random.key(0), SPEC)
    for _ in range(30):
        _, _, memory = ONE.value(scored(satisfied=np.zeros(given.where.shape)), given, params, memory, now())
    found = np.asarray(index_weights(memory)) * 2.0 / [0.5, 10.0, 2.0]
    # Per like and per second of dwell, in stars.
    np.testing.assert_allclose(found[:2], [1.5, 0.04], rtol=0.05)


def test_what_nobody_knows_reaches_no_value_gradient_or_weight(given, scored, now):
    params, memory = ONE.init(jax.random.key(0), SPEC)
    _, _, memory = ONE.value(scored(satisfied=np.zeros(given.where.shape)), given, params, memory, now())
    rubbish = {name: np.where(given.observed[name], label, np.nan) for name, label in given.labels.items()}

    @jax.jit
    def both(labels):
        def total(scores):
            value, _, after = ONE.value(scored(satisfied=scores), given._replace(labels=labels), params, memory, now())
            return value.sum(), (value, after)

        return jax.grad(total, has_aux=True)(jnp.ones(given.where.shape))

    for one, other in zip(jax.tree.leaves(both(given.labels)), jax.tree.leaves(both(rubbish)), strict=True):
        np.testing.assert_array_equal(one, other)
    grad, _ = both(rubbish)
    assert not grad[~(given.observed["like"] & given.observed["dwell"])].any() and np.isfinite(grad).all()


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"signals": ()}, "signals is empty"),
        ({"signals": ("like", "like")}, "signals is like, like; expected at least one label, each once"),
        ({"signals": ("like", "survey")}, "and not survey, which they explain"),
        ({"signals": ("like",), "ridge": 0.0}, r"ridge is 0\.0; it must be above 0"),
    ],
)
def test_signals_that_cannot_explain_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        objectives.index(**settings, explicit="survey")
