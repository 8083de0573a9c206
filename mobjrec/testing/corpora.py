"""What every corpus promises, whoever reads it."""

import numpy as np

from mobjrec.types import Category, Corpus, Table


def check_corpus(corpus: Corpus, deep: bool = True) -> None:
    """Every promise of a corpus; AssertionError names the first that does not hold.

    Arrays have the seam's types; what `mobjrec.data.corpus.check` asks holds (distinct ids, rows inside the tables,
    times between 1970 and 2100, finite feedback, lists of one user); texts can be written as UTF-8; names of a category
    are distinct and one row repeats none; some feedback is observed; positions do not repeat in a list. deep: also cut
    into lists by time: no list in two splits, no history event at or after its list's time.
    """
    from mobjrec.data.corpus import check
    from mobjrec.errors import UserError

    _check_types(corpus)
    try:
        check(corpus)
    except UserError as error:
        raise AssertionError(str(error)) from error
    for side, table in (("users", corpus.users), ("items", corpus.items)):
        _check_text(side, table)
        for name, category in table.categories.items():
            _check_category(f"{side}: {name}", category)
    for name, category in corpus.events.categories.items():
        _check_category(f"events: {name}", category)
    _check_events(corpus)
    if deep:
        _check_lists(corpus)


def _check_types(corpus: Corpus) -> None:
    string, events = np.dtypes.StringDType(), corpus.events
    for side, table in (("users", corpus.users), ("items", corpus.items)):
        for name, column in {"id": table.id, **table.text}.items():
            _check(column.dtype == string, f"{side}: {name} is {column.dtype}, not StringDType")
        for name, column in table.numbers.items():
            _check(column.dtype == np.float32, f"{side}: {name} is {column.dtype}, not float32")
    wanted = {"user": np.int32, "item": np.int32, "time": np.int64, "list": np.int64, "position": np.int32}
    for name, kind in wanted.items():
        found = getattr(events, name).dtype
        _check(found == kind, f"events: {name} is {found}, not {np.dtype(kind)}")
    _check(events.split is None or events.split.dtype == np.int8, "events: split is not int8")
    for name, column in {**events.feedback, **events.numbers}.items():
        _check(column.dtype == np.float32, f"events: {name} is {column.dtype}, not float32")


def _check_text(side: str, table: Table) -> None:
    for name, column in {"id": table.id, **table.text}.items():
        for row, value in enumerate(column):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise AssertionError(f"{side}: {name} in row {row} cannot be written as UTF-8: {error}") from error


def _check_category(where: str, category: Category) -> None:
    _check(category.start.dtype == np.int64, f"{where}: start is {category.start.dtype}, not int64")
    _check(category.value.dtype == np.int32, f"{where}: value is {category.value.dtype}, not int32")
    _check(len(np.unique(category.names)) == len(category.names), f"{where}: names are not distinct")
    row = np.repeat(np.arange(len(category.start) - 1), np.diff(category.start))
    pairs = np.unique(row * max(len(category.names), 1) + category.value)
    _check(len(pairs) == len(row), f"{where}: a row names one value twice")


def _check_events(corpus: Corpus) -> None:
    events = corpus.events
    _check(len(events.user) > 0, "events: there are none")
    _check(bool(events.feedback), "events: no feedback column")
    for name, column in events.feedback.items():
        _check(not np.all(np.isnan(column)), f"events: {name} is never observed")
    shown = (events.list >= 0) & (events.position >= 0)
    slots = events.list[shown] * (int(events.position.max()) + 1) + events.position[shown]
    _check(len(np.unique(slots)) == len(slots), "events: a position occurs twice in a list")
    known = {*events.feedback, *events.numbers, *corpus.users.numbers, *corpus.items.numbers}
    _check(corpus.units.keys() <= known, f"units name {sorted(corpus.units.keys() - known)}, which is no column")


def _check_lists(corpus: Corpus) -> None:
    from mobjrec.data.lists import build
    from mobjrec.data.splits import by_time
    from mobjrec.types import Labels

    name, column = next(iter(corpus.events.feedback.items()))
    dataset = build(corpus, {name: Labels(column)}, by_time(0.1, 0.1), history=name)
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    met: dict[int, str] = {}
    rows = []
    for split, lists in splits.items():
        rows.append(lists.event)
        for impression in np.unique(corpus.events.list[lists.event]):
            _check(
                impression < 0 or impression not in met, f"list {impression} is in {split} and {met.get(impression)}"
            )
            met[int(impression)] = split
    every = np.sort(np.concatenate(rows))
    _check(np.array_equal(every, np.arange(len(corpus.events.user))), "events are lost or doubled in the splits")
    _check_history(corpus, dataset, splits)


def _check_history(corpus: Corpus, dataset, splits: dict) -> None:
    """No item of a history whose earliest event with the user lies at or after the list's time."""
    events = corpus.events
    pair = events.user.astype(np.int64) * len(corpus.items.id) + events.item
    order = np.lexsort((events.time, pair))
    keys, first = np.unique(pair[order], return_index=True)
    earliest = events.time[order][first]
    for split, lists in splits.items():
        for user, time, (start, stop) in zip(lists.user, lists.time, lists.history, strict=True):
            wanted = int(user) * len(corpus.items.id) + dataset.history[start:stop].astype(np.int64)
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            _check(bool(np.all(keys[at] == wanted)), f"{split}: a history holds an item that its user never met")
            _check(bool(np.all(earliest[at] < time)), f"{split}: a history holds an event at or after its list's time")


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)
