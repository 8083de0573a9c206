"""Several texts to a row of fixed length, so that almost no padding is encoded."""

from typing import NamedTuple

import numpy as np

from mobjrec.types import Texts


class Packing(NamedTuple):
    """Where each text [N] lies. row, slot, offset: [N] int; rows: rows used; slots: most texts in a row."""

    row: np.ndarray
    slot: np.ndarray
    offset: np.ndarray
    rows: int
    slots: int


def pack(lengths: np.ndarray, row_length: int) -> Packing:
    """Best fit, longest first: each text goes to the fullest row that still holds it.

    lengths [N] int in 1..row_length. Rows are 96-99 % full on titles and descriptions. ValueError for a longer text.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and (lengths.max() > row_length or lengths.min() < 1):
        raise ValueError(f"a text of {lengths.max()} tokens does not fit a row of {row_length}, or one is empty")
    row, slot, offset = (np.zeros(len(lengths), np.int64) for _ in range(3))
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]  # by the room left
    rooms = 0  # bit r is set where open_rows[r] has a row
    used: list[int] = []
    counts: list[int] = []
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        fitting = rooms >> length << length
        room = (fitting & -fitting).bit_length() - 1
        if room < 0:
            where = len(used)
            used.append(0)
            counts.append(0)
            room = row_length
        else:
            where = open_rows[room].pop()
            rooms ^= (not open_rows[room]) << room
        row[text], slot[text], offset[text] = where, counts[where], used[where]
        used[where] += length
        counts[where] += 1
        open_rows[room - length].append(where)
        rooms |= 1 << (room - length)
    return Packing(row, slot, offset, len(used), max(counts, default=0))


def lay(tokens: np.ndarray, lengths: np.ndarray, packing: Packing, rows: int, slots: int, row_length: int) -> Texts:
    """The packed rows. tokens [sum of lengths]: the texts one after the other.

    ValueError where rows or slots are too few.
    """
    if packing.rows > rows or packing.slots > slots:
        raise ValueError(f"{packing.rows} rows of up to {packing.slots} texts do not fit {rows} x {slots}")
    place, within = _places(lengths, packing, row_length)
    flat = np.zeros((3, rows * row_length), np.int32)
    flat[0, place] = tokens
    flat[1, place] = within
    flat[2, place] = np.repeat(packing.slot + 1, lengths)
    used = np.zeros((rows, slots), bool)
    used[packing.row, packing.slot] = True
    return Texts(*(a.reshape(rows, row_length) for a in flat), used=used)


def cells(begin: np.ndarray, lengths: np.ndarray, packing: Packing, rows: int, row_length: int) -> np.ndarray:
    """[rows, row_length] int64: which row of a store of tokens each cell holds, -1 for padding.

    begin [N]: where the texts' tokens begin in that store; lengths [N]: how many they are.
    """
    place, within = _places(lengths, packing, row_length)
    flat = np.full(rows * row_length, -1, np.int64)
    flat[place] = np.repeat(begin, lengths) + within
    return flat.reshape(rows, row_length)


def _places(lengths: np.ndarray, packing: Packing, row_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(cell of each token in the rows laid end to end, its position in its text)."""
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(packing.row * row_length + packing.offset, lengths) + within, within
