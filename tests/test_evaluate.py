"""Evaluation against plain numpy on a small run, block by block and whole."""

from pathlib import Path
from types import SimpleNamespace as namespace

import numpy as np
import pytest
from rich.console import Console

from mobjrec import evaluate, report
from mobjrec.data.candidates import catalogue
from mobjrec.errors import NumericError
from mobjrec.types import Drawn

NAMES = ("ndcg@5", "precision@5", "auc")


@pytest.fixture(scope="module")
def trained(tiny_trained):
    return tiny_trained


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
    assert sum(value.why.values()) == value.left_out


def test_the_result_does_not_depend_on_the_blocks_size(trained, found, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK", 7)
    other = measured(trained, segments=True)
    assert other.measured.keys() == found.measured.keys()
    for key, value in found.measured.items():
        np.testing.assert_allclose(other.measured[key][:4], value[:4], atol=1e-5, err_msg=key)
        assert other.measured[key].why == value.why, key


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


def test_lists_left_out_are_counted_by_reason_also_for_pooled_metrics(trained, found):
    part = trained.parts.dataset.test
    for label in ("click", "satisfaction"):
        rows = [part.labels[label][a:b] for a, b in zip(part.start[:-1], part.start[1:], strict=True)]
        known = [row[np.isfinite(row)] for row in rows]
        unknown = sum(not len(row) for row in known)
        nothing = sum(bool(len(row)) and not (row > 0).any() for row in known)
        only = sum(bool(len(row)) and bool((row > 0).all()) for row in known)
        every = {"no observed label": unknown, "nothing relevant": nothing, "only relevant": only}
        wanted = {
            "auc": every,
            "gauc": every,
            "ndcg@5": {"no observed label": unknown, "nothing relevant": nothing},
            "pooled_auc": {"no observed label": unknown},
        }
        for metric, counts in wanted.items():
            row = found.measured[f"{label}/{metric}"]
            assert row.why == {reason: count for reason, count in counts.items() if count}, (label, metric)
            assert (row.left_out, row.lists) == (sum(counts.values()), len(rows) - sum(counts.values()))
    assert found.measured["satisfaction/rmse"].why == found.measured["satisfaction/pooled_auc"].why
    # A linear link's click has an order, which both AUCs need, and no probability, which log loss needs.
    assert np.isfinite(found.measured["click/pooled_auc"].value)
    assert not {"click/log_loss", "click/accuracy"} & found.measured.keys()
    assert found.measured["click/gauc"].value == pytest.approx(found.measured["click/auc"].value, abs=0.02)


def test_ranking_the_catalogue_counts_what_was_not_shown_as_no_click_and_knows_nothing_of_its_satisfaction(trained):
    assert report.unshown(trained.parts) == {"click": "", "satisfaction": "click"}
    full = measured(trained, candidates=catalogue(), zeros=frozenset(["click"]))
    lists, seen = trained.parts.dataset.test, trained.parts.dataset.seen
    rows = []
    for block in evaluate.blocks(trained.parts, trained.params, trained.memory, lists, catalogue()):
        for n in np.flatnonzero(block.rows >= 0):
            row = int(block.rows[n])
            own = slice(lists.start[row], lists.start[row + 1])
            user = slice(seen[0][lists.user[row]], seen[0][lists.user[row] + 1])
            met = set(seen[1][user][seen[2][user] < 2].tolist()) - set(lists.item[own].tolist())
            clicks = dict(zip(lists.item[own].tolist(), lists.labels["click"][own].tolist(), strict=True))
            ranked = [item for item in range(48) if item not in met]
            scores = block.predictions["click"][n][ranked]
            rows.append(plain("ndcg@5", scores, np.array([clicks.get(item, 0.0) for item in ranked])))
    np.testing.assert_allclose(full.per_list["click/ndcg@5"], rows, atol=1e-5)
    logged = measured(trained)
    assert full.measured["click/auc"].value != pytest.approx(logged.measured["click/auc"].value, abs=1e-4)
    # Known after a click alone: nothing changes, and what is predicted is measured where it is known.
    for key in ("satisfaction/ndcg@5", "satisfaction/rmse"):
        np.testing.assert_allclose(full.measured[key][:4], logged.measured[key][:4], rtol=1e-5)


def test_a_label_is_known_after_another_where_it_is_seen_with_it_and_never_without():
    nan, labels = np.nan, lambda **columns: {name: np.array(column) for name, column in columns.items()}
    parts = namespace(config=namespace(labels={}))
    after = lambda name, **columns: report._after(parts, name, labels(**columns))
    both = {"click": [1.0, 0.0, 1.0, nan], "stars": [4.0, nan, nan, 3.0]}
    assert after("stars", **both) == "click"
    assert after("click", **both) == ""
    # Two sources, of which no event has both labels.
    assert after("watch", click=[1.0, 0.0, nan], watch=[nan, nan, 3.0]) == ""
    assert after("like", click=[1.0, 0.0, 1.0], like=[1.0, 0.0, nan]) == ""


def test_the_output_says_what_full_counts_and_why_lists_are_left_out():
    row = {"value": 0.5, "error": 0.1, "lists": 3, "left_out": 2, "own": True}
    content = {
        "split": "test",
        "step": 4,
        "candidates": "catalogue",
        "unshown": {"click": "0", "dwell": "known after click"},
        "gain": {"click": "exponential", "dwell": "linear"},
        "metrics": {
            "click/auc": row | {"why": {"nothing relevant": 1, "only relevant": 1}},
            "click/mrr": row | {"why": {"nothing relevant": 2}},
            "utility:click[seen items]/mrr": row | {"why": {"no item": 2}},
        },
    }
    assert report.left_out(content)[1:] == [
        "  click: 2 nothing relevant, 1 only relevant",
        "  click[seen items]: 2 no item",
    ]
    gain, zero, nothing = report.protocol(content)
    assert gain.startswith("dwell: NDCG's gain is the label itself")
    assert zero.endswith("an item that was not shown counts as 0 for click")
    assert (
        nothing == "dwell is known after click alone, so --full changes nothing for it: its orders are of logged items"
    )


def predictions(trained, scores, labels):
    """One list of these items, by an objective without parts of its own."""
    scores, labels = np.array([scores], np.float32), np.array([labels], np.float32)
    real = np.ones(scores.shape, bool)
    drawn = Drawn(np.zeros(scores.shape, np.int32), np.zeros(scores.shape, int), real, real * 1.0, real * 0.0)
    return evaluate.Block(np.zeros(1, int), drawn, {"click": scores}, {"click": labels}, {"click": real})


def test_a_metric_that_is_no_number_is_an_error_where_the_list_defines_it(trained, monkeypatch):
    parts = trained.parts._replace(objectives={"click": trained.parts.objectives["click"]})
    scale, lists = {"click": (0.0, 1.0)}, trained.parts.dataset.test
    dwell = predictions(trained, [1.0, 2.0, 3.0], [400.0, 0.0, 3.0])
    found = evaluate.measure(parts, lists, iter([dwell]), scale, ("ndcg",))
    assert np.isfinite(found.measured["click/ndcg"].value) and found.measured["click/ndcg"].lists == 1
    below = predictions(trained, [1.0, 2.0, 3.0], [0.1, -5.0, -5.0])
    why = evaluate.measure(parts, lists, iter([below]), scale, ("ndcg",)).measured["click/ndcg"].why
    assert why == {"no gain: labels below 0": 1}
    monkeypatch.setattr(
        evaluate, "_per_list", lambda names, gain: lambda scores, labels, where: {"ndcg": scores[:, 0] * np.nan}
    )
    with pytest.raises(NumericError, match="click/ndcg is no number for list 0"):
        evaluate.measure(parts, lists, iter([dwell]), scale, ("ndcg",))


def test_a_label_in_seconds_is_ranked_by_its_linear_gain(trained):
    dataset = trained.parts.dataset
    clicks = dataset.test.labels["click"] * 300
    longer = dataset._replace(test=dataset.test._replace(labels={**dataset.test.labels, "click": clicks}))
    parts = trained.parts._replace(dataset=longer)
    assert evaluate.gains_of(parts) == {"click": "linear", "satisfaction": "exponential"}
    found = evaluate.run(parts, trained.params, trained.memory, "test", scale=trained.scale, names=("ndcg@5",))
    np.testing.assert_allclose(found.per_list["click/ndcg@5"], measured(trained).per_list["click/ndcg@5"], atol=1e-5)


def best_of(trained, **changes):
    parts = trained.parts
    inputs = {"user": parts.inputs["user"]._replace(ids=()), "item": parts.inputs["item"]._replace(ids=())}
    return evaluate.reached(parts._replace(inputs=inputs, **changes))


def test_the_best_is_left_out_with_a_sentence_where_a_model_reads_more_than_words(trained):
    found, why = evaluate.reached(trained.parts)
    assert found.keys() == {"truth"}
    assert "ids of users" in why
    known, none = best_of(trained)
    assert known.keys() == {"best", "truth"} and none == ""
    # 40 users, 4 topics: a margin on the labels themselves, so the truth may win by little.
    assert 0.5 < known["best"]["click/auc"].value < 1


def test_what_the_oracle_does_not_know_is_left_out_and_no_error(trained):
    objectives = dict(trained.parts.objectives)
    objectives["satisfaction"] = objectives["satisfaction"]._replace(label="satisfied")
    found, why = best_of(trained, objectives=objectives)
    assert why == ""
    assert "click/auc" in found["best"] and "recall:click/auc" in found["truth"]
    assert not [key for key in found["best"] if "satisf" in key or "utility" in key]
    only = {"satisfaction": objectives["satisfaction"]}
    found, why = best_of(trained, objectives=only)
    assert found == {} and "no objective is measured by either" in why


def test_the_closing_table_says_why_there_is_no_best():
    row = {"own": True, "before": 0.5, "after": 0.7, "error": 0.01, "truth": 0.9}
    result = {"table": {"click/auc": row}, "no_best": "the model reads ids"}
    assert report.caption(result, True).count("no best: the model reads ids; truth: ") == 1
    assert "posterior" in report.caption({"table": {}}, True)
    assert report.caption({"table": {}}, False) == "before: the untrained model, from which nothing is chosen"
    assert report.way(row) == "–"


def test_the_closing_table_has_no_pooled_auc(capsys):
    row = {"own": True, "before": 0.5, "after": 0.7, "error": None}
    keys = ("click/auc", "click/gauc", "click/pooled_auc", "click/log_loss")
    timing, feed = {"compile": 5.0, "wait": 1.0, "train": 3.0}, {"padding": 0.0, "shapes": 1}
    result = {"steps": 1, "chosen": 1, "timing": timing, "feed": feed, "table": dict.fromkeys(keys, row)}
    Console(width=200).print(report.finished(Path("run"), result))
    said = capsys.readouterr().out
    assert "click/auc" in said and "click/log_loss" in said and "gauc" not in said and "pooled" not in said
    assert "25.0% of the steps' time spent waiting for data" in said


def test_eval_measures_the_configs_metrics_beside_the_broad_ones():
    config = namespace(evaluate=namespace(metrics=("auc", "precision@3")))
    assert report.asked(config) == (*evaluate.BROAD, "precision@3")
