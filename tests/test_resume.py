"""Which changes of a config and of the data a run folder takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mobjrec
from mobjrec import checkpoint, mesh, resume, train
from mobjrec.config import dump, load, parse, plain
from mobjrec.data.corpus import events_from, single, table_from
from mobjrec.errors import RunFolderError, UserError
from mobjrec.parts import assemble
from mobjrec.resolve import complete
from mobjrec.types import Corpus

TINY = load(Path(__file__).parent / "tiny.yaml")


def refusal(before, now) -> str:
    with pytest.raises(RunFolderError) as error:
        resume.check(dump(before), now, Path("runs/tiny"))
    return str(error.value)


def reordered(config, key):
    """The config with the entries of `key` the other way round."""
    data = plain(config)
    return type(config).model_validate({**data, key: dict(reversed(data[key].items()))}, strict=False)


def test_the_same_config_goes_on():
    resume.check(None, TINY, Path("runs/tiny"))
    resume.check(dump(TINY), TINY, Path("runs/tiny"))


def test_another_order_of_objectives_is_another_run():
    said = refusal(TINY, reordered(TINY, "objectives"))
    assert "order of objectives: click, recall, satisfaction there, satisfaction, recall, click now" in said


def test_another_order_of_path_patterns_is_another_run():
    def grouped(*patterns):
        groups = ", ".join(f'"{pattern}": {{factor: 0.5}}' for pattern in patterns)
        return load(Path(__file__).parent / "tiny.yaml", [f"optimizer.groups={{{groups}}}"])

    said = refusal(grouped("scorer/*", "*"), grouped("*", "scorer/*"))
    assert "order of optimizer.groups: scorer/*, * there, *, scorer/* now" in said


def test_an_accepted_key_may_differ_and_no_other():
    now = load(Path(__file__).parent / "tiny.yaml", ["batch.lists=8", "optimizer.learning_rate=1e-3", "save.keep=9"])
    check = lambda *accepted: resume.check(dump(TINY), now, Path("runs/tiny"), accepted)
    differing = {"batch.lists": (16, 8), "optimizer.learning_rate": (0.003, 0.001)}
    assert check("batch.lists", "optimizer") == differing
    with pytest.raises(RunFolderError) as error:
        check("batch.lists")
    assert "optimizer.learning_rate: 0.003 there, 0.001 now" in str(error.value)
    assert "batch.lists" not in str(error.value)
    with pytest.raises(
        UserError, match=r"--override-resume batch.list: there is no such key; did you mean `batch.lists`"
    ):
        check("batch.list")
    assert resume.check(dump(TINY), TINY, Path("runs/tiny"), ["batch.lists"]) == {}


def test_another_function_is_told_by_its_name_not_by_all_its_settings():
    now = load(Path(__file__).parent / "tiny.yaml", ["optimizer={use: sgd, momentum: 0.5}", "seed=1"])
    with pytest.raises(RunFolderError) as error:
        resume.check(dump(TINY), now, Path("runs/tiny"))
    told = [line.strip() for line in str(error.value).splitlines()[1:-1]]
    assert told == ["optimizer.use: 'adamw' there, 'sgd' now", "seed: 0 there, 1 now"]


def test_an_accepted_order_goes_on():
    other = reordered(TINY, "objectives")
    assert resume.check(dump(TINY), other, Path("runs/tiny"), ["objectives"]) == {}


def test_patience_is_free_and_the_rule_of_the_best_is_not():
    changes = ["evaluate.select=click/auc", "evaluate.floors={click/ndcg@5: 0.5}"]
    before = load(Path(__file__).parent / "tiny.yaml", changes)
    resume.check(dump(before), load(Path(__file__).parent / "tiny.yaml", [*changes, "evaluate.patience=3"]), Path("r"))
    assert "evaluate.floors.click/ndcg@5: 0.5 there, None now" in refusal(
        before, load(Path(__file__).parent / "tiny.yaml", changes[:1])
    )


def test_an_objective_more_is_told_by_its_keys():
    more = load(Path(__file__).parent / "tiny.yaml", ["objectives.other={use: recall}"])
    assert "objectives.other.use: None there, 'recall' now" in refusal(TINY, more)


CHANGES = {
    "": (),
    "id": ("item ids",),
    "title": ("item texts", "user texts"),
    "unread": (),
    "price": ("item columns",),
    "city": ("user columns",),
    "dwell of a training event": ("training labels",),
    "dwell of a test event": ("test labels",),
    "hour": ("training lists", "test lists"),  # standardised over training
    "item": ("training lists", "histories"),
    "event": ("test lists", "test labels", "histories"),
}


def shop(change: str = "") -> Corpus:
    """Four users, four items, eight events, the last two for testing; with one thing changed."""
    ids = ["a", "b", "c", "z" if change == "id" else "d"]
    titles = ["red bus", "boat", "red soup", "bus" if change == "title" else "boat"]
    numbers = {"price": [1, 2, 3, 5 if change == "price" else 4], "unread": [0, 0, 0, float(change == "unread")]}
    cities = single(["Graz", "Lyon", "Lyon", "Lyon" if change == "city" else "Graz"])
    count = 9 if change == "event" else 8
    dwell = np.arange(count) + 0.0
    dwell[[1, 7]] += change == "dwell of a training event", change == "dwell of a test event"
    events = events_from(
        user=np.arange(count) % 4,
        item=[0, 1, 2, 3, 1, 3 if change == "item" else 2, *range(count - 6)],
        time=np.arange(count),
        feedback={"click": [1, 1, 0, 1, 1, 1, 0, 1, 1][:count], "dwell": dwell},
        split=np.arange(count) // 6 * 2,
        numbers={"hour": np.arange(count) + (np.arange(count) == 3) * (change == "hour")},
    )
    users = table_from("uvwx", categories={"city": cities})
    return Corpus(users, table_from(ids, {"title": titles}, numbers=numbers), events, {})


def parts_of(change: str, cache: Path, **changes):
    config = {
        "steps": 4,
        "data": {"use": "test_resume:shop", "change": change},
        "tokenizer": {"use": "trained", "size": 64},
        "lists": {"split": {"use": "published"}, "history": {"of": "click", "last": 2}, "window": 2},
        "candidates": {"use": "as_logged"},
        "batch": {"lists": 4, "item_row": 8, "user_row": 8},
        "model": {
            "use": "ranker",
            "encoder": {"use": "bert", "layers": 1, "width": 4, "heads": 1},
            "user": {"text": "{history.title}", "ids": ["user", "city"]},
            "item": {"text": "{title}", "ids": ["item"], "numbers": ["price"]},
            "scorer": {"use": "mlp", "layers": [4]},
            "width": 4,
        },
        "objectives": {"click": {"use": "single", "loss": "softmax", "label": "click"}},
        "weighting": {"use": "equal"},
        "optimizer": {"use": "adamw"},
    }
    return assemble(complete(parse({**config, **changes})), cache)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> dict:
    return resume.content(parts_of("", tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_read_is_named_by_its_kind(change, before, tmp_path):
    now = resume.content(parts_of(change, tmp_path))
    differs = [kind for kind, key in before["data"].items() if now["data"][kind] != key]
    assert sorted(differs) == sorted(CHANGES[change])
    # A vocabulary trained on other titles is another one.
    assert (before["tokenizer"] != now["tokenizer"]) == (change == "title")
    if not differs:
        resume.check_content({**before, "best": 0.5}, now, Path("runs/shop"))
        return
    with pytest.raises(RunFolderError, match="runs/shop was trained with other data; changed since: ") as error:
        resume.check_content({**before, "best": 0.5}, now, Path("runs/shop"))
    assert ("tokeniser, " in str(error.value)) == (change == "title")
    assert all(kind in str(error.value) for kind in CHANGES[change])


def test_another_tokeniser_alone_is_named(before, tmp_path):
    now = resume.content(parts_of("", tmp_path, tokenizer={"use": "trained", "size": 64, "lowercase": False}))
    assert before["data"] == now["data"]
    with pytest.raises(RunFolderError, match="changed since: tokeniser; restore"):
        resume.check_content(before, now, Path("runs/shop"))


def test_a_sealed_state_is_not_handed_out_for_other_data(tmp_path):
    ids = {
        "use": "ranker",
        "user": {"ids": ["user"]},
        "item": {"ids": ["item"]},
        "scorer": {"use": "mlp", "layers": [4]},
        "width": 4,
    }
    parts, devices = parts_of("", tmp_path, model=ids), mesh.make(1)
    content = resume.content(parts)
    first, seal = resume.state(tmp_path / "run", parts, devices, content)
    assert seal is None
    checkpoint.save(tmp_path / "run", first, 3, {**content, "best": None})
    assert resume.state(tmp_path / "run", parts, devices, content)[1]["step"] == 3
    with pytest.raises(RunFolderError, match="changed since: test labels; restore what it was"):
        resume.state(
            tmp_path / "run", parts, devices, resume.content(parts_of("dwell of a test event", tmp_path, model=ids))
        )


def test_ids_that_join_alike_are_told_apart():
    one, other = (np.array(ids, np.dtypes.StringDType()) for ids in (["a", 'b", "c'], ['a", "b', "c"]))
    assert resume.named(one) != resume.named(other)


LOADED = """
import json, pathlib, sys, jax, mobjrec
assert len(jax.devices()) == 1
print(json.dumps(mobjrec.load(*map(pathlib.Path, sys.argv[1:])).rank("u3", top=5)))
"""


@pytest.mark.slow
def test_a_run_of_eight_devices_is_loaded_on_one(tmp_path):
    changes = ["steps=2", "tokenizer=null", "weighting={use: equal}", "parallel.devices=8", "evaluate.select=click/auc"]
    changes += ["model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}"]
    run, cache = tmp_path / "run", tmp_path / "cache"
    train.run(
        load(Path(__file__).parent / "tiny.yaml", [*changes, "evaluate.every={steps: 1}"]), run, cache, quiet=True
    )
    alone = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", LOADED, str(run), str(cache)]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), mobjrec.load(run, cache).rank("u3", top=5)
    assert [row["item"] for row in found] == [row["item"] for row in expected]
    np.testing.assert_allclose([row["utility"] for row in found], [row["utility"] for row in expected], rtol=1e-5)
