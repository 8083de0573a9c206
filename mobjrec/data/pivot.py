"""Long event tables, one row an act (impression, click, like), to one row an event with a column for each kind."""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mobjrec.data.corpus import events_at
from mobjrec.errors import UserError
from mobjrec.types import Events


class Kinds(NamedTuple):
    """How rows of acts become feedback.

    column: names the kind of act   names: kinds that are feedback; () = all that occur. Rows of any other kind say that
    the item was shown   value: column with the act's value (amount, seconds), 1 where its cell is empty; "" = always 1
    absent: what it means that a shown item has no act of a kind   within: seconds after its first act in which acts
    without a list still belong to an event; None = however much later
    """

    column: str
    names: tuple[str, ...] = ()
    value: str = ""
    absent: Literal["zero", "missing"] = "zero"
    within: int | None = None


def pivoted(events: Events, codes: np.ndarray, words: pa.Array, value: np.ndarray | None, kinds: Kinds) -> Events:
    """One event for each list, user and item, in order of appearance; see `Kinds.within` for acts without a list.

    Time and published split are those of the last act, so that nothing is known before its time; context and position
    those of the first row, a feedback's value that of its last act (of two in one second, the lower row).
    codes, words: each row's kind and the kinds' names. UserError if a named kind never occurs or `within` is below 0.
    """
    if kinds.within is not None and kinds.within < 0:
        raise UserError(f"kinds.within is {kinds.within}; expected seconds, 0 or more, or null")
    there = words.to_pylist()
    names = kinds.names or tuple(sorted(there))
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(f"kinds.names has {', '.join(missing)}; column {kinds.column} holds {', '.join(sorted(there))}")
    first, group = _groups(events, kinds.within)
    amount = np.ones(len(codes), np.float32) if value is None else np.where(np.isnan(value), 1, value)
    by_time = np.argsort(events.time, kind="stable")
    feedback = {}
    for name in names:
        column = np.full(len(first), 0.0 if kinds.absent == "zero" else np.nan, np.float32)
        rows = by_time[codes[by_time] == there.index(name)]
        column[group[rows]] = amount[rows]
        feedback[name] = column
    joined = events_at(events, first)
    return joined._replace(
        time=_latest(events.time, group, joined.time),
        split=None if events.split is None else _latest(events.split, group, joined.split),
        feedback=feedback,
    )


def _latest(values: np.ndarray, group: np.ndarray, start: np.ndarray) -> np.ndarray:
    found = start.copy()
    np.maximum.at(found, group, values)
    return found


def _groups(events: Events, within: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each group in order of appearance, group of each row)."""
    pair = events.user.astype(np.int64) * (int(events.item.max()) + 1) + events.item
    _, pair = np.unique(pair, return_inverse=True)
    key = (events.list + 1) * (int(pair.max()) + 1) + pair
    if within is not None:
        key = _cut(key, events.time, events.list < 0, within)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[group]


def _cut(key: np.ndarray, time: np.ndarray, loose: np.ndarray, within: int) -> np.ndarray:
    """The keys with each key's `loose` rows cut where they lie more than `within` after the first of their event."""
    rows = np.flatnonzero(loose)
    order = rows[np.lexsort((time[rows], key[rows]))]
    _, number = np.unique(key[order], return_inverse=True)
    span = int(time.max() - time.min())
    within = min(within, span)
    # One number for key and time, a key apart from the next by more than any wait.
    line = number * (span + within + 1) + time[order] - time.min()
    after = np.searchsorted(line, line + within, side="right")
    begins = np.zeros(len(order) + 1, bool)
    at = np.flatnonzero(np.diff(number, prepend=-1))
    # Each round begins the next event of every key that has one.
    while len(at):
        begins[at] = True
        at = after[at]
        at = at[~begins[at] & (at < len(order))]
    cut = np.unique(key, return_inverse=True)[1]
    cut[order] = cut.max() + np.cumsum(begins[:-1])
    return cut
