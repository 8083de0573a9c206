"""`mobjrec compare`: runs against a first one, list by list: mean differences, bootstrap intervals, sign-flip tests, Holm."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import kept
from mobjrec.errors import RunFolderError, UserError
from mobjrec.evaluate import label_of
from mobjrec.kept import Kept
from mobjrec.metrics.keys import ITEMS
from mobjrec.problems import nearest
from mobjrec.report import number

DRAWS, LEVEL = 10_000, 0.95
# Numbers held at a time while resampling.
ROOM = 4_000_000


class Row(NamedTuple):
    """A metric of a run against that of the first one, over the lists where both have it.

    difference: run - first   low, high: its bootstrap interval   p: of the sign-flip test   holm: that over all rows
    lists: how many are compared   left_out: how many are not, the metric being undefined in one of the two
    """

    run: str
    metric: str
    first: float
    value: float
    difference: float
    low: float
    high: float
    p: float
    holm: float
    lists: int
    left_out: int


def compare(
    folders: Sequence[Path],
    split: str = "test",
    full: bool = False,
    metrics: Sequence[str] = (),
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Every run against the first one: {"split", "first", "lists", "draws", "seed", "rows": [Row], "apart": [sentence]}.

    metrics: keys (click/ndcg@10), names (ndcg@10) of an order on its own label, without segments, or "all" of these; by
    default the names in the first run's config
    apart: what could not be compared, and why
    RunFolderError for a folder that is no run, UserError where a run has not been evaluated, where its lists are not those
    of the first, and for a metric that is not kept.
    """
    if len(folders) < 2:
        raise UserError(f"there is nothing to compare {folders[0]} with; name at least two runs")
    first, *others = [_read(folder, split, full) for folder in folders]
    if not len(first.lists):
        raise UserError(f"the {split} split of {folders[0]} has no list to compare by")
    keys = _chosen(folders[0], first, _own(folders[0], split, full), metrics or first.metrics)
    rows, differences, apart = [], [], []
    for folder, other in zip(folders[1:], others, strict=True):
        here, there = _aligned(folders[0], first, folder, other, split)
        for key in keys:
            told = _incomparable(key, first, other, here, there)
            if told:
                apart.append(f"{folder}: {told}")
                continue
            a, b = first.values[key][here].astype(np.float64), other.values[key][there].astype(np.float64)
            rows.append((str(folder), key, a, b))
            # What is apart by float32's rounding alone is equal.
            differences.append(np.where(np.isclose(a, b, rtol=1e-6, atol=0.0), 0.0, b - a))
    if not rows:
        raise UserError(f"no metric of {folders[0]} can be compared: {'; '.join(dict.fromkeys(apart))}")
    found = paired(np.stack(differences), draws, seed)
    told = [_row(*row, *one) for row, one in zip(rows, zip(*found, strict=True), strict=True)]
    about = {"split": split, "full": full, "first": str(folders[0]), "lists": len(first.lists)}
    return about | {"draws": draws, "seed": seed, "rows": told, "apart": apart}


