"""`mobjrec show`: a run as it stands, or how two runs differ. Reads the record alone, beside a training run too."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import conflicts, evaluate, swept
from mobjrec.config import Config, load, plain
from mobjrec.errors import RunFolderError
from mobjrec.reading import objectives_of
from mobjrec.record import Status, rows, starts_of, state
from mobjrec.record import timing as seconds
from mobjrec.report import number
from mobjrec.resume import flat, result
from mobjrec.types import Objective

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of a curve


def one(folder: Path) -> Group:
    """State, losses with their curves, best validation metrics, seconds by stage, and which objectives conflicted.

    Of a sweep its front.
    """
    front = swept.read(folder)
    if front is not None:
        return swept.table(front, folder)
    status = state(folder)
    record = list(rows(folder))
    train = [row for row in record if row["kind"] == "train"]
    over = result(folder)
    config = _config(folder)
    objectives = objectives_of(config)
    parts: list[Any] = [Text(stands(folder, status, over)), losses(train), valid(record, objectives)]
    timing = over["timing"] if over else seconds(starts_of(folder))
    if timing:
        so_far = "" if over else " up to the last save or evaluation"
        parts.append(Text(f"seconds{so_far}: " + ", ".join(f"{name} {value:.1f}" for name, value in timing.items())))
    if over:
        feed = over["feed"]
        parts.append(Text(f"padding {feed['padding']:.1%} of packed cells, {feed['shapes']} compiled shapes"))
    told = conflicts.told(record, objectives, config.evaluate.metrics, over["table"] if over else {})
    parts.append(Text("\n".join(told)) if told else None)
    return Group(*(part for part in parts if part is not None))


def stands(folder: Path, status: Status, over: dict[str, Any] | None) -> str:
    """A sentence on how the run stands."""
    if (folder / "preferences.json").is_file() and not status.running:
        return f"{folder}: a sweep that is not over; the same `mobjrec sweep` goes on with it"
    if (folder / "search.json").is_file() and not status.running:
        return f"{folder}: a search; the same `mobjrec tune` shows what it found, or goes on with it"
    if status.running:
        return f"{folder}: at step {status.step}, process {status.pid} on {status.host} trains it"
    if over:
        return f"{folder}: done after {over['steps']} steps; step {over['chosen']} is kept"
    if status.step < 0:
        return f"{folder}: not a step is recorded; `mobjrec train` with its config starts it"
    return f"{folder}: stopped at step {status.step}; the same `mobjrec train` goes on from its newest checkpoint"


def losses(train: list[dict[str, Any]]) -> Grid | None:
    """First, last and least loss of every objective, its last weight, and its curve."""
    names = [key.removeprefix("loss/") for key in (train[0] if train else {}) if key.startswith("loss/")]
    if not names:
        return None
    grid = _grid("training loss", ("objective", "first", "last", "weight", "curve"))
    for name in names:
        values = [row[f"loss/{name}"] for row in train if row.get(f"loss/{name}") is not None]
        first, last = (values[0], values[-1]) if values else (None, None)
        grid.add_row(name, number(first), number(last), number(train[-1].get(f"weight/{name}")), curve(values))
    return grid


def valid(record: list[dict[str, Any]], objectives: dict[str, Objective]) -> Grid | None:
    """Best and last value of every validation metric of an objective's own label, the step of the best, and the curve."""
    measured = [row for row in record if row["kind"] == "eval" and any(key.startswith("valid/") for key in row)]
    if not measured:
        return None
    grid = _grid("validation", ("metric", "best", "step", "last", "curve"))
    for name in [key.removeprefix("valid/") for key in measured[-1] if key.startswith("valid/")]:
        if name.startswith("utility") or not evaluate.is_own(objectives, name):
            continue
        key = f"valid/{name}"
        pairs = [(row["step"], row[key]) for row in measured if row.get(key) is not None]
        if not pairs:
            continue
        best = min if name.rpartition("/")[2] in conflicts.ERRORS else max
        step, value = best(pairs, key=lambda pair: pair[1])
        grid.add_row(name, number(value), str(step), number(pairs[-1][1]), curve([v for _, v in pairs]))
    return grid


def curve(values: list[float]) -> str:
    """A line of bars, means of equal stretches, from the lowest to the highest; "" for no values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    means = np.array([part.mean() for part in np.array_split(np.array(finite), min(WIDTH, len(finite)))])
    low, high = means.min(), means.max()
    place = (means - low) / (high - low) if high > low else np.zeros(len(means))
    return "".join(BARS[int(p * (len(BARS) - 1) + 0.5)] for p in place)


def two(first: Path, second: Path) -> Group:
    """Config keys that differ and the test metrics of both, side by side."""
    configs = [flat(plain(_config(folder))) for folder in (first, second)]
    keys = _grid("config", ("key", first.name, second.name))
    for key in sorted(configs[0].keys() | configs[1].keys()):
        values = [config.get(key, "–") for config in configs]
        if values[0] != values[1]:
            keys.add_row(key, *(Text(str(value)) for value in values))
    found = [_final(folder) for folder in (first, second)]
    metrics = _grid("test split", ("metric", first.name, second.name, "difference"))
    for key in [*found[0], *(key for key in found[1] if key not in found[0])]:
        a, b = (one.get(key) for one in found)
        metrics.add_row(key, number(a), number(b), f"{b - a:+.4f}" if a is not None and b is not None else "–")
    same = Text("the configs are the same") if not keys.row_count else keys
    return Group(same, metrics if metrics.row_count else Text("neither run is measured on the test split yet"))


def _final(folder: Path) -> dict[str, float | None]:
    over = result(folder)
    if over:
        return {key: row["after"] for key, row in over["table"].items() if row.get("own", True)}
    last = next((r for r in reversed(list(rows(folder))) if any(key.startswith("test/") for key in r)), {})
    return {key.removeprefix("test/"): value for key, value in last.items() if key.startswith("test/")}


def _config(folder: Path) -> Config:
    path = folder / "config.yaml"
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no config.yaml; `mobjrec train` makes one")
    return load(path)


def _grid(title: str, columns: tuple[str, ...]) -> Grid:
    grid = Grid(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        grid.add_column(column, justify="left" if column in ("objective", "metric", "key", "curve") else "right")
    return grid
