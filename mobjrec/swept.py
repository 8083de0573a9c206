"""What a sweep has reached: its runs' points, their front chosen on validation lists and told on test lists, beside the row
of one plain multi-head model whose heads are mixed at request time.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import checkpoint, evaluate, fronts, record, resume
from mobjrec.errors import RunFolderError, UserError
from mobjrec.pareto import front, hypervolume, igd_plus, knee, nearest, spread
from mobjrec.parts import Parts
from mobjrec.report import number

SPLITS = ("valid", "test")


def columns_of(parts: Parts, metrics: Mapping[str, str] | None) -> dict[str, str]:
    """{objective: metric} of the columns of points; of objectives with one label and one metric the first alone.

    UserError as for `fronts.axes`, and where only one column is left.
    """
    own, found = evaluate.labels_measured(parts), {}
    for name, metric in fronts.axes(parts, metrics).items():
        if (own[name], metric) not in [(own[other], taken) for other, taken in found.items()]:
            found[name] = metric
    if len(found) < 2:
        (name,) = found
        raise UserError(
            f"every objective is measured by {own[name]}/{found[name]}, so there is no trade-off to show; give another metric "
            "or label to one of them, such as --metric NAME=recall@5"
        )
    return found


def measures(found: Mapping[str, Any], columns: Mapping[str, str]) -> bool:
    """Whether the content of `sweep.json` is of these columns."""
    return {name: key.rpartition("/")[2] for name, key in found["columns"].items()} == dict(columns)


def measured(
    parts: Parts, folder: Path, wishes: Mapping[str, Sequence[float]], plain: str, columns: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `sweep.json` from the run folders in `folder`.

    wishes: {run: its preference [K]}   plain: the run of equal weights   columns: see `columns_of`
    """
    asked = np.array(list(wishes.values()))
    runs = {name: {"preference": dict(zip(parts.objectives, wish, strict=True))} for name, wish in wishes.items()}
    for name, wish in wishes.items():
        point = _points(parts, folder / name, np.array([wish]), columns)
        runs[name] |= {"step": point["step"]} | {split: point[split][0] for split in SPLITS}
    mixed = _points(parts, folder / plain, asked, columns)
    found: dict[str, Any] = {
        "objectives": list(parts.objectives),
        "columns": {name: f"{evaluate.labels_measured(parts)[name]}/{metric}" for name, metric in columns.items()},
        "runs": runs,
        "plain": {"run": plain, **mixed},
    }
    return found | summary(found, {split: fronts.random_point(parts, split, metrics=columns) for split in SPLITS})


def _points(parts: Parts, folder: Path, wishes: np.ndarray, columns: Mapping[str, str]) -> dict[str, Any]:
    """{"step": the one that is kept, "valid", "test": points [P, M] as lists} of a run at these preferences."""
    like = jax.eval_shape(parts.first_state)
    found, over = checkpoint.best(folder, {"params": like.params, "memory": like.memory}), resume.result(folder)
    if found is None or over is None:
        raise RunFolderError(f"{folder} is not over; give the same sweep again, which goes on with it")
    model, seal = found
    scale = {name: tuple(pair) for name, pair in over["scale"].items()}
    told = {
        split: fronts.orderings(
            parts, model["params"], model["memory"], split, wishes, metrics=columns, scale=scale
        ).tolist()
        for split in SPLITS
    }
    return {"step": seal["step"], **told}


