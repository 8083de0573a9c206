"""Objectives: what they are on a list by hand, that they keep the promises, and that the suite notices breaches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.resolve import bind
from mobjrec.testing import check_objective
from mobjrec.testing.objectives import _batch, _outputs
from mobjrec.types import Clock, LabelSpec, Objective, Outputs, SideSpec, Spec

NOW = Clock(jnp.int32(0), jnp.int32(0))
OBJECTIVES = {
    "softmax": objectives.single(losses.softmax, "click", needs_relevant=True),
    "pairs": objectives.single(losses.pairwise_logistic, "click", head="other"),
    "probability": objectives.single(losses.sigmoid_cross_entropy, "click", link="sigmoid"),
    "standardised": objectives.single(partial(losses.huber, delta=0.5), "dwell", standardise=True),
    "squared": objectives.single(losses.squared, "dwell"),
    "recall": objectives.recall(k=2),
    "recall alone": objectives.recall(k=2, softmax=0.0),
    "satisfied_click": objectives.satisfied_click(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_promises(name):
    check_objective(OBJECTIVES[name])


def batch(labels, observed=None, where=None, weights=None):
    labels = {name: np.array(label, np.float32) for name, label in labels.items()}
    shape = next(iter(labels.values())).shape
    where = np.ones(shape, bool) if where is None else np.array(where, bool)
    observed = {name: np.array((observed or {}).get(name, where), bool) for name in labels}
    weights = np.ones(shape, np.float32) if weights is None else np.array(weights, np.float32)
    blank = _batch(OBJECTIVES["softmax"])
    return blank._replace(labels=labels, observed=observed, where=where, weights=weights)


def outputs(**scores):
    return Outputs({name: jnp.asarray(score, jnp.float32) for name, score in scores.items()}, None, None)


def test_one_loss_over_the_observed_items():
    one = objectives.single(losses.squared, "dwell")
    given = batch({"dwell": [[1.0, 9.0, 3.0]]}, {"dwell": [[True, False, True]]})
    value, speaks, _ = one.value(outputs(dwell=[[0.0, 5.0, 1.0]]), given, (), (), NOW)
    # (1 + 4) / 2: the second item is not known.
    np.testing.assert_allclose(value, [2.5])
    assert speaks.tolist() == [True] and one.expectation and not one.probability and one.label == "dwell"


def test_standardised_labels_are_learnt_and_predicted_in_their_own_unit():
    one = objectives.single(losses.squared, "dwell", standardise=True)
    spec = Spec(0, SideSpec(), SideSpec(), SideSpec(), {"dwell": LabelSpec("s", 10.0, 4.0)}, 1, 1)
    params, memory = one.init(jax.random.key(0), spec)
    given = batch({"dwell": [[18.0, 6.0]]})
    value, _, kept = one.value(outputs(dwell=[[2.0, 0.0]]), given, params, memory, NOW)
    # Targets (18 - 10) / 4 = 2 and (6 - 10) / 4 = -1.
    np.testing.assert_allclose(value, [0.5])
    np.testing.assert_allclose(one.predict(outputs(dwell=[[2.0, -1.0]]), params, memory), [[18.0, 6.0]])
    assert kept == memory and one.expectation


def test_lists_without_a_relevant_item_are_spoken_of_only_if_wanted():
    given = batch({"click": [[0, 0], [0, 1], [0, 1]]}, {"click": [[1, 1], [1, 1], [1, 0]]})
    for needs, wanted in ((False, [True, True, True]), (True, [False, True, False])):
        one = objectives.single(losses.softmax, "click", needs_relevant=needs)
        assert one.value(outputs(click=np.zeros((3, 2))), given, (), (), NOW)[1].tolist() == wanted


def test_a_link_makes_a_probability():
    one = OBJECTIVES["probability"]
    np.testing.assert_allclose(one.predict(outputs(click=[[0.0, np.log(3.0)]]), (), ()), [[0.5, 0.75]], rtol=1e-6)
    assert one.probability and not one.expectation and one.positive


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"link": "logit"}, "link is 'logit'; it may be identity or sigmoid"),
        ({"link": "sigmoid", "standardise": True}, "link is sigmoid and standardise true for the label click"),
    ],
)
def test_a_link_that_is_none_or_does_not_go_with_the_label_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        objectives.single(losses.sigmoid_cross_entropy, "click", **settings)


def test_recall_mixes_a_smooth_recall_and_the_softmax_per_gain():
    given = batch({"click": [[1, 1, 0], [0, 0, 0]]})
    scores = np.array([[1.0, 0.0, -1.0], [1.0, 0.0, 0.0]], np.float32)
    value, speaks, _ = objectives.recall(k=1, softmax=0.25).value(outputs(click=scores), given, (), (), NOW)
    log = scores[0] - np.log(np.exp(scores[0]).sum())
    smooth = losses.recall_at_k(scores, given.labels["click"], where=given.where, weights=given.weights, k=1)
    np.testing.assert_allclose(value[0], 0.75 * smooth[0] + 0.25 * -(log[0] + log[1]) / 2, rtol=1e-5)
    assert speaks.tolist() == [True, False] and value[1] == 0
    with pytest.raises(ValueError, match=r"softmax is 1\.5"):
        objectives.recall(softmax=1.5)


def test_satisfied_click_is_the_cross_entropy_of_the_product_over_shown_items():
    a, b = np.array([[0.3, -1.0, 2.0]]), np.array([[1.5, 0.2, -0.4]])
    click, after = [[1, 1, 0]], [[1, 0, 0]]
    where = np.array([[True, True, True]])
    # Satisfaction is known after a click only; a shown item without a click still counts, as not satisfied.
    given = batch({"click": click, "satisfied": after}, {"satisfied": [[1, 1, 0]]}, where)
    p = 1 / (1 + np.exp(-a)) / (1 + np.exp(-b))
    wanted = -(np.log(p[0, 0]) + np.log(1 - p[0, 1]) + np.log(1 - p[0, 2])) / 3
    one = objectives.satisfied_click()
    value, speaks, _ = one.value(outputs(click=a, satisfied=b), given, (), (), NOW)
    np.testing.assert_allclose(value, [wanted], rtol=1e-5)
    np.testing.assert_allclose(one.predict(outputs(click=a, satisfied=b), (), ()), p, rtol=1e-5)
    assert speaks.tolist() == [True] and one.heads == {"click": 1, "satisfied": 1}


def test_propensity_weights_multiply_an_items_part():
    one, given = objectives.single(losses.squared, "dwell"), batch({"dwell": [[1.0, 2.0]]}, weights=[[3, 1]])
    value, _, _ = one.value(outputs(dwell=[[0.0, 0.0]]), given, (), (), NOW)
    # (3 x 1 + 1 x 4) / 2 items.
    np.testing.assert_allclose(value, [3.5])
    given = batch({"click": [[1, 0]], "satisfied": [[1, 0]]}, {"satisfied": [[1, 0]]}, weights=[[3, 0.5]])
    zeros = outputs(click=[[0.0, 0.0]], satisfied=[[0.0, 0.0]])
    value, _, _ = objectives.satisfied_click().value(zeros, given, (), (), NOW)
    # p = 1/4 for both.
    np.testing.assert_allclose(value, [(3 * np.log(4) + 0.5 * np.log(4 / 3)) / 2], rtol=1e-6)


@pytest.mark.parametrize("hidden", ["click", "satisfied"])
def test_satisfied_click_leaves_out_an_item_whose_click_or_satisfaction_is_unknown(hidden):
    one, labels = objectives.satisfied_click(), {"click": [[1, 1]], "satisfied": [[1, 0]]}
    scores = outputs(click=[[0.0, 3.0]], satisfied=[[0.0, 3.0]])
    value, speaks, _ = one.value(scores, batch(labels, {hidden: [[1, 0]]}), (), (), NOW)
    np.testing.assert_allclose(value, [np.log(4)], rtol=1e-6)
    assert speaks.tolist() == [True]
    value, speaks, _ = one.value(scores, batch(labels, {hidden: [[0, 0]]}), (), (), NOW)
    assert value.tolist() == [0.0] and speaks.tolist() == [False]


@pytest.mark.parametrize("far", [60.0, -60.0])
def test_satisfied_click_stays_exact_where_p_is_near_0_or_1(far):
    given = batch({"click": [[1.0]], "satisfied": [[float(far < 0)]]})
    value = OBJECTIVES["satisfied_click"].value(outputs(click=[[far]], satisfied=[[far]]), given, (), (), NOW)[0]
    # -log p = 120 for p = e^-120; -log(1 - p) = 60 - log 2 for p = 1 - 2 e^-60.
    np.testing.assert_allclose(value, [120.0 if far < 0 else 60.0 - np.log(2)], rtol=1e-5)


def test_the_mean_over_lists_counts_the_lists_spoken_of():
    values, speaks = jnp.array([1.0, 5.0, np.nan]), jnp.array([True, True, False])
    np.testing.assert_allclose(objectives.mean_over_lists(values, speaks), 3.0)
    np.testing.assert_array_equal(objectives.mean_over_lists(values, jnp.zeros(3, bool)), 0.0)


def broken(**changes):
    return OBJECTIVES["squared"]._replace(**changes)


def value_of(change):
    """The squared objective's value, with `change` of (values, speaks, outputs, batch) -> (values, speaks)."""

    def value(outputs, batch, params, memory, clock):
        found, speaks, memory = OBJECTIVES["squared"].value(outputs, batch, params, memory, clock)
        return *change(found, speaks, outputs, batch), memory

    return value


