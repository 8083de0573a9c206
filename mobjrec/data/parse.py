"""Arrow columns of any type -> numpy columns of the seam, part by part, with every wrong cell named.

A parser takes (column, Place, problems), appends what is wrong to `problems` and returns one part; its joiner makes the
whole column of the parts. No Python object is made per row, except where a wrong cell is shown.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobjrec.data.corpus import LATEST, MILLISECONDS, SHOWN, STRING, report, time_problem
from mobjrec.data.files import NUMBER, File
from mobjrec.errors import UserError
from mobjrec.types import Category

ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:?[0-9]{2})?)?$"
SPLITS = {"train": 0, "valid": 1, "test": 2, "0": 0, "1": 1, "2": 2}
CODES = pa.dictionary(pa.int32(), pa.string())


class Place(NamedTuple):
    """Where a part of a column stands. row: number of its first row, from 1."""

    file: str
    column: str
    row: int


class Wish(NamedTuple):
    """A column to read: its name, its parser, and what joins the parts."""

    column: str
    parse: Callable[[pa.Array, Place, list[str]], Any]
    join: Callable[[list], Any]


def columns(file: File, wishes: dict[str, Wish], known: Sequence[str] = ()) -> dict[str, Any]:
    """Every wished column, read in one pass; those that the file has not are passed over.

    known: what is wrong with the file already. UserError with that and the wrong cells, counted up to the part that has
    the twentieth.
    """
    wishes = {role: wish for role, wish in wishes.items() if wish.column in file.schema.names}
    names = list(dict.fromkeys(wish.column for wish in wishes.values()))
    parts: dict[str, list] = {role: [] for role in wishes}
    problems = list(known)
    row = 1
    for batch in file.batches(names) if names else ():
        for role, wish in wishes.items():
            place = Place(file.name, wish.column, row)
            parts[role].append(wish.parse(plain(batch.column(wish.column)), place, problems))
        row += len(batch)
        if len(problems) >= SHOWN:
            raise UserError(report(f"{file.name}, rows 1 to {row - 1}", problems))
    if problems:
        raise UserError(report(file.name, problems))
    if row == 1:
        raise UserError(f"{file.name} has columns ({', '.join(file.schema.names)}) but no rows")
    return {role: wish.join(parts[role]) for role, wish in wishes.items()}


def plain(column: pa.Array) -> pa.Array:
    """The column without dictionary encoding."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def flag(bad: np.ndarray, column: pa.Array, place: Place, expected: str, problems: list[str]) -> None:
    """Name the rows where `bad`, with what stands there; those beyond what a report shows are "", to be counted."""
    rows = np.flatnonzero(bad)
    for at in rows[:SHOWN]:
        value = column[int(at)].as_py()
        found = "an empty cell" if value is None else repr(value)[:80]
        problems.append(
            f"{place.file}, row {place.row + at}, column {place.column}: found {found}; expected {expected}"
        )
    problems.extend([""] * len(rows[SHOWN:]))


def text(column: pa.Array, place: Place, problems: list[str]) -> pa.Array:
    """The column as Arrow strings, null where missing; lists are joined by a comma."""
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = pc.cast(column, pa.list_(pa.string()))
        return pc.binary_join(inner, ", ")
    if pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_binary(kind):
        problems.append(f"{place.file}, column {place.column}: found {kind}; expected text, numbers or lists of them")
        return pa.nulls(len(column), pa.string())
    return pc.cast(column, pa.string())


def ids(column: pa.Array, place: Place, problems: list[str]) -> pa.Array:
    """Ids as dictionary codes over their text; none may be missing."""
    codes = maybe_ids(column, place, problems)
    flag(codes.is_null().to_numpy(zero_copy_only=False), column, place, "an id", problems)
    return codes


def maybe_ids(column: pa.Array, place: Place, problems: list[str]) -> pa.Array:
    """Ids as dictionary codes over their text, null where missing; whole numbers as their decimal digits."""
    if pa.types.is_floating(column.type) or pa.types.is_nested(column.type):
        expected = "text or whole numbers as ids (a float cannot hold them all; a frame's missing ids make floats)"
        flag(np.arange(len(column)) < 1, column, place, expected, problems)
        return pa.nulls(len(column), CODES)
    return maybe_words(column, place, problems)


