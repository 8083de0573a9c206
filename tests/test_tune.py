"""The search itself with runs that are played, and one that is real."""

import builtins
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mobjrec import record, show, tune
from mobjrec import space as spaces
from mobjrec.cli import app
from mobjrec.config import dump
from mobjrec.defaults import load
from mobjrec.errors import NumericError, RunFolderError, Stopped, UserError
from mobjrec.space import Choice, Range

pytest.importorskip("optuna")
CHANGES = [
    "model.user={ids: [user]}", "model.item={ids: [item]}", "model.encoder=null", "tokenizer=null",
    "model.scorer={use: dot}", "evaluate.every.steps=3", "steps=6",
]  # fmt: skip
CONFIG = load(Path(__file__).parent / "tiny.yaml", CHANGES)
CLICK, STARS = "utility:click/ndcg@5", "utility:satisfaction/ndcg@5"


class Played:
    """Runs of four validations in which click likes a high rate and stars a low one; both rise with time."""

    def __init__(self, fails=(), ends=()):
        self.seen, self.fails, self.ends = [], dict(fails), dict(ends)

    def __call__(self, config, folder, cache, quiet, enough):
        number = len(self.seen)
        self.seen.append((folder.name, config.optimizer.settings["learning_rate"]))
        if number in self.ends:
            raise self.ends[number]
        if number in self.fails:
            raise self.fails[number]
        folder.mkdir(parents=True, exist_ok=True)
        rate = math.log10(config.optimizer.settings["learning_rate"])
        for step in range(1, 5):
            row = {"step": step, "kind": "eval", f"valid/{CLICK}": step * (5 + rate), f"valid/{STARS}": -step * rate}
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            if enough(step, row):
                break
        return {"chosen": step}


def search(folder, monkeypatch, played, trials, **given):
    monkeypatch.setattr(tune.train, "run", played)
    given = {"space": {"optimizer.learning_rate": Range(1e-4, 1e-2, log=True)}} | given
    return tune.run(CONFIG, folder, folder / "cache", trials, **given)


def test_the_front_and_the_best_are_of_what_was_measured(tmp_path, monkeypatch):
    found = search(tmp_path, monkeypatch, Played(), 5)
    assert found == json.loads((tmp_path / "trials.json").read_text()) and found["metrics"] == [CLICK, STARS]
    assert [row["folder"] for row in found["trials"]] == [f"trial-00{n}" for n in range(5)]
    assert all(row["front"] for row in found["trials"]), "one rises as the other falls"
    rates = [math.log10(row["params"]["optimizer.learning_rate"]) for row in found["trials"]]
    np.testing.assert_allclose([row["values"] for row in found["trials"]], [(4 * (5 + r), -4 * r) for r in rates])
    one = search(tmp_path / "one", monkeypatch, Played(), 5, metrics=[CLICK])
    assert [row["front"] for row in one["trials"]] == [row["folder"] == one["best"] for row in one["trials"]]
    best = max(one["trials"], key=lambda row: row["params"]["optimizer.learning_rate"])
    assert best["folder"] == one["best"] and best["utility"] == 1.0


@pytest.mark.slow
def test_a_search_that_was_interrupted_makes_that_trial_again_and_proposes_the_same(tmp_path, monkeypatch):
    whole = Played()
    wanted = search(tmp_path / "whole", monkeypatch, whole, 13, prune=False)
    first = Played(ends={11: Stopped(15)})
    with pytest.raises(Stopped):
        search(tmp_path / "cut", monkeypatch, first, 13, prune=False)
    second = Played()
    found = search(tmp_path / "cut", monkeypatch, second, 13, prune=False)
    assert first.seen[:11] + second.seen == whole.seen
    for one, other in zip(found["trials"], wanted["trials"], strict=True):
        assert (one["params"], one["values"]) == (other["params"], other["values"])
    assert second.seen[0][0] == "trial-011"
    again = Played()
    assert search(tmp_path / "cut", monkeypatch, again, 13, prune=False) == found and not again.seen
    assert len(search(tmp_path / "cut", monkeypatch, again, 14, prune=False)["trials"]) == 14


