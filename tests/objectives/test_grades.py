"""CORAL and CORN as objectives: thresholds, units, what is not known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import objectives
from mobjrec.testing import check_objective
from mobjrec.types import LabelSpec, SideSpec, Spec

SPEC = Spec(0, SideSpec(), SideSpec(), SideSpec(), {"stars": LabelSpec()}, 1, 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.mark.parametrize("make", [objectives.coral, objectives.corn])
@pytest.mark.parametrize("classes", [5, 2])
def test_promises(make, classes):
    check_objective(make("stars", classes=classes, head="grade"), "graded")


def test_corals_thresholds_begin_even_and_fall_whatever_is_learnt(batch_of, scored, now):
    one = objectives.coral("stars", lowest=1)
    params, memory = one.init(jax.random.key(0), SPEC)
    # All five grades equally likely at 0: three stars expected.
    np.testing.assert_allclose(one.predict(scored(stars=[[0.0]]), params, memory), [[3.0]], rtol=1e-6)
    wild = {"first": jnp.float32(-7.0), "gaps": jnp.array([-6.0, 3.0, -1.0])}
    for given in (params, wild):
        b = float(given["first"]) - np.r_[0, np.cumsum(np.log1p(np.exp(np.asarray(given["gaps"], np.float64))))]
        assert (np.diff(b) < 0).all()
        s = np.array([[0.7, -1.0, 2.0]])
        z = s[..., None] + b
        np.testing.assert_allclose(one.predict(scored(stars=s), given, ()), 1 + sigmoid(z).sum(-1), rtol=1e-5)
        labels, known = [[4.0, 9.0, 1.0]], [[True, False, True]]
        value, speaks, _ = one.value(scored(stars=s), batch_of({"stars": labels}, {"stars": known}), given, (), now())
        passed = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
        each = -np.log(np.where(passed, sigmoid(z[0, [0, 2]]), sigmoid(-z[0, [0, 2]]))).sum(-1)
        np.testing.assert_allclose(value, [each.mean()], rtol=1e-5)
        assert speaks.tolist() == [True]


def test_corn_multiplies_what_is_passed(batch_of, scored, now):
    one = objectives.corn("stars", classes=3, lowest=1)
    assert one.heads == {"stars": 2} and one.expectation and one.takes == ("gain",)
    z = np.array([[[0.5, -0.3], [1.0, 2.0], [-1.0, 0.4]]])
    p = sigmoid(z)
    np.testing.assert_allclose(one.predict(scored(stars=z), (), ()), 1 + p[..., 0] + p[..., 0] * p[..., 1], rtol=1e-5)
    value, _, _ = one.value(scored(stars=z), batch_of({"stars": [[1.0, 3.0, 2.0]]}), (), (), now())
    terms = [1 - p[0, 0, 0], p[0, 1, 0], p[0, 1, 1], p[0, 2, 0], 1 - p[0, 2, 1]]
    np.testing.assert_allclose(value, [-np.log(terms).sum() / 5], rtol=1e-5)


def test_one_threshold_is_a_logistic_regression(batch_of, scored, now):
    s, given = np.array([[0.5, -2.0]]), batch_of({"stars": [[1.0, 0.0]]})
    wanted = -np.log([sigmoid(0.5), 1 - sigmoid(-2.0)]).mean()
    for one in (objectives.coral("stars", classes=2), objectives.corn("stars", classes=2)):
        params, memory = one.init(jax.random.key(0), SPEC) if one.init else ((), ())
        np.testing.assert_allclose(one.value(scored(stars=s), given, params, memory, now())[0], [wanted], rtol=1e-5)


@pytest.mark.parametrize("make", [objectives.coral, objectives.corn])
def test_a_scale_of_one_grade_is_refused(make):
    with pytest.raises(ValueError, match="classes is 1; it must be at least 2"):
        make("stars", classes=1)