def paired(
    differences: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, p, holm), [M] each, of the mean differences of M comparisons over Q lists, NaN where left out.

    differences [M, Q]. low, high: percentile bootstrap over lists, at LEVEL. p: two-sided, how often the mean is as far
    from 0 when each difference turns its sign by chance; over all 2^Q turns where they are no more than `draws`, else
    over so many random ones, the given one counted. The same draws serve all M. NaN (p = 1) without a list.
    """
    random = np.random.default_rng(seed)
    known = ~np.isnan(differences)
    filled, count = np.where(known, differences, 0.0), known.sum(1)
    with np.errstate(invalid="ignore"):
        means = [(w @ filled.T) / (w @ known.T.astype(float)) for w in _resampled(random, differences.shape[1], draws)]
        low, high = _quantiles(np.concatenate(means))
    # Sums that are equal but for the order of adding are equal.
    far = np.abs(filled.sum(1)) * (1 - 1e-9)
    exact, turns = _turns(random, differences.shape[1], draws)
    hits, tried = np.zeros(len(far)), 0
    for signs in turns:
        hits += (np.abs(signs @ filled.T) >= far).sum(0)
        tried += len(signs)
    p = hits / tried if exact else (1 + hits) / (1 + tried)
    return np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan), p, holm(p)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted so that no true hypothesis is rejected but with the level's chance. Holm 1979.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def told(content: dict[str, Any]) -> Group:
    """A comparison as tables, one for each run."""
    parts: list[Any] = []
    by_run: dict[str, list[Row]] = {}
    for row in content["rows"]:
        by_run.setdefault(row.run, []).append(row)
    for run, rows in by_run.items():
        grid = Grid(
            title=f"{run} against {content['first']}", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        # In 80 columns no number may be cut; p before correction is in the JSON.
        grid.add_column("metric", overflow="fold")
        for name in ("first", "run", "differs", f"{LEVEL:.0%} interval", "p (Holm)", "lists"):
            grid.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            shown = [number(row.first), number(row.value), f"{row.difference:+.4f}", f"{row.low:+.3f} {row.high:+.3f}"]
            grid.add_row(Text(row.metric), *shown, number(row.holm), str(row.lists))
        parts.append(grid)
        gone = [f"{row.metric} {row.left_out}" for row in rows if row.left_out]
        parts += (
            [Text(f"lists left out, the metric being undefined in one of the two: {', '.join(gone)}")] if gone else []
        )
    said = (
        f"{content['split']} split, {content['lists']} lists, paired; interval: bootstrap over lists; p: random signs of the "
        f"differences; Holm: over all {len(content['rows'])} rows; {content['draws']} draws, seed {content['seed']}"
    )
    return Group(*parts, Text("\n".join([said, *(f"not compared: {line}" for line in content["apart"])])))


def plain(content: dict[str, Any]) -> dict[str, Any]:
    """A comparison as JSON has it, null for what is no number."""
    rows = [{k: None if v != v else v for k, v in row._asdict().items()} for row in content["rows"]]
    return content | {"rows": rows}


def _row(run: str, key: str, a: np.ndarray, b: np.ndarray, low: float, high: float, p: float, adjusted: float) -> Row:
    both = ~np.isnan(a) & ~np.isnan(b)
    first, value = (float(one[both].mean()) if both.any() else float("nan") for one in (a, b))
    numbers = first, value, value - first, float(low), float(high), float(p), float(adjusted)
    return Row(run, key, *numbers, int(both.sum()), int((~both).sum()))


def _resampled(random: np.random.Generator, lists: int, draws: int):
    """How often each list is drawn, [some, lists], for `draws` samples with replacement in all."""
    at_once = max(1, ROOM // max(lists, 1))
    for begin in range(0, draws, at_once):
        some = min(at_once, draws - begin)
        drawn = random.integers(lists, size=(some, lists)) + lists * np.arange(some)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=some * lists).reshape(some, lists).astype(float)


def _turns(random: np.random.Generator, lists: int, draws: int):
    """(whether these are all there are, blocks of signs [some, lists])."""
    if lists < 60 and 2**lists <= draws:
        bits = np.arange(2**lists)[:, None] >> np.arange(lists)
        return True, [1.0 - 2.0 * (bits & 1)]
    at_once = max(1, ROOM // lists)
    sizes = [min(at_once, draws - begin) for begin in range(0, draws, at_once)]
    return False, (1.0 - 2.0 * random.integers(2, size=(some, lists), dtype=np.int8) for some in sizes)


def _quantiles(means: np.ndarray) -> np.ndarray:
    """[2, M] ends of the interval; a sample of none of a metric's lists says nothing of it."""
    missing = np.isnan(means).all(0)
    return np.nanquantile(np.where(missing, 0.0, means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _read(folder: Path, split: str, full: bool) -> Kept:
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"{folder} is not a run folder: it has no config.yaml; `mobjrec train` makes one")
    path = kept.path_of(folder, split, full)
    if not path.is_file():
        command = f"mobjrec eval {shlex.quote(str(folder))} --split {split}{' --full' if full else ''}"
        raise UserError(f"{folder} keeps no values of its {split} lists; measure them first: `{command}`")
    return kept.read(path)


def _own(folder: Path, split: str, full: bool) -> Callable[[str], bool]:
    """Whether a key is of an order on its own label, as the evaluation beside the values says."""
    path = kept.path_of(folder, split, full).with_suffix(".json")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        own = {key for key, row in rows.items() if row["own"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged or gone: {error}; `mobjrec eval {folder}` writes it anew") from error
    return lambda key: key in own


def _chosen(folder: Path, first: Kept, own: Callable[[str], bool], metrics: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for metric in metrics:
        named = [
            key for key in first.values if own(key) and not label_of(key)[1] and metric in ("all", key.split("/")[-1])
        ]
        if metric not in first.values and not named:
            known = [*first.values, *dict.fromkeys(key.split("/")[-1] for key in first.values)]
            raise UserError(f"{folder} keeps no metric {metric}{nearest(metric, known, what='metrics')}")
        found |= dict.fromkeys([metric] if metric in first.values else named)
    return list(found)


def _aligned(one: Path, first: Kept, two: Path, other: Kept, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Orders in which the lists of both are the same ones."""
    here, there = (np.argsort(run.lists, kind="stable") for run in (first, other))
    if not np.array_equal(first.lists[here], other.lists[there]):
        alike = len(np.intersect1d(first.lists, other.lists))
        raise UserError(
            f"{one} and {two} did not measure the same lists: of {len(first.lists)} and {len(other.lists)} {split} lists "
            f"{alike} have the same user, time and items; compare runs of the same data, splits and candidates (drawn "
            "ones differ by seed: measure both with `--full`, or let evaluate.candidates be as_logged or catalogue)"
        )
    return here, there


def _incomparable(key: str, first: Kept, other: Kept, here: np.ndarray, there: np.ndarray) -> str:
    """Why a metric of the two cannot be compared, "" if it can."""
    label = label_of(key)[0]
    if key not in other.values:
        return f"it keeps no {key}"
    apart = 0 if label == ITEMS else int((first.labels[label][here] != other.labels[label][there]).sum())
    if apart:
        return f"label {label} has other values in {apart} lists, so {key} is another metric"
    both = ~np.isnan(first.values[key][here]) & ~np.isnan(other.values[key][there])
    return "" if both.any() else f"no list has {key} in both"
