import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec.types import Signals
from mobjrec.weightings import mgda

ALL = (True, True, True)


WEIGHTINGS = {name: mgda(name) for name in ("none", "norm", "loss", "loss_norm")}
UPDATES = {name: jax.jit(weighting.update) for name, weighting in WEIGHTINGS.items()}


def weights(jacobian, normalise="none", losses=(1.0, 1.0, 1.0), present=ALL):
    zero, rows = jnp.int32(0), np.asarray(jacobian, np.float32)
    count = len(rows)
    given = Signals(
        np.float32(losses[:count]), np.array(present[:count]), rows @ rows.T, None, zero, zero, jax.random.key(0)
    )
    return UPDATES[normalise](given, WEIGHTINGS[normalise].init(count))[0]


# Orthogonal gradients of lengths n_k: w_k is proportional to 1 / n_k^2.
LENGTHS = np.diag([1.0, 2.0, 3.0])


def shares(lengths):
    inverse = 1 / np.array(lengths) ** 2
    return inverse / inverse.sum()


@pytest.mark.parametrize("normalise, losses, lengths", [
    ("none", (1.0, 1.0, 1.0), (1, 2, 3)),
    ("none", (5.0, 1.0, 1.0), (1, 2, 3)),          # losses are not read
    ("norm", (5.0, 1.0, 1.0), (1, 1, 1)),
    ("loss", (2.0, 1.0, 0.5), (1 / 2, 2, 6)),
    ("loss_norm", (2.0, 1.0, 0.5), (1 / 2, 1, 2)),
    ("loss", (2e-20, 1e-20, 5e-21), (1 / 2, 2, 6)),
    ("loss", (2e20, 1e20, 5e19), (1 / 2, 2, 6)),
])  # fmt: skip
def test_what_gradients_are_divided_by(normalise, losses, lengths):
    np.testing.assert_allclose(weights(LENGTHS, normalise, losses), shares(lengths), rtol=1e-4)


@pytest.mark.parametrize("normalise", ["loss", "loss_norm"])
@pytest.mark.parametrize("loss", [0.0, 1e-30, 1e-6])
def test_a_loss_next_to_0_is_the_limit_of_a_small_one(normalise, loss):
    left = weights(LENGTHS[1:, 1:], normalise)
    np.testing.assert_allclose(weights(LENGTHS, normalise, (loss, 1.0, 1.0)), [0.0, *left], atol=1e-5)


@pytest.mark.parametrize("normalise", ["none", "norm", "loss", "loss_norm"])
def test_a_gradient_of_0_stops_the_step_unless_it_is_absent(normalise):
    jacobian = LENGTHS * np.array([[0.0], [1.0], [1.0]])
    np.testing.assert_array_equal(weights(jacobian, normalise), [1.0, 0.0, 0.0])
    found = weights(jacobian, normalise, present=(False, True, True))
    wanted = shares((1, 1)) if "norm" in normalise.split("_") else shares((2, 3))
    np.testing.assert_allclose(found, [0.0, *wanted], rtol=1e-5)


@pytest.mark.parametrize("loss", [1e30, np.nan])
def test_an_absent_loss_sets_no_scale(loss):
    found = weights(LENGTHS, "loss", (loss, 1.0, 0.5), present=(False, True, True))
    np.testing.assert_allclose(found, [0.0, *shares((2, 6))], rtol=1e-4)


def test_all_losses_0_are_all_alike():
    np.testing.assert_allclose(weights(LENGTHS, "loss", (0.0, 0.0, 0.0)), shares((1, 2, 3)), rtol=1e-4)


def test_only_what_divides_by_losses_needs_them_above_0():
    assert [mgda(n).needs_positive for n in ("none", "norm", "loss", "loss_norm")] == [False, False, True, True]
    assert mgda().needs_gram


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="normalise is 'l2'; it must be one of none, norm, loss, loss_norm"):
        mgda("l2")