def _turned(scores, where):
    """0, with a gradient to the first item that is there."""
    first = jnp.where(where & (jnp.cumsum(where, -1) == 1), scores, 0.0).sum(-1)
    return first - jax.lax.stop_gradient(first)


BROKEN: dict[str, Objective] = {
    "heads": broken(heads={"dwell": 1, "click": 1}),
    "labels": broken(labels=("dwell", "click")),
    "which it does not read": broken(label="click"),
    "padding list is spoken of": broken(value=value_of(lambda v, s, o, b: (v, s | True))),
    "order of the items": broken(
        value=value_of(lambda v, s, o, b: (v + jnp.where(s, b.observed["dwell"][:, 0] * 1.0, 0.0), s))
    ),
    "does not permute the gradient": broken(
        value=value_of(lambda v, s, o, b: (v + _turned(o.scores["dwell"], b.observed["dwell"]), s))
    ),
    "not one per list": broken(value=value_of(lambda v, s, o, b: (v.mean(), s))),
    "under the mask": broken(value=value_of(lambda v, s, o, b: (v + o.scores["dwell"].sum(-1), s))),
    "not observed": broken(
        value=value_of(lambda v, s, o, b: (v + jnp.where(b.where, b.labels["dwell"], 0).sum(-1), s))
    ),
    "positive": broken(value=value_of(lambda v, s, o, b: (v - 1.0 * s, s))),
    "no score has a gradient": broken(value=value_of(lambda v, s, o, b: (jax.lax.stop_gradient(v), s))),
    "is not finite": broken(value=value_of(lambda v, s, o, b: (1.0 / jnp.where(s, 1.0, 0.0) + v, s))),
    "one number per item": broken(predict=lambda o, p, m: o.scores["dwell"].mean(-1)),
    "leaves .0, 1.": broken(probability=True),
}


