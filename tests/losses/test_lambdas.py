"""Lambda losses beside the reference, and every swap weight beside the metric of the list with two items swapped."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, metrics
from mobjrec.config import load
from mobjrec.errors import UserError
from mobjrec.losses import lambdas, pairs
from mobjrec.resolve import complete


def pairs_sum(loss, **settings):
    return lambda given, params: loss(**given, **settings, k=params["k"]).sum()


def plain_ndcg(labels, rank, where, k):
    """A swap of one's own: LambdaRank that is not normalised."""
    discount = 1.0 / jnp.log2(1.0 + rank.astype(labels.dtype))
    gain = jnp.exp2(labels)
    return lambda i, j: (i(gain) - j(gain)) * jnp.abs(i(discount) - j(discount))


CASES = {
    "lambdarank": pairs_sum(losses.lambda_rank),
    "lambdarank_k": pairs_sum(losses.lambda_rank),
    "lambdaloss2": pairs_sum(losses.lambda_loss),
    "lambdaloss2_k": pairs_sum(losses.lambda_loss),
    "lambdarank_unnorm": lambda given, params: losses.swap_loss(plain_ndcg, **given).sum(),
    "precision_swap_lambda": pairs_sum(losses.lambda_loss, metric="precision"),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


def test_the_gradient_is_that_of_lightgbm(reference):
    entry = reference["lightgbm_lambdarank"]
    with jax.enable_x64(True):
        scores, labels, where = (jnp.asarray(entry["inputs"][name]) for name in ("scores", "labels", "where"))
        grad = jax.jit(jax.grad(lambda s: losses.lambda_rank(s, labels, where=where, k=30).sum()))(scores)
        np.testing.assert_allclose(grad, entry["grad"]["scores"], rtol=0, atol=entry["tolerance"]["grad_abs"])


ITEMS = 7
RANDOM = np.random.default_rng(0)
SCORES = RANDOM.permuted(np.tile(np.arange(float(ITEMS), dtype=np.float32), (40, 1)), axis=1)
# Each list's largest labels first, so that there are pairs at any length; grades, so that some pairs are both relevant.
LABELS = np.sort(np.where(RANDOM.random((40, ITEMS)) < 0.5, RANDOM.integers(1, 4, (40, ITEMS)), 0), axis=1)[:, ::-1]
WHERE = np.arange(ITEMS) < RANDOM.integers(2, ITEMS + 1, (40, 1))
LABELS, WHERE = (array[:, RANDOM.permutation(ITEMS)] for array in (LABELS, WHERE))


def in_order(scores, labels, where):
    order = [i for i in np.argsort(-scores) if where[i]]
    return order, labels[order]


def dcg(labels, k):
    return sum((2.0**y - 1) / np.log2(2 + n) for n, y in enumerate(labels[:k]))


def ap(labels, k):
    hits = [(labels[: n + 1] > 0).sum() / (n + 1) for n in range(len(labels[:k])) if labels[n] > 0]
    return sum(hits) / min(k, (labels > 0).sum())


VALUES = {
    "ndcg": lambda y, k: dcg(y, k) / dcg(np.sort(y)[::-1], k),
    "mrr": lambda y, k: next((1 / (n + 1) for n, one in enumerate(y[:k]) if one > 0), 0.0),
    "average_precision": ap,
    "precision": lambda y, k: (y[:k] > 0).sum() / min(k, len(y)),
    "recall": lambda y, k: (y[:k] > 0).sum() / (y > 0).sum(),
}


@functools.cache
def changes(name, k):
    """[40, L, L] weights of all pairs, 0 where the labels do not order them."""

    @jax.jit
    def found(scores, labels, where):
        change = lambdas.SWAPS[name](jnp.where(where, labels, 0.0), lambdas.ranks(scores, where), where, k)
        return change(pairs.first(jnp.arange(ITEMS)), pairs.second)

    ordered = (LABELS[:, :, None] > LABELS[:, None, :]) & WHERE[:, :, None] & WHERE[:, None, :]
    return np.where(ordered, found(SCORES, LABELS.astype(np.float32), WHERE), 0.0)


@pytest.mark.parametrize("k", [None, 1, 3])
@pytest.mark.parametrize("name", VALUES)
def test_a_weight_is_the_change_of_the_metric_when_two_items_swap(name, k):
    if k is None and name in ("precision", "recall"):
        return
    wanted = np.zeros((len(SCORES), ITEMS, ITEMS))
    for q, given in enumerate(zip(SCORES, LABELS, WHERE, strict=True)):
        order, labels = in_order(*given)
        for m, i in enumerate(order):
            for n, j in enumerate(order):
                if labels[m] > labels[n]:
                    swapped = labels.copy()
                    swapped[[m, n]] = labels[[n, m]]
                    before, after = (VALUES[name](y, k or ITEMS) for y in (labels, swapped))
                    wanted[q, i, j] = abs(after - before)
    np.testing.assert_allclose(changes(name, k), wanted, atol=1e-6)
    assert (wanted > 0.05).sum() > 50


@pytest.mark.parametrize("name", VALUES)
def test_the_metric_that_swaps_is_the_packages_own_at_k(name):
    found = metrics.named(f"{name}@3")(jnp.asarray(SCORES), jnp.asarray(LABELS), where=jnp.asarray(WHERE))
    lists = [in_order(*given)[1] for given in zip(SCORES, LABELS, WHERE, strict=True)]
    np.testing.assert_allclose(found, [VALUES[name](y, 3) if y.any() else np.nan for y in lists], atol=1e-6)


@pytest.mark.parametrize("name", lambdas.SWAPS)
def test_the_loss_is_a_sum_over_pairs_each_weighing_as_its_better_item(name):
    weights = np.random.default_rng(1).uniform(0.5, 2.0, SCORES.shape).astype(np.float32)
    found = jax.jit(lambda s: losses.lambda_loss(s, LABELS, where=WHERE, weights=weights, metric=name, k=3))(SCORES)
    values = np.logaddexp(0, SCORES[:, None, :] - SCORES[:, :, None]) * weights[:, :, None]
    np.testing.assert_allclose(found, (changes(name, 3) * values).sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("name", lambdas.SWAPS)
def test_longer_than_a_block_ties_and_rubbish_change_nothing(monkeypatch, name):
    random = np.random.default_rng(2)
    # Scores that tie, and the same a little apart in order of appearance.
    scores = random.integers(0, 4, 21).astype(np.float32)
    labels, where = random.integers(0, 3, 21), random.random(21) < 0.8
    apart = scores - 1e-4 * np.arange(21, dtype=np.float32)

    def found(scores):
        loss = jax.value_and_grad(lambda s: losses.lambda_loss(s, labels, where=where, metric=name, k=4))
        return jax.jit(loss)(scores)

    whole = found(scores)
    monkeypatch.setattr("mobjrec.ranks.BLOCK", 8)
    for same in (found(np.where(where, scores, np.nan)), found(apart)):
        np.testing.assert_allclose(same[0], whole[0], rtol=2e-3)
        np.testing.assert_allclose(same[1], whole[1], atol=1e-3)
    assert np.abs(whole[1]).max() > 0.05 and not np.asarray(whole[1])[~where].any()


def test_a_shift_of_all_scores_changes_nothing_and_the_better_order_costs_less():
    loss = jax.jit(lambda s: losses.lambda_rank(s, LABELS, where=WHERE))
    value = loss(SCORES)
    np.testing.assert_allclose(loss(SCORES + 2.0), value, rtol=1e-5)
    ideal = loss(3.0 * LABELS.astype(np.float32))
    assert ideal.sum() < value.sum() / 3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"metric": "auc"}, "metric is 'auc'; it may be ndcg, ndcg2, mrr, average_precision, precision, recall"),
        ({"metric": "precision"}, "k is None; precision changes with a cut alone"),
        ({"metric": "recall"}, "k is None; recall"),
        ({"k": 0}, "k is 0; it must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        losses.lambda_loss(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)


@pytest.mark.parametrize(
    "loss", [{"use": "lambda_rank", "k": 10}, {"use": "lambda_loss", "metric": "precision", "k": 5}]
)
def test_a_config_names_the_metric_and_its_cut(loss):
    config = load(Path(__file__).parents[1] / "tiny.yaml", [f"objectives.click.loss={json.dumps(loss)}"])
    assert complete(config).objectives["click"].settings["loss"] == loss


def test_a_config_with_another_metric_is_refused():
    config = load(Path(__file__).parents[1] / "tiny.yaml", ["objectives.click.loss={use: lambda_loss, metric: auc}"])
    with pytest.raises(UserError, match=r'loss\.metric: found text "auc"; expected "ndcg"'):
        complete(config)