def test_another_seed_proposes_others(tmp_path, monkeypatch):
    one, other = Played(), Played()
    search(tmp_path / "a", monkeypatch, one, 2)
    search(tmp_path / "b", monkeypatch, other, 2, seed=1)
    assert not {rate for _, rate in one.seen} & {rate for _, rate in other.seen}


def test_a_trial_that_fails_is_told_and_the_search_goes_on(tmp_path, monkeypatch):
    found = search(tmp_path, monkeypatch, Played(fails={1: NumericError("the loss of click is nan\nmore")}), 3)
    assert [row["why"] for row in found["trials"]] == ["", "the loss of click is nan\nmore", ""]
    assert found["trials"][1]["values"] is None and found["best"] != "trial-001"
    none = search(tmp_path / "none", monkeypatch, Played(fails={0: UserError("no")}), 1)
    assert none["best"] == ""


def test_who_is_behind_in_every_metric_is_ended_and_who_leads_in_one_goes_on(tmp_path, monkeypatch):
    found = search(tmp_path / "one", monkeypatch, Played(), 12, metrics=[CLICK])
    ended = [row for row in found["trials"] if row["pruned"]]
    assert ended and all(row["pruned"] >= tune.LEAST and row["utility"] is None and not row["front"] for row in ended)
    assert all(row["pruned"] is None for row in found["trials"][: tune.STARTUP])
    rates = {row["folder"]: row["params"]["optimizer.learning_rate"] for row in found["trials"]}
    assert max(rates, key=rates.get) == found["best"]
    assert all(row["values"][0] < row["pruned"] * (5 + math.log10(rates[found["best"]])) for row in ended)
    both = search(tmp_path / "both", monkeypatch, Played(), 12)
    assert not any(row["pruned"] for row in both["trials"])
    whole = search(tmp_path / "no", monkeypatch, Played(), 12, metrics=[CLICK], prune=False)
    assert not any(row["pruned"] for row in whole["trials"])


def test_the_median_rule():
    others = [[[1.0, 1.0], [value, 10 - value]] for value in (1.0, 2.0, 3.0, 4.0)]
    assert tune.behind([[0.0, 0.0], [2.4, 7.4]], others)
    assert not tune.behind([[0.0, 0.0], [2.6, 7.4]], others)
    assert not tune.behind([[0.0, 0.0]], others), "too young"
    assert not tune.behind([[0.0, 0.0], [0.0, 0.0]], others[:3]), "too few others"
    assert not tune.behind([[0.0, 0.0]] * 3, others), "no other is as old"


def test_another_space_metric_seed_or_config_is_another_search(tmp_path, monkeypatch):
    search(tmp_path, monkeypatch, Played(), 1)
    for given, said in (
        ({"space": {"optimizer.learning_rate": Range(1e-4, 1e-1, log=True)}}, "another space"),
        ({"metrics": [CLICK]}, "another metrics"),
        ({"seed": 3}, "another seed"),
    ):
        with pytest.raises(RunFolderError, match=said):
            search(tmp_path, monkeypatch, Played(), 1, **given)
    with pytest.raises(RunFolderError, match="holds a run with another config"):
        tune.run(load(Path(__file__).parent / "tiny.yaml", [*CHANGES, "model.width=8"]), tmp_path, tmp_path, 1)


def test_a_folder_that_holds_no_search_or_a_damaged_one_is_left_as_it_is(tmp_path, monkeypatch):
    config = tune.asked(CONFIG, {})[0]
    with record.open(tmp_path / "run", dump(config)) as log:
        log.start(0)
        log.write(1, "train", {"loss/click": 1.0})
        log.finish({"steps": 1})
    with pytest.raises(RunFolderError, match=r"run holds a run that is no search; name another folder \(--run\)"):
        search(tmp_path / "run", monkeypatch, Played(), 1)
    assert (tmp_path / "run/result.json").is_file() and len(list(record.rows(tmp_path / "run"))) == 1
    for file, said in (
        ("search.json", "search.json is damaged"),
        ("study.db", "study.db cannot be read .*not a database"),
    ):
        search(tmp_path / file, monkeypatch, Played(), 1)
        (tmp_path / file / file).write_text("{ no" * 9)
        with pytest.raises(RunFolderError, match=said):
            search(tmp_path / file, monkeypatch, Played(), 1)


