"""The user's own tables: events, and items and users if there are any, with columns named in the config."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobjrec.data import parse
from mobjrec.data.corpus import SHOWN, check, events_at, events_from, list_problems, report
from mobjrec.data.files import File, Source, opened
from mobjrec.data.parse import Wish
from mobjrec.data.pivot import Kinds, pivoted
from mobjrec.data.sides import (
    SIDE,
    Reading,
    SideColumns,
    category_wishes,
    joined,
    numeric,
    present,
    side_table,
    typed,
    unused,
)
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Events, Table


class Columns(NamedTuple):
    """Which column of the event table is what.

    list, position, split: used where the table has them under these names; "" = never. time: "" = the order of rows
    feedback: names; None = every column of numbers or booleans that has no other use here
    categories, numbers: the event's context (tab, hour)   several: those categories with several values a cell
    """

    user: str = "user"
    item: str = "item"
    time: str = "time"
    list: str = "list"
    position: str = "position"
    split: str = "split"
    feedback: tuple[str, ...] | None = None
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    several: tuple[str, ...] = ()


EVENTS = Columns()


def table(
    path: Path = Path("."),
    events: Source = "events.csv",
    items: Source = "",
    users: Source = "",
    columns: Columns = EVENTS,
    item_columns: SideColumns = SIDE,
    user_columns: SideColumns = SIDE,
    kinds: Kinds | None = None,
    units: dict[str, str] | None = None,
    time_unit: Literal["s", "ms"] = "s",
    separator: str = "|",
    duplicates: Literal["error", "last"] = "error",
    missing_text: Literal["empty", "error"] = "empty",
    encoding: str = "utf-8",
    encoding_errors: Literal["strict", "replace"] = "strict",
) -> Corpus:
    """Corpus of CSV, TSV, JSON lines (each also .gz) or Parquet files in the folder `path`, or of data frames.

    One row an event, or a shown item; with `kinds` one row an act (click, like), joined to one row a user and item. Ids
    are kept as text, whole numbers as their digits. An empty cell is an unknown label, an empty text, no category, no
    list. Lists are numbered from 0 in the order of their first row. Without an item (user) table the ids are those of
    the events; with one, an event of an unknown id is an error.

    units: of feedback and numbers, in words   separator: between the values of a cell of `several`
    duplicates: what an item shown twice in a list is, an error or its last row
    Memory is a few bytes a cell for CSV and Parquet events; JSON lines, frames and other encodings are held whole.

    UserError names file, row (1 = the first below the header), column, found and expected, up to twenty at once.
    """
    reading = Reading(time_unit, separator, missing_text)
    failures: list[str] = []
    item_side = _side(items, path, item_columns, columns.item, reading, encoding, encoding_errors, failures)
    user_side = _side(users, path, user_columns, columns.user, reading, encoding, encoding_errors, failures)
    try:
        file = opened(events, path, encoding, encoding_errors)
        read = parse.columns(file, *_event_wishes(file, columns, kinds, reading))
    except UserError as error:
        # An encoding that there is none is told once, not for every table.
        raise UserError("\n".join(dict.fromkeys([str(error), *failures]))) from error
    if failures:
        raise UserError("\n".join(failures))
    user, user_table = _rows(read["user"], user_side, file.name, columns.user, failures)
    item, item_table = _rows(read["item"], item_side, file.name, columns.item, failures)
    if failures:
        raise UserError("\n".join(failures))
    found = _events(read, user, item)
    if kinds is None:
        found = _lists_checked(found, duplicates, file.name)
    else:
        found = pivoted(found, *read["kind"], read.get("value"), kinds)
    return check(Corpus(user_table, item_table, found, units=units or {}), name=file.name)


def _side(
    source: Source,
    folder: Path,
    columns: SideColumns,
    id_column: str,
    reading: Reading,
    encoding: str,
    errors: Literal["strict", "replace"],
    failures: list[str],
) -> tuple[Table, str] | None:
    """The item or user table and its file's name, None where none is named; what is wrong goes to `failures`."""
    if isinstance(source, str) and not source:
        return None
    try:
        file = opened(source, folder, encoding, errors)
        return side_table(file, columns, columns.id or id_column, reading), file.name
    except UserError as error:
        failures.append(str(error))
        return None


