"""What is in a corpus, as plain data for people: counts, spans, rates, lengths of text."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from mobjrec.types import Category, Corpus, Dataset, Events, Lists, Table


def show(corpus: Corpus, dataset: Dataset | None = None) -> dict[str, Any]:
    """{section: ...} of numbers and text only, so it can be printed or written as JSON.

    users, items: rows, and for each column its lengths, values or range   events: rows, span, lists, and for each
    feedback the share observed and its mean   dataset: lists and label rates of each split
    A statistic of nothing is None.
    """
    found = {"users": _table(corpus.users), "items": _table(corpus.items), "events": _events(corpus)}
    if dataset is not None:
        found["dataset"] = {name: _lists(getattr(dataset, name)) for name in ("train", "valid", "test")}
    return found


def _table(table: Table) -> dict[str, Any]:
    return {
        "rows": len(table.id),
        "text": {name: _lengths(column) for name, column in table.text.items()},
        "categories": {name: _category(column) for name, column in table.categories.items()},
        "numbers": {name: _range(column) for name, column in table.numbers.items()},
    }


def _lengths(column: np.ndarray) -> dict[str, Any]:
    """Lengths in characters of the texts that are there."""
    lengths = np.strings.str_len(column)
    filled = lengths[lengths > 0]
    quantiles = np.quantile(filled, [0, 0.5, 0.95, 1]).astype(int).tolist() if len(filled) else [None] * 4
    return {"empty": int(np.sum(lengths == 0)), **dict(zip(("min", "median", "95 %", "max"), quantiles, strict=True))}


def _category(category: Category) -> dict[str, Any]:
    counts = np.diff(category.start)
    often = np.argsort(-np.bincount(category.value, minlength=len(category.names)), kind="stable")[:5]
    return {
        "values": len(category.names),
        "empty": int(np.sum(counts == 0)),
        "a row": _mean(counts),
        "most frequent": category.names[often].tolist(),
    }


def _range(column: np.ndarray) -> dict[str, Any]:
    known = column[~np.isnan(column)]
    ends = (float(known.min()), _mean(known), float(known.max())) if len(known) else (None, None, None)
    return {"missing": int(len(column) - len(known)), "min": ends[0], "mean": ends[1], "max": ends[2]}


def _events(corpus: Corpus) -> dict[str, Any]:
    events = corpus.events
    there = len(events.time) > 0
    lists, shown = np.unique(events.list[events.list >= 0], return_counts=True)
    return {
        "rows": len(events.user),
        "first": _date(events.time.min()) if there else None,
        "last": _date(events.time.max()) if there else None,
        "users": len(np.unique(events.user)),
        "items": len(np.unique(events.item)),
        "a user": _mean(np.unique(events.user, return_counts=True)[1]),
        "lists": len(lists),
        "a list": _mean(shown),
        "split": _splits(events),
        "feedback": {name: _feedback(x, corpus.units.get(name, "")) for name, x in events.feedback.items()},
        "numbers": {name: _range(column) for name, column in events.numbers.items()},
        "categories": {name: _category(column) for name, column in events.categories.items()},
    }


def _splits(events: Events) -> dict[str, int] | None:
    if events.split is None:
        return None
    return dict(zip(("train", "valid", "test"), np.bincount(events.split, minlength=3).tolist(), strict=True))


def _feedback(column: np.ndarray, unit: str) -> dict[str, Any]:
    return {"observed": _mean(~np.isnan(column)), **_range(column), "unit": unit}


def _lists(lists: Lists) -> dict[str, Any]:
    return {
        "lists": len(lists.user),
        "items a list": _mean(np.diff(lists.start)),
        "history": _mean(np.diff(lists.history, axis=1)),
        "labels": {name: _feedback(column, "") for name, column in lists.labels.items()},
    }


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def _date(seconds: np.int64) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
