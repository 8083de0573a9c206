"""What orders show of the catalogue, against sets and plain loops."""

import itertools

import numpy as np
import pytest

from mobjrec import evaluate, exposed
from mobjrec.data.candidates import as_logged, catalogue

K = 3


@pytest.fixture(scope="module")
def parts(tiny_trained):
    return tiny_trained.parts


@pytest.fixture(scope="module")
def vectors(parts):
    return np.random.default_rng(0).normal(size=(len(parts.dataset.items.id), 5)).astype(np.float32)


@pytest.fixture(scope="module")
def seen(parts, vectors):
    """What is found of a random order of the catalogue, and the items of every list by that order."""
    see, found = exposed.watching(parts, vectors, K)
    random, shown = np.random.default_rng(1), []
    for rows, drawn in evaluate.drawn_blocks(parts, parts.dataset.test, catalogue()):
        scores = random.permuted(np.tile(np.arange(drawn.where.shape[1], dtype=np.float32), (len(rows), 1)), axis=1)
        see(evaluate.Block(rows, drawn, {}, {}, {}), {"click": scores})
        item = np.broadcast_to(drawn.item, drawn.where.shape)
        shown += [
            item[n][drawn.where[n]][np.argsort(-scores[n][drawn.where[n]])][:K] for n in np.flatnonzero(rows >= 0)
        ]
    return *found(), shown


def popularity(parts):
    """How many users have each item in training, and how many there are, from the lists themselves."""
    met = {(u, i) for u in range(len(parts.dataset.users.id)) for i in items_of(parts, u)}
    counts = np.bincount([i for _, i in met], minlength=len(parts.dataset.items.id))
    return counts, len({u for u, _ in met})


def items_of(parts, user):
    lists = parts.dataset.train
    return [i for q in np.flatnonzero(lists.user == user) for i in lists.item[lists.start[q] : lists.start[q + 1]]]


def test_popularity_counts_users_of_training_once(parts):
    (found, users), (wanted, many) = exposed.popularity(parts.dataset), popularity(parts)
    np.testing.assert_array_equal(found, wanted)
    assert users == many


def test_novelty_and_diversity_are_those_of_the_first_items(seen, parts, vectors):
    measured, rows, shown = seen
    counts, users = popularity(parts)
    bits = -np.log2(np.maximum(counts, 1) / users)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    apart = [np.mean([1 - units[a] @ units[b] for a, b in itertools.combinations(items, 2)]) for items in shown]
    wanted = {"click:items/novelty@3": [bits[items].mean() for items in shown], "click:items/diversity@3": apart}
    assert rows.keys() == wanted.keys()
    for key, values in wanted.items():
        np.testing.assert_allclose(rows[key], values, rtol=1e-4, atol=1e-5)
        assert measured[key].value == pytest.approx(np.mean(values), rel=1e-4)
        assert measured[key].lists == len(shown) == len(parts.dataset.test.user)


def test_coverage_and_gini_are_those_of_all_lists_together(seen, parts):
    measured, _, shown = seen
    counts = np.bincount(np.concatenate(shown), minlength=len(parts.dataset.items.id))
    assert measured["click:items/coverage@3"].value == np.mean(counts > 0)
    apart = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean())
    assert measured["click:items/gini@3"].value == pytest.approx(apart)


def test_where_every_order_shows_the_same_nothing_is_said(parts, vectors):
    lists = parts.dataset.test
    longest = int(np.diff(lists.start).max())
    for k, said in ((longest, False), (longest - 1, True)):
        see, found = exposed.watching(parts, vectors, k)
        for rows, drawn in evaluate.drawn_blocks(parts, lists, as_logged()):
            see(evaluate.Block(rows, drawn, {}, {}, {}), {"click": np.zeros(drawn.where.shape, np.float32)})
        assert bool(found()[0]) is said


def test_a_metric_of_items_is_every_orders_own(parts):
    keys = ["click:items/novelty@10", "recall:items/novelty@10", "recall:satisfaction/auc"]
    assert [evaluate.is_own(parts.objectives, key) for key in keys] == [True, True, False]
