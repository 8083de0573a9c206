"""Evaluation against plain numpy on a small run, block by block and whole."""

from pathlib import Path

import numpy as np
import pytest

import mobjrec
from mobjrec import evaluate, train
from mobjrec.config import load

TINY = Path(__file__).parent / "tiny.yaml"
NAMES = ("ndcg@5", "precision@5", "auc")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    folder = tmp_path_factory.mktemp("runs") / "run"
    train.run(load(TINY, ["steps=2", "save.every={steps: 2}", "evaluate.every={steps: 2}"]), folder, cache, quiet=True)
    return mobjrec.load(folder, cache)


def measured(trained, **settings):
    return evaluate.run(
        trained.parts, trained.params, trained.memory, "test", scale=trained.scale, names=NAMES, **settings
    )


@pytest.fixture(scope="module")
def found(trained):
    return measured(trained, segments=True)


def plain(name: str, scores: np.ndarray, labels: np.ndarray) -> float:
    """A metric of one list of observed items with labels 0 and 1."""
    if not labels.any() or (name == "auc" and labels.all()):
        return np.nan
    ranked = labels[np.argsort(-scores, kind="stable")]
    if name == "auc":
        above = scores[labels > 0][:, None] - scores[labels == 0][None]
        return float(np.mean((above > 0) + 0.5 * (above == 0)))
    if name == "precision@5":
        return float(ranked[:5].sum() / 5)
    discount = 1 / np.log2(np.arange(2, 7))
    return float(ranked[:5] @ discount[: len(ranked)] / (np.sort(labels)[::-1][:5] @ discount[: len(ranked)]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["click", "utility"])
def test_a_metric_is_that_of_plain_numpy(order, name, trained, found):
    parts = trained.parts
    lists = parts.dataset.test
    expected = []
    for block in evaluate.blocks(parts, trained.params, trained.memory, lists, parts.eval_candidates):
        total = sum((p - trained.scale[n][0]) / trained.scale[n][1] for n, p in block.predictions.items())
        scores = total if order == "utility" else block.predictions[order]
        for row in np.flatnonzero(block.rows >= 0):
            where = block.observed["click"][row]
            expected.append(plain(name, scores[row][where], block.labels["click"][row][where]))
    key = f"click/{name}" if order == "click" else f"utility:click/{name}"
    np.testing.assert_allclose(found.per_list[key], expected, atol=1e-5)
    known = np.array(expected)[~np.isnan(expected)]
    value = found.measured[key]
    assert value.value == pytest.approx(known.mean(), abs=1e-5)
    assert value.error == pytest.approx(known.std(ddof=1) / np.sqrt(len(known)), abs=1e-5)
    assert (value.lists, value.left_out) == (len(known), len(expected) - len(known))


def test_the_result_does_not_depend_on_the_blocks_size(trained, found, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK", 7)
    other = measured(trained, segments=True)
    assert other.measured.keys() == found.measured.keys()
    for key, value in found.measured.items():
        np.testing.assert_allclose(other.measured[key], value, atol=1e-5, err_msg=key)


@pytest.fixture(scope="module")
def half(trained):
    """A run whose training has met half of the users and half of the items."""
    dataset = trained.parts.dataset
    train = dataset.train._replace(user=dataset.train.user // 2, item=dataset.train.item // 2)
    return trained._replace(parts=trained.parts._replace(dataset=dataset._replace(train=train)))


@pytest.fixture(scope="module")
def apart(half):
    return measured(half, segments=True)


def test_users_met_and_not_met_in_training_are_apart(half, apart, found):
    dataset = half.parts.dataset
    met = np.isin(dataset.test.user, dataset.train.user)
    assert met.any() and not met.all()
    whole = found.per_list["click/ndcg@5"]
    np.testing.assert_array_equal(apart.per_list["click[seen users]/ndcg@5"], np.where(met, whole, np.nan))
    np.testing.assert_array_equal(apart.per_list["click[unseen users]/ndcg@5"], np.where(met, np.nan, whole))


def test_items_met_and_not_met_in_training_are_apart(half, apart):
    parts, train = half.parts, half.parts.dataset.train
    for kind, unseen in (("seen items", False), ("unseen items", True)):
        expected = []
        for block in evaluate.blocks(parts, half.params, half.memory, parts.dataset.test, parts.eval_candidates):
            for row in np.flatnonzero(block.rows >= 0):
                where = block.observed["click"][row] & (np.isin(block.drawn.item[row], train.item) != unseen)
                expected.append(
                    plain("ndcg@5", block.predictions["click"][row][where], block.labels["click"][row][where])
                )
        assert np.isfinite(expected).any()
        np.testing.assert_allclose(apart.per_list[f"click[{kind}]/ndcg@5"], expected, atol=1e-5)
        value = apart.measured[f"click[{kind}]/ndcg@5"]
        assert (value.lists, value.left_out) == (np.isfinite(expected).sum(), np.isnan(expected).sum())
        assert value.value == pytest.approx(np.nanmean(expected), abs=1e-5)


def test_where_training_met_all_nothing_is_told_apart(trained, found):
    dataset = trained.parts.dataset
    assert np.isin(dataset.test.item, dataset.train.item).all() and np.isin(dataset.test.user, dataset.train.user).all()
    assert not any("seen" in key for key in found.measured)


def test_a_utility_is_the_preferred_sum_of_standard_scores():
    predictions = {"a": np.array([[1.0, 3.0]]), "b": np.array([[10.0, 0.0]])}
    scale = {"a": (1.0, 2.0), "b": (5.0, 5.0)}
    np.testing.assert_allclose(evaluate.utility(predictions, scale, None), [[1.0, 0.0]])
    np.testing.assert_allclose(evaluate.utility(predictions, scale, {"a": 2.0, "b": 0.5}), [[0.5, 1.5]])


def test_a_limit_takes_the_first_lists(trained, found):
    np.testing.assert_allclose(
        measured(trained, limit=5).per_list["click/ndcg@5"], found.per_list["click/ndcg@5"][:5], atol=1e-6
    )