def summary(found: Mapping[str, Any], random: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fronts and their numbers. Which runs are on the front, and the knee, is decided on valid; numbers are those of test.

    hypervolume: from the random ranker, in units of (value - random) / (best single-objective run - random), the latter the
    run that prefers an objective alone, or the best one where none does; null where such a run is no better than random,
    which `no_units` then says
    igd_plus: against the front of both rows together, in these units
    """
    names, wishes = list(found["runs"]), np.array([list(run["preference"].values()) for run in found["runs"].values()])
    sets = {
        split: {
            "sweep": np.array([run[split] for run in found["runs"].values()]),
            "plain": np.array(found["plain"][split]),
        }
        for split in SPLITS
    }
    at = [list(found["objectives"]).index(name) for name in found["columns"]]
    best = [single(sets["test"]["sweep"][:, column], wishes, objective) for column, objective in enumerate(at)]
    kept = {row: np.flatnonzero(front(points)) for row, points in sets["valid"].items()}
    told: dict[str, Any] = {
        "random": {split: point.tolist() for split, point in random.items()},
        "best_single": best,
        "front": {row: [names[n] for n in rows] for row, rows in kept.items()},
        "knee": names[kept["sweep"][knee(sets["valid"]["sweep"][kept["sweep"]])]],
        **{number: dict.fromkeys(kept) for number in ("hypervolume", "igd_plus", "spread")},
        "no_units": "",
    }
    flat = [
        name for name, value, least in zip(found["columns"], best, random["test"], strict=True) if not value > least
    ]
    if flat:
        key = found["columns"][flat[0]]
        told["no_units"] = (
            f"no hypervolume: the run that prefers {flat[0]} alone orders test lists no better than at random ({key})"
        )
        return told
    chosen = {row: fronts.units(sets["test"][row][rows], random["test"], best) for row, rows in kept.items()}
    both = np.concatenate(list(chosen.values()))
    for row, points in chosen.items():
        told["hypervolume"][row] = hypervolume(points, np.zeros(points.shape[1]))
        told["igd_plus"][row] = igd_plus(points, both[front(both)])
        told["spread"][row] = spread(points) if len(np.unique(points, axis=0)) > 1 else None
    return told


def single(values: np.ndarray, wishes: np.ndarray, objective: int) -> float:
    """An objective's metric [P] in the run that prefers it alone, or the best one where none does."""
    alone = wishes[:, objective] == wishes.sum(axis=1)
    return float(values[alone].max() if alone.any() else values.max())


def nearest_run(found: Mapping[str, Any], wish: Mapping[str, float]) -> str:
    """The run of the front whose preference is nearest to a wish, {objective: number}, by their shares."""
    runs = {name: list(found["runs"][name]["preference"].values()) for name in found["front"]["sweep"]}
    return list(runs)[
        nearest(np.array(list(runs.values())), np.array([wish.get(name, 0.0) for name in found["objectives"]]))
    ]


def table(found: Mapping[str, Any], folder: Path, wish: Mapping[str, float] | None = None) -> Group:
    """What each preference reaches on the test lists, in the sweep's runs and in the plain model, and both rows' numbers."""
    plain, runs = found["plain"], found["runs"]
    own = _points_table(found, "a run for each preference: test split", "sweep", [run["test"] for run in runs.values()])
    mixed = f"one plain model ({plain['run']}), mixed by preference at request time"
    rows = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "hypervolume", "IGD+", "spread"):
        rows.add_column(name, justify="left" if not name else "right")
    for row, words in (("sweep", "sweep"), ("plain", "plain model, mixed")):
        rows.add_row(words, *(number(found[key][row], 3) for key in ("hypervolume", "igd_plus", "spread")))
    lines = [
        "*: not dominated on the validation lists; numbers are those of test.",
        "hypervolume: from the random ranker, the best single-objective runs being 1; IGD+: to the front of both, less is "
        "better; spread: 0 for even gaps",
        *([found["no_units"]] if found["no_units"] else []),
        f"knee: {found['knee']}" + ("" if wish is None else f"; nearest to the wish: {nearest_run(found, wish)}"),
        f"folder: {folder} (sweep.json, points.jsonl, front.svg; every run is a run folder)",
    ]
    return Group(own, _points_table(found, mixed, "plain", plain["test"]), rows, Text("\n".join(lines)))


def _points_table(found: Mapping[str, Any], title: str, row: str, points: Sequence[Sequence[float]]) -> Grid:
    grid = Grid(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (
        "run",
        "\n".join(found["objectives"]),
        *(key.replace("/", "\n") for key in found["columns"].values()),
        "",
    ):
        grid.add_column(name, no_wrap=True)
    grid.add_row("random", "", *(number(value) for value in found["random"]["test"]))
    for (name, run), point in zip(found["runs"].items(), points, strict=True):
        wish = " ".join(number(share, 2) for share in run["preference"].values())
        mark = "*" if name in found["front"][row] else ""
        grid.add_row(name, wish, *(number(value) for value in point), mark)
    return grid


def write(folder: Path, found: Mapping[str, Any], picture: str) -> None:
    """`sweep.json`, `points.jsonl` (a row a point, of both rows) and `front.svg`, each by an atomic rename."""
    lines = []
    for name, run in found["runs"].items():
        on = {"front": name in found["front"]["sweep"]}
        lines.append({"row": "sweep", "run": name, **on, **run})
    for at, (name, run) in enumerate(found["runs"].items()):
        on = {"front": name in found["front"]["plain"]}
        point = {split: found["plain"][split][at] for split in SPLITS}
        lines.append({"row": "plain", "run": found["plain"]["run"], **on, "preference": run["preference"], **point})
    record.replaced(folder / "points.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    record.replaced(folder / "front.svg", picture)
    record.replaced(folder / "sweep.json", json.dumps(found, indent=1))


def read(folder: Path) -> dict[str, Any] | None:
    """The content of `sweep.json`, None where there is none. RunFolderError where it is damaged."""
    path = folder / "sweep.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged; remove it, and the same sweep measures its runs again") from error
