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
    absent: what it means that a shown item has no act of a kind
    """

    column: str
    names: tuple[str, ...] = ()
    value: str = ""
    absent: Literal["zero", "missing"] = "zero"


def pivoted(events: Events, codes: np.ndarray, words: pa.Array, value: np.ndarray | None, kinds: Kinds) -> Events:
    """One event for each list, user and item (for each user and item where there is no list), in order of appearance.

    Time is that of the earliest act, context and position of the first row, a feedback's value of its last act.
    codes, words: each row's kind and the kinds' names. UserError if a named kind never occurs.
    """
    there = words.to_pylist()
    names = kinds.names or tuple(sorted(there))
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(f"kinds.names has {', '.join(missing)}; column {kinds.column} holds {', '.join(sorted(there))}")
    first, group = _groups(events)
    amount = np.ones(len(codes), np.float32) if value is None else np.where(np.isnan(value), 1, value)
    feedback = {}
    for name in names:
        column = np.full(len(first), 0.0 if kinds.absent == "zero" else np.nan, np.float32)
        rows = codes == there.index(name)
        column[group[rows]] = amount[rows]
        feedback[name] = column
    time = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(time, group, events.time)
    return events_at(events, first)._replace(time=time, feedback=feedback)


def _groups(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each group in order of appearance, group of each row)."""
    pair = events.user.astype(np.int64) * (int(events.item.max()) + 1) + events.item
    _, pair = np.unique(pair, return_inverse=True)
    key = (events.list + 1) * (int(pair.max()) + 1) + pair
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[group]
