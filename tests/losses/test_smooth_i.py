"""SmoothI beside the reference, a slow form, and what padding must not do to its minimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def settings_of(params):
    flow = {"stop_gradient": params["stop_gradient_through_product"]}
    return flow | {"k": params["K"], "alpha": params["alpha"], "delta": params["delta"]}


def precision(inputs, params):
    labels = inputs["labels"] >= 1
    values = losses.smooth_i_precision(inputs["scores"], labels, where=inputs["where"], **settings_of(params))
    return values.mean(where=inputs["where"].any(-1))


def ndcg(inputs, params):
    return losses.smooth_i_ndcg(**inputs, **settings_of(params)).mean(where=inputs["where"].any(-1))


CASES = {
    "smoothi_p": precision,
    "smoothi_p_sharp": precision,
    "smoothi_p_stopgrad": precision,
    "smoothi_ndcg": ndcg,
    "smoothi_ndcg_stopgrad": ndcg,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


def slow(scores, labels, where, weights, k, alpha, delta, gain):
    """Precision or NDCG of indicators, item by item, on the real items of one list."""
    s, y, w = (np.asarray(a, float)[where] for a in (scores, labels, weights))
    if not (y > 0).any():
        return 0.0
    left, found = np.ones(len(s)), []
    for _ in range(min(k, len(s))):
        e = np.exp(alpha * (s - s.min()) * left)
        found.append(e / e.sum())
        left = left * (1 - found[-1] - delta)
    if not gain:
        return w[y > 0].max() - sum((w * one)[y > 0].sum() for one in found) / min(k, len(s))
    g, plain = w * (2**y - 1), 2**y - 1
    best = sum(one / np.log2(2 + r) for r, one in enumerate(np.sort(g)[::-1][:k]))
    dcg = sum((g * one).sum() / np.log2(2 + r) for r, one in enumerate(found))
    return g.sum() / plain.sum() * (1 - dcg / best)


@pytest.mark.parametrize("name, gain", [("smooth_i_precision", False), ("smooth_i_ndcg", True)])
def test_short_gappy_and_weighted_lists_are_the_formula(name, gain):
    random = np.random.default_rng(0)
    scores, weights = random.normal(-4, 1, (20, 8)), random.uniform(0.5, 2, (20, 8))
    labels, where = random.integers(0, 3, (20, 8)), random.random((20, 8)) < 0.5
    call = jax.jit(lambda s, w: getattr(losses, name)(s, labels, where=where, weights=w, k=4, alpha=2.0, delta=0.2))
    found = call(np.where(where, scores, -1e30), weights)
    wanted = [slow(*one, 4, 2.0, 0.2, gain) for one in zip(scores, labels, where, weights, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(call(np.where(where, scores + 7, 0), weights), wanted, rtol=1e-3, atol=1e-5)
    assert (where.sum(-1) < 4).any() and np.ptp(wanted) > 0.5


def test_a_sharp_alpha_is_the_metric_and_the_ideal_order_costs_nothing():
    scores, where = np.float32([[5, 4, 3, 2, 1], [1, 2, 3, 4, 5]]), np.ones((2, 5), bool)
    labels = np.array([[1, 0, 1, 0, 0]] * 2)
    found = losses.smooth_i_precision(scores, labels, where=where, k=2, alpha=1000.0, delta=0.1)
    np.testing.assert_allclose(found, [0.5, 1.0], atol=1e-6)
    grades = np.array([[3, 2, 1, 0, 0]] * 2)
    found = losses.smooth_i_ndcg(scores, grades, where=where, k=3, alpha=1000.0, delta=0.1)
    assert abs(found[0]) < 1e-6 and found[1] > 0.8


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"k": 0}, "k is 0; it must be at least 1"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be above 0"),
        ({"delta": 0.5}, "delta is 0.5; it must be between 0 and 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    for loss in (losses.smooth_i_precision, losses.smooth_i_ndcg):
        with pytest.raises(ValueError, match=message):
            loss(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)
