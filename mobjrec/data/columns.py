"""Tables -> the id and number columns that a model reads, with row 0 kept for what training has not seen."""

import numpy as np

from mobjrec.errors import UserError, meant
from mobjrec.types import Category, Column, Input, SideSpec, Table


def side(table: Table, wanted: Input, own: str, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, SideSpec]:
    """ids [N, C] int32, features [N, F] float32 and their spec.

    own: "user" or "item", the name of the id itself   train: [N] bool, rows met in training: other rows' ids and values
    become 0, and numbers are standardised over these (missing: the mean, which is 0). UserError for an unknown column.
    """
    ids, columns = [], []
    for name in wanted.ids:
        if name == own:
            ids.append(np.where(train, np.arange(1, len(train) + 1), 0)[:, None])
            columns.append(Column(name, len(train) + 1))
        else:
            values, size = _slots(_column(table.categories, name, f"model.{own}.ids"), train)
            ids.append(values)
            columns.append(Column(name, size, values.shape[1]))
    given = [_column(table.numbers, name, f"model.{own}.numbers") for name in wanted.numbers]
    numbers = [_scaled(values, values, train) for values in given]
    return *_joined(ids, numbers, len(train)), SideSpec(bool(wanted.text), tuple(columns), tuple(wanted.numbers))


def outside(table: Table, known: Table, wanted: Input, own: str, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ids [N, C] and features [N, F] of rows that the corpus has not, by the values and scales that training met.

    table: the new rows; a column it lacks is empty or missing   known, wanted, own, train: as `side` got them.
    """
    count = len(table.id)
    ids = []
    for name in wanted.ids:
        if name == own:
            ids.append(np.zeros((count, 1), np.int32))
            continue
        old, slots = known.categories[name], _slots(known.categories[name], train)[0].shape[1]
        met = np.zeros(len(old.names) + 1, bool)
        met[1 + old.value[train[np.repeat(np.arange(len(train)), np.diff(old.start))]]] = True
        number = {str(value): n for n, value in enumerate(old.names.tolist(), start=1)}
        values = np.zeros((count, slots), np.int32)
        new = table.categories.get(name)
        for row in range(count if new is not None else 0):
            told = [number.get(v, 0) for v in new.names[new.value[new.start[row] : new.start[row + 1]]].tolist()]
            told = [n for n in told if met[n]][:slots]
            values[row, : len(told)] = told
        ids.append(values)
    features = [
        _scaled(table.numbers.get(name, np.full(count, np.nan)), known.numbers[name], train) for name in wanted.numbers
    ]
    return _joined(ids, features, count)


def readings(known: Table, wanted: Input, own: str, train: np.ndarray) -> tuple[dict[str, dict], dict[str, dict]]:
    """How `side` reads each column, in plain data: {ids column: {"slots", "values": {value: number}}} of the values met in
    training, all others being 0, and {numbers column: {"mean", "deviation"}}. known, wanted, own, train: as `side` got them.
    """
    ids = {}
    for name in wanted.ids:
        if name == own:
            ids[name] = {"slots": 1, "values": {str(known.id[row]): int(row) + 1 for row in np.flatnonzero(train)}}
        else:
            values, _ = _slots(known.categories[name], train)
            names = known.categories[name].names
            met = np.unique(values[values > 0]).tolist()
            ids[name] = {"slots": values.shape[1], "values": {str(names[n - 1]): n for n in met}}
    scales = {name: _scale(known.numbers[name], train) for name in wanted.numbers}
    return ids, {name: {"mean": float(mean), "deviation": float(scale)} for name, (mean, scale) in scales.items()}


def _joined(ids: list[np.ndarray], numbers: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.concatenate(ids, 1).astype(np.int32) if ids else np.zeros((count, 0), np.int32),
        np.stack(numbers, 1) if numbers else np.zeros((count, 0), np.float32),
    )


def _scaled(values: np.ndarray, known: np.ndarray, train: np.ndarray) -> np.ndarray:
    """values [N] minus the mean over the deviation of those known in training; 0 where missing. float32."""
    mean, deviation = _scale(known, train)
    return np.where(np.isfinite(values), (values - mean) / deviation, 0.0).astype(np.float32)


def _scale(known: np.ndarray, train: np.ndarray) -> tuple[np.float64, np.float64]:
    """Mean and deviation of what training knows: numpy's numbers, with which float32 is scaled in 64 bits."""
    known = known[train & np.isfinite(known)].astype(np.float64)
    mean, deviation = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return np.float64(mean), np.float64(deviation if deviation > 0 else 1.0)


def _slots(category: Category, train: np.ndarray) -> tuple[np.ndarray, int]:
    """A category as [N, slots] ids, 0 for empty or never met in training, and its table's size."""
    counts = np.diff(category.start)
    rows = np.repeat(np.arange(len(counts)), counts)
    met = np.zeros(len(category.names), bool)
    met[category.value[train[rows]]] = True
    values = np.zeros((len(counts), max(1, int(counts.max(initial=1)))), np.int32)
    place = np.arange(len(rows)) - category.start[:-1][rows]
    values[rows, place] = np.where(met[category.value], category.value + 1, 0)
    return values, len(category.names) + 1


def _column(columns: dict, name: str, where: str):
    if name not in columns:
        there = ", ".join(columns) or "none of that kind"
        raise UserError(f"{where}: no column {name}; this corpus has {there}{meant(name, columns)}")
    return columns[name]
