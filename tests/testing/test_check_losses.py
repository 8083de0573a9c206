import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, metrics
from mobjrec.testing import check_loss, check_metric
from mobjrec.testing.lists import WHERE, labels, lists


def squares(scores, labels, where):
    return (jnp.where(where, scores, 0.0) - jnp.where(where, labels, 0.0)) ** 2


def count(where):
    return jnp.maximum(where.sum(-1), 1)


def over_all_lists(scores, labels, *, where, weights=None):
    return losses.squared(scores, labels, where=where, weights=weights).mean()


def no_gradient(scores, labels, *, where, weights=None):
    return losses.squared(jax.lax.stop_gradient(scores), labels, where=where, weights=weights)


def half_a_gradient(scores, labels, *, where, weights=None):
    held = 0.5 * scores + jax.lax.stop_gradient(0.5 * scores)
    return losses.squared(held, labels, where=where, weights=weights)


def plus_one(scores, labels, *, where, weights=None):
    return losses.squared(scores, labels, where=where, weights=weights) + 1.0


def mask_afterwards(scores, labels, *, where, weights=None):
    weights = jnp.ones_like(scores) if weights is None else weights
    return jnp.sum((scores - labels) ** 2 * weights, -1, where=where) / count(where)


def padding_counts(scores, labels, *, where, weights=None):
    weights = jnp.ones_like(scores) if weights is None else jnp.where(where, weights, 0.0)
    return (squares(scores, labels, where) * weights).sum(-1) / where.shape[-1]


def first_counts_more(scores, labels, *, where, weights=None):
    first = jnp.where(jnp.arange(scores.shape[-1]) == 0, 2.0, 1.0)
    weights = first if weights is None else first * weights
    return losses.squared(scores, labels, where=where, weights=jnp.broadcast_to(weights, scores.shape))


def lists_know_each_other(scores, labels, *, where, weights=None):
    value = losses.squared(scores, labels, where=where, weights=weights)
    return value * (1.0 + jnp.mean(value))


def deaf_to_weights(scores, labels, *, where, weights=None):
    return losses.squared(scores, labels, where=where)


def weights_divide(scores, labels, *, where, weights=None):
    weights = jnp.where(where, 1.0 if weights is None else weights, 0.0)
    return (squares(scores, labels, where) * weights).sum(-1) / jnp.maximum(weights.sum(-1), 1e-9)


def weights_unmasked(scores, labels, *, where, weights=None):
    weights = 1.0 if weights is None else weights
    return (squares(scores, labels, where) * weights).sum(-1) / count(where)


def overflows(scores, labels, *, where, weights=None):
    weights = jnp.where(where, 1.0 if weights is None else weights, 0.0)
    s = jnp.where(where, scores, 0.0)
    return ((jnp.log1p(jnp.exp(s)) - jnp.where(where, labels, 0.0) * s) * weights).sum(-1) / count(where)


def coarse_in_half(scores, labels, *, where, weights=None):
    return losses.squared((scores + 256.0) - 256.0, labels, where=where, weights=weights)


def infinite_in_half(scores, labels, *, where, weights=None):
    ones = jnp.ones_like(where, scores.dtype)
    value = losses.squared(scores, labels, where=where, weights=weights)
    return value * (1e-3 / (((ones + 1e-3) - ones).mean(-1)))


@jax.custom_vjp
def backward_alone(scores):
    return scores


backward_alone.defvjp(lambda scores: (scores, None), lambda _, slope: (slope,))


def no_jvp(scores, labels, *, where, weights=None):
    return losses.squared(backward_alone(scores), labels, where=where, weights=weights)


def jvp_is_half(scores, labels, *, where, weights=None):
    held = jax.lax.custom_linear_solve(lambda x: x, scores, lambda _, b: b, lambda _, slope: 2.0 * slope)
    return losses.squared(held, labels, where=where, weights=weights)


@pytest.mark.parametrize(
    "loss, failure",
    [
        (coarse_in_half, "of bfloat16 scores and labels the value is"),
        (infinite_in_half, "bfloat16 scores and labels is not finite"),
        (no_jvp, "jvp fails"),
        (jvp_is_half, "jvp disagrees with the gradient"),
        (over_all_lists, "one per list is wanted"),
        (no_gradient, "no score has a gradient"),
        (half_a_gradient, "disagrees with finite differences"),
        (plus_one, "a list without items gives 1.0"),
        (mask_afterwards, "nan under the mask changes the"),
        (padding_counts, "changes when its padding is cut away"),
        (first_counts_more, "the order of the items changes the value"),
        (lists_know_each_other, "vmap changes the value, or lists know each other"),
        (deaf_to_weights, "weights have no influence"),
        (weights_divide, "twice the weights are not twice the loss"),
        (weights_unmasked, "a weight of nan under the mask"),
        (overflows, "not finite for scores of [+]-1e4"),
    ],
)
def test_a_loss_that_breaks_a_promise_is_told_which(loss, failure):
    with pytest.raises(AssertionError, match=f"^{loss.__name__}: .*{failure}"):
        check_loss(loss)


