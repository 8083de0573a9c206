"""Paired comparisons against scipy, closed forms and every turn of signs, and the errors of `mobjrec compare`."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from mobjrec import cli, compare, kept, report
from mobjrec.errors import RunFolderError, UserError
from mobjrec.kept import Kept

RANDOM = np.random.default_rng(0)
KEYS = ("click/ndcg@5", "click/auc", "utility:items/novelty@10", "click[seen items]/ndcg@5", "other:click/ndcg@5")
OWN = KEYS[:4]


def a_run(folder, values, lists=None, label=7, own=OWN, split="test"):
    """A folder with what `mobjrec eval` keeps. values: {key: [Q]}"""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    count = len(next(iter(values.values())))
    lists = np.arange(count) if lists is None else np.array(lists)
    content = Kept(
        user=np.array([f"u{n}" for n in lists]),
        time=np.arange(count),
        lists=lists.astype(np.uint64),
        labels={"click": np.full(count, label, np.uint64)},
        values={key: np.asarray(column, np.float32) for key, column in values.items()},
        metrics=("ndcg@5",),
    )
    kept.write(kept.path_of(folder, split, False), content)
    told = {"metrics": {key: {"own": key in own} for key in values}}
    (folder / f"eval-{split}.json").write_text(json.dumps(told))
    return folder


# The statistics


def test_p_is_that_of_every_turn_of_signs_on_few_lists():
    differences = RANDOM.normal(0.3, 1, (3, 11))
    differences[1, 4:6] = np.nan
    *_, p, _ = compare.paired(differences, draws=2048)
    for row, found in zip(differences, p, strict=True):
        known = row[~np.isnan(row)]
        signs = np.array(np.meshgrid(*[[-1, 1]] * len(known))).reshape(len(known), -1)
        wanted = np.mean(np.abs(known @ signs) >= np.abs(known.sum()) - 1e-12)
        assert found == pytest.approx(wanted, abs=1e-12)
        scipys = stats.permutation_test(
            (known, np.zeros_like(known)), lambda a, b: np.mean(a - b), permutation_type="samples"
        )
        assert found == pytest.approx(scipys.pvalue, abs=1e-12)


def test_p_of_drawn_signs_is_near_that_of_all():
    differences = RANDOM.normal(0.4, 1, (1, 13))
    exact, drawn = (compare.paired(differences, draws=draws, seed=1)[2][0] for draws in (8192, 8191))
    assert exact != drawn and drawn == pytest.approx(exact, abs=4 * np.sqrt(exact / 8191))


def test_p_of_many_lists_is_near_the_t_tests():
    differences = RANDOM.normal(0.1, 1, (1, 400))
    p = compare.paired(differences)[2][0]
    assert p == pytest.approx(stats.ttest_1samp(differences[0], 0).pvalue, abs=0.01)
    assert compare.paired(np.full((1, 400), 1.0), draws=999)[2][0] == 1 / 1000


def test_the_interval_is_scipys_and_the_normal_ones():
    differences = RANDOM.normal(0.2, 1, (2, 300))
    differences[1, :100] = np.nan
    low, high, *_ = compare.paired(differences)
    for n in range(2):
        known = differences[n][~np.isnan(differences[n])]
        scipys = stats.bootstrap((known,), np.mean, method="percentile", n_resamples=9999, rng=3).confidence_interval
        error = known.std() / np.sqrt(len(known))
        np.testing.assert_allclose([low[n], high[n]], scipys, atol=0.06 * error)
        np.testing.assert_allclose([low[n], high[n]], known.mean() + np.array([-1.96, 1.96]) * error, atol=0.15 * error)


def test_nothing_is_said_of_no_list_and_runs_that_are_equal_do_not_differ():
    low, high, p, adjusted = compare.paired(np.array([[np.nan] * 20, [0.0] * 20]), draws=200)
    assert np.isnan([low[0], high[0]]).all() and (low[1], high[1]) == (0.0, 0.0)
    np.testing.assert_array_equal([p, adjusted], 1.0)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    differences = RANDOM.normal(0.1, 1, (2, 40))
    one, same, other = (np.array(compare.paired(differences, 500, seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one[:2] != other[:2]).all()


def test_blocks_of_draws_are_the_same_draws(monkeypatch):
    differences = RANDOM.normal(0.1, 1, (2, 40))
    whole = compare.paired(differences, 500)
    monkeypatch.setattr(compare, "ROOM", 4000)
    low, high, p, _ = compare.paired(differences, 500)
    # Drawn block by block, the signs come after another number of draws.
    np.testing.assert_allclose([low, high], whole[:2], atol=0.1)
    np.testing.assert_allclose(p, whole[2], atol=0.1)


@pytest.mark.parametrize(
    "p, adjusted",
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, then not below it
        ([0.6, 0.5], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm_by_hand(p, adjusted):
    np.testing.assert_allclose(compare.holm(np.array(p)), adjusted)


def test_a_true_null_is_rejected_as_often_as_the_level_says():
    # 400 pairs of runs that are the same but for chance, ten metrics of each heavily tied and skewed.
    random = np.random.default_rng(2)
    differences = (
        (random.random((400, 30)) < 0.3) * random.exponential(1, (400, 30)) * random.choice([-1, 1], (400, 30))
    )
    p = compare.paired(differences, draws=1000)[2]
    for level in (0.05, 0.2):
        assert np.mean(p <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 400))


@pytest.mark.slow
def test_holm_keeps_the_chance_of_any_false_alarm_at_the_level():
    random = np.random.default_rng(3)
    alarms = []
    for seed in range(300):
        differences = random.normal(0, 1, (8, 50))
        # Two that do differ, and make the others' correction milder.
        differences[:2] += 2.0
        adjusted = compare.paired(differences, draws=500, seed=seed)[3]
        assert (adjusted[:2] < 0.05).all()
        alarms.append((adjusted[2:] < 0.05).any())
    assert np.mean(alarms) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


# What is compared


@pytest.fixture
def runs(tmp_path):
    first = {key: RANDOM.random(30) for key in KEYS}
    second = {key: column + 0.1 for key, column in first.items()}
    second["click/auc"] = np.where(np.arange(30) < 4, np.nan, second["click/auc"])
    order = RANDOM.permutation(30)
    shuffled = {key: column[order] for key, column in second.items()}
    return a_run(tmp_path / "a", first), a_run(tmp_path / "b", shuffled, lists=order)


def test_lists_are_matched_by_what_they_are_and_not_by_their_place(runs):
    found = compare.compare(runs, metrics=["all"], draws=300)
    assert [row.metric for row in found["rows"]] == ["click/ndcg@5", "click/auc", "utility:items/novelty@10"]
    for row in found["rows"]:
        for value in (row.difference, row.low, row.high, row.value - row.first):
            assert value == pytest.approx(0.1, abs=1e-5)
        assert row.p == pytest.approx(1 / 301) and row.holm == pytest.approx(3 / 301)
    assert [(row.lists, row.left_out) for row in found["rows"]] == [(30, 0), (26, 4), (30, 0)]
    assert found["lists"] == 30 and found["apart"] == []


def test_metrics_are_named_by_key_or_by_name(runs):
    metrics = lambda *names: [row.metric for row in compare.compare(runs, metrics=names, draws=100)["rows"]]
    assert metrics() == metrics("ndcg@5") == ["click/ndcg@5"]
    assert metrics("other:click/ndcg@5", "auc") == ["other:click/ndcg@5", "click/auc"]
    assert metrics("click[seen items]/ndcg@5") == ["click[seen items]/ndcg@5"]
    with pytest.raises(UserError, match="keeps no metric click/ndgc@5; did you mean `click/ndcg@5`"):
        metrics("click/ndgc@5")


def test_holm_counts_all_rows_of_all_runs(runs, tmp_path):
    third = shutil.copytree(runs[1], tmp_path / "c")
    rows = compare.compare([*runs, third], metrics=["ndcg@5"], draws=300)["rows"]
    assert [(row.run, row.holm) for row in rows] == [
        (str(runs[1]), pytest.approx(2 / 301)),
        (str(third), pytest.approx(2 / 301)),
    ]


def test_a_metric_that_is_not_the_same_one_is_told_and_left_away(tmp_path):
    values = {key: RANDOM.random(12) for key in KEYS}
    one = a_run(tmp_path / "one", values)
    two = a_run(tmp_path / "two", {key: values[key] for key in KEYS if key != "click/auc"}, label=8)
    found = compare.compare([one, two], metrics=["all"], draws=100)
    assert [row.metric for row in found["rows"]] == ["utility:items/novelty@10"]
    told = [line.removeprefix(f"{two}: ") for line in found["apart"]]
    assert told == [
        "label click has other values in 12 lists, so click/ndcg@5 is another metric",
        "it keeps no click/auc",
    ]
    with pytest.raises(
        UserError, match=r"no metric of .*one can be compared: .*label click has other values in 12 lists"
    ):
        compare.compare([one, two], metrics=["ndcg@5"], draws=100)


def test_values_apart_by_rounding_are_equal_and_a_metric_of_no_list_is_no_row(tmp_path):
    values = {"click/ndcg@5": RANDOM.random(20) + 0.1, "click/auc": np.full(20, np.nan)}
    near = values | {"click/ndcg@5": np.nextafter(np.float32(values["click/ndcg@5"]), np.float32(2))}
    found = compare.compare(
        [a_run(tmp_path / "one", values), a_run(tmp_path / "two", near)], metrics=["all"], draws=100
    )
    (row,) = found["rows"]
    assert (row.low, row.high, row.p, row.holm) == (0.0, 0.0, 1.0, 1.0)
    assert found["apart"] == [f"{tmp_path / 'two'}: no list has click/auc in both"]


def test_runs_that_cannot_be_compared_are_told_in_a_sentence(runs, tmp_path):
    with pytest.raises(UserError, match=r"there is nothing to compare .*a with; name at least two runs"):
        compare.compare(runs[:1])
    with pytest.raises(
        RunFolderError, match=r"nowhere is not a run folder: it has no config.yaml; `mobjrec train` makes one"
    ):
        compare.compare([runs[0], tmp_path / "nowhere"])
    message = re.escape(
        f"keeps no values of its valid lists; measure them first: `mobjrec eval {runs[0]} --split valid`"
    )
    with pytest.raises(UserError, match=message):
        compare.compare(runs, "valid")
    with pytest.raises(UserError, match=re.escape(f"`mobjrec eval {runs[0]} --split test --full`")):
        compare.compare(runs, full=True)
    other = a_run(tmp_path / "other", {key: RANDOM.random(29) for key in KEYS}, lists=np.arange(29) + 9)
    with pytest.raises(
        UserError, match="did not measure the same lists: of 30 and 29 test lists 21 have the same user"
    ):
        compare.compare([runs[0], other])


@pytest.mark.parametrize("name", ["eval-test.npz", "eval-test.json"])
def test_a_damaged_file_is_told_with_the_command_that_mends_it(runs, name):
    (runs[0] / name).write_bytes(b"PK half a file")
    with pytest.raises(RunFolderError, match=f"{name} is damaged.*`mobjrec eval.*` writes it anew"):
        compare.compare(runs)


# The command, on a trained run


@pytest.fixture(scope="module")
def evaluated(tiny_run, tiny_trained, tmp_path_factory):
    folder = shutil.copytree(tiny_run, tmp_path_factory.mktemp("compared") / "tiny")
    return folder, report.write_evaluation(tiny_trained._replace(folder=folder), "test", False)


def test_an_evaluation_keeps_the_value_of_every_list(evaluated, tiny_trained):
    folder, content = evaluated
    found, lists = kept.read(folder / "eval-test.npz"), tiny_trained.parts.dataset.test
    assert found.user.tolist() == tiny_trained.parts.dataset.users.id[lists.user].tolist()
    np.testing.assert_array_equal(found.time, lists.time)
    assert len(np.unique(found.lists)) == len(lists.user)
    assert found.metrics == tiny_trained.parts.config.evaluate.metrics
    assert "click/ndcg@5" in found.values and found.labels.keys() == {"click", "satisfaction"}
    for key, values in found.values.items():
        told = content["metrics"][key]
        assert (told["lists"], told["left_out"]) == ((~np.isnan(values)).sum(), np.isnan(values).sum())
        if told["lists"]:
            assert told["value"] == pytest.approx(np.nanmean(values.astype(float)), rel=1e-6)
    pooled = {"pooled_auc", "gauc", "log_loss", "accuracy", "rmse", "pr_auc", "ece"}
    assert {key.split("/")[1] for key in content["metrics"].keys() - found.values.keys()} <= pooled
    # Ten items or fewer a list: every order shows the same.
    assert not [key for key in content["metrics"] if ":items/" in key]


def test_the_command_prints_a_table_or_json(evaluated, tmp_path):
    folder, _ = evaluated
    other = shutil.copytree(folder, tmp_path / "other")
    words = ["compare", str(folder), str(other), "--metric", "ndcg@5", "--draws", "100"]
    shown = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "click/ndcg@5" in shown.output and "p (Holm)" in shown.output
    found = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).output)
    assert {(row["difference"], row["p"], row["holm"]) for row in found["rows"]} == {(0.0, 1.0, 1.0)}
    assert all(row["lists"] + row["left_out"] == found["lists"] for row in found["rows"])


def test_the_command_refuses_a_split_that_is_none():
    result = CliRunner().invoke(cli.app, ["compare", "a", "b", "--split", "tets"])
    assert isinstance(result.exception, UserError) and "did you mean test?" in str(result.exception)
