"""Which folder a path in a config counts from."""

import os
from pathlib import Path

import pytest

from mobjrec import paths
from mobjrec.config import dump
from mobjrec.data.example import example
from mobjrec.data.files import opened
from mobjrec.defaults import load, parse, settled
from mobjrec.errors import UserError

IDS = ["tokenizer=null", "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, scorer: {use: dot}}"]


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """my_shop/ with the example, and another folder beside it; the working directory is above both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    return example(Path("my_shop")).parent.resolve()


def path_of(config) -> str:
    return config.data.settings["path"]


def test_the_examples_config_is_the_same_from_inside_and_outside(shop, monkeypatch):
    outside = load(Path("my_shop/own-table.yaml"), IDS)
    assert path_of(outside) == str(shop)
    monkeypatch.chdir(shop)
    inside = load(Path("own-table.yaml"), IDS)
    assert dump(inside) == dump(outside)


def test_what_is_printed_means_the_same_from_anywhere(shop, monkeypatch):
    printed = dump(load(Path("my_shop/own-table.yaml"), IDS))
    (shop.parent / "other" / "whole.yaml").write_text(printed)
    monkeypatch.chdir("/")
    again = load(shop.parent / "other" / "whole.yaml")
    assert dump(again) == printed == dump(settled(again))


@pytest.mark.parametrize("written", ["my_shop", "../my_shop", "./my_shop/"])
def test_a_path_counts_from_the_configs_folder_where_it_exists_there_else_from_the_working_directory(shop, written):
    text = (shop / "own-table.yaml").read_text().replace("path: . ", f"path: {written} ")
    (shop.parent / "other" / "own.yaml").write_text(text)
    assert path_of(load(Path("other/own.yaml"), IDS)) == str(shop)
    (shop.parent / "other" / "my_shop").mkdir()
    there = shop.parent / "other" / "my_shop" if written != "../my_shop" else shop
    assert path_of(load(Path("other/own.yaml"), IDS)) == str(there)
    # What is typed counts from where it is typed.
    assert path_of(load(Path("other/own.yaml"), [*IDS, "data.path=my_shop"])) == str(shop)


def test_the_own_folder_is_meant_only_where_the_files_lie_in_it(shop, monkeypatch):
    """A config without a path, whose files are named from the working directory."""
    text = (shop / "own-table.yaml").read_text().replace("  path: . ", "  #")
    for name in ("events", "items", "users"):
        text = text.replace(f"{name}.csv", f"my_shop/{name}.csv")
    Path("other/own.yaml").write_text(text)
    assert path_of(load(Path("other/own.yaml"), IDS)) == str(shop.parent)
    os.link("my_shop/own-table.yaml", "other/copy.yaml")
    assert path_of(load(Path("other/copy.yaml"), IDS)) == str(shop.parent)
    for name in ("events", "items", "users"):
        os.link(f"my_shop/{name}.csv", f"other/{name}.csv")
    assert path_of(load(Path("other/copy.yaml"), IDS)) == str(shop.parent / "other")


def test_a_mapping_counts_from_the_working_directory(shop):
    config = parse({**_mapping(), "data": {"use": "table", "path": "my_shop"}})
    assert path_of(config) == str(shop)
    assert path_of(parse({**_mapping(), "data": {"use": "table"}})) == str(shop.parent)
    assert path_of(parse({**_mapping(), "data": {"use": "ml-100k"}})) is None


def _mapping() -> dict:
    return {
        "steps": 1,
        "lists": {"split": {"use": "by_time"}},
        "candidates": {"use": "as_logged"},
        "batch": {"lists": 2},
        "model": {"use": "ranker", "user": {"ids": ["user"]}, "item": {"ids": ["item"]}, "scorer": {"use": "dot"}},
        "objectives": {"click": {"use": "single", "loss": "softmax", "label": "click"}},
        "weighting": {"use": "equal"},
        "optimizer": {"use": "adamw"},
    }


def test_folders_of_weights_are_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "bert").mkdir(parents=True)
    (tmp_path / "minilm").mkdir()
    places = {("model",): "configs/a.yaml:3"}

    def of(weights: str) -> str:
        data = {"model": {"use": "ranker", "encoder": {"use": "bert", "weights": weights}}}
        return paths.located(data, places)["model"]["encoder"]["weights"]

    assert of("bert") == str(tmp_path / "configs" / "bert")
    assert [of(name) for name in ("minilm", "", "nowhere")] == ["minilm", "", "nowhere"]


WRONG = ({"use": "no_such"}, {"use": 3}, {"use": "table", "path": 3}, {"use": "table", "path": ""}, "table", None)


@pytest.mark.parametrize("block", WRONG)
def test_what_is_wrong_is_left_to_those_who_tell_it(block):
    assert paths.located({"data": block}, {}) == {"data": block}


def test_messages_name_files_from_the_working_directory(shop):
    with pytest.raises(UserError, match=r"^my_shop/none.csv is not a file; my_shop holds: events.csv"):
        opened("none.csv", shop)
    with pytest.raises(UserError, match=r"^/none.csv is not a file"):
        opened("none.csv", Path("/"))
