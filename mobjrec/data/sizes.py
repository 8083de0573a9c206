"""The fixed shapes of a run's batches: a few sizes that hold its draws with little padding."""

from typing import NamedTuple

import numpy as np

# A further size is a further compilation, 10 s and more for a BERT: none is added while rows are this near to the need.
ENOUGH = 1.07
# Shorter packed rows hold too few texts to fill well.
NARROW = 64


class Size(NamedTuple):
    """Fixed shapes of one compiled batch: packed rows and slots a row, for users and items."""

    user_rows: int
    user_slots: int
    item_rows: int
    item_slots: int


def plan(needed: list[Size], multiple: int, most: int = 3) -> tuple[Size, ...]:
    """Up to `most` nested sizes that hold these draws with few padded rows: one more only while over 7 % are.

    multiple: rows are rounded up to it (devices times rows a chunk).
    """
    # A text more than ever seen fits too; stored vectors lie one a row.
    slots = [most if most <= 1 else rounded(most + 1, 2) for most in (max(s[i] for s in needed) for i in (1, 3))]
    rows = np.array([[rounded(s.user_rows, multiple), rounded(s.item_rows, multiple)] for s in needed])
    rows = rows[np.argsort(rows.sum(1), kind="stable")]
    tops = np.maximum.accumulate(rows, 0)
    ends = np.unique(np.linspace(1, len(rows), min(len(rows), 40)).astype(int)) - 1
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, -1): (0.0, ())}
    for count in range(1, most + 1):
        for end in ends:
            options = [
                (cost + float(tops[end].sum()) * (end - before), chain + (int(end),))
                for (c, before), (cost, chain) in best.items()
                if c == count - 1 and before < end
            ]
            if options:
                best[count, int(end)] = min(options)
    wanted = float(rows.sum())
    chosen = best[1, int(ends[-1])]
    for count in range(2, most + 1):
        option = best.get((count, int(ends[-1])))
        if option is not None and chosen[0] > ENOUGH * wanted:
            chosen = min(chosen, option)
    return tuple(Size(int(tops[e][0]), slots[0], int(tops[e][1]), slots[1]) for e in chosen[1])


def packed_width(row: int, longest: int) -> int:
    """Tokens of a packed row: `row` halved while the longest text fits and NARROW are left, so that little stays empty."""
    while row % 2 == 0 and row // 2 >= max(longest, NARROW):
        row //= 2
    return row


def rounded(count: int, multiple: int) -> int:
    """`count` rounded up to a multiple, at least one of it."""
    return max(1, -(-count // multiple)) * multiple
