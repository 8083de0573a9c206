import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from mobjrec import losses

WIDTH = 6
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.floats(-20, 20, width=32))
LABELS = hnp.arrays(np.int32, WIDTH, elements=st.integers(0, 3))
WEIGHTS = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 4, width=32))
WHERE = hnp.arrays(bool, WIDTH)
logistic = jax.jit(losses.pairwise_logistic)
LOSSES = {
    "pairwise_logistic": (losses.pairwise_logistic, lambda y: y, lambda d: np.logaddexp(0, -d)),
    "bpr": (losses.bpr, lambda y: y > 0, lambda d: np.logaddexp(0, -d)),
    "hinge": (losses.hinge, lambda y: y, lambda d: np.maximum(0, 1 - d)),
}


def pairs_mean(loss):
    def reduced(given, params):
        values, y, where = loss(**given, **params), given["labels"], given["where"]
        pairs = (y[..., :, None] > y[..., None, :]) & where[..., :, None] & where[..., None, :]
        counts = pairs.sum((-2, -1))
        return (values * counts).sum() / counts.sum()

    return reduced


@pytest.mark.parametrize("case, loss", [("pairwise_hinge", losses.hinge), ("bpr", losses.bpr)])
def test_value_and_gradient_are_those_of_the_reference(agrees, case, loss):
    agrees(case, pairs_mean(loss))


def reference(scores, labels, where, weights):
    s = scores.astype(np.float64)
    there = np.flatnonzero(where)
    pairs = [(i, j) for i in there for j in there if labels[i] > labels[j]]
    return np.mean([weights[i] * np.logaddexp(0, s[j] - s[i]) for i, j in pairs]) if pairs else 0.0


@given(SCORES, LABELS, WHERE, WEIGHTS)
def test_logistic_is_the_mean_over_pairs_each_weighing_as_its_better_item(scores, labels, where, weights):
    found = logistic(scores, labels, where=where, weights=weights)
    np.testing.assert_allclose(found, reference(scores, labels, where, weights), rtol=1e-4, atol=1e-5)


@given(SCORES, LABELS, WHERE, st.floats(-10, 10, width=32))
def test_one_number_added_to_all_scores_changes_nothing(scores, labels, where, shift):
    found = logistic(scores + np.float32(shift), labels, where=where)
    np.testing.assert_allclose(found, logistic(scores, labels, where=where), atol=1e-4)


def test_a_list_of_equal_labels_gives_zero_without_gradient():
    labels = jnp.array([[2.0, 2.0, 2.0], [0.0, 0.0, 1.0]])
    where = jnp.array([[True, True, True], [True, True, False]])
    scores = jnp.array([[1.0, 2.0, 3.0], [1.0, -1.0, jnp.nan]])
    value, back = jax.vjp(lambda s: losses.pairwise_logistic(s, labels, where=where), scores)
    np.testing.assert_array_equal(value, [0, 0])
    np.testing.assert_array_equal(back(jnp.ones(2))[0], np.zeros((2, 3)))


def test_one_pair_by_hand():
    value = losses.pairwise_logistic(jnp.array([0.0, 1.0]), jnp.array([3.0, 1.0]), where=jnp.ones(2, bool))
    np.testing.assert_allclose(value, np.log(1 + np.e), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_lists_longer_than_a_block_are_the_same_sums(monkeypatch, name):
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(2, 21)).astype(np.float32), random.integers(0, 3, (2, 21))
    where, weights = random.random((2, 21)) < 0.8, random.uniform(0.5, 2, (2, 21)).astype(np.float32)
    loss, cut, value = LOSSES[name]

    def found():
        return jax.jit(jax.value_and_grad(lambda s: jnp.sum(loss(s, labels, where=where, weights=weights))))(scores)

    whole = found()
    monkeypatch.setattr("mobjrec.ranks.BLOCK", 8)
    blocks = found()
    np.testing.assert_allclose(blocks[0], whole[0], rtol=1e-5)
    np.testing.assert_allclose(blocks[1], whole[1], atol=1e-6)
    wanted = []
    for s, y, m, w in zip(scores.astype(np.float64), cut(labels), where, weights, strict=True):
        pairs = [(i, j) for i in range(21) for j in range(21) if m[i] and m[j] and y[i] > y[j]]
        wanted.append(np.mean([w[i] * value(s[i] - s[j]) for i, j in pairs]))
    np.testing.assert_allclose(whole[0], sum(wanted), rtol=1e-5)


def test_a_long_list_keeps_no_array_of_all_its_pairs():
    length = 4096

    def peak(loss):
        given = jnp.zeros(length), jnp.zeros(length)
        where = jnp.ones(length, bool)
        one = jax.jit(jax.value_and_grad(lambda s, y: loss(s, y, where=where)))
        return one.lower(*given).compile().memory_analysis().temp_size_in_bytes

    for name in (losses.hinge, losses.lambda_rank):
        assert peak(name) < 4 * length**2 / 2


def test_hinge_by_hand_and_its_margin():
    scores, labels, where = jnp.array([0.5, 0.0]), jnp.array([2.0, 1.0]), jnp.ones(2, bool)
    np.testing.assert_allclose(losses.hinge(scores, labels, where=where), 0.5)
    np.testing.assert_allclose(losses.hinge(scores, labels, where=where, margin=2.0), 1.5)
    np.testing.assert_allclose(losses.hinge(scores, labels, where=where, margin=0.25), 0.0)
    with pytest.raises(ValueError, match=r"margin is 0\.0; it must be above 0"):
        losses.hinge(scores, labels, where=where, margin=0.0)


def test_bpr_has_no_pair_of_two_relevant_items():
    scores, where = jnp.array([0.0, 1.0, -1.0]), jnp.ones(3, bool)
    graded, cut = jnp.array([3.0, 1.0, 0.0]), jnp.array([1.0, 1.0, 0.0])
    found = losses.bpr(scores, graded, where=where)
    np.testing.assert_allclose(found, losses.pairwise_logistic(scores, cut, where=where))
    assert found < losses.pairwise_logistic(scores, graded, where=where)
