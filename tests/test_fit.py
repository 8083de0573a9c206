"""`mobjrec.fit` on frames in memory: the same numbers as the command line has on the same files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mobjrec
from mobjrec import record, train
from mobjrec.config import parse
from mobjrec.errors import UserError

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
    pick = lambda folder: [{k: v for k, v in row.items() if k != "wait"} for row in record.rows(folder)]
    assert pick(tmp_path / "run") == pick(fitted.folder)


def test_it_is_still_the_function_after_its_module_was_loaded():
    assert callable(mobjrec.fit)
    assert mobjrec.fit is mobjrec.fit


def test_what_is_no_frame_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="events: expected a pandas DataFrame"):
        mobjrec.fit(CONFIG, [1, 2], run=tmp_path / "run", quiet=True)
