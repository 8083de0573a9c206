"""Satisfaction over all that was shown: beside the reference, beside slow loops, and what stops a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.testing import check_objective

OBJECTIVES = {
    "satisfied_click": objectives.satisfied_click(),
    "escm2_ips": objectives.escm2_ips(clip=3.0, corrected=0.7),
    "dcmt": objectives.dcmt(clip=3.0, corrected=0.7, regulariser=0.3),
}
random = np.random.default_rng(0)
A, B, C = random.normal(0.0, 1.5, (3, 4, 6))
CLICK = random.integers(0, 2, (4, 6))
AFTER = CLICK * random.integers(0, 2, (4, 6))
SEEN_CLICK = random.random((4, 6)) < 0.9
SEEN_AFTER = (CLICK == 1) & (random.random((4, 6)) < 0.8)
WEIGHTS = random.uniform(0.5, 2.0, (4, 6))


@pytest.mark.parametrize("name", ["escm2_ips", "dcmt"])
def test_promises(name):
    check_objective(OBJECTIVES[name])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow(name):
    """[4] values in float64, item by item."""
    found = []
    for row in range(4):
        parts = []
        for i in range(6):
            click, after = CLICK[row, i], AFTER[row, i]
            if not SEEN_CLICK[row, i] or (click and not SEEN_AFTER[row, i]):
                continue
            p, q, counter = (sigmoid(x[row, i]) for x in (A, B, C))
            part = -np.log(p * q) if click and after else -np.log(1 - p * q)
            if name != "satisfied_click" and click:
                part += 0.7 * min(1 / p, 3.0) * -np.log(q if after else 1 - q)
            if name == "dcmt":
                if not click:
                    part += 0.7 * min(1 / (1 - p), 3.0) * -np.log(counter)
                part += 0.7 * 0.3 * abs(1 - q - counter)
            parts.append(WEIGHTS[row, i] * part)
        found.append(np.mean(parts))
    return found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_value_is_that_of_a_slow_loop(batch_of, scored, now, name):
    given = batch_of(
        {"click": CLICK, "satisfied": AFTER}, {"click": SEEN_CLICK, "satisfied": SEEN_AFTER}, weights=WEIGHTS
    )
    outputs = scored(click=A, satisfied=B, satisfied_counterfactual=C)
    one = OBJECTIVES[name]
    value, speaks, _ = one.value(outputs, given, (), (), now())
    np.testing.assert_allclose(value, slow(name), rtol=1e-5)
    assert speaks.all()
    np.testing.assert_allclose(one.predict(outputs, (), ()), sigmoid(A) * sigmoid(B), rtol=1e-5)


def test_esmm_is_the_click_and_satisfied_click_together(reference_of, batch_of, scored, now):
    entry = reference_of("esmm")
    inputs = {name: np.array(value)[None] for name, value in entry["inputs"].items()}
    given = batch_of({"click": inputs["click"], "satisfied": inputs["conversion"]}, where=inputs["where"])
    click = objectives.single(losses.sigmoid_cross_entropy, "click", link="sigmoid")

    def total(scores):
        return sum(
            one.value(scored(**scores), given, (), (), now())[0].sum() for one in (click, OBJECTIVES["satisfied_click"])
        )

    value, grads = jax.value_and_grad(total)(
        {"click": jnp.asarray(inputs["ctr_logits"]), "satisfied": jnp.asarray(inputs["cvr_logits"])}
    )
    np.testing.assert_allclose(value, entry["value"], rtol=1e-6)
    np.testing.assert_allclose(grads["click"][0], entry["grad"]["ctr_logits"], atol=1e-6)
    np.testing.assert_allclose(grads["satisfied"][0], entry["grad"]["cvr_logits"], atol=1e-6)


def test_the_correction_teaches_the_click_nothing_and_without_it_esmm_is_left(batch_of, scored, now):
    given = batch_of({"click": CLICK, "satisfied": AFTER})

    def grad_of(one, c=C):
        def total(a):
            outputs = scored(click=a, satisfied=B, satisfied_counterfactual=c)
            return one.value(outputs, given, (), (), now())[0].sum()

        return jax.grad(total)(jnp.asarray(A))

    plain = grad_of(OBJECTIVES["satisfied_click"])
    for one in (OBJECTIVES["escm2_ips"], OBJECTIVES["dcmt"], objectives.escm2_ips(corrected=0.0)):
        np.testing.assert_allclose(grad_of(one), plain, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_inverse_propensities_estimate_the_satisfaction_of_all_from_that_of_the_clicked(batch_of, scored, now):
    lists, items = 200, 500
    draw = np.random.default_rng(1)
    a = draw.normal(0.0, 1.0, (lists, items))
    # Who clicks is satisfied more often: the mean over clicked items is not that over all.
    q = sigmoid(0.8 * a)
    click = draw.random(a.shape) < sigmoid(a)
    after = click & (draw.random(a.shape) < q)
    given = batch_of({"click": click, "satisfied": after}, {"satisfied": click})
    outputs = scored(click=a, satisfied=np.zeros_like(a))
    one, without = (objectives.escm2_ips(clip=1e3, corrected=c) for c in (1.0, 0.0))
    value = one.value(outputs, given, (), (), now())[0] - without.value(outputs, given, (), (), now())[0]
    # At b = 0 an entropy is log 2 whatever the label, so the weights alone are seen: they sum to one an item.
    np.testing.assert_allclose(np.mean(value), np.log(2), rtol=2e-2)

    def slope(b):
        outputs = scored(click=a, satisfied=b * np.ones_like(a))
        both = (o.value(outputs, given, (), (), now())[0].mean() for o in (one, without))
        return next(both) - next(both)

    # The gradient at 0 is 1/2 - E[q] over all items, which is 0; over the clicked alone it is not.
    assert abs(float(jax.grad(slope)(0.0)) - (0.5 - q.mean())) < 0.01
    assert (q * sigmoid(a)).sum() / sigmoid(a).sum() > 0.55


@pytest.mark.parametrize("make", [objectives.escm2_ips, objectives.dcmt])
@pytest.mark.parametrize(
    "settings, says",
    [
        ({"after": "click"}, "after is click, the same label as click"),
        ({"clip": 0.5}, r"clip is 0\.5; it is the largest weight"),
        ({"corrected": -1.0}, r"corrected is -1\.0; it must not be negative"),
    ],
)
def test_settings_without_a_meaning_are_refused(make, settings, says):
    with pytest.raises(ValueError, match=says):
        make(**settings)


def test_the_counterfactual_head_is_one_of_its_own():
    assert objectives.dcmt().heads == {"click": 1, "satisfied": 1, "satisfied_counterfactual": 1}
    with pytest.raises(ValueError, match="head is click, which is read for something else"):
        objectives.dcmt(head="click")
    with pytest.raises(ValueError, match="regulariser is -1"):
        objectives.dcmt(regulariser=-1.0)
