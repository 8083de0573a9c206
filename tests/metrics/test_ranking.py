from functools import partial
from inspect import signature

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from mobjrec import metrics
from mobjrec.testing import check_metric

WIDTH = 7
# Few values, so that ties are common.
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.sampled_from([-np.inf, -1, 0, 0.5, 2, np.inf]))
LABELS = hnp.arrays(np.int32, WIDTH, elements=st.integers(0, 3))
WHERE = hnp.arrays(bool, WIDTH)
CUTS = (None, 1, 3, 20)
NAMES = [name for name in metrics.__all__ if name != "named"]
WHOLE = ("auc", "kendall")
SIGNED = ("kendall", "dcg", "mean_label")


def ndcg(y, k):
    def dcg(labels):
        return sum((2.0**label - 1) / np.log2(rank + 2) for rank, label in enumerate(labels[:k]))

    best = dcg(sorted(y, reverse=True))
    return dcg(y) / best if best else np.nan


def ndcg_linear(y, k):
    discount = 1 / np.log2(np.arange(len(y[:k])) + 2)
    best = (np.sort(y)[::-1][:k] * discount).sum()
    return (y[:k] * discount).sum() / best if best else np.nan


def precision(y, k):
    return np.mean(y[:k] > 0) if (y > 0).any() else np.nan


def recall(y, k):
    return np.sum(y[:k] > 0) / np.sum(y > 0) if (y > 0).any() else np.nan


def hit(y, k):
    return float((y[:k] > 0).any()) if (y > 0).any() else np.nan


def mrr(y, k):
    if not (y > 0).any():
        return np.nan
    first = np.flatnonzero(y > 0)[0]
    return 1 / (first + 1) if k is None or first < k else 0.0


def average_precision(y, k):
    places = np.flatnonzero(y > 0)
    if not len(places):
        return np.nan
    inside = [np.mean(y[: place + 1] > 0) for place in places if k is None or place < k]
    return np.sum(inside) / min(len(places), k or len(y))


def mean_label(y, k):
    return np.mean(y[:k]) if len(y) else np.nan


def dcg(y, k):
    gains = sum((2.0**label - 1) / np.log2(rank + 2) for rank, label in enumerate(y[:k]))
    return gains if (y > 0).any() else np.nan


def f_beta(y, k):
    p, r = precision(y, k), recall(y, k)
    return 0.0 if p == 0 else 2 * p * r / (p + r)


def err(y, k):
    going, total = 1.0, 0.0
    for rank, label in enumerate(y[:k], start=1):
        stop = (2.0 ** min(label, 4) - 1) / 16
        total, going = total + going * stop / rank, going * (1 - stop)
    return total if (y > 0).any() else np.nan


def rbp(y, k):
    return 0.2 * sum(0.8**place for place, label in enumerate(y[:k]) if label > 0) if (y > 0).any() else np.nan


ALL = (ndcg, precision, recall, hit, mrr, average_precision, mean_label, dcg, f_beta, err, rbp)
BY_HAND = {f.__name__: f for f in ALL}


def recall_capped(y, k):
    return np.sum(y[:k] > 0) / min(np.sum(y > 0), k or len(y)) if (y > 0).any() else np.nan


def average_precision_of_all(y, k):
    return average_precision(y, k) * min(np.sum(y > 0), k or len(y)) / max(np.sum(y > 0), 1)


def kendall(scores, labels):
    if len(set(labels)) < 2:
        return np.nan
    return 0.0 if len(set(scores)) < 2 else stats.kendalltau(scores, labels).statistic


def in_order(scores, labels, where):
    """Labels of the real items as ranked; Python's sort is stable."""
    there = sorted(np.flatnonzero(where), key=lambda i: -scores[i])
    return labels[there].astype(np.float64)


def all_of(scores, labels, where):
    found = {name: [getattr(metrics, name)(scores, labels, where=where, k=k) for k in CUTS] for name in BY_HAND}
    found["ndcg_linear"] = [metrics.ndcg(scores, labels, where=where, k=k, gain="linear") for k in CUTS]
    found["recall_capped"] = [metrics.recall(scores, labels, where=where, k=k, capped=True) for k in CUTS]
    found["average_precision_of_all"] = [
        metrics.average_precision(scores, labels, where=where, k=k, capped=False) for k in CUTS
    ]
    found |= {name: getattr(metrics, name)(scores, labels, where=where) for name in WHOLE}
    return found


measured = jax.jit(all_of)


def program(metric):
    settings = [name for name in ("k", "gain") if name in signature(metric).parameters]
    return jax.jit(metric, static_argnames=settings)


compiled = {name: program(getattr(metrics, name)) for name in NAMES}


