"""The first k of a long list are selected, not sorted: the same items, and so the same metrics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec.metrics import named
from mobjrec.metrics import ranked as room

LENGTH, K = room.LONG, 20
METRICS = ("ndcg", "dcg", "average_precision", "mrr", "precision", "recall", "f", "hit", "mean_label", "err", "rbp")
EXTREME = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, np.finfo(np.float32).min, np.finfo(np.float32).max, 1e-30])


def lists(count: int):
    """Scores with ties, infinities and NaN, of which the last lists have hardly anything else; grades; a mask."""
    random = np.random.default_rng(0)
    scores = random.integers(-40, 40, (count, LENGTH)).astype(np.float32) / 8
    odd = random.random(scores.shape) < np.linspace(0, 1, count)[:, None]
    scores = np.where(odd, random.choice(EXTREME, scores.shape), scores).astype(np.float32)
    labels = random.integers(0, 5, scores.shape) * (random.random(scores.shape) < 0.1)
    where = random.random(scores.shape) < np.linspace(1, 0, count)[random.permutation(count)][:, None]
    return scores, labels.astype(np.float32), where


def test_the_highest_are_the_first_of_the_order():
    scores, _, where = lists(40)
    found = jax.jit(room.highest, static_argnums=2)(scores, where, K)
    # float32's lowest number of all counts as the next one: both are below whatever a model says.
    whole = room.in_order(np.where(scores == EXTREME[5], np.float32(-1e38), scores), where)[0][:, :K]
    there = np.arange(K) < where.sum(-1, keepdims=True)
    np.testing.assert_array_equal(np.where(there, found, -1), np.where(there, whole, -1))


@pytest.mark.slow
def test_metrics_of_the_first_k_are_those_of_the_sorted_list(monkeypatch):
    scores, labels, where = lists(24)
    made = [named(f"{name}@{K}") for name in METRICS]
    both = lambda: jnp.stack([metric(scores, labels, where=where) for metric in made])
    selected = jax.jit(both)()
    assert "top_k" in str(jax.make_jaxpr(both)()) and " sort" not in str(jax.make_jaxpr(both)())
    monkeypatch.setattr(room, "LONG", 10**9)
    sorted_whole = jax.jit(lambda: both())()
    assert np.isfinite(selected).sum() > len(METRICS) * 12
    np.testing.assert_allclose(selected, sorted_whole, rtol=1e-6)
