from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import metrics

SCORES, LABELS, WHERE = jnp.array([3.0, 2.0, 1.0]), jnp.array([0.0, 2.0, 1.0]), jnp.ones(3, bool)


FUNCTIONS = {"f": metrics.f_beta, "capped_recall": partial(metrics.recall, capped=True)}


@pytest.mark.parametrize("name", metrics.BY_NAME)
def test_a_name_alone_is_the_metric_of_the_whole_list(name):
    function = FUNCTIONS.get(name) or getattr(metrics, name)
    assert metrics.named(name)(SCORES, LABELS, where=WHERE) == function(SCORES, LABELS, where=WHERE)


def test_every_metric_has_a_name():
    functions = {getattr(one, "func", one).__name__ for one in metrics.BY_NAME.values()}
    assert functions == set(metrics.__all__) - {"named"}


@pytest.mark.parametrize(
    "key, value",
    [("recall@2", 0.5), ("precision@1", 0.0), ("mrr@10", 0.5), ("mean_label@2", 1.0), ("capped_recall@1", 0.0)],
)
def test_the_number_behind_the_at_is_k(key, value):
    assert float(metrics.named(key)(SCORES, LABELS, where=WHERE)) == value


@pytest.mark.parametrize(
    "key, message",
    [
        ("ndgc@10", "no metric ndgc; .*did you mean ndcg"),
        ("xyz", "no metric xyz; there are auc, .*recall$"),
        ("", "no metric ;"),
        ("ndcg@", "ndcg@ is no metric: write NAME or NAME@K"),
        ("ndcg@0", "ndcg@0 is no metric"),
        ("ndcg@-1", "ndcg@-1 is no metric"),
        ("ndcg@2.5", "ndcg@2.5 is no metric"),
        ("ndcg@²", "ndcg@² is no metric"),
        ("ndcg@1000000000", "ndcg@1000000000 is no metric"),
        ("ndcg5", "ndcg5 is no metric: .*a number behind the name is f's beta, rbp's persistence, err's highest"),
        ("auc@5", "auc@5 is no metric: .*auc and kendall take none"),
        ("rbp1.5@5", r"persistence is 1.5; it must be inside \(0, 1\)"),
        ("named", "no metric named"),
    ],
)
def test_another_key_is_refused_with_what_there_is(key, message):
    with pytest.raises(ValueError, match=message):
        metrics.named(key)


@pytest.mark.parametrize(
    "key, metric",
    [
        ("f2@2", partial(metrics.f_beta, beta=2.0, k=2)),
        ("f0.5", partial(metrics.f_beta, beta=0.5)),
        ("rbp0.95@3", partial(metrics.rbp, persistence=0.95, k=3)),
        ("err5@2", partial(metrics.err, highest=5.0, k=2)),
    ],
)
def test_a_number_right_behind_the_name_is_the_metrics_setting(key, metric):
    assert metrics.named(key)(SCORES, LABELS, where=WHERE) == metric(SCORES, LABELS, where=WHERE)


def test_a_label_in_seconds_has_the_linear_gain_and_grades_have_the_exponential_one():
    assert [metrics.gain_of(most) for most in (1.0, 5.0, 10.0, 11.0, 3600.0)] == 3 * ["exponential"] + 2 * ["linear"]
    by_hand = (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3))
    for key in ("ndcg", "ndcg@3"):
        np.testing.assert_allclose(metrics.named(key, "linear")(SCORES, LABELS, where=WHERE), by_hand, rtol=1e-6)
    assert metrics.named("mrr@2", "linear")(SCORES, LABELS, where=WHERE) == 0.5
