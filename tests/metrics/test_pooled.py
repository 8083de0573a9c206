from fractions import Fraction
from functools import partial

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from mobjrec import metrics
from mobjrec.metrics import pooled

LISTS, WIDTH = 6, 5
PROBABILITIES = hnp.arrays(np.float32, (LISTS, WIDTH), elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]))
LABELS = hnp.arrays(np.float32, (LISTS, WIDTH), elements=st.sampled_from([0.0, 0.0, 1.0]))
WHERE = hnp.arrays(bool, (LISTS, WIDTH))
ALL = {name: getattr(pooled, name) for name in ("auc", "pr_auc", "gauc", "log_loss", "accuracy", "rmse", "ece")}
ALL["mean"] = partial(pooled.mean, jax.jit(partial(metrics.precision, k=2)))


def of(metric, scores, labels, where):
    return metric.value(metric.update(metric.init(), scores, labels, where))


def share_of_pairs(scores, labels):
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels > 0] for n in scores[labels <= 0]]
    return np.mean(pairs) if pairs else np.nan


def by_hand(scores, labels, where):
    """Every metric by its definition, with plain loops."""
    within = [(share_of_pairs(s[w], y[w]), w.sum()) for s, y, w in zip(scores, labels, where, strict=True)]
    known = [(auc, count) for auc, count in within if not np.isnan(auc)]
    p, y = scores[where].astype(np.float64), labels[where]
    eps = np.finfo(np.float32).eps
    log = np.log(np.clip(np.where(y > 0, p, 1 - p), eps, 1 - eps))
    bins = [(p > n / 10) & (p <= (n + 1) / 10) | (p == 0) * (n == 0) for n in range(10)]
    shares = [np.mean(y[np.argsort(-s, kind="stable")][:2] > 0) for s, y in cut(scores, labels, where) if (y > 0).any()]
    return {
        "auc": share_of_pairs(scores[where], y),
        "gauc": sum(a * c for a, c in known) / sum(c for _, c in known) if known else np.nan,
        "log_loss": -log.mean() if len(p) else np.nan,
        "accuracy": ((p >= 0.5) == (y > 0)).mean() if len(p) else np.nan,
        "rmse": np.sqrt(((p - y) ** 2).mean()) if len(p) else np.nan,
        "pr_auc": np.mean([np.mean(y[p >= at] > 0) for at in p[y > 0]]) if (y > 0).any() else np.nan,
        "ece": sum(abs((p[one] - y[one]).sum()) for one in bins) / len(p) if len(p) else np.nan,
        "mean": np.mean(shares) if shares else np.nan,
    }


def cut(scores, labels, where):
    return [(s[w], y[w]) for s, y, w in zip(scores, labels, where, strict=True)]


@given(PROBABILITIES, LABELS, WHERE)
def test_pooled_metrics_are_their_definitions(scores, labels, where):
    wanted = by_hand(scores, labels, where)
    for name, metric in ALL.items():
        rtol = 1e-6 if name == "mean" else 1e-9
        found = of(metric(), scores, labels, where)
        np.testing.assert_allclose(found, wanted[name], rtol=rtol, atol=1e-12, err_msg=name)


@given(PROBABILITIES, LABELS, WHERE, st.integers(0, LISTS), st.integers(0, LISTS), st.permutations(range(LISTS)))
def test_the_value_is_the_same_for_any_cut_into_batches_and_any_order(scores, labels, where, one, two, order):
    first, second = sorted((one, two))
    shuffled = [a[list(order)] for a in (scores, labels, where)]
    for name, make in ALL.items():
        metric = make()
        parts = [[a[s] for a in shuffled] for s in (slice(0, first), slice(first, second), slice(second, None))]
        left = metric.update(metric.update(metric.init(), *parts[0]), *parts[1])
        right = metric.update(metric.init(), *parts[2])
        whole = of(metric, scores, labels, where)
        for state in (metric.merge(left, right), metric.merge(right, left), metric.update(left, *parts[2])):
            np.testing.assert_array_equal(metric.value(state), whole, err_msg=name)
        np.testing.assert_allclose(metric.value(metric.merge(metric.init(), right)), metric.value(right), err_msg=name)


@given(PROBABILITIES, LABELS, WHERE)
def test_what_stands_under_the_mask_changes_no_pooled_metric(scores, labels, where):
    for name, make in ALL.items():
        found = of(make(), np.where(where, scores, np.nan), np.where(where, labels, np.nan), where)
        np.testing.assert_array_equal(found, of(make(), scores, labels, where), err_msg=name)


