"""Columns of a corpus: built from plain values, and checked as a whole with every problem in one report."""

from collections.abc import Iterable, Sequence

import numpy as np

from mobjrec.errors import UserError
from mobjrec.types import Category, Corpus, Events, Table

STRING = np.dtypes.StringDType()
# 2100-01-01; a Unix time in milliseconds lies above the second bound for every day since 1973-03-03.
# Problems that a report tells in full.
SHOWN = 20
LATEST = 4_102_444_800
MILLISECONDS = 100_000_000_000


def strings(values: Iterable[str]) -> np.ndarray:
    """[N] strings as an array of StringDType, which holds any length without Python objects."""
    return np.array(list(values), dtype=STRING)


def single(values: Sequence[str] | np.ndarray) -> Category:
    """A category with at most one value a row; "" means none. Names are in the order of their first appearance."""
    return several([[value] if value else [] for value in values])


def several(rows: Iterable[Iterable[str]]) -> Category:
    """A category with any number of distinct values a row. Names are in the order of their first appearance."""
    names: dict[str, int] = {}
    start, value = [0], []
    for row in rows:
        value.extend(names.setdefault(str(name), len(names)) for name in dict.fromkeys(row))
        start.append(len(value))
    return Category(strings(names), np.array(start, np.int64), np.array(value, np.int32))


def table_from(
    ids: Iterable[str],
    text: dict[str, Iterable[str]] | None = None,
    categories: dict[str, Category] | None = None,
    numbers: dict[str, Iterable[float]] | None = None,
) -> Table:
    """Users or items from plain values, one row each. ValueError if a column's length is not the number of ids."""
    rows = strings(ids)
    table = Table(
        id=rows,
        text={name: strings(column) for name, column in (text or {}).items()},
        categories=categories or {},
        numbers={name: np.array(list(column), np.float32) for name, column in (numbers or {}).items()},
    )
    problems = _lengths("table", table)
    if problems:
        raise ValueError("; ".join(problems))
    return table


def events_from(
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    feedback: dict[str, np.ndarray],
    list: np.ndarray | None = None,
    position: np.ndarray | None = None,
    split: np.ndarray | None = None,
    categories: dict[str, Category] | None = None,
    numbers: dict[str, np.ndarray] | None = None,
) -> Events:
    """Events with the seam's types; what is not given stands as unknown (-1, or no split).

    ValueError for a user, item or position that is no row of a table: beyond 32 bits, numpy would fold it into another.
    """
    count = len(user)
    return Events(
        user=_rows("user", user),
        item=_rows("item", item),
        time=np.asarray(time, np.int64),
        list=np.full(count, -1, np.int64) if list is None else np.asarray(list, np.int64),
        position=np.full(count, -1, np.int32) if position is None else _rows("position", position),
        split=None if split is None else np.asarray(split, np.int8),
        feedback={name: np.asarray(column, np.float32) for name, column in feedback.items()},
        categories=categories or {},
        numbers={name: np.asarray(column, np.float32) for name, column in (numbers or {}).items()},
    )


def _rows(name: str, values: np.ndarray) -> np.ndarray:
    found = np.asarray(values)
    with np.errstate(invalid="ignore"):
        rows = found.astype(np.int32) if found.dtype.kind in "iuf" else np.full(len(found), -1, np.int32)
    wrong = np.flatnonzero(rows != found)
    if len(wrong):
        raise ValueError(
            f"{name} {found[wrong[0]]!s} is not a row of a table; number the ids from 0, keep them as text"
        )
    return rows


def category_at(category: Category, rows: np.ndarray) -> Category:
    """The category at these rows, in their order."""
    counts = np.diff(category.start)[rows]
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    at = np.repeat(category.start[:-1][rows] - start[:-1], counts) + np.arange(start[-1])
    return Category(category.names, start, category.value[at])


def table_at(table: Table, rows: np.ndarray) -> Table:
    """The users or items at these rows, in their order."""
    return Table(
        id=table.id[rows],
        text={name: column[rows] for name, column in table.text.items()},
        categories={name: category_at(column, rows) for name, column in table.categories.items()},
        numbers={name: column[rows] for name, column in table.numbers.items()},
    )


def events_at(events: Events, rows: np.ndarray) -> Events:
    """The events at these rows, in their order."""
    return Events(
        user=events.user[rows],
        item=events.item[rows],
        time=events.time[rows],
        list=events.list[rows],
        position=events.position[rows],
        split=None if events.split is None else events.split[rows],
        feedback={name: column[rows] for name, column in events.feedback.items()},
        categories={name: category_at(column, rows) for name, column in events.categories.items()},
        numbers={name: column[rows] for name, column in events.numbers.items()},
    )


def check(corpus: Corpus, name: str = "corpus") -> Corpus:
    """The corpus itself, if it is sound.

    UserError with every problem in one report: ids distinct and not empty, columns of one length, categories inside
    their names, events inside the tables, times between 1970 and 2100, finite feedback, lists of one user that show no
    item twice.
    """
    problems = [
        *_table_problems("users", corpus.users),
        *_table_problems("items", corpus.items),
        *_event_problems(corpus),
    ]
    if problems:
        raise UserError(report(name, problems))
    return corpus


def report(name: str, problems: Sequence[str]) -> str:
    """One message of all problems, the first twenty in full and the number of the rest."""
    rest = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    lines = [*dict.fromkeys(problems[:SHOWN]), *rest]
    return lines[0] if len(lines) == 1 else f"{name}: {len(problems)} problems\n" + "\n".join(f"  - {x}" for x in lines)


