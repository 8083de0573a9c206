"""Expected ties against the mean over every order of tied items."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest

from mobjrec import metrics

# Sixty metrics a program.
pytestmark = pytest.mark.slow

# Groups of equal scores, some with padding between their items.
SCORES = np.float32(
    [
        [1, 1, 1, 0, 0, 2],
        [5, 5, 5, 5, 5, 5],
        [3, 2, 2, 2, 1, 1],
        [0, 1, 0, 1, 0, 1],
        [1, 2, 3, 4, 5, 6],
        [7, 7, 1, 7, 1, 7],
    ]
)
LABELS = np.float32(
    [
        [0, 1, 2, 1, 0, 0],
        [0, 0, 3, 0, 1, 0],
        [0, 0, 0, 1, 2, 0],
        [1, 2, 0, 0, 3, 1],
        [0, 1, 0, 2, 0, 0],
        [0, 4, 1, 0, 0, 2],
    ]
)
WHERE = np.ones((6, 6), bool)
WHERE[3, 1] = WHERE[5, 3] = WHERE[5, 4] = False
KEYS = (
    "ndcg",
    "dcg",
    "mrr",
    "hit",
    "average_precision",
    "precision",
    "recall",
    "capped_recall",
    "f2",
    "rbp0.7",
    "mean_label",
)
CUTS = ("", "@1", "@2", "@3", "@5", "@9")
EXPECTED = {
    "linear": partial(metrics.ndcg, gain="linear", k=3),
    "all": partial(metrics.average_precision, capped=False, k=2),
    **{key + cut: metrics.named(key + cut) for key in KEYS for cut in CUTS},
}


def every_order(scores, labels, where):
    """Labels [orders, L] of every order in which equal scores may stand, and which of them are padding."""
    there = np.flatnonzero(where)
    groups = [there[scores[there] == value] for value in sorted(set(scores[there]), reverse=True)]
    orders = [np.concatenate(one) for one in itertools.product(*map(itertools.permutations, groups))]
    room = len(scores) - len(there)
    return np.pad(labels[np.array(orders)], [(0, 0), (0, room)]), np.arange(len(scores)) < len(there)


@jax.jit
def with_ties(scores, labels, where):
    return {key: metric(scores, labels, where=where, ties="expected") for key, metric in EXPECTED.items()}


@jax.jit
def in_order(labels, where):
    scores = -np.arange(labels.shape[-1], dtype=np.float32)
    scores = jax.numpy.broadcast_to(scores, labels.shape)
    return {key: metric(scores, labels, where=where) for key, metric in EXPECTED.items()}


def test_an_expected_metric_is_its_mean_over_all_orders_of_tied_items():
    found = with_ties(SCORES, LABELS, WHERE)
    for row in range(len(SCORES)):
        labels, where = every_order(SCORES[row], LABELS[row], WHERE[row])
        # One shape for all: orders repeat in turn, 720 being a multiple of their number.
        labels = np.tile(labels, (720 // len(labels), 1))
        each = in_order(labels, np.broadcast_to(where, labels.shape))
        for key, values in each.items():
            np.testing.assert_allclose(found[key][row], np.mean(values), rtol=2e-5, err_msg=f"{key}, list {row}")


def test_without_ties_the_two_are_one():
    scores = np.argsort(np.argsort(SCORES, axis=-1, kind="stable"), axis=-1).astype(np.float32)
    plain = jax.jit(lambda s, y, w: {key: metric(s, y, where=w) for key, metric in EXPECTED.items()})
    for key, values in plain(scores, LABELS, WHERE).items():
        np.testing.assert_allclose(with_ties(scores, LABELS, WHERE)[key], values, rtol=1e-5, err_msg=key)


def test_a_score_that_says_nothing_has_the_value_of_chance_and_not_of_the_order_it_was_given():
    labels = np.float32([1, 1, 0, 0, 0, 0])
    scores, where = np.zeros(6, np.float32), np.ones(6, bool)
    assert float(metrics.precision(scores, labels, where=where, k=2)) == 1.0
    assert float(metrics.precision(scores, labels, where=where, k=2, ties="expected")) == pytest.approx(1 / 3)
    # One over C(6, 2) pairs of places in which neither of the two relevant stands among the first two: C(4, 2).
    assert float(metrics.hit(scores, labels, where=where, k=2, ties="expected")) == pytest.approx(1 - 6 / 15)


def test_small_gains_behind_large_ones_keep_their_digits():
    labels = np.float32([1e6] * 3000 + [1e-3] * 2)
    scores = np.float32([2] * 3000 + [1] * 2)
    half = metrics.dcg(scores, labels, where=labels < 1, gain="linear", ties="expected")
    assert float(half) == pytest.approx(1e-3 * (1 + 1 / np.log2(3)), rel=1e-5)
    tail = metrics.mean_label(
        np.arange(3002)[::-1].astype(np.float32), labels, where=np.ones(3002, bool), ties="expected"
    )
    assert float(tail) == pytest.approx(labels.astype(float).mean(), rel=1e-5)