def test_pooled_auc_compares_items_of_different_lists_and_grouped_auc_does_not():
    scores, labels, where = np.float32([[1, 2], [3, 4]]), np.array([[0, 1], [0, 1]]), np.ones((2, 2), bool)
    assert of(pooled.auc(), scores, labels, where) == 0.75
    assert of(pooled.gauc(), scores, labels, where) == 1.0


def test_grouped_auc_weighs_a_list_by_its_items_and_leaves_out_lists_of_one_kind():
    scores = np.float32([[1, 2, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4]])
    labels = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    where = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]], bool)
    assert of(pooled.gauc(), scores, labels, where) == pytest.approx((2 * 1.0 + 4 * 0.0) / 6)


@pytest.mark.parametrize("metric", [pooled.auc(), pooled.gauc(), pooled.mean(metrics.auc)])
def test_a_score_that_is_no_number_is_last(metric):
    scores, labels = np.array([[np.nan, 1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, 1.0, 0.0]])
    assert metric.value(metric.update(metric.init(), scores, labels, np.ones((1, 4), bool))) == 0.25


def test_updating_leaves_the_older_state_as_it_was():
    batch = np.float32([[0.2, 0.8]]), np.float32([[0, 1]]), np.ones((1, 2), bool)
    for make in ALL.values():
        metric = make()
        before = metric.init()
        metric.update(before, *batch)
        assert np.isnan(metric.value(before))


def test_a_certain_mistake_costs_a_finite_log_loss():
    wrong, labels, where = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.ones((1, 2), bool)
    assert of(pooled.log_loss(), wrong.astype(np.float32), labels, where) == pytest.approx(-np.log(2.0**-23))
    assert of(pooled.log_loss(), wrong, labels, where) == pytest.approx(-np.log(2.0**-52))


def test_the_threshold_itself_counts_as_positive():
    scores, labels, where = np.float32([[0.3, 0.7]]), np.float32([[1, 0]]), np.ones((1, 2), bool)
    assert of(pooled.accuracy(threshold=np.float32(0.3)), scores, labels, where) == 0.5
    assert of(pooled.accuracy(threshold=0.8), scores, labels, where) == 0.5
    assert of(pooled.accuracy(), scores, labels, where) == 0.0


def test_many_small_scores_keep_float64():
    scores = np.full((1000, 100), 1e-4, np.float32)
    labels, where = np.zeros_like(scores), np.ones(scores.shape, bool)
    metric = pooled.rmse()
    state = metric.init()
    for block in range(0, 1000, 100):
        state = metric.update(state, *(a[block : block + 100] for a in (scores, labels, where)))
    assert metric.value(state) == pytest.approx(float(np.float32(1e-4)), rel=1e-12)


@given(hnp.arrays(np.float64, 40, elements=st.floats(-1e300, 1e300)), st.permutations(range(40)), st.integers(0, 40))
def test_sums_are_exact_for_numbers_of_any_size_in_any_order(values, order, at):
    metric, inside, shuffled = pooled.mean(lambda scores, labels, where: scores), np.ones(40, bool), values[list(order)]
    parts = [metric.update(metric.init(), part, part, inside) for part in (shuffled[:at], shuffled[at:])]
    assert metric.value(metric.merge(*parts)) == float(sum(map(Fraction, values.tolist())) / 40)


def test_a_value_that_is_no_number_leaves_none():
    for bad in (np.nan, np.inf):
        scores, labels, where = np.float32([[0.5, bad]]), np.float32([[0, 1]]), np.ones((1, 2), bool)
        assert np.isnan(of(pooled.rmse(), scores, labels, where))
        assert of(pooled.rmse(), scores, labels, np.array([[True, False]])) == 0.5


@pytest.mark.parametrize("name", ALL)
def test_every_pooled_metric_refuses_what_does_not_fit(name):
    metric, scores = ALL[name](), np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"labels has shape \(2, 4\); expected that of scores, \(2, 3\)"):
        metric.update(metric.init(), scores, np.zeros((2, 4)), np.ones((2, 3), bool))
    with pytest.raises(ValueError, match=r"where is .*expected bool"):
        metric.update(metric.init(), scores, scores, np.ones((2, 3), np.int32))


def test_a_probability_on_an_edge_is_in_the_bin_below_and_zero_in_the_first():
    where = np.ones((1, 2), bool)
    # One of the two is right: together in a bin their errors cancel, in two bins they add up.
    for p, apart in (([0.45, 0.5], 0.05), ([0.0, 0.05], 0.95), ([0.5, 0.55], 0.5 + 0.55)):
        found = of(pooled.ece(), np.array([p]), np.array([[1.0, 0.0]]), where)
        assert found == pytest.approx(apart / 2), p


def test_fewer_than_one_bin_is_refused():
    with pytest.raises(ValueError, match="bins is 0; it must be at least 1"):
        pooled.ece(bins=0)
