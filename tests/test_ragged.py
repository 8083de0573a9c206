"""Flat arrays with segments beside padded ones with `where`: the same values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, metrics
from mobjrec.ragged import by_segment

SIZES = (3, 0, 5, 1)
LISTS, LENGTH = len(SIZES), 5


def flat_and_padded(seed=0):
    """(scores, labels, weights) of N items in mixed order with their segments, two of them padding, and padded."""
    random = np.random.default_rng(seed)
    where = np.arange(LENGTH) < np.array(SIZES)[:, None]
    padded = [random.normal(size=where.shape).astype(np.float32) for _ in range(2)]
    padded.append(random.uniform(0.5, 2, where.shape).astype(np.float32))
    padded[1] = (padded[1] > 0).astype(np.float32)
    segments = np.concatenate([np.nonzero(where)[0], [-1, -3]])
    flat = [np.concatenate([one[where], [np.nan, 7.0]]).astype(np.float32) for one in padded]
    # Lists may interleave; within a list the order stands.
    ahead = np.argsort(random.random(len(segments)) + segments * 0.05, kind="stable")
    order = np.concatenate([np.sort(ahead[segments[ahead] == n]) for n in (2, -1, 0, 3, -3)])
    return [one[order] for one in flat], segments[order].astype(np.int32), padded, where


@pytest.mark.parametrize(
    "loss",
    [
        losses.sigmoid_cross_entropy,
        losses.softmax,
        losses.pairwise_logistic,
        functools.partial(losses.recall_at_k, k=2),
    ],
)
def test_a_loss_is_the_same_by_segments(loss):
    (scores, labels, weights), segments, padded, where = flat_and_padded()

    @jax.jit
    def both(scores, padded_scores):
        def by_flat(s):
            found = by_segment(loss, LISTS, LENGTH)(s, labels, segments, weights=weights)
            return (found * jnp.arange(1, 5)).sum(), found

        def by_where(s):
            found = loss(s, padded[1], where=where, weights=padded[2])
            return (found * jnp.arange(1, 5)).sum(), found

        return (jax.grad(by_flat, has_aux=True)(scores), jax.grad(by_where, has_aux=True)(padded_scores))

    (flat_grad, flat), (grad, value) = both(scores, padded[0])
    np.testing.assert_array_equal(flat, value)
    assert np.abs(value).max() > 0
    for row in range(LISTS):
        np.testing.assert_array_equal(flat_grad[segments == row], grad[row][where[row]])
    assert not np.asarray(flat_grad)[segments < 0].any()


def test_a_metric_is_the_same_by_segments_with_ties_in_the_order_given():
    (scores, labels, _), segments, padded, where = flat_and_padded()
    ndcg = functools.partial(metrics.ndcg, k=3)
    np.testing.assert_array_equal(
        by_segment(ndcg, LISTS, LENGTH)(np.round(scores), labels, segments),
        ndcg(np.round(padded[0]), padded[1], where=where),
    )


def test_what_does_not_fit_is_nan_not_lost():
    scores, labels, segments = np.arange(4.0), np.ones(4), np.array([0, 0, 0, 1])
    found = by_segment(losses.softmax, 2, 2)(scores, labels, segments)
    assert np.isnan(found[0]) and found[1] == 0
    assert np.isnan(by_segment(losses.softmax, 1, 4)(scores, labels, segments)).all()


@pytest.mark.parametrize(
    "labels, segments, says",
    [
        (np.ones(3), np.zeros(4, int), r"labels has shape \(3,\); expected one entry per score, \(4,\)"),
        (np.ones(4), np.zeros((4, 1), int), r"segments has shape \(4, 1\)"),
        (np.ones(4), np.zeros(4), "segments are 4 of float32; expected whole numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_named(labels, segments, says):
    with pytest.raises(ValueError, match=says):
        by_segment(losses.softmax, 2, 4)(jnp.zeros(4), labels, jnp.asarray(segments))
