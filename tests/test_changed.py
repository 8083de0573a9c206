"""Data that are not what a run was trained on: refused with their names, and a run that works from any folder."""

import shutil
from pathlib import Path

import pytest

import mobjrec
from mobjrec import train
from mobjrec.config import load
from mobjrec.data.example import example
from mobjrec.errors import RunFolderError

# Ids alone: quick, and every table is read.
CHANGES = (
    "epochs=null", "steps=2", "tokenizer=null",
    "model={use: ranker, width: 4, user: {ids: [user, city]}, item: {ids: [item, brand], numbers: [price]}, "
    "scorer: {use: mlp, layers: [4]}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the example's shop and a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    example(folder / "shop")
    trained_in(folder)
    return folder


@pytest.fixture
def place(trained, tmp_path, monkeypatch) -> Path:
    """The same again; its run, made where the original lies, is told where the data are now."""
    here = Path(shutil.copytree(trained, tmp_path / "here"))
    moved = here / "run" / "config.yaml"
    assert f'path: "{trained}/shop"' in moved.read_text()
    moved.write_text(moved.read_text().replace(str(trained), str(here)))
    monkeypatch.chdir(tmp_path)
    return here


def trained_in(folder: Path):
    config = load(folder / "shop" / "own-table.yaml", [*CHANGES, f"data.path={folder / 'shop'}"])
    return train.run(config, folder / "run", folder / "cache", quiet=True)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def told(call, *arguments) -> str:
    with pytest.raises(RunFolderError) as error:
        call(*arguments)
    return str(error.value)


def test_a_run_whose_data_are_as_they_were_is_used_from_any_folder(place):
    assert trained_in(place)["steps"] == 2
    run = mobjrec.load(place / "run", place / "cache")
    assert len(run.rank(user="u3", top=4)) == 4


def test_the_same_data_in_another_place_are_the_same_run(place):
    before = (place / "run" / "metrics.jsonl").read_bytes()
    (place / "shop").rename(place / "store")
    config = load(place / "store" / "own-table.yaml", CHANGES)
    assert train.run(config, place / "run", place / "cache", quiet=True)["steps"] == 2
    assert (place / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "old", "new", "kinds"),
    [
        (
            "events.csv",
            "u1,i32,1704067200,l1,0,0,",
            "u1,i32,1704067200,l1,0,1,",
            "histories, training lists, training labels, validation lists, test lists",
        ),
        ("items.csv", "ugged adapter", "ugged adaptor", ""),
        ("items.csv", "Alder", "Aldor", "item columns"),
        ("users.csv", "u4,", "u04,", None),
    ],
)
def test_changed_data_are_named_before_anything_is_ranked_measured_or_printed(place, name, old, new, kinds):
    edited(place / "shop" / name, old, new)
    if name == "users.csv":
        events = (place / "shop" / "events.csv").read_text()
        (place / "shop" / "events.csv").write_text(events.replace("\nu4,", "\nu04,"))
        kinds = "user ids"
    if not kinds:  # a text that this model does not read
        assert trained_in(place)["steps"] == 2
        return
    for said in (told(trained_in, place), told(mobjrec.load, place / "run", place / "cache")):
        assert f"trained with other data; changed since: {kinds}; restore what it was, or train into another" in said


def test_products_that_are_added_are_no_other_model(place):
    with (place / "shop" / "items.csv").open("a") as file:
        file.write("i99,Copper kettle,A kettle.,Alder,kitchen,12\n")
    said = told(mobjrec.load, place / "run", place / "cache")
    assert "changed since: item ids, item columns" in said and "ranked by `mobjrec rank --items FILE`" in said
    assert "another model" not in said


def test_data_that_are_gone_are_missed(place):
    (place / "shop").rename(place / "store")
    said = told(mobjrec.load, place / "run", place / "cache")
    assert f"reads its data from {place / 'shop'}, which is not there any more" in said
    assert f"data.path in {place / 'run' / 'config.yaml'}" in said