def maybe_words(column: pa.Array, place: Place, problems: list[str]) -> pa.Array:
    """Single values of a category as dictionary codes over their text, null where missing."""
    words = text(column, place, problems)
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words).dictionary_encode()


def join_codes(parts: list[pa.Array]) -> tuple[np.ndarray, pa.Array]:
    """(codes [N] int32, -1 = missing; distinct texts in the order of their first appearance)."""
    whole = pa.chunked_array(parts, type=CODES).unify_dictionaries()
    if not whole.num_chunks:
        return np.zeros(0, np.int32), pa.array([], pa.string())
    codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in whole.chunks]
    return np.concatenate(codes).astype(np.int32, copy=False), whole.chunk(whole.num_chunks - 1).dictionary


def join_single(parts: list[pa.Array]) -> Category:
    """A category of at most one value a row."""
    codes, names = join_codes(parts)
    start = np.concatenate([[0], np.cumsum(codes >= 0)]).astype(np.int64)
    return Category(as_strings(names), start, codes[codes >= 0])


def split_by(separator: str) -> Callable[[pa.Array, Place, list[str]], tuple[np.ndarray, pa.Array]]:
    """A parser of multi-valued cells: lists, or text cut at `separator` and stripped; empty values are dropped."""

    def parse(column: pa.Array, place: Place, problems: list[str]) -> tuple[np.ndarray, pa.Array]:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            lists = pc.cast(column, pa.list_(pa.string()))
        else:
            lists = pc.split_pattern(text(column, place, problems), separator)
        lists = lists.fill_null([])
        words = pc.utf8_trim_whitespace(lists.flatten())
        kept = pc.fill_null(pc.not_equal(words, ""), False)
        # Offsets are read relative to the first: a sliced list array keeps the offsets of its parent.
        offsets = lists.offsets.to_numpy() - lists.offsets[0].as_py()
        before = np.concatenate([[0], np.cumsum(kept.to_numpy(zero_copy_only=False))])[offsets]
        return np.diff(before), words.filter(kept).dictionary_encode()

    return parse


def join_several(parts: list[tuple[np.ndarray, pa.Array]]) -> Category:
    """A category of any number of distinct values a row."""
    codes, names = join_codes([codes for _, codes in parts])
    counts = np.concatenate([counts for counts, _ in parts]) if parts else np.zeros(0)
    row = np.repeat(np.arange(len(counts)), counts)
    # A cell that names a value twice would count it twice: the first stays.
    _, first = np.unique(row * max(len(names), 1) + codes, return_index=True)
    kept = np.sort(first)
    start = np.concatenate([[0], np.cumsum(np.bincount(row[kept], minlength=len(counts)))])
    return Category(as_strings(names), start.astype(np.int64), codes[kept])