@given(SCORES, LABELS, WHERE)
def test_metrics_are_what_counting_along_the_ranked_list_gives(scores, labels, where):
    y = in_order(scores, labels, where)
    found = measured(scores, labels, where)
    others = {f.__name__: f for f in (ndcg_linear, recall_capped, average_precision_of_all)}
    for name, by_hand in (BY_HAND | others).items():
        wanted = [by_hand(y, k) for k in CUTS]
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@given(SCORES, LABELS, WHERE)
def test_auc_is_the_share_of_pairs_in_order_with_half_for_ties(scores, labels, where):
    positives, others = scores[where & (labels > 0)], scores[where & (labels == 0)]
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in others]
    wanted = np.mean(pairs) if pairs else np.nan
    np.testing.assert_allclose(measured(scores, labels, where)["auc"], wanted, rtol=1e-6)


@given(SCORES, LABELS, WHERE)
def test_kendall_is_scipys_and_zero_for_scores_that_say_nothing(scores, labels, where):
    wanted = kendall(scores[where], labels[where])
    np.testing.assert_allclose(measured(scores, labels, where)["kendall"], wanted, rtol=1e-5, atol=1e-6)


@given(SCORES, LABELS, WHERE, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_stands_under_the_mask_changes_no_metric(scores, labels, where, fill):
    found = measured(np.where(where, scores, np.float32(fill)), np.where(where, labels, 9), where)
    jax.tree.map(np.testing.assert_array_equal, found, measured(scores, labels, where))


@given(LABELS, WHERE)
def test_the_ideal_order_is_worth_one_and_everything_stays_between_zero_and_one(labels, where):
    ideal, worst = (measured(sign * labels.astype(np.float32), labels, where) for sign in (1, -1))
    for name in ("ndcg", "ndcg_linear", "mrr", "average_precision", "recall_capped", "auc", "kendall"):
        known = np.asarray(ideal[name])[~np.isnan(ideal[name])]
        np.testing.assert_allclose(known, np.ones_like(known), rtol=1e-6, err_msg=name)
    for name in ideal:
        low = np.asarray(worst[name])
        assert name in SIGNED or ((low >= 0) & (low <= 1) | np.isnan(low)).all(), name
        np.testing.assert_array_less(low[~np.isnan(low)], np.asarray(ideal[name])[~np.isnan(low)] + 1e-6, err_msg=name)


@given(hnp.arrays(np.float32, WIDTH, elements=st.sampled_from([-3, -1, 0, 0.5, 2])), LABELS, WHERE)
def test_an_increasing_transform_of_the_scores_changes_no_metric(scores, labels, where):
    found = measured(np.exp(scores) * 10, labels, where)
    jax.tree.map(np.testing.assert_array_equal, found, measured(scores, labels, where))


def test_a_list_by_hand():
    # As ranked: 0, 2, 1, padding apart.
    scores, labels = np.float32([1, 3, 9, 2]), np.float32([1, 0, 3, 2])
    where = np.array([True, True, False, True])
    gain, best = 3 / np.log2(3) + 1 / 2, 3 + 1 / np.log2(3)
    assert float(compiled["ndcg"](scores, labels, where=where)) == pytest.approx(gain / best)
    assert float(compiled["ndcg"](scores, labels, where=where, k=2)) == pytest.approx(3 / np.log2(3) / best)
    assert float(compiled["mrr"](scores, labels, where=where)) == 0.5
    assert float(compiled["mrr"](scores, labels, where=where, k=1)) == 0.0
    assert float(compiled["average_precision"](scores, labels, where=where)) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert float(compiled["average_precision"](scores, labels, where=where, k=2)) == pytest.approx(1 / 4)
    assert float(compiled["mean_label"](scores, labels, where=where, k=2)) == 1.0
    assert float(compiled["recall"](scores, labels, where=where, k=2)) == 0.5
    assert float(compiled["auc"](scores, labels, where=where)) == 0.0


def test_a_label_of_half_is_relevant_and_a_negative_one_is_not():
    scores, labels, where = np.float32([2, 1]), np.float32([0.5, -1]), np.ones(2, bool)
    for name in ("precision", "recall", "hit", "mrr", "average_precision"):
        assert float(compiled[name](scores, labels, where=where, k=1)) == 1.0
    assert float(compiled["auc"](scores, labels, where=where)) == 1.0


def test_a_negative_label_stands_in_the_ideal_order_before_padding():
    scores, labels, where = np.float32([1, 2, 3]), np.float32([2, -1, 0]), np.array([True, True, False])
    wanted = (-1 + 2 / np.log2(3)) / (2 - 1 / np.log2(3))
    assert float(compiled["ndcg"](scores, labels, where=where, gain="linear")) == pytest.approx(wanted)


def test_infinite_scores_beside_padding_tie_with_each_other_alone():
    scores, where = np.float32([np.inf, 1, np.inf, 5]), np.array([True, True, True, False])
    assert float(compiled["auc"](scores, np.array([1, 1, 0, 0]), where=where)) == 0.25


def test_metrics_compiled_together_share_their_sorts():
    def several(scores, labels, where):
        keys = ("ndcg@5", "ndcg@20", "precision@5", "recall@20", "mrr", "auc")
        return [metrics.named(key)(scores, labels, where=where) for key in keys]

    shapes = (jax.ShapeDtypeStruct((4, 50), kind) for kind in (jnp.float32, jnp.float32, bool))
    compiled = jax.jit(several).lower(*shapes).compile().as_text()
    # One by score, and one by label for the ideal order.
    assert compiled.count(" sort(") == 2


def test_long_lists_keep_their_auc_exact():
    random = np.random.default_rng(0)
    scores, labels = random.permutation(6000).astype(np.float32), random.random(6000) < 0.3
    wanted = (np.argsort(np.argsort(scores))[labels] + 1.0).sum() - labels.sum() * (labels.sum() + 1) / 2
    wanted /= labels.sum() * (~labels).sum()
    np.testing.assert_allclose(compiled["auc"](scores, labels, where=np.ones(6000, bool)), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_keeps_its_promises(name):
    metric = getattr(metrics, name)
    check_metric(metric)
    if name not in WHOLE:
        check_metric(partial(metric, k=2))
    if "ties" in signature(metric).parameters:
        check_metric(partial(metric, k=2, ties="expected"))


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_refuses_what_does_not_fit(name):
    metric = getattr(metrics, name)
    with pytest.raises(ValueError, match=r"labels has shape \(2, 4\); expected that of scores, \(2, 3\)"):
        metric(jnp.zeros((2, 3)), jnp.zeros((2, 4)), where=jnp.ones((2, 3), bool))
    with pytest.raises(ValueError, match=r"where is float32; expected bool"):
        metric(jnp.zeros((2, 3)), jnp.zeros((2, 3)), where=jnp.ones((2, 3)))
    if name not in WHOLE:
        with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
            metric(jnp.zeros((2, 3)), jnp.zeros((2, 3)), where=jnp.ones((2, 3), bool), k=0)


@pytest.mark.parametrize(
    "name, setting, message",
    [
        ("ndcg", {"gain": "lin"}, "gain is lin; it must be exponential or linear"),
        ("dcg", {"gain": "lin"}, "gain is lin; it must be exponential or linear"),
        ("recall", {"ties": "mean"}, "ties is mean; it must be appearance or expected"),
        ("f_beta", {"beta": -1.0}, "beta is -1.0; it must not be negative"),
        ("rbp", {"persistence": 1.0}, r"persistence is 1.0; it must be inside \(0, 1\)"),
        ("err", {"highest": 0}, "highest is 0; it must be above 0"),
    ],
)
def test_a_setting_that_is_none_is_refused(name, setting, message):
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(jnp.zeros(3), jnp.ones(3), where=jnp.ones(3, bool), **setting)


@pytest.mark.parametrize("name", ["ndcg", "dcg", "err"])
def test_a_negative_label_that_is_known_has_no_gain(name):
    metric, scores, labels = getattr(metrics, name), jnp.zeros((2, 3)), np.float32([[1, 0, 2], [0, -1, 2]])
    with pytest.raises(
        ValueError, match=r"labels, of shape \(2, 3\), holds -1.0 at \(1, 1\); expected gains of 0 or more"
    ):
        metric(scores, labels, where=jnp.ones((2, 3), bool))
    assert np.isfinite(metric(scores, labels, where=jnp.asarray(labels >= 0))).all()


@pytest.mark.slow
def test_kendall_of_a_long_list_is_scipys():
    random = np.random.default_rng(1)
    scores, labels = random.integers(0, 300, 3000).astype(np.float32), random.integers(0, 9, 3000)
    found = metrics.kendall(scores, labels, where=np.ones(3000, bool))
    np.testing.assert_allclose(found, stats.kendalltau(scores, labels).statistic, atol=1e-5)


def test_scores_are_ranked_the_same_way_in_any_type():
    scores = np.array([0.0, -0.0, np.nan, -np.inf, 1.5, -2.0, np.inf, 1.5, np.nan])
    order = [6, 4, 7, 0, 1, 5, 3, 2, 8]
    labels = np.zeros(9)
    labels[order] = 0.5 ** np.arange(9)
    with jax.enable_x64(True):
        for kind in (jnp.float64, jnp.float32, jnp.bfloat16):
            found = metrics.mean_label(jnp.asarray(scores, kind), labels, where=np.ones(9, bool), k=1)
            means = [
                metrics.mean_label(jnp.asarray(scores, kind), labels, where=np.ones(9, bool), k=k) for k in range(1, 10)
            ]
            np.testing.assert_allclose(means, np.cumsum(0.5 ** np.arange(9)) / np.arange(1, 10), rtol=1e-6)
            assert found == 1.0


@pytest.mark.parametrize("gain", ["exponential", "linear"])
def test_labels_of_any_size_have_a_finite_ndcg(gain):
    scores, where = jnp.array([2.0, 3.0, 1.0]), jnp.ones(3, bool)
    worth = lambda *labels: float(metrics.ndcg(scores, jnp.array(labels), where=where, gain=gain))
    # Seconds of dwell: 2^300 is no float32. Two labels far apart leave the rank of the higher one alone, 2^300 being all.
    if gain == "exponential":
        assert worth(300.0, 0.0, 40.0) == worth(300.0, 40.0, 0.0) == pytest.approx(1 / np.log2(3))
    assert worth(0.0, 1e30, 1e30) == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert np.isnan(worth(0.0, 0.0, 0.0))
