"""Smooth NDCG, MRR and AP beside the reference, their metrics, and what their formulas leave unchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def lists_mean(values, where):
    return values.mean(where=where.any(-1))


def approx(loss):
    def reduced(inputs, params):
        # Theirs is minus the metric.
        return lists_mean(loss(**inputs, temperature=params["temperature"]), inputs["where"]) - 1

    return reduced


def average_precision(inputs, params):
    labels = inputs["labels"] >= 1
    values = losses.smooth_ap(inputs["scores"], labels, where=inputs["where"], temperature=params["t"])
    return values.mean(where=(labels & inputs["where"]).any(-1))


def neural(inputs, params):
    settings = {"k": params["k"], "temperature": params["temperature"]}
    settings |= {"rounds": params["sinkhorn_max_iter"], "tolerance": params["sinkhorn_tol"]}
    values = losses.neural_ndcg(**inputs, **settings)
    return values.mean(where=jnp.sum(inputs["labels"], -1, where=inputs["where"]) > 0) - 1


CASES = {
    "approx_ndcg_t1.0": approx(losses.approx_ndcg),
    "approx_ndcg_t0.1": approx(losses.approx_ndcg),
    "approx_mrr_t1.0": approx(losses.approx_mrr),
    "approx_mrr_t0.1": approx(losses.approx_mrr),
    "smooth_ap_t0.01": average_precision,
    "smooth_ap_t0.2": average_precision,
    "neural_ndcg_t1.0_kNone": neural,
    "neural_ndcg_t1.0_k3": neural,
    "neural_ndcg_t0.1_kNone": neural,
    "neural_ndcg_t0.1_k3": neural,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


RANDOM = np.random.default_rng(0)
SCORES = RANDOM.permuted(np.tile(np.arange(12.0, dtype=np.float32), (30, 1)), axis=1)
LABELS = np.where(RANDOM.random(SCORES.shape) < 0.3, RANDOM.integers(1, 4, SCORES.shape), 0)
WHERE = RANDOM.random(SCORES.shape) < 0.8
WEIGHTS = RANDOM.uniform(0.5, 2.0, SCORES.shape).astype(np.float32)


def ranked(scores, labels, where, weights):
    """Labels and weights of the real items, best score first."""
    order = [i for i in np.argsort(-scores) if where[i]]
    return labels[order], weights[order]


def dcg(gain, k=None):
    return np.sum(gain[:k] / np.log2(2 + np.arange(len(gain[:k]))))


def ndcg(labels, weights, k=None):
    plain = 2.0**labels - 1
    gain = weights * plain
    scale = gain.sum() / plain.sum()
    return scale * (1 - dcg(gain, k) / dcg(np.sort(gain)[::-1], k))


def mrr(labels, weights):
    return weights[labels > 0].max() - max(
        w / (n + 1) for n, (y, w) in enumerate(zip(labels, weights, strict=True)) if y
    )


def ap(labels, weights):
    places = np.flatnonzero(labels > 0)
    return np.mean([weights[place] * (1 - (n + 1) / (place + 1)) for n, place in enumerate(places)])


COLD = {
    "approx_ndcg": (losses.approx_ndcg, ndcg, {}),
    "approx_mrr": (losses.approx_mrr, mrr, {}),
    "smooth_ap": (losses.smooth_ap, ap, {}),
    "neural_ndcg": (losses.neural_ndcg, ndcg, {}),
    "neural_ndcg at 3": (losses.neural_ndcg, lambda y, w: ndcg(y, w, 3), {"k": 3}),
}


@pytest.mark.parametrize("case", COLD)
def test_with_a_cold_temperature_the_loss_is_one_minus_the_weighted_metric(case):
    loss, metric, settings = COLD[case]
    found = jax.jit(lambda s: loss(s, LABELS, where=WHERE, weights=WEIGHTS, temperature=0.02, **settings))(SCORES)
    lists = [ranked(*given) for given in zip(SCORES, LABELS, WHERE, WEIGHTS, strict=True)]
    wanted = [metric(*one) if one[0].any() else 0.0 for one in lists]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.mean(wanted) > 0.05 and found.min() >= -1e-6


@pytest.mark.parametrize("name", ["approx_ndcg", "approx_mrr", "smooth_ap", "neural_ndcg"])
def test_a_shift_changes_nothing_and_the_temperature_is_in_the_scores_unit(name):
    loss = jax.jit(lambda scores, t: getattr(losses, name)(scores, LABELS, where=WHERE, temperature=t))
    value = loss(SCORES, 1.0)
    np.testing.assert_allclose(loss(SCORES + 3.0, 1.0), value, atol=1e-5)
    np.testing.assert_allclose(loss(2.0 * SCORES, 2.0), value, atol=1e-5)
    assert (value >= -1e-5).all() and np.abs(loss(2.0 * SCORES, 1.0) - value).max() > 0.01


def test_the_better_order_costs_less_and_the_ideal_one_nothing():
    labels, where = np.array([3, 0, 1, 0]), np.ones(4, bool)
    orders = np.float32([[4, 1, 3, 2], [3, 1, 4, 2], [1, 4, 2, 3]])
    for name in ("approx_ndcg", "smooth_ap", "neural_ndcg"):
        loss = functools.partial(getattr(losses, name), temperature=0.05)
        value = loss(orders, np.tile(labels, (3, 1)), where=np.tile(where, (3, 1)))
        assert value[0] < 1e-4 and value[2] > value[0] + 0.3
        assert (value[1] > value[0] + 0.1) == (name != "smooth_ap")


def test_labels_of_any_size_are_finite():
    labels, scores = jnp.array([[300.0, 299.0, 5.0, 0.0]]), jnp.array([[0.1, 0.4, 0.3, 0.2]])
    where = jnp.ones((1, 4), bool)

    @jax.jit
    def all_of(labels):
        given = {"where": where, "weights": jnp.array([[1.0, 2.0, 0.5, 1.0]])}
        call = lambda name: jax.value_and_grad(lambda s: getattr(losses, name)(s, labels, **given).sum())(scores)
        return {name: call(name) for name in ("approx_ndcg", "neural_ndcg", "smooth_i_ndcg", "lambda_rank")}

    # 2^y is far above 1 in both, so only the difference of the labels counts.
    for name, (value, grad) in all_of(labels).items():
        like, pull = all_of(labels - jnp.array([[270.0, 270.0, 0.0, 0.0]]))[name]
        np.testing.assert_allclose(value, like, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(grad, pull, rtol=1e-4, atol=1e-7, err_msg=name)
        assert np.abs(grad).max() > 1e-3


@pytest.mark.parametrize(
    "loss, settings, message",
    [
        (losses.approx_ndcg, {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        (losses.approx_mrr, {"temperature": -1.0}, "temperature is -1.0; it must be above 0"),
        (losses.smooth_ap, {"temperature": float("nan")}, "temperature is nan"),
        (losses.neural_ndcg, {"k": 0}, "k is 0; it must be at least 1"),
        (losses.neural_ndcg, {"rounds": 0}, "rounds is 0"),
        (losses.neural_ndcg, {"tolerance": 0.0}, "tolerance is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        loss(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)