def texts(missing: str) -> Callable[[pa.Array, Place, list[str]], np.ndarray]:
    """A parser of text; a missing one is "", or a problem where `missing` is "error"."""

    def parse(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
        words = text(column, place, problems)
        if missing == "error":
            flag(words.is_null().to_numpy(zero_copy_only=False), column, place, "text", problems)
        return as_strings(words)

    return parse


def as_strings(words: pa.Array) -> np.ndarray:
    """Arrow strings as a numpy array of StringDType; null becomes ""."""
    return words.fill_null("").to_numpy(zero_copy_only=False).astype(STRING)


def numbers(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
    """[N] float32, NaN where the cell is empty. What is no finite number is a problem; true and false are 1 and 0."""
    value, wrong = _numbers(column)
    wrong |= (np.abs(value) > np.finfo(np.float32).max) | (np.isnan(value) & column.is_valid().to_numpy(False))
    flag(wrong, column, place, "a finite number, or an empty cell where it is not known", problems)
    return np.where(wrong, np.nan, value).astype(np.float32)


def _numbers(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """([N] float64, NaN where missing or wrong; [N] bool, wrong)."""
    nothing = np.zeros(len(column), bool)
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan), nothing
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    if not pa.types.is_string(column.type):
        try:
            return pc.cast(column, pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False), nothing
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return np.full(len(column), np.nan), column.is_valid().to_numpy(zero_copy_only=False)
    try:
        return pc.cast(column, pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False), nothing
    except pa.ArrowInvalid:
        words = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        words = pc.if_else(pc.equal(words, "true"), "1", pc.if_else(pc.equal(words, "false"), "0", words))
        fits = pc.match_substring_regex(words, NUMBER)
        value = pc.cast(pc.if_else(fits, words, pa.scalar(None, pa.string())), pa.float64())
        return value.fill_null(np.nan).to_numpy(zero_copy_only=False), ~fits.fill_null(True).to_numpy(False)


def positions(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
    """[N] int32 slots from 0, -1 where the cell is empty."""
    value, wrong = _numbers(column)
    wrong |= (value < 0) | (value != np.floor(value)) & ~np.isnan(value) | (value > 2**31 - 1)
    flag(wrong, column, place, "a slot in the list, counted from 0", problems)
    return np.where(wrong | np.isnan(value), -1, value).astype(np.int32)


def splits(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
    """[N] int8: 0 train, 1 valid, 2 test."""
    words = text(column, place, problems)
    at = pc.index_in(words, value_set=pa.array(list(SPLITS))).fill_null(-1).to_numpy(zero_copy_only=False)
    flag(at < 0, column, place, "train, valid or test", problems)
    return np.array([*SPLITS.values(), 0], np.int8)[at]


def times(unit: str) -> Callable[[pa.Array, Place, list[str]], np.ndarray]:
    """A parser of times: Unix seconds ("s") or milliseconds ("ms") as numbers or digits, time stamps, ISO 8601 text.

    [N] int64 seconds, rounded down; text without a zone is UTC.
    """

    def parse(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
        if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
            seconds, wrong = _stamps(column)
        else:
            seconds, wrong = _numbers(column)
            seconds = np.floor(seconds / 1000) if unit == "ms" else np.floor(seconds)
            if pa.types.is_string(column.type) and wrong.any():
                iso, unread = _iso(column)
                seconds, wrong = np.where(wrong, iso, seconds), wrong & unread
        wrong |= np.isnan(seconds)
        flag(wrong, column, place, "Unix seconds or a date such as 2024-05-31T12:00:00Z", problems)
        for odd in (seconds < 0, (seconds > LATEST) & (seconds <= MILLISECONDS), seconds > MILLISECONDS):
            odd = odd & ~wrong
            if odd.any():
                why = time_problem(seconds[np.argmax(odd)])
                hint = "; set `time_unit: ms`" if "milliseconds" in why and unit == "s" else ""
                flag(odd, column, place, f"a time between 1970 and 2100: {why}{hint}", problems)
        # A report is raised where any is wrong.
        return np.nan_to_num(seconds, posinf=0, neginf=0).astype(np.int64)

    return parse


def _stamps(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    zone = getattr(column.type, "tz", None)
    seconds = pc.cast(pc.cast(column, pa.timestamp("s", tz=zone), safe=False), pa.int64())
    return seconds.fill_null(0).to_numpy(zero_copy_only=False).astype(float), column.is_null().to_numpy(False)


def _iso(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """ISO 8601 text -> ([N] float64 seconds, NaN where wrong; [N] bool, wrong)."""
    words = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r"[.,][0-9]+", "")
    fits = pc.match_substring_regex(words, ISO)
    dated = pc.match_substring_regex(words, r"^[0-9-]{10}$")
    zoned = pc.match_substring_regex(words, r":[0-9]{2}(Z|[+-][0-9]{2}:?[0-9]{2})$")
    whole = pc.if_else(dated, pc.binary_join_element_wise(words, "00:00:00Z", "T"), words)
    whole = pc.if_else(pc.or_(dated, zoned), whole, pc.binary_join_element_wise(whole, "Z", ""))
    whole = pc.if_else(fits, whole, pa.scalar(None, pa.string()))
    try:
        stamps = pc.cast(whole, pa.timestamp("s", tz="UTC"))
    except pa.ArrowInvalid:
        stamps = pa.chunked_array([_one(word) for word in whole], pa.timestamp("s", tz="UTC")).combine_chunks()
    seconds = pc.cast(pc.cast(stamps, pa.int64()), pa.float64()).fill_null(np.nan)
    return seconds.to_numpy(zero_copy_only=False), stamps.is_null().to_numpy(zero_copy_only=False)


def _one(word: pa.Scalar) -> pa.Array:
    """One date; null where there is no such day or hour."""
    try:
        return pa.array([pc.cast(word, pa.timestamp("s", tz="UTC"))])
    except pa.ArrowInvalid:
        return pa.nulls(1, pa.timestamp("s", tz="UTC"))
