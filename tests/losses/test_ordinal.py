"""Grades by thresholds: beside the reference, by hand, and what the probabilities come to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def coral(inputs, params):
    where = inputs.get("where", jnp.ones(inputs["labels"].shape, bool))
    return losses.coral(inputs["scores"][:, None] + inputs["biases"], inputs["labels"], where=where)


def corn(inputs, params):
    return losses.corn(inputs["logits"], inputs["labels"], where=jnp.ones(inputs["labels"].shape, bool))


CASES = {"coral": coral, "coral_mask": coral, "corn": corn}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


def test_a_grade_passes_what_is_below_it():
    scores = jnp.array([[[0.0, 0.0, 0.0], [4.0, 0.0, -4.0]]])
    where = jnp.array([[False, True]])
    for grade, passed in ((0, [0, 0, 0]), (1, [1, 0, 0]), (1.5, [1, 1, 0]), (3, [1, 1, 1])):
        z, p = np.array([4.0, 0.0, -4.0]), np.array(passed)
        each = np.log1p(np.exp(z)) - p * z
        labels = jnp.array([[np.nan, grade]])
        np.testing.assert_allclose(losses.coral(scores, labels, where=where), [each.sum()], rtol=1e-6)
        asked = np.r_[1, p[:-1]]
        wanted = (each * asked).sum() / asked.sum()
        np.testing.assert_allclose(losses.corn(scores, labels, where=where), [wanted], rtol=1e-6)


def test_the_least_conditional_loss_gives_the_shares_of_the_grades():
    labels = jnp.asarray(np.repeat(np.arange(4.0), [10, 40, 30, 20]).astype(np.float32))
    where = jnp.ones(100, bool)

    @jax.jit
    def fitted(z):
        grad = jax.grad(lambda z: losses.corn(jnp.broadcast_to(z, (100, 3)), labels, where=where))
        return jax.lax.fori_loop(0, 3000, lambda _, z: z - 2.0 * grad(z), z)

    passed = np.cumprod(jax.nn.sigmoid(fitted(jnp.zeros(3))))
    np.testing.assert_allclose(passed, [0.9, 0.5, 0.2], atol=1e-3)


def test_weights_multiply_an_items_part_and_not_the_divisor():
    scores, labels = jnp.zeros((2, 2)), jnp.array([0.0, 2.0])
    where, weights = jnp.ones(2, bool), jnp.array([1.0, 3.0])
    # One term for the first item, two for the second, each log 2; CORAL has two for both.
    found = [loss(scores, labels, where=where, weights=weights) / np.log(2) for loss in (losses.corn, losses.coral)]
    np.testing.assert_allclose(found, [(1 + 3 * 2) / 3, (2 + 3 * 2) / 2], rtol=1e-6)