def test_a_search_is_not_taken_for_a_run(tmp_path, monkeypatch):
    trained = tune.train.run
    search(tmp_path, monkeypatch, Played(), 1)
    assert "a search; the same `mobjrec tune`" in show.stands(tmp_path, record.state(tmp_path), None)
    said = r"is a search; take one of its runs, such as .*trial-000, or train into another folder \(--run\)"
    with pytest.raises(RunFolderError, match=said):
        trained(CONFIG, tmp_path, tmp_path / "cache", quiet=True)


def test_the_default_space_is_static_weights_and_the_rate():
    config, space = spaces.default(CONFIG)
    assert config.weighting.use == "static"
    names = ("click", "recall", "satisfaction")
    wanted = {f"weighting.weights.{name}": Range(0.01, 1.0, log=True) for name in names}
    assert space == wanted | {"optimizer.learning_rate": Range(3e-4, 3e-2, log=True)}
    spaces.check(config, space)
    assert tune.of_utility(config) == (CLICK, STARS)


def test_spaces_as_they_are_written(tmp_path):
    said = ["optimizer.learning_rate=1e-4..1e-2:log", "model.width=8..32", "model.scorer.use=dot|cosine",
            "optimizer.clip=0.5|null", "model.id_dropout=0..0.5"]  # fmt: skip
    wanted = {
        "optimizer.learning_rate": Range(1e-4, 1e-2, log=True),
        "model.width": Range(8, 32),
        "model.scorer.use": Choice(("dot", "cosine")),
        "optimizer.clip": Choice((0.5, None)),
        "model.id_dropout": Range(0.0, 0.5),
    }
    found = spaces.told(said)
    assert found == wanted and isinstance(found["model.width"].low, int)
    path = tmp_path / "space.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in spaces.written(wanted).items()))
    assert spaces.from_file(path) == wanted
    params = {"model.width": 8, "optimizer.clip": "null", "model.scorer.use": '"cosine"'}
    changed = spaces.changed(CONFIG, tune.plainly(params))
    assert "width: 8" in dump(changed) and changed.optimizer.settings["clip"] is None


@pytest.mark.parametrize(
    "texts, said",
    [
        (["model.width"], "--search model.width: expected KEY=LOW..HIGH, LOW..HIGH:log, or A|B|C"),
        (["model.width=8..4"], "--search model.width=8..4: 8 is not below 4"),
        (["model.width=0..4:log"], "a range in the logarithm begins above 0, not at 0"),
        (["model.width=8..4..2"], "found '8..4..2'; expected LOW..HIGH"),
        (["model.width=8"], "found '8'; expected LOW..HIGH"),
        (["model.width=8|8"], "a choice needs at least two values, each once"),
        (["model.width=8..9", "model.width=8..9"], "model.width is given twice; keep one"),
        (["model.widht=8..9"], "model.widht is not a key of this config with a value; did you mean `model.width`"),
        (["model.width=0..9"], "the space of model.width holds 0, which does not fit: "),
        (["model.scorer.use=dot|dott"], 'the space of model.scorer.use holds "dott", which does not fit: '),
    ],
)  # fmt: skip
def test_spaces_that_are_none(texts, said):
    with pytest.raises(UserError) as error:
        spaces.check(CONFIG, spaces.told(texts))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "text, said",
    [("", "found null; expected KEY: LOW..HIGH"), ("a: [1]", "space.yaml: a: a choice needs"), ("a: 3", "a: found '3'")],
)  # fmt: skip
def test_files_that_hold_no_space(text, said, tmp_path):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        spaces.from_file(tmp_path / "space.yaml")
    assert said in str(error.value)