def time_problem(seconds: float) -> str:
    """What is wrong with this Unix time in seconds, "" if nothing is."""
    if not np.isfinite(seconds):
        return "it is not a finite number"
    if seconds < 0:
        return "it lies before 1970"
    if seconds > MILLISECONDS:
        return "it looks like milliseconds; expected Unix seconds"
    return "it lies after the year 2100" if seconds > LATEST else ""


def repeats(ids: np.ndarray, shown: int = 20) -> list[np.ndarray]:
    """The rows of each id that stands in more than one row, for the first `shown` such ids."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ids) else np.zeros(0, int)
    ends = np.append(begins[1:], len(ids))
    often = np.flatnonzero(ends - begins > 1)
    # A stable sort: where an id begins stands its first row.
    often = often[np.argsort(order[begins[often]], kind="stable")][:shown]
    return [order[begins[at] : ends[at]] for at in often]


def listed(rows: np.ndarray, shown: int = 3) -> str:
    """Row numbers in words: "1 and 2", "1, 2, 3 and 17 more"."""
    if len(rows) <= shown:
        return f"{', '.join(map(str, rows[:-1]))} and {rows[-1]}"
    return f"{', '.join(map(str, rows[:shown]))} and {len(rows) - shown} more"


def _table_problems(side: str, table: Table) -> list[str]:
    problems = _lengths(side, table)
    for rows in repeats(table.id):
        problems.append(
            f"{side}: rows {listed(rows)} have the same id {str(table.id[rows[0]])!r}; ids must be distinct"
        )
    empty = np.flatnonzero(table.id == "")
    if len(empty):
        problems.append(f"{side}: row {empty[0]} has an empty id ({len(empty)} rows in all)")
    for column, values in table.numbers.items():
        wrong = np.flatnonzero(np.isinf(values))
        if len(wrong):
            problems.append(
                f"{side}: {column} is {values[wrong[0]]} in row {wrong[0]}; expected a finite number or NaN"
            )
    return problems


def _lengths(side: str, table: Table) -> list[str]:
    count = len(table.id)
    columns = {**table.text, **table.numbers}
    problems = [
        f"{side}: {name} has {len(column)} rows for {count} ids"
        for name, column in columns.items()
        if len(column) != count
    ]
    for name, category in table.categories.items():
        problems.extend(_category_problems(f"{side}: {name}", category, count))
    return problems


def _category_problems(where: str, category: Category, count: int) -> list[str]:
    start, value = category.start, category.value
    if len(start) != count + 1 or (len(start) and start[0] != 0):
        return [f"{where} has {len(start) - 1} rows for {count} expected"]
    if np.any(np.diff(start) < 0) or start[-1] != len(value):
        return [f"{where} has row starts that do not rise from 0 to its {len(value)} values"]
    wrong = np.flatnonzero((value < 0) | (value >= len(category.names)))
    return [f"{where} has value {value[wrong[0]]} for {len(category.names)} names"] if len(wrong) else []


def _event_problems(corpus: Corpus) -> list[str]:
    events = corpus.events
    count = len(events.user)
    columns = {"item": events.item, "time": events.time, "list": events.list, "position": events.position}
    columns |= {} if events.split is None else {"split": events.split}
    columns |= {**events.feedback, **events.numbers}
    problems = [f"events: {name} has {len(x)} rows for {count} users" for name, x in columns.items() if len(x) != count]
    for name, category in events.categories.items():
        problems.extend(_category_problems(f"events: {name}", category, count))
    if problems:
        return problems
    problems.extend(_outside("user", events.user, len(corpus.users.id)))
    problems.extend(_outside("item", events.item, len(corpus.items.id)))
    problems.extend(_outside("split", events.split, 3) if events.split is not None else [])
    for at in np.flatnonzero((events.time < 0) | (events.time > LATEST))[:3]:
        problems.append(f"events: time {events.time[at]} in row {at}: {time_problem(events.time[at])}")
    for name, values in {**events.feedback, **events.numbers}.items():
        wrong = np.flatnonzero(np.isinf(values))
        if len(wrong):
            found = values[wrong[0]]
            problems.append(
                f"events: {name} is {found} in row {wrong[0]}; expected a finite number, or NaN for not observed"
            )
    for pairs, wrong in zip(
        list_problems(events), ("have one list but two users", "show one item in the same list"), strict=True
    ):
        problems += [f"events: rows {a} and {b} {wrong}" for a, b in pairs[:SHOWN]]
        # Counted alone.
        problems += [""] * len(pairs[SHOWN:])
    return problems


def _outside(column: str, values: np.ndarray, size: int) -> list[str]:
    wrong = np.flatnonzero((values < 0) | (values >= size))
    if not len(wrong):
        return []
    first = f"{column} {values[wrong[0]]} in row {wrong[0]}"
    return [f"events: {first} is outside its table of {size} ({len(wrong)} rows in all)"]


def list_problems(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """(pairs of rows [.., 2] of one impression list but two users, pairs [.., 2] that show an item again in a list)."""
    rows = np.flatnonzero(events.list >= 0)
    rows = rows[np.lexsort((rows, events.item[rows], events.list[rows]))]
    ids, user, item = events.list[rows], events.user[rows], events.item[rows]
    same = ids[1:] == ids[:-1]
    pairs = np.stack([rows[:-1], rows[1:]], axis=1)
    return np.sort(pairs[same & (user[1:] != user[:-1])]), pairs[same & (item[1:] == item[:-1])]
