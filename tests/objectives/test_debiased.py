"""Clicks freed of their slot: weights, towers and EM beside slow loops; and that they win on a biased corpus."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.errors import UserError
from mobjrec.objectives import propensities_of
from mobjrec.testing import check_objective
from mobjrec.types import SideSpec, Spec

SPEC = Spec(0, SideSpec(), SideSpec(), SideSpec(), {}, 1, 1, positions=4)
PROPENSITIES = (1.0, 0.5, 0.25, 0.125, 0.1, 0.1)
random = np.random.default_rng(0)
SCORES = random.normal(0.0, 1.5, (5, 6))
CLICK = random.integers(0, 2, (5, 6))
SEEN = random.random((5, 6)) < 0.9
WEIGHTS = random.uniform(0.5, 2.0, (5, 6))
POSITION = random.integers(-1, 4, (5, 6))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.fixture(scope="module")
def given(batch_of):
    return batch_of({"click": CLICK}, {"click": SEEN}, weights=WEIGHTS, position=POSITION)


OBJECTIVES = {
    "inverse_propensity": objectives.inverse_propensity(losses.softmax, "click", PROPENSITIES),
    "inverse_propensity, one item at a time": objectives.inverse_propensity(
        losses.sigmoid_cross_entropy, "click", PROPENSITIES, link="sigmoid"
    ),
    "position_tower": objectives.position_tower(losses.sigmoid_cross_entropy, "click", link="sigmoid", reference=2),
    "position_tower of a list": objectives.position_tower(losses.softmax, "click"),
    "regression_em": objectives.regression_em(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_promises(name):
    check_objective(OBJECTIVES[name])


def test_a_click_weighs_the_inverse_of_its_slots_propensity(given, scored, now):
    one = objectives.inverse_propensity(losses.softmax, "click", (1.0, 0.5, 0.25, 0.05), clip=8.0)
    value, speaks, _ = one.value(scored(click=SCORES), given, (), (), now())
    wanted = []
    for row in range(5):
        logs = SCORES[row] - np.log(np.exp(SCORES[row][SEEN[row]]).sum())
        parts = 0.0
        for i in np.flatnonzero(SEEN[row] & (CLICK[row] > 0)):
            slot = POSITION[row, i]
            parts += -logs[i] * WEIGHTS[row, i] * (1.0 if slot < 0 else [1.0, 2.0, 4.0, 8.0][slot])
        wanted.append(parts)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert speaks.all() and one.order and one.relevant
    np.testing.assert_allclose(one.predict(scored(click=SCORES), (), ()), SCORES, rtol=1e-6)


def test_what_was_not_clicked_or_has_no_slot_weighs_one(batch_of, scored, now):
    one = OBJECTIVES["inverse_propensity, one item at a time"]
    given = batch_of({"click": [[1, 0, 1]]}, position=[[2, 2, -1]])
    value, _, _ = one.value(scored(click=[[0.0, 1.0, 2.0]]), given, (), (), now())
    # The click in slot 2 counts four times.
    np.testing.assert_allclose(
        value, [-(4 * np.log(0.5) + np.log(sigmoid(-1.0)) + np.log(sigmoid(2.0))) / 3], rtol=1e-5
    )


def test_inverse_propensities_give_the_loss_of_clicks_that_everybody_saw(batch_of, scored, now):
    draw = np.random.default_rng(1)
    lists, items = 4000, 4
    relevant = draw.random((lists, items)) < 0.5
    position = np.argsort(draw.random((lists, items)), -1)
    theta = np.array([1.0, 0.6, 0.4, 0.2])
    click = relevant & (draw.random((lists, items)) < theta[position])
    outputs = scored(click=draw.normal(size=(lists, items)))
    full, _, _ = objectives.single(losses.softmax, "click").value(outputs, batch_of({"click": relevant}), (), (), now())
    seen = batch_of({"click": click}, position=position)
    ours, _, _ = objectives.inverse_propensity(losses.softmax, "click", tuple(theta)).value(
        outputs, seen, (), (), now()
    )
    naive, _, _ = objectives.single(losses.softmax, "click").value(outputs, seen, (), (), now())
    np.testing.assert_allclose(ours.mean(), full.mean(), rtol=0.05)
    assert naive.mean() < 0.6 * full.mean()


def test_a_tower_adds_its_slots_bias_and_ranking_does_not(given, scored, now):
    one = OBJECTIVES["position_tower"]
    params = {"bias": jnp.array([0.7, -0.2, 0.1, -2.0])}
    value, _, _ = one.value(scored(click=SCORES), given, params, (), now())
    shift = np.array([0.6, -0.3, 0.0, -2.1, 0.0])[POSITION]
    p = sigmoid(SCORES + shift)
    each = -np.where(CLICK, np.log(p), np.log(1 - p)) * WEIGHTS
    np.testing.assert_allclose(value, each.mean(-1, where=SEEN), rtol=1e-5)
    np.testing.assert_allclose(one.predict(scored(click=SCORES), params, ()), sigmoid(SCORES), rtol=1e-5)
    start, _ = one.init(jax.random.key(0), SPEC)
    np.testing.assert_array_equal(start["bias"], np.zeros(4))


def slow_em(scores, theta):
    """[5, 6] what the score learns, and the share that was looked at: Bayes over the four cases, item by item."""
    target, looked = np.zeros((5, 6)), np.zeros((5, 6))
    for place in np.ndindex(5, 6):
        t, g = (1.0 if POSITION[place] < 0 else theta[POSITION[place]]), sigmoid(scores[place])
        cases = {(1, 1): t * g, (1, 0): t * (1 - g), (0, 1): (1 - t) * g, (0, 0): (1 - t) * (1 - g)}
        cases = {case: p for case, p in cases.items() if (case == (1, 1)) == bool(CLICK[place])}
        total = sum(cases.values())
        target[place] = sum(p for (_, relevant), p in cases.items() if relevant) / total
        looked[place] = sum(p for (seen, _), p in cases.items() if seen) / total
    return target, looked


def test_em_is_bayes_over_what_was_seen_and_relevant(given, scored, now):
    one = objectives.regression_em(start=0.4)
    params, memory = one.init(jax.random.key(0), SPEC)
    for step in (0, 6):
        theta = np.asarray(propensities_of(memory), np.float64)
        assert theta[0] == 1.0
        target, looked = slow_em(SCORES, theta)
        value, speaks, after = one.value(scored(click=SCORES), given, params, memory, now(step))
        p = sigmoid(SCORES)
        each = -(target * np.log(p) + (1 - target) * np.log(1 - p)) * WEIGHTS
        np.testing.assert_allclose(value, each.mean(-1, where=SEEN), rtol=1e-5)
        for slot in range(4):
            there = SEEN & (slot == POSITION)
            change = {name: float(after[name][slot] - memory[name][slot]) for name in memory}
            assert change["shown"] == pytest.approx((step + 1) * there.sum(), rel=1e-5)
            assert change["looked_at"] == pytest.approx((step + 1) * looked[there].sum(), rel=1e-4)
        memory = after
    assert speaks.all()
    grad = jax.grad(lambda s: one.value(scored(click=s), given, (), memory, now())[0].sum())(jnp.asarray(SCORES))
    target, _ = slow_em(SCORES, np.asarray(propensities_of(memory), np.float64))
    count = SEEN.sum(-1, keepdims=True)
    # As of labels that are given: no gradient passes through what was inferred.
    np.testing.assert_allclose(grad, np.where(SEEN, WEIGHTS * (sigmoid(SCORES) - target) / count, 0), atol=1e-6)


def test_em_finds_the_propensities_and_relevances_that_made_the_clicks(batch_of, scored, now):
    draw = np.random.default_rng(3)
    theta = np.array([1.0, 0.7, 0.45, 0.3, 0.2])
    relevance = np.linspace(0.1, 0.9, 20)
    one = objectives.regression_em()
    params, memory = one.init(jax.random.key(0), SPEC._replace(positions=5))
    item = np.stack([draw.permutation(20)[:5] for _ in range(4000)])
    click = draw.random(item.shape) < theta * relevance[item]
    given = batch_of({"click": click}, position=np.tile(np.arange(5), (4000, 1)))

    @jax.jit
    def step(table, memory, number):
        def total(table):
            value, _, after = one.value(scored(click=table[item]), given, params, memory, now()._replace(step=number))
            return value.mean(), after

        grad, memory = jax.grad(total, has_aux=True)(table)
        return table - 20.0 * grad, memory

    table = jnp.zeros(20)
    for number in range(400):
        table, memory = step(table, memory, jnp.int32(number))
    np.testing.assert_allclose(propensities_of(memory), theta, atol=0.04)
    assert np.abs(sigmoid(table) - relevance).mean() < 0.04
    # What was clicked as it is: the mean over the slots, half the relevance.
    assert abs(click.mean() / relevance.mean() - theta.mean()) < 0.02


@pytest.mark.parametrize(
    "make, says",
    [
        (partial(objectives.inverse_propensity, propensities=(1.0, 0.0)), r"propensities holds \[0\.0\]"),
        (partial(objectives.inverse_propensity, propensities=()), "propensities holds nothing"),
        (partial(objectives.inverse_propensity, propensities=(1.0,), clip=0.0), r"clip is 0\.0"),
        (partial(objectives.position_tower, reference=-1), "reference is -1; it is a slot"),
    ],
)
def test_settings_without_a_meaning_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make(losses.softmax, "click")
    with pytest.raises(ValueError, match=r"start is 0\.0"):
        objectives.regression_em(start=0.0)


def test_slots_that_data_and_settings_do_not_share_are_refused_before_training():
    key = jax.random.key(0)
    for one in (OBJECTIVES["inverse_propensity"], OBJECTIVES["position_tower"], OBJECTIVES["regression_em"]):
        with pytest.raises(UserError, match=r"no item .* says in which slot .* data\.columns\.position"):
            one.init(key, SPEC._replace(positions=0))
    with pytest.raises(UserError, match=r"names 6 slots, but items .* were shown in 12"):
        OBJECTIVES["inverse_propensity"].init(key, SPEC._replace(positions=12))
    with pytest.raises(UserError, match="reference is 2, but the training lists have slots 0 to 1"):
        OBJECTIVES["position_tower"].init(key, SPEC._replace(positions=2))
