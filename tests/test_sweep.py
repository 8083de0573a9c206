"""Sweeps over preferences: in one program, one by one, stopped and gone on with, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import mobjrec
from mobjrec import chart, checkpoint, cli, record, report, show, sweep, swept, together, train, weightings
from mobjrec.config import load as as_written
from mobjrec.defaults import load, parse
from mobjrec.errors import RunFolderError, Stopped, UserError
from mobjrec.parts import assemble
from mobjrec.types import Signals

TINY = Path(__file__).parent / "tiny.yaml"
IDS = "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 16, scorer: {use: mlp, layers: [16]}}"
METRICS = {"recall": "recall@3"}
WISHES = [{"click": 1}, {"recall": 1, "satisfaction": 3}, {"satisfaction": 2}]


BASE = {"weighting": "{use: equal}", "evaluate.select": "satisfaction/ndcg@5"}


def settings(*more):
    changed = BASE | dict(change.split("=", 1) for change in more)
    return load(TINY, ["tokenizer=null", IDS, *(f"{key}={value}" for key, value in changed.items())])


@pytest.fixture(scope="module")
def config():
    return settings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps") / "ids"


@pytest.fixture(scope="module")
def found(config, folder, tiny_cache):
    return sweep.run(config, folder, tiny_cache, WISHES, metrics=METRICS, quiet=True)


def best(folder, config, cache):
    like = jax.eval_shape(assemble(config, cache).first_state)
    return checkpoint.best(folder, {"params": like.params, "memory": like.memory})


def apart(one, other):
    return max(float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_every_run_is_the_one_that_its_own_config_trains(config, folder, found, tiny_cache, tmp_path):
    own = as_written(folder / "p01" / "config.yaml")
    assert own.weighting.use == "preferred"
    train.run(own, tmp_path / "alone", tiny_cache, quiet=True)
    (mine, seal), (theirs, other) = best(folder / "p01", own, tiny_cache), best(tmp_path / "alone", own, tiny_cache)
    assert apart(mine, theirs) < 1e-5 and seal["step"] == other["step"]
    kept, alone = (json.loads((at / "result.json").read_text()) for at in (folder / "p01", tmp_path / "alone"))
    assert kept.keys() == alone.keys() and kept["table"].keys() == alone["table"].keys()
    for key, row in alone["table"].items():
        assert row.keys() == kept["table"][key].keys()
        for name in ("before", "after", "truth"):
            assert kept["table"][key].get(name) == pytest.approx(row.get(name), abs=1e-4), (key, name)
    # A row a step, as a run writes them.
    mine, theirs = (
        [row for row in record.rows(at) if row["kind"] == "train"] for at in (folder / "p01", tmp_path / "alone")
    )
    assert len(mine) == len(theirs) == 12
    assert mine[-1]["loss/click"] == pytest.approx(theirs[-1]["loss/click"], abs=1e-4)
    assert mine[-1]["weight/satisfaction"] == pytest.approx(0.75)


def test_runs_differ_by_their_preference_and_are_used_as_any_run(folder, found, tiny_cache):
    assert [run["preference"]["satisfaction"] for run in found["runs"].values()] == [0.0, 0.75, 1.0]
    one, other = (mobjrec.load(folder / name, tiny_cache) for name in ("p00", "p02"))
    assert apart(one.params, other.params) > 1e-3
    assert len(one.rank("u0" if "u0" in one.rows["user"] else next(iter(one.rows["user"])), top=3)) == 3
    assert report.write_evaluation(one, "test", full=False)["step"] == one.step
    with pytest.raises(RunFolderError, match=r"is a sweep; take one of its runs, such as .*p00"):
        mobjrec.load(folder, tiny_cache)


def test_points_are_those_of_each_run_at_its_own_preference_beside_the_plain_one_at_all(folder, found, tiny_cache):
    from mobjrec import fronts

    run = mobjrec.load(folder / "p01", tiny_cache)
    wish = np.array([[0.0, 0.25, 0.75]])
    for split in swept.SPLITS:
        point = fronts.orderings(
            run.parts, run.params, run.memory, split, wish, metrics=METRICS, scale=run.scale
        )[0]  # fmt: skip
        np.testing.assert_allclose(found["runs"]["p01"][split], point, atol=1e-12)
    plain = mobjrec.load(folder / found["plain"]["run"], tiny_cache)
    mixed = fronts.orderings(
        plain.parts, plain.params, plain.memory, "test", wish, metrics=METRICS, scale=plain.scale
    )[0]  # fmt: skip
    np.testing.assert_allclose(found["plain"]["test"][1], mixed, atol=1e-12)
    assert found["columns"] == {
        "click": "click/ndcg@5", "recall": "click/recall@3", "satisfaction": "satisfaction/ndcg@5"
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == ["sweep"] * 3 + ["plain"] * 3
    assert json.loads((folder / "sweep.json").read_text()) == found


def test_a_sweep_that_is_over_is_read_and_another_one_is_not_mixed_with_it(
    config, folder, found, tiny_cache, monkeypatch
):
    monkeypatch.setattr(together, "run", None)
    assert sweep.run(config, folder, tiny_cache, WISHES, metrics=METRICS, quiet=True) == found
    with pytest.raises(RunFolderError, match=r"holds a sweep over 3 other preferences, the first of which is click=1"):
        sweep.run(config, folder, tiny_cache, WISHES[::-1], metrics=METRICS, quiet=True)
    with pytest.raises(RunFolderError, match="seed: 0 there, 1 now"):
        sweep.run(settings("seed=1"), folder, tiny_cache, WISHES, metrics=METRICS, quiet=True)
    with pytest.raises(RunFolderError, match=r"is a sweep; take one of its runs, .* or train into another folder"):
        train.run(config, folder, tiny_cache, quiet=True)
    with pytest.raises(RunFolderError, match="holds a run that is no sweep"):
        sweep.run(as_written(folder / "p00/config.yaml"), folder / "p00", tiny_cache, WISHES, quiet=True)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_to_the_same_runs(config, folder, found, tiny_cache, tmp_path, monkeypatch):
    step_of = together.passed

    def stop(*given):
        if given[3] == 8:
            raise Stopped(15, saved=False)
        return step_of(*given)

    monkeypatch.setattr(together, "passed", stop)
    with pytest.raises(Stopped):
        sweep.run(config, tmp_path / "cut", tiny_cache, WISHES, metrics=METRICS, quiet=True)
    # Sealed at step 5: what came after comes again.
    assert checkpoint.steps(tmp_path / "cut" / together.STACK) == [5]
    monkeypatch.setattr(together, "passed", step_of)
    finish, done = together.finish, []

    def stop_writing(own, *given):
        if done:
            raise KeyboardInterrupt
        done.append(own.folder.name)
        finish(own, *given)

    monkeypatch.setattr(together, "finish", stop_writing)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(config, tmp_path / "cut", tiny_cache, WISHES, metrics=METRICS, quiet=True)
    assert done == ["p00"] and (tmp_path / "cut/p00/result.json").is_file()
    monkeypatch.setattr(together, "finish", finish)
    again = sweep.run(config, tmp_path / "cut", tiny_cache, WISHES, metrics=METRICS, quiet=True)
    assert {name: run["test"] for name, run in again["runs"].items()} == {
        name: run["test"] for name, run in found["runs"].items()
    }
    assert [row["step"] for row in record.rows(tmp_path / "cut/p02") if row["kind"] == "train"] == list(range(1, 13))


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["chebyshev", "epo", "upgrad", "aligned_mtl", "{use: smoothed, of: {use: epo}}"])
def test_in_one_program_or_one_by_one(weighting, tiny_cache, tmp_path):
    use = weighting if weighting.startswith("{") else f"{{use: {weighting}}}"
    config = settings(f"weighting={use}")
    for name, alone in (("stacked", False), ("alone", True)):
        sweep.run(config, tmp_path / name, tiny_cache, WISHES, metrics=METRICS, quiet=True, one_by_one=alone)
    for run in ("p00", "p01", "p02", "plain"):
        (one, _), (other, _) = (best(tmp_path / name / run, config, tiny_cache) for name in ("stacked", "alone"))
        assert apart(one, other) < 1e-5, run


def test_a_text_encoder_that_trains_is_trained_one_by_one(config, tiny_cache):
    assert sweep.fits(assemble(sweep.asking(config), tiny_cache))
    trains = load(TINY, ["weighting={use: epo}"])
    assert not sweep.fits(assemble(sweep.asking(trains), tiny_cache))


@pytest.mark.parametrize("given, said", [
    (1, "1 preferences are too few: a sweep over 3 objectives takes at least 3"),
    (2, "2 preferences are too few"),
    ([{"click": 1}], "a sweep takes at least 2 preferences, not 1"),
    ([{"click": 1}, {"click": -1, "recall": 2}], "preference 2 is .*not negative"),
    ([{"click": 1}, {"clicks": 1}], "preference 2: there is no objective clicks; did you mean `click`"),
    ([{"click": 0.0}, {"recall": 1}], "preference 1 is .*not all 0"),
    ([{"click": float("nan")}, {"recall": 1}], "preference 1 is .*must be finite"),
    ([{"click": 1}, {"click": 4.0}], "preferences 1 and 2 are the same"),
    ([{"click": 1}, [0.0, 1.0, 0.0]], "preference 2 is .*give a number for each of click, recall, satisfaction"),
])  # fmt: skip
def test_preferences_that_are_none_are_refused_before_anything_is_read(given, said, config, tmp_path):
    with pytest.raises(UserError, match=said):
        sweep.run(config, tmp_path / "run", tmp_path / "cache", given, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change, said", [
    ("weighting={use: mgda}", "weighting mgda takes no preference, .* those that do are aligned_mtl, .*epo, .*static"),
    ("weighting={use: every, of: {use: mgda}}", "weighting every takes no preference"),
    ("objectives={click: {use: single, loss: softmax, label: click}}", "this config has only click"),
])  # fmt: skip
def test_configs_without_a_trade_off_to_choose_are_refused(change, said, tmp_path):
    more = ["evaluate.select=click/ndcg@5"] if change.startswith("objectives") else []
    with pytest.raises(UserError, match=said):
        sweep.run(settings(change, *more), tmp_path / "run", tmp_path / "cache", 3, quiet=True)


def test_columns_that_measure_the_same_are_told(tiny_cache, tmp_path):
    data = {
        "click": {"use": "single", "loss": "softmax", "label": "click"},
        "recall": {"use": "recall", "label": "click"},
    }
    config = parse(as_plain(settings()) | {"objectives": data, "evaluate": {"metrics": ["ndcg@5"]}})
    with pytest.raises(UserError, match="every objective is measured by click/ndcg@5, so there is no trade-off"):
        sweep.run(config, tmp_path / "run", tiny_cache, 3, quiet=True)


def as_plain(config):
    from mobjrec.config import plain

    return plain(config)


def test_a_preference_stands_in_the_weighting_however_deep():
    base = {"use": "smoothed", "rate": 0.5, "of": {"use": "normalised", "of": {"use": "static", "weights": {"a": 1}}}}
    told = sweep.at(base, {"a": 0.25, "b": 0.75})
    assert told["rate"] == 0.5 and told["of"]["of"] == {"use": "preferred", "preference": {"a": 0.25, "b": 0.75}}
    assert sweep.at({"use": "epo", "preference": {}, "tolerance": 1.0}, {"a": 1}) == {
        "use": "epo", "preference": {"a": 1}, "tolerance": 1.0
    }  # fmt: skip
    assert sweep.at({"use": "famo", "rate": 1.0}, {"a": 1}) is None


def test_epo_follows_a_lone_preference_and_leaves_out_what_nobody_wants():
    random = np.random.default_rng(0).normal(size=(3, 5))
    count, zero = np.array([1.3, 0.7, 0.9], np.float32), jnp.int32(0)
    gram = jnp.asarray(random @ random.T, jnp.float32)

    def weights(wish, present=(True, True, True)):
        signals = Signals(
            jnp.asarray(count), jnp.asarray(present), gram, jnp.asarray(wish), zero, zero, jax.random.key(0)
        )
        method = weightings.epo()
        return np.asarray(method.update(signals, method.init(3))[0])

    np.testing.assert_allclose(weights([0.0, 0.0, 1.0]), [0, 0, 1], atol=1e-5)
    two = weights([0.3, 0.0, 0.7])
    assert two[1] == 0 and two.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(two, weights([0.3, 0.2, 0.7], (True, False, True)), atol=1e-5)


# Two columns, by hand: runs at (0, 0), units of 10 and 1.
SMALL = {
    "objectives": ["a", "b"],
    "columns": {"a": "a/ndcg", "b": "c/mrr"},
    "runs": {
        name: {"preference": dict(zip("ab", wish, strict=True)), "step": 1, "valid": valid, "test": test}
        for name, wish, valid, test in [
            ("p00", (1.0, 0.0), [11.0, 0.1], [12.0, 0.2]),
            ("p01", (0.5, 0.5), [9.0, 0.9], [7.0, 0.7]),
            ("p02", (0.2, 0.8), [8.0, 0.8], [14.0, 0.8]),
            ("p03", (0.0, 1.0), [3.0, 1.0], [4.0, 1.0]),
        ]
    },
    "plain": {"run": "plain", "step": 1, "valid": [[5.0, 0.5]] * 4, "test": [[7.0, 0.5]] * 4},
}


def test_numbers_of_a_sweep_by_hand():
    told = swept.summary(SMALL, {split: np.array([2.0, 0.0]) for split in swept.SPLITS})
    # p02 is dominated by p01 on valid: that it is better on test nobody may know.
    assert told["front"] == {"sweep": ["p00", "p01", "p03"], "plain": ["p00", "p01", "p02", "p03"]}
    assert told["best_single"] == [12.0, 1.0] and told["knee"] == "p01"
    # (1, 0.2), (0.5, 0.7), (0.2, 1): 0.2 + 0.25 + 0.06 = slices of 0.2 x 1, 0.5 x 0.5, 0.3 x 0.2.
    assert told["hypervolume"] == {"sweep": pytest.approx(0.51), "plain": pytest.approx(0.25)}
    assert told["igd_plus"]["sweep"] == 0.0
    # (0.5, 0.5) lacks 0.5, 0.2 and 0.5 of the three.
    assert told["igd_plus"]["plain"] == pytest.approx(0.4) and told["spread"]["plain"] is None
    whole = SMALL | told
    assert swept.nearest_run(whole, {"a": 3, "b": 4}) == "p01" and swept.nearest_run(whole, {"b": 1}) == "p03"
    flat = swept.summary(SMALL, {split: np.array([2.0, 1.0]) for split in swept.SPLITS})
    assert flat["hypervolume"] == {"sweep": None, "plain": None}
    assert flat["no_units"].startswith("no hypervolume: the run that prefers b alone")


def test_a_sweep_is_shown_by_its_front_once_it_is_over(folder, found, tmp_path):
    def shown(at):
        console = Console(width=100)
        with console.capture() as said:
            console.print(show.one(at))
        return " ".join(said.get().split())

    assert f"knee: {found['knee']}" in shown(folder)
    timing = json.loads((folder / "p00/result.json").read_text())["timing"]
    assert timing["prepare"] > 0 and timing["train"] > 0
    for name in ("config.yaml", "preferences.json", "metrics.jsonl", "env.json", "mobjrec.lock"):
        shutil.copy(folder / name, tmp_path / name)
    assert "a sweep that is not over; the same `mobjrec sweep` goes on with it" in shown(tmp_path)


def test_the_table_and_the_picture_show_every_point():
    whole = SMALL | swept.summary(SMALL, {split: np.array([2.0, 0.0]) for split in swept.SPLITS})
    console = Console(width=80, file=None)
    with console.capture() as shown:
        console.print(swept.table(whole, Path("there"), {"a": 1.0}))
    text = shown.get()
    assert " ".join(text.split()).count("p02 0.20 0.80 14.0000 0.8000") == 1
    assert "nearest to the wish: p00" in text and "0.510" in text and max(map(len, text.splitlines())) <= 80
    picture = chart.drawn(whole)
    assert picture.count("<circle") == 9 and "p01: a=0.5, b=0.5" in picture and "prefers-color-scheme:dark" in picture
    assert picture.count(' off"') == 1 and "b: c/mrr" in picture


def test_the_command(config, folder, found, tmp_path, monkeypatch, tiny_cache, capsys):
    monkeypatch.setenv("MOBJREC_CACHE", str(tiny_cache))
    (tmp_path / "sweep.yaml").write_text((folder / "config.yaml").read_text())
    shutil.copytree(folder, tmp_path / "run")
    words = [
        "sweep",
        str(tmp_path / "sweep.yaml"),
        "--run",
        str(tmp_path / "run"),
        "--metric",
        "recall=recall@3",
        "--json",
    ]
    prefer = ["--prefer", "click=1", "--prefer", "recall=1,satisfaction=3", "--prefer", "satisfaction=2"]

    def call(*more):
        monkeypatch.setattr("sys.argv", ["mobjrec", *words, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, capsys.readouterr()

    code, said = call(*prefer, "--wish", "satisfaction=1")
    assert code == 0 and json.loads(said.out) == found | {"nearest": swept.nearest_run(found, {"satisfaction": 1})}
    code, said = call(*prefer, "--preferences", "3")
    assert code == 2 and "exclude each other" in said.err
    code, said = call(*prefer, "--wish", "satisfied=1")
    assert code == 2 and "--wish: there is no objective satisfied; did you mean `satisfaction`" in said.err
    code, said = call("--prefer", "click")
    assert code == 2 and "'click' is not NAME=NUMBER" in said.err
    code, said = call("--preferences", "1")
    assert code == 2 and "1 preferences are too few" in said.err and "Traceback" not in said.err