def _event_wishes(
    file: File, columns: Columns, kinds: Kinds | None, reading: Reading
) -> tuple[dict[str, Wish], list[str]]:
    """(what to read, a problem for columns that are not there)."""
    named = {role: getattr(columns, role) for role in ("user", "item", "time", "list", "position", "split")}
    optional = {r for r in ("list", "position", "split") if named[r] == getattr(EVENTS, r)}
    named = {r: name for r, name in named.items() if name and not (r in optional and name not in file.schema.names)}
    if not columns.user or not columns.item:
        raise UserError("columns.user and columns.item must name a column of the event table")
    acts = {} if kinds is None else {"kind": kinds.column} | ({"value": kinds.value} if kinds.value else {})
    context = [*columns.categories, *columns.several, *columns.numbers]
    used = {*named.values(), *acts.values(), *context}
    if kinds is not None and columns.feedback:
        raise UserError("columns.feedback and kinds are both given; with kinds the feedback is named by kinds.names")
    problems = present(file, [*used, *(columns.feedback or ())])
    # A column under another name than the config's is not taken for feedback.
    named_only = kinds is not None or (problems and columns.feedback is None)
    feedback = () if named_only else typed(file, columns.feedback, used, numeric)
    if not problems:
        unused(file, {*used, *feedback})
    if kinds is None and not feedback and not problems:
        raise UserError(
            f"{file.name} has no feedback: no column of numbers or booleans beside {', '.join(sorted(used))}"
        )
    parsers = {
        "user": (parse.ids, parse.join_codes),
        "item": (parse.ids, parse.join_codes),
        "time": (parse.times(reading.time_unit), joined),
        "list": (parse.maybe_ids, parse.join_codes),
        "position": (parse.positions, joined),
        "split": (parse.splits, joined),
        "kind": (parse.ids, parse.join_codes),
        "value": (parse.numbers, joined),
    }
    wishes = {role: Wish(name, *parsers[role]) for role, name in {**named, **acts}.items()}
    wishes |= {f"feedback {name}": Wish(name, parse.numbers, joined) for name in feedback}
    wishes |= {f"number {name}": Wish(name, parse.numbers, joined) for name in columns.numbers}
    wishes |= category_wishes([*columns.categories, *columns.several], set(columns.several), reading)
    return wishes, problems


def _events(read: dict, user: np.ndarray, item: np.ndarray) -> Events:
    def named(kind: str) -> dict:
        return {role.removeprefix(kind): column for role, column in read.items() if role.startswith(kind)}

    return events_from(
        user,
        item,
        read["time"] if "time" in read else np.arange(len(user)),
        feedback=named("feedback "),
        list=read["list"][0] if "list" in read else None,
        position=read.get("position"),
        split=read.get("split"),
        categories=named("category "),
        numbers=named("number "),
    )


def _rows(
    ids: tuple[np.ndarray, pa.Array], side: tuple[Table, str] | None, file: str, column: str, failures: list[str]
) -> tuple[np.ndarray, Table]:
    """(row of each event in the table, the table): made of the events' ids where there is none."""
    codes, names = ids
    if side is None:
        return codes, Table(parse.as_strings(names), {}, {}, {})
    known, source = side
    at = pc.index_in(names, value_set=pa.array(known.id.tolist(), pa.string())).fill_null(-1).to_numpy(False)
    unknown = np.flatnonzero(at < 0)
    if len(unknown):
        first = [f"{names[int(code)].as_py()!r} (row {int(np.argmax(codes == code)) + 1})" for code in unknown[:3]]
        found = f"{file}, column {column}: {len(unknown)} ids are not in {source}"
        failures.append(f"{found}, the first: {', '.join(first)}; add their rows or drop the events")
    return at.astype(np.int32)[codes], known


def _lists_checked(events: Events, duplicates: str, file: str) -> Events:
    """The events with no item twice in a list: an error, or the last row of each kept."""
    mixed, again = list_problems(events)
    problems = _named_pairs(mixed, "have one list but two users; a list belongs to one user", file)
    if duplicates == "error":
        fix = "drop one or set `duplicates: last`"
        problems += _named_pairs(again, f"show one item in the same list; {fix}", file)
    if problems:
        raise UserError(report(file, problems))
    kept = np.ones(len(events.list), bool)
    kept[again[:, 0]] = False
    return events_at(events, np.flatnonzero(kept)) if len(again) else events


def _named_pairs(pairs: np.ndarray, wrong: str, file: str) -> list[str]:
    """A sentence a pair of rows; those beyond what a report shows are "", to be counted."""
    told = [f"{file}, rows {a + 1} and {b + 1} {wrong}" for a, b in pairs[:SHOWN]]
    return told + [""] * (len(pairs) - len(told))