@pytest.mark.parametrize("complaint", BROKEN)
def test_the_suite_notices(complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_objective(BROKEN[complaint])


@pytest.mark.parametrize("kind", ["graded", "real", "positive"])
def test_an_objective_of_other_labels_than_0_and_1(kind):
    seen = _batch(OBJECTIVES["squared"], kind).labels["dwell"][:2]
    assert {"graded": seen.max() > 1, "real": seen.min() < 0, "positive": len(np.unique(seen)) > 3}[kind]
    check_objective(OBJECTIVES["squared"], labels=kind)
    # Below 0 where a label is above 1, which labels 0 and 1 do not show.
    high = lambda b: jnp.where(b.observed["dwell"], b.labels["dwell"], 0.0) > 1
    below = broken(value=value_of(lambda v, s, o, b: (v - 99.0 * high(b).sum(-1), s)))
    check_objective(below)
    with pytest.raises(AssertionError, match="declared positive"):
        check_objective(below, labels=kind)


def test_a_masked_list_has_no_gradient_whatever_stands_there():
    one, given = OBJECTIVES["satisfied_click"], _batch(OBJECTIVES["satisfied_click"])
    found = _outputs(one)
    scores = {name: jnp.asarray(score).at[4].set(jnp.nan) for name, score in found.scores.items()}
    grads = jax.grad(lambda s: one.value(found._replace(scores=s), given, (), (), NOW)[0].sum())(scores)
    np.testing.assert_array_equal(grads["click"][4], np.zeros(6))
    assert all(np.isfinite(grad).all() for grad in grads.values())


@pytest.mark.parametrize(
    "block, wanted",
    [
        ({"use": "single", "loss": "softmax", "label": "click"}, {"head": "click"}),
        ({"use": "single", "loss": "softmax", "label": "click", "head": "own"}, {"head": "own"}),
        ({"use": "recall", "k": 5}, {"head": "click", "temperature_cut": 2.5}),
        ({"use": "recall", "label": "like", "temperature_cut": 1.0}, {"head": "like", "temperature_cut": 1.0}),
    ],
)
def test_a_config_says_the_head_and_the_temperature_in_force(block, wanted):
    found = bind("objective", block, where="objectives.one")
    assert {name: found.block.settings[name] for name in wanted} == wanted
    assert tuple(found.call().heads) == (wanted["head"],)
