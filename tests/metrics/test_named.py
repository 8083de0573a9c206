import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import metrics

SCORES, LABELS, WHERE = jnp.array([3.0, 2.0, 1.0]), jnp.array([0.0, 2.0, 1.0]), jnp.ones(3, bool)


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if name != "named"])
def test_a_name_alone_is_the_metric_of_the_whole_list(name):
    assert metrics.named(name)(SCORES, LABELS, where=WHERE) == getattr(metrics, name)(SCORES, LABELS, where=WHERE)


@pytest.mark.parametrize(
    "key, value", [("recall@2", 0.5), ("precision@1", 0.0), ("mrr@10", 0.5), ("mean_label@2", 1.0)]
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
        ("auc@5", "auc@5 is no metric: .*auc takes none"),
        ("named", "no metric named"),
    ],
)
def test_another_key_is_refused_with_what_there_is(key, message):
    with pytest.raises(ValueError, match=message):
        metrics.named(key)


def test_a_label_in_seconds_has_the_linear_gain_and_grades_have_the_exponential_one():
    assert [metrics.gain_of(most) for most in (1.0, 5.0, 10.0, 11.0, 3600.0)] == 3 * ["exponential"] + 2 * ["linear"]
    by_hand = (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3))
    for key in ("ndcg", "ndcg@3"):
        np.testing.assert_allclose(metrics.named(key, "linear")(SCORES, LABELS, where=WHERE), by_hand, rtol=1e-6)
    assert metrics.named("mrr@2", "linear")(SCORES, LABELS, where=WHERE) == 0.5
