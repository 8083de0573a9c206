"""`mobjrec.fit` on frames in memory: the same numbers as the command line has on the same files."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mobjrec
from mobjrec import frames as frames_module
from mobjrec import record, train
from mobjrec.config import parse
from mobjrec.data.example import example
from mobjrec.defaults import settled
from mobjrec.errors import RunFolderError, UserError

TINY = Path(__file__).parent / "tiny.yaml"
CONFIG = {
    "seed": 0,
    "steps": 4,
    "data": {"use": "table"},
    "lists": {
        "split": {"use": "by_time", "valid": 0.2, "test": 0.2},
        "history": {"of": "click", "last": 5},
        "window": 6,
    },
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 8},
    "model": {
        "use": "ranker",
        "user": {"ids": ["user"]},
        "item": {"ids": ["item"]},
        "width": 8,
        "scorer": {"use": "mlp", "layers": [8]},
    },
    "objectives": {"click": {"use": "single", "loss": "sigmoid_cross_entropy", "label": "click"}},
    "weighting": {"use": "mgda"},
    "optimizer": {"use": "adamw", "learning_rate": 1e-2},
    "evaluate": {"metrics": ["ndcg@5"]},
    "parallel": {"devices": 1},
}


@pytest.fixture(scope="module")
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(0)
    who = np.repeat(np.arange(12), 18)
    events = pd.DataFrame(
        {
            "user": [f"u{n}" for n in who],
            "item": [f"i{n}" for n in np.concatenate([random.permutation(20)[:18] for _ in range(12)])],
            "time": 1_600_000_000 + 60 * random.permutation(len(who)),
            "click": random.integers(0, 2, len(who)),
        }
    )
    return events, pd.DataFrame({"item": [f"i{n}" for n in range(20)], "title": [f"title {n}" for n in range(20)]})


@pytest.fixture(scope="module")
def fitted(frames, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBJREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("runs") / "fit"
        yield mobjrec.fit(CONFIG, frames[0], items=frames[1], run=folder, quiet=True)


def test_frames_train_and_rank(fitted):
    rows = fitted.rank("u3", top=4, again=True)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert [row["utility"] for row in rows] == sorted((row["utility"] for row in rows), reverse=True)


def test_the_numbers_are_those_of_the_same_rows_in_files(fitted, frames, tmp_path):
    frames[0].to_csv(tmp_path / "events.csv", index=False)
    frames[1].to_csv(tmp_path / "items.csv", index=False)
    data = {"use": "table", "path": str(tmp_path), "events": "events.csv", "items": "items.csv"}
    train.run(parse({**CONFIG, "data": data}), tmp_path / "run", tmp_path / "cache", quiet=True)
    pick = lambda folder: [{k: v for k, v in row.items() if k not in record.TIMED} for row in record.rows(folder)]
    assert pick(tmp_path / "run") == pick(fitted.folder)


def test_it_is_still_the_function_after_its_module_was_loaded():
    assert callable(mobjrec.fit)
    assert mobjrec.fit is mobjrec.fit


def test_a_frame_in_place_of_a_config_is_told_where_it_goes(frames):
    for given, kind in ((frames[0], "DataFrame"), (frames[0].to_dict("records"), "list")):
        with pytest.raises(UserError, match=rf"^config is a {kind}; .*: fit\(config, events=frame\)$"):
            mobjrec.fit(given)


def test_what_is_no_frame_is_one_sentence(tmp_path):
    for given, said in (
        ([1, 2], r"events \(the list of dicts\): row 1 is 1; expected a dict"),
        (7, r"events \(the builtins int\) is not a table"),
        ("events.csv", r"events is 'events.csv'; expected a frame, as files are named by the config: data.events"),
    ):
        with pytest.raises(UserError, match=said):
            mobjrec.fit(CONFIG, given, run=tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [None, "mine", "below/mine"])
def test_what_is_wrong_with_a_frame_is_told_of_the_frame(frames, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clicks = frames[0].click.astype(float)
    for column, value, said in (
        ("click", "yes", "row 3, column click: found 'yes'"),
        ("click", float("inf"), "row 3, column click: found inf; expected a finite number"),
        ("click", 7.0, "(%s, row 3; 1 such events)"),
        ("time", -5, "row 3, column time: found -5"),
    ):
        wrong = frames[0].assign(click=clicks).astype({column: object} if value == "yes" else {})
        wrong.loc[2, column] = value
        for given, kind in ((wrong, "pandas DataFrame"), (wrong.to_dict("records"), "list of dicts")):
            with pytest.raises(UserError) as caught:
                mobjrec.fit(CONFIG, given, run=run, quiet=True)
            name = f"events (the {kind})"
            assert (said % name if "%s" in said else f"{name}, {said}") in str(caught.value)
            assert "parquet" not in str(caught.value)


def test_frames_of_any_kind_are_written_alike(frames, tmp_path):
    events = frames[0].head(30)
    table = pa.Table.from_pandas(events, preserve_index=False)

    class Polars:
        """What a polars frame is to Arrow."""

        columns = table.schema.names

        def __arrow_c_stream__(self, schema=None):
            return table.__arrow_c_stream__(schema)

    for number, given in enumerate((events, events.iloc[::-1].iloc[::-1], table, events.to_dict("records"), Polars())):
        held = frames_module._held("events", given)
        frames_module.with_frames(settled(parse(CONFIG)), {"events": held}, tmp_path / str(number))
        found = pd.read_parquet(tmp_path / f"{number}-data" / "events.parquet")
        pd.testing.assert_frame_equal(found[table.schema.names], events)


@pytest.mark.slow
def test_what_the_readme_calls_works(tmp_path, monkeypatch):
    """Two frames in place of two of the example's three tables, with a lighter model than the example's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    path = example(Path("my_shop"))
    text = path.read_text()
    for old, new in (
        ("epochs: 3", "steps: 2"),
        ("  encoder: {use: bert, layers: 2, width: 64, heads: 2}\n", "  width: 4\n"),
        ('{text: "From {city}. Clicked: {history.title}", ids: [user]}', "{ids: [user, city], numbers: [age]}"),
        ('text: "{title}. {description}", ', ""),
        ("scorer: {use: mlp}", "scorer: {use: mlp, layers: [4]}"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "mobjrec.fit" in one)
    known = {"events_frame": pd.read_csv("my_shop/events.csv"), "items_frame": pd.read_csv("my_shop/items.csv")}
    exec(block, known)
    run = known["run"]
    assert run.folder.parent == Path("runs") and len(run.parts.corpus.users.id) == 40
    data = run.parts.config.data.settings
    assert data["users"] == str(tmp_path / "my_shop" / "users.csv") and data["items"] == "items.parquet"
    monkeypatch.chdir("/")
    assert mobjrec.load(tmp_path / run.folder).rank(user="u12", top=3) == run.rank(user="u12", top=3)


def test_changes_hold_for_a_mapping_and_a_config_too(tmp_path):
    for config in (CONFIG, parse(CONFIG), settled(parse(CONFIG))):
        data = frames_module._changed(config, ("batch.lists=5", "data.events=e.csv"))
        assert data["batch"]["lists"] == 5 and data["data"]["events"] == "e.csv" and data["steps"] == 4
        with pytest.raises(UserError, match=r"batch.list: .*did you mean `lists`"):
            mobjrec.fit(config, changes=("batch.list=5",), run=tmp_path / "run")
    assert CONFIG["batch"] == {"lists": 8}


def test_nothing_is_left_where_nothing_was_trained(frames, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="lists"):
        mobjrec.fit({**CONFIG, "batch": {"lists": 0}}, frames[0], quiet=True)
    with pytest.raises(UserError, match="frames are read by `table`"):
        mobjrec.fit({**CONFIG, "data": {"use": "synthetic"}}, frames[0], quiet=True)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="label"):
        mobjrec.fit(CONFIG, frames[0].rename(columns={"click": "clicked"}), quiet=True)
    assert not list((tmp_path / "runs").iterdir())


def test_a_shipped_config_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = []
    monkeypatch.setattr(frames_module, "train_run", lambda config, *_, quiet: trained.append(config))
    monkeypatch.setattr(frames_module, "load_run", lambda folder: folder)
    assert mobjrec.fit("quickstart", run="here", changes=("seed=3",)) == Path("here")
    assert trained[0].data.use == "synthetic" and trained[0].seed == 3
    with pytest.raises(UserError, match=r"no config file quickstar, .*shipped are: article"):
        mobjrec.fit("quickstar", run="here")


@pytest.mark.parametrize("name, said", [("a\0b", "null byte"), ("file/run", "Not a directory")])
def test_a_run_that_cannot_be_a_folder_is_one_sentence_with_frames_and_without(name, said, frames, tmp_path):
    (tmp_path / "file").write_text("")
    for given in (frames[0], None):
        with pytest.raises(RunFolderError, match=f"cannot be .*folder.*{said}"):
            mobjrec.fit(CONFIG, given, run=f"{tmp_path}/{name}", quiet=True)
