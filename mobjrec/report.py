"""What the terminal shows: finished runs, evaluations, ranked lists, data."""

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import checkpoint, evaluate, exposed, kept
from mobjrec.config import Config, plain
from mobjrec.parts import Parts, split_of
from mobjrec.state import divide


def finished(folder: Path, result: dict[str, Any], config: Config | None = None) -> Group:
    """The table of a run that is over, where it lies and what to try next: with a settled config, what its model takes."""
    table = result["table"]
    known = any("truth" in row for row in table.values()) or "no_best" in result
    grid = Grid(title="test split", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("metric", no_wrap=True)
    for name in ("before", "after", "±", *(("best", "way", "truth") if known else ())):
        grid.add_column(name, justify="right")
    for key, row in table.items():
        told = [row.get(name) for name in ("before", "after", "best")]
        # An order on a label that every order serves alike says nothing; AUC by pools is for `mobjrec eval`.
        if (
            not key.endswith(("/pooled_auc", "/gauc"))
            and row.get("own", True)
            and _number(row["after"])
            and len(set(told)) > 1
        ):
            cells = [number(row.get("before"), 3), number(row["after"], 3), number(row.get("error"), 3)]
            if known:
                # A mixture of orders is nobody's best: how far it came says nothing.
                came = "–" if key.startswith("utility") else way(row)
                cells += [number(row.get("best"), 3), came, number(row.get("truth"), 3)]
            grid.add_row(Text(key), *cells)
    grid.caption = caption(result, known)
    timing, feed = result["timing"], result["feed"]
    busy = timing["wait"] + timing["train"]
    share = timing["wait"] / busy if busy else 0.0
    lines = [
        f"{result['steps']} steps; step {result['chosen']} is kept; seconds: "
        + ", ".join(f"{name} {seconds:.1f}" for name, seconds in timing.items()),
        f"padding {feed['padding']:.1%} of packed cells, compiled shapes: {feed['shapes']}, "
        f"{share:.1%} of the steps' time spent waiting for data",
        *result.get("told", ()),
        f"run folder: {folder}",
        "",
        "next:",
    ]
    tried = [f"  {line}" for line in next_lines(folder, example_preference(table), config)]
    # A line that is broken where the terminal ends could not be pasted.
    return Group(grid, Text("\n".join(lines)), Text("\n".join(tried), no_wrap=True, overflow="ignore"))


def next_lines(folder: Path, preference: str, config: Config | None = None) -> list[str]:
    """What to try with a run, as it can be pasted where the run was trained."""
    program, place = command("mobjrec") or f"{shlex.quote(sys.executable)} -m mobjrec", shlex.quote(str(folder))
    board = command("tensorboard")
    return [
        f"{program} eval {place} --split test",
        f"{program} rank {place} --user ID --top 5",
        *(f"{program} rank {place} {asked} --prefer {preference}" for asked in someone(config)),
        *([f"{board} --logdir {shlex.quote(str(folder / 'events'))}"] if board else []),
    ]


def command(name: str) -> str | None:
    """How a program that is installed with this Python is called here: by name where that finds it, else by its path."""
    beside, found = Path(sys.executable).with_name(name), shutil.which(name)
    if not beside.is_file() or (found is not None and os.path.samefile(found, beside)):
        return name if found else None
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def caption(result: dict[str, Any], known: bool) -> str:
    """What the table's columns mean."""
    said = "before: the untrained model, from which nothing is chosen"
    if not known:
        return said
    told = result.get("no_best")
    best = "best: the exact posterior mean given what the model may read; way: from before to best"
    return f"{said}; {f'no best: {told}' if told else best}; truth: what the hidden values would reach"


def someone(config: Config | None) -> list[str]:
    """How the model can be asked for someone without an id: in words, by an item, or not at all."""
    sides = {} if config is None else plain(config.model)
    user, item = sides.get("user", {}), sides.get("item", {})
    if config is None or "{history." in user.get("text", "") or (user.get("history") and item.get("text")):
        return ['--text "words about what someone liked"']
    return ["--item ID"] if user.get("history") else []


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
    """Measure a trained run on a split and write `eval-SPLIT[-full].json` into its folder by an atomic rename.

    Beside it, in `.npz`, what was measured of each list: see `kept`.
    full: every list ranks the whole catalogue, and labels that are known as logged count as 0 on what was not shown.
    """
    from mobjrec.data.candidates import catalogue

    told = unshown(trained.parts) if full else {}
    candidates = catalogue() if full else None
    see, exposures = exposed.watching(trained.parts, np.asarray(trained.items.matrix))
    found = evaluate.run(
        trained.parts,
        trained.params,
        trained.memory,
        split,
        scale=trained.scale,
        names=asked(trained.parts.config),
        candidates=candidates,
        segments=True,
        zeros=frozenset(label for label, after in told.items() if not after),
        watch=see,
    )
    by_items, rows = exposures()
    content = {
        "split": split,
        "step": trained.step,
        "candidates": "catalogue" if full else "config",
        **({"unshown": {label: f"known after {a}" if a else "0" for label, a in told.items()}} if full else {}),
        "gain": evaluate.gains_of(trained.parts),
        "metrics": {
            key: {name: _plain(value) for name, value in measured._asdict().items()}
            | {"own": evaluate.is_own(trained.parts.objectives, key)}
            for key, measured in (found.measured | by_items).items()
        },
    }
    values = kept.kept(trained.parts, split, candidates, found.per_list | rows)
    kept.write(kept.path_of(trained.folder, split, full), values)
    path = trained.folder / f"eval-{split}{'-full' if full else ''}.json"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(temporary, path)
    return content


def unshown(parts: Parts) -> dict[str, str]:
    """{label: "" where an item that was not shown counts as a 0 in a full ranking, else the label after which it is known}

    The usual protocol, for labels that every shown item has. Known after another one is a label whose config says so,
    or that no event has where the other one is observed and not above 0: satisfaction, without a click.
    """
    splits = (parts.dataset.train, parts.dataset.valid, parts.dataset.test)
    values = {name: np.concatenate([s.labels[name] for s in splits]) for name in parts.dataset.labels}
    labels = dict.fromkeys(evaluate.labels_measured(parts).values())
    return {label: "" if label in parts.dataset.everywhere else _after(parts, label, values) for label in labels}


def _after(parts: Parts, label: str, values: dict[str, np.ndarray]) -> str:
    """The label after which this one is known, "" where it is known by itself."""
    said = plain(parts.config.labels[label]).get("known") if label in parts.config.labels else None
    if isinstance(said, dict):
        return said["after"]
    here = np.isfinite(values[label])
    for other, column in values.items():
        # Both must be known together somewhere, or they are two sources' labels.
        if other != label and (column <= 0).any() and not here[column <= 0].any() and here[column > 0].any():
            return other
    return ""


def asked(config: Config) -> tuple[str, ...]:
    """The per-list metrics of `mobjrec eval`: the broad ones and the config's."""
    return tuple(dict.fromkeys([*evaluate.BROAD, *config.evaluate.metrics]))


def measured(content: dict[str, Any]) -> Group:
    """An evaluation as a table, and what its numbers are of."""
    grid = Grid(title=f"{content['split']} split, step {content['step']}", title_justify="left")
    for name in ("metric", "value", "± error", "lists", "left out"):
        grid.add_column(name, justify="left" if name == "metric" else "right")
    for key, row in content["metrics"].items():
        if row["value"] is not None and row["own"]:
            # As Text: brackets are segments here, not markup.
            grid.add_row(Text(key), number(row["value"]), number(row["error"]), str(row["lists"]), str(row["left_out"]))
    return Group(grid, Text("\n".join([*left_out(content), *protocol(content)])))


def left_out(content: dict[str, Any]) -> list[str]:
    """A line for each label, and part of the items or users, with the lists that some metric leaves out, by reason."""
    most: dict[str, dict[str, int]] = {}
    for key, row in content["metrics"].items():
        counts = most.setdefault("".join(evaluate.label_of(key)), {})
        for reason, count in row["why"].items():
            counts[reason] = max(count, counts.get(reason, 0))
    lines = [
        f"  {label}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())
        for label, counts in most.items()
        if counts
    ]
    return ["lists left out where a metric is undefined:", *lines] if lines else []


def protocol(content: dict[str, Any]) -> list[str]:
    """What is ranked by --full, and which NDCG has a linear gain."""
    lines = [
        f"{label}: NDCG's gain is the label itself, as its values are beyond grades"
        for label, gain in content["gain"].items()
        if gain == "linear"
    ]
    unshown = content.get("unshown")
    if unshown is None:
        return lines
    zero = [label for label, said in unshown.items() if said == "0"]
    if zero:
        lines += [
            "--full: every list ranks the catalogue but what its user met in an earlier split; an item that was not shown "
            f"counts as 0 for {', '.join(zero)}"
        ]
    lines += [
        f"{label} is {said} alone, so --full changes nothing for it: its orders are of logged items"
        for label, said in unshown.items()
        if said != "0"
    ]
    return lines


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


def ranked_lists(parts: Parts, split: str, first: evaluate.Block, count: int = 3, top: int = 5) -> str:
    """The first lists of a split as Markdown: the best items by utility, with every objective's number and the labels."""
    users = split_of(parts, split).user
    items = parts.dataset.items
    texts = next(iter(items.text.values()), items.id)
    head = ["item", "text", *first.predictions, *(f"label {name}" for name in first.labels)]
    lines = []
    for place, row in enumerate(first.rows[:count].tolist()):
        where = first.drawn.where[place]
        item = np.broadcast_to(first.drawn.item, first.drawn.where.shape)[place]
        best = np.argsort(np.where(where, -first.predictions["utility"][place], np.inf), kind="stable")[:top]
        known = {
            name: np.where(first.observed[name][place], label[place], np.nan) for name, label in first.labels.items()
        }
        numbers = [*(scores[place] for scores in first.predictions.values()), *known.values()]
        if row >= 0:
            lines += ["", f"user {parts.dataset.users.id[users[row]]}", "", _line(head), "|---" * len(head) + "|"]
        for n in best[where[best]].tolist():
            cells = [str(items.id[item[n]]), str(texts[item[n]])[:60].replace("|", "/")]
            lines.append(_line([*cells, *(number(float(values[n])) for values in numbers)]))
    return "\n".join(lines[1:])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def number(value: Any, digits: int = 4) -> str:
    """With so many digits after the point, or a dash where there is none."""
    return f"{value:.{digits}f}" if _number(value) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list_of(parts: Parts, row: int) -> str:
    """A training list as its table has it: its row, whose it is, and the impression that was logged, where one was."""
    lists, corpus = parts.dataset.train, parts.corpus
    at = lists.event[lists.start[row] : lists.start[row + 1]]
    logged = corpus.events.list[at[:1]].tolist()
    impression = f", list {logged[0]}" if logged and logged[0] >= 0 else ""
    return f"{row} (user {parts.dataset.users.id[lists.user[row]]}{impression})"


def not_finite(parts: Parts, folder: Path, number: int, logs: Mapping[str, Any], rows: np.ndarray, skipped: int) -> str:
    """The sentence on a step that was not finite, and on what it leaves."""
    seen = zip(parts.objectives, logs["losses"], logs["present"], strict=True)
    bad = [name for name, loss, present in seen if present and not np.isfinite(loss)]
    what = f"the loss of {', '.join(bad)} is" if bad else "a gradient is"
    leaf = ""
    if logs["bad_leaf"] >= 0:
        params = jax.eval_shape(parts.first_state).params
        trained, _ = divide(params, parts.model.trainable(params))
        path, _ = jax.tree_util.tree_leaves_with_path(trained)[int(logs["bad_leaf"])]
        leaf = f", the first gradient that is not is that of {jax.tree_util.keystr(path, simple=True, separator='/')}"
    listed = [_list_of(parts, int(row)) for row in rows if row >= 0][:10]
    before = f", the last of {skipped + 1} in a row" if skipped else ""
    sealed = checkpoint.steps(folder)
    good = f"the last good checkpoint is that of step {sealed[-1]}" if sealed else "there is no checkpoint yet"
    skip = "" if skipped else ", or set non_finite: skip to pass over such steps"
    return (
        f"step {number}{before}: {what} not finite{leaf}; training lists "
        f"{', '.join(listed)} ...; the step was not applied, {good}. Lower optimizer.learning_rate, or clip gradients "
        f"(optimizer.clip){skip}"
    )