def wide(where, scores):
    return jnp.where(where[..., None], scores, 0.0)


def thresholds(scores, labels, *, where, weights=None):
    """Whether a grade is above each of the thresholds."""
    passed = labels[..., None] > jnp.arange(scores.shape[-1])
    values = jax.nn.softplus(jnp.where(passed, -1.0, 1.0) * wide(where, scores)).sum(-1)
    return losses.masked_mean(values, where, weights)


def wide_mask_afterwards(scores, labels, *, where, weights=None):
    values = ((scores - labels[..., None]) ** 2).mean(-1)
    return jnp.sum(values * (1.0 if weights is None else weights), -1, where=where) / count(where)


def first_item_counts_more(scores, labels, *, where, weights=None):
    values = wide(where, scores).at[..., 0, :].multiply(2.0)
    return thresholds(values, labels, where=where, weights=weights)


def half_a_wide_gradient(scores, labels, *, where, weights=None):
    held = scores.at[..., 1].set(0.5 * (scores + jax.lax.stop_gradient(scores))[..., 1])
    return thresholds(held, labels, where=where, weights=weights)


@pytest.mark.parametrize(
    "loss, failure",
    [
        (wide_mask_afterwards, "nan under the mask changes the"),
        (first_item_counts_more, "the order of the items changes the value"),
        (half_a_wide_gradient, "disagrees with finite differences"),
    ],
)
def test_a_loss_of_a_wide_head_that_breaks_a_promise_is_told_which(loss, failure):
    with pytest.raises(AssertionError, match=f"^{loss.__name__}: .*{failure}"):
        check_loss(loss, "graded", width=3)


def test_a_loss_of_a_wide_head_that_keeps_them_passes():
    check_loss(thresholds, "graded", width=3)


def test_a_loss_that_needs_a_relevant_item_has_none_without():
    check_loss(losses.softmax, "graded", needs_relevant=True)
    with pytest.raises(AssertionError, match="lists without a relevant item have a value, exactly 0 is wanted"):
        check_loss(losses.sigmoid_cross_entropy, needs_relevant=True)


def test_labels_are_of_the_kind_that_the_loss_is_for():
    seen = {kind: labels(kind)[WHERE] for kind in ("binary", "graded", "real", "positive")}
    assert set(seen["binary"]) == {0, 1} and set(seen["graded"]) == {0, 1, 2, 3, 4}
    assert seen["real"].min() < 0 and len(np.unique(seen["real"])) > 20
    assert seen["positive"].min() == 0 and len(np.unique(seen["positive"])) > 10
    assert set(lists("graded", width=3).labels[WHERE]) == {0, 1, 2, 3}
    # A list without any, which `needs_relevant` is about, and one of nothing else.
    assert all(not labels(kind)[4].any() and labels(kind)[5].all() for kind in ("binary", "graded", "positive"))


def test_a_loss_that_stops_gradients_on_purpose_is_spared_the_differences():
    check_loss(half_a_gradient, smooth=False)


def zero_for_nothing(scores, labels, *, where):
    return jnp.nan_to_num(metrics.recall(scores, labels, where=where, k=2))


def of_the_whole_width(scores, labels, *, where):
    return metrics.recall(scores, labels, where=where, k=2) * where.sum(-1) / where.shape[-1]


def first_item(scores, labels, *, where):
    return jnp.where(where.any(-1), jnp.where(where, scores, 0.0)[..., 0], jnp.nan)


def over_lists(scores, labels, *, where):
    return jnp.nanmean(metrics.recall(scores, labels, where=where, k=2))


def padding_ranks(scores, labels, *, where):
    best = jnp.argmax(scores, -1)[..., None]
    hit = jnp.take_along_axis(jnp.where(where, labels, 0.0), best, -1)[..., 0]
    return jnp.where(where.any(-1), hit, jnp.nan)


def huge(scores, labels, *, where):
    return jnp.where(where.any(-1), jnp.exp(jnp.max(scores, -1, where=where, initial=0.0)), jnp.nan)


def ranked_in_half(scores, labels, *, where):
    # Not scores + 256: XLA may keep what lies between two roundings exact.
    kept = scores if scores.dtype == jnp.float32 else jnp.round(scores / 8)
    return metrics.ndcg(kept, labels, where=where)


@pytest.mark.parametrize(
    "metric, failure",
    [
        (ranked_in_half, "of bfloat16 scores and labels the value is"),
        (zero_for_nothing, "a list without items gives 0.0, NaN is wanted"),
        (of_the_whole_width, "changes when its padding is cut away"),
        (first_item, "the order of the items changes the value"),
        (over_lists, "one per list is wanted"),
        (padding_ranks, "under the mask changes the value"),
        (huge, "infinite for scores of [+]-1e4"),
    ],
)
def test_a_metric_that_breaks_a_promise_is_told_which(metric, failure):
    with pytest.raises(AssertionError, match=f"^{metric.__name__}: .*{failure}"):
        check_metric(metric)