def test_a_space_that_is_not_there_is_not_called_a_config(tmp_path):
    with pytest.raises(UserError, match=r"^--space .*absent\.yaml: there is no such file$"):
        spaces.from_file(tmp_path / "absent.yaml")


def test_metrics_and_numbers_that_are_none(tmp_path, monkeypatch):
    for given, said in (
        ({"metrics": ["click/ndcg@50"]}, "--metrics: click/ndcg@50 is not measured; did you mean"),
        ({"metrics": [CLICK, CLICK]}, "one is given twice; keep one"),
        ({"trials": 0}, "--trials 0: give at least 1"),
    ):
        with pytest.raises(UserError) as error:
            search(tmp_path / "none", monkeypatch, Played(), **{"trials": 1, **given})
        assert said in str(error.value)
    assert not (tmp_path / "none").exists()


def test_without_optuna_it_says_how_to_get_it(tmp_path, monkeypatch):
    imported = builtins.__import__

    def without(name, *rest):
        if name == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"not installed; pip install 'mobjrec\[tune\]'"):
        tune.run(CONFIG, tmp_path, tmp_path, 1)


def test_the_command_shows_the_front_and_what_to_do_with_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(tune.train, "run", Played(fails={1: NumericError("nan")}))
    monkeypatch.setenv("COLUMNS", "160")
    tiny = str(Path(__file__).parent / "tiny.yaml")
    given = ["tune", tiny, *CHANGES, "--trials", "4", "--run", str(tmp_path), "--metrics", CLICK]
    rate = "optimizer.learning_rate=1e-4..1e-2:log"
    done = CliRunner().invoke(app, [*given, "--search", rate])
    assert done.exit_code == 0, done.output
    best = json.loads((tmp_path / "trials.json").read_text())["best"]
    for said in ("trial-000: ", "trial-001: ", "failed: nan", "4 trials, 0 ended early, 1 failed", f"best: {best}",
                 f"mobjrec eval {tmp_path / best}", "seed=1 --run "):  # fmt: skip
        assert said in done.output
    (tmp_path / "space.yaml").write_text("optimizer.learning_rate: 1e-4..1e-2:log")
    again = CliRunner().invoke(app, [*given, "--space", str(tmp_path / "space.yaml"), "--json"])
    assert json.loads(again.output)["best"] == best
    both = CliRunner().invoke(app, [*given, "--search", rate, "--space", "space.yaml"])
    assert isinstance(both.exception, UserError) and "exclude each other" in str(both.exception)


@pytest.mark.slow
def test_real_trials_are_run_folders_that_are_evaluated_and_ranked(tmp_path, tiny_cache):
    import mobjrec

    config = load(Path(__file__).parent / "tiny.yaml", [*CHANGES[:-1], "steps=5"])
    found = tune.run(config, tmp_path, tiny_cache, 2, space={"optimizer.learning_rate": Range(1e-3, 1e-2, log=True)})
    for row in found["trials"]:
        run = mobjrec.load(tmp_path / row["folder"], tiny_cache)
        assert run.parts.config.optimizer.settings["learning_rate"] == row["params"]["optimizer.learning_rate"]
        # Step 5 was not validated while it trained.
        measured = tune.evaluate.run(run.parts, run.params, run.memory, "valid", scale=run.scale).measured
        np.testing.assert_allclose(row["values"], [measured[key].value for key in (CLICK, STARS)])
        assert len(run.rank(user="u3", top=3)) == 3


@pytest.mark.slow
def test_a_run_ends_at_the_validation_that_is_enough_and_is_over(tmp_path, tiny_cache):
    config, asked = load(Path(__file__).parent / "tiny.yaml", [*CHANGES[:-1], "steps=9"]), []
    enough = lambda step, values: asked.append((step, CLICK in values)) or step == 6
    result = tune.train.run(config, tmp_path, tiny_cache, quiet=True, enough=enough)
    assert asked == [(3, True), (6, True)] and result["steps"] == result["chosen"] == 6
    again = tune.train.run(config, tmp_path, tiny_cache, quiet=True)
    assert (again["steps"], again["chosen"]) == (6, 6)
