"""What the terminal shows: finished runs, evaluations, ranked lists, data."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import evaluate
from mobjrec.config import Config


def finished(folder: Path, result: dict[str, Any]) -> Group:
    """The table of a run that is over, where it lies and what to try next."""
    table = result["table"]
    known = any("best" in row for row in table.values())
    grid = Grid(title="test split", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("metric", no_wrap=True)
    for name in ("before", "after", "±", *(("best", "way", "truth") if known else ())):
        grid.add_column(name, justify="right")
    for key, row in table.items():
        told = [row.get(name) for name in ("before", "after", "best")]
        # An order on a label that every order serves alike says nothing.
        if row.get("own", True) and _number(row["after"]) and len(set(told)) > 1:
            cells = [short(row.get("before")), short(row["after"]), short(row.get("error"))]
            if known:
                # A mixture of orders is nobody's best: how far it came says nothing.
                came = "–" if key.startswith("utility") else way(row)
                cells += [short(row.get("best")), came, short(row.get("truth"))]
            grid.add_row(Text(key), *cells)
    if known:
        grid.caption = (
            "best: the exact posterior mean given what the model may read; way: from before to best; "
            "truth: what the hidden values would reach"
        )
    timing, feed = result["timing"], result["feed"]
    busy = timing["wait"] + timing["train"]
    share = timing["wait"] / busy if busy else 0.0
    lines = [
        f"{result['steps']} steps; step {result['chosen']} is kept; seconds: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in timing.items()),
        f"padding {feed['padding']:.1%} of packed cells, {feed['shapes']} compiled shapes, "
        f"{share:.1%} of the steps' time spent waiting for data",
        f"run folder: {folder}",
        "",
        "next:",
        f"  mobjrec eval {folder} --split test",
        f"  mobjrec rank {folder} --user ID --top 5",
        f'  mobjrec rank {folder} --text "words about what someone liked" --prefer {example_preference(table)}',
        f"  tensorboard --logdir {folder}/events",
    ]
    return Group(grid, Text("\n".join(lines)))


def way(row: dict[str, Any]) -> str:
    """How far from before to best possible, in percent."""
    before, after, best = row.get("before"), row.get("after"), row.get("best")
    if not (_number(before) and _number(after) and _number(best)) or abs(best - before) < 1e-3:
        return "–"
    return f"{(after - before) / (best - before):.0%}"


def example_preference(table: dict[str, Any]) -> str:
    """A preference to try, over the run's objectives."""
    names = dict.fromkeys(key.split("/")[0].split(":")[0] for key in table)
    names.pop("utility", None)
    shares = [0.7, 0.3] + [0.1] * len(names)
    return ",".join(f"{name}={share}" for name, share in zip(names, shares, strict=False))


def write_evaluation(trained: Any, split: str, full: bool) -> dict[str, Any]:
    """Measure a trained run on a split and write `eval-SPLIT[-full].json` into its folder by an atomic rename."""
    from mobjrec.data.candidates import catalogue

    found = evaluate.run(
        trained.parts,
        trained.params,
        trained.memory,
        split,
        scale=trained.scale,
        names=evaluate.BROAD,
        candidates=catalogue() if full else None,
        segments=True,
    )
    content = {
        "split": split,
        "step": trained.step,
        "candidates": "catalogue" if full else "config",
        "metrics": {
            key: {name: _plain(value) for name, value in measured._asdict().items()}
            | {"own": evaluate.is_own(trained.parts, key)}
            for key, measured in found.measured.items()
        },
    }
    path = trained.folder / f"eval-{split}{'-full' if full else ''}.json"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(temporary, path)
    return content


def measured(content: dict[str, Any]) -> Grid:
    """An evaluation as a table."""
    grid = Grid(title=f"{content['split']} split, step {content['step']}", title_justify="left")
    for name in ("metric", "value", "± error", "lists", "left out"):
        grid.add_column(name, justify="left" if name == "metric" else "right")
    for key, row in content["metrics"].items():
        if row["value"] is not None and row["own"]:
            # As Text: brackets are segments here, not markup.
            grid.add_row(Text(key), number(row["value"]), number(row["error"]), str(row["lists"]), str(row["left_out"]))
    grid.caption = (
        "left out: lists without an observed label, or (for order metrics) without or with only relevant items"
    )
    return grid


def ranked(rows: list[dict[str, Any]]) -> Grid:
    """A ranked list as a table; an item's text is cut to what the terminal has room for beside the numbers."""
    names = list(rows[0]) if rows else []
    room = max(
        20, shutil.get_terminal_size().columns - sum(max(len(name), 7) + 3 for name in names if name != "text") - 4
    )
    grid = Grid()
    for name in names:
        words = name in ("item", "text")
        grid.add_column(name, justify="left" if words else "right", no_wrap=True)
    for row in rows:
        cells = {name: number(value) if isinstance(value, float) else str(value) for name, value in row.items()}
        if len(cells["text"]) > room:
            cells["text"] = cells["text"][: room - 1] + "…"
        grid.add_row(*(Text(cell) for cell in cells.values()))
    return grid


def described(config: Config, cache: Path) -> Group:
    """A config's data: counts, spans, rates, lengths, and one training list as the model will see it."""
    from mobjrec.describe import description
    from mobjrec.parts import assemble

    return description(assemble(config, cache))


def short(value: Any) -> str:
    """Three digits, or a dash where there is none."""
    return f"{value:.3f}" if _number(value) else "–"


def number(value: Any) -> str:
    """Four digits, or a dash where there is none."""
    return f"{value:.4f}" if _number(value) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
