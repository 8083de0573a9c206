"""A table of items or users: which column is what, and the rows read by that."""

import difflib
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mobjrec.data import parse
from mobjrec.data.corpus import listed, repeats, report
from mobjrec.data.files import File, Source, opened
from mobjrec.data.parse import Wish
from mobjrec.errors import UserError
from mobjrec.types import Table


# What pandas calls an index without a name, in Parquet, in CSV, and in CSV that it has read and written again.
INDEX = re.compile(r"(__index_level_\d+__|Unnamed: \d+)?")


class SideColumns(NamedTuple):
    """Which column of the item or user table is what.

    id: "" = the name that the event table uses   text, categories: names; None = every column of text
    numbers: names; None = every column of numbers   several: categories with several values a cell; lists always are
    """

    id: str = ""
    text: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    numbers: tuple[str, ...] | None = None
    several: tuple[str, ...] = ()


SIDE = SideColumns()


class Reading(NamedTuple):
    """How cells are read, the same for all tables."""

    time_unit: str
    separator: str
    missing_text: str


def item_table(
    source: Source,
    id_column: str = "item",
    columns: SideColumns = SIDE,
    separator: str = "|",
    encoding: str = "utf-8",
    errors: Literal["strict", "replace"] = "strict",
) -> Table:
    """Items that no corpus holds, to be ranked: of a file, a frame or a list of dicts.

    Where `columns` names all kinds, other columns are passed over. UserError as for `side_table`, and for a source that
    `opened` does not take.
    """
    file = opened(source, Path(), encoding, errors)
    named = [one for one in (columns.text, columns.categories, columns.numbers) if one is not None]
    wanted = list(dict.fromkeys([id_column, *(name for one in named for name in one)]))
    missing = [name for name in wanted if name not in file.schema.names]
    if missing:
        said = f"the id {id_column}" + (f", and {', '.join(wanted[1:])}" if wanted[1:] else "")
        near = difflib.get_close_matches(missing[0], file.schema.names, 1)
        hint = f"; is {missing[0]} called {near[0]} there?" if near else ""
        raise UserError(
            f"{file.name} has no column {', '.join(missing)}; it has {', '.join(file.schema.names)}. Read are {said}, as the "
            f"run's config names them{hint}"
        )
    if len(named) == 3:
        file = file._replace(schema=pa.schema([file.schema.field(name) for name in wanted]))
    return side_table(file, columns, id_column, Reading("s", separator, "empty"))


def side_table(file: File, columns: SideColumns, id_column: str, reading: Reading) -> Table:
    """The rows of a file. UserError names file, row and column of what is missing, wrong or there twice."""
    text = typed(file, columns.text, {id_column}, _wordy)
    categories = typed(file, columns.categories, {id_column}, _wordy)
    numbers = typed(file, columns.numbers, {id_column, *(columns.text or ()), *(columns.categories or ())}, numeric)
    several = {*columns.several, *(name for name in categories if _is_list(file.schema, name))}
    problems = present(file, [id_column, *text, *categories, *numbers, *several])
    unused(file, {id_column, *text, *categories, *numbers, *several})
    words = parse.texts(reading.missing_text)
    wishes = {"id": Wish(id_column, parse.ids, parse.join_codes)}
    wishes |= {f"text {name}": Wish(name, words, joined) for name in text}
    wishes |= {f"number {name}": Wish(name, parse.numbers, joined) for name in numbers}
    wishes |= category_wishes([*categories, *several], several, reading)
    read = parse.columns(file, wishes, problems)
    codes, names = read["id"]
    if len(names) < len(codes):
        raise UserError(report(file.name, _repeated(codes, names, file.name, id_column)))
    return Table(
        id=parse.as_strings(names),
        text={name: read[f"text {name}"] for name in text},
        categories={name: read[f"category {name}"] for name in dict.fromkeys([*categories, *several])},
        numbers={name: read[f"number {name}"] for name in numbers},
    )


def category_wishes(names: Sequence[str], several: set[str], reading: Reading) -> dict[str, Wish]:
    """How the columns of categories are read, those of `several` as many values a cell."""
    many = parse.split_by(reading.separator)
    return {
        f"category {name}": Wish(name, many, parse.join_several)
        if name in several
        else Wish(name, parse.maybe_words, parse.join_single)
        for name in names
    }


def _repeated(codes: np.ndarray, names: pa.Array, file: str, column: str) -> list[str]:
    return [
        f"{file}, column {column}: rows {listed(rows + 1)} have the same id {names[int(codes[rows[0]])].as_py()!r}; "
        f"drop {'one' if len(rows) == 2 else 'all but one'}"
        for rows in repeats(codes)
    ]


def typed(
    file: File, names: tuple[str, ...] | None, used: set[str], fits: Callable[[pa.DataType], bool]
) -> tuple[str, ...]:
    """The names that are given, or where none are (None) those of every column that fits and has no other use.

    The row numbers that pandas writes beside a frame are never meant.
    """
    if names is not None:
        return tuple(names)
    used = used | _indexes(file.schema)
    return tuple(field.name for field in file.schema if field.name not in used and fits(field.type))


def _indexes(schema: pa.Schema) -> set[str]:
    """Columns that are the index of a pandas frame, by what pandas notes in the file or by the names it gives."""
    noted = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    return {name for name in schema.names if name in noted or INDEX.fullmatch(name)}


def _wordy(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or _listed(kind)


def numeric(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers."""
    return (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    )


def _listed(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_list(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and _listed(schema.field(name).type)


def present(file: File, names: Sequence[str]) -> list[str]:
    """A problem for columns that the file has not, [] where it has all."""
    missing = sorted({name for name in names if name not in file.schema.names})
    if not missing:
        return []
    there = ", ".join(file.schema.names)
    return [f"{file.name} has no column {', '.join(missing)}; it has {there}; name its columns in the config"]


def unused(file: File, used: set[str]) -> None:
    """Warn once of columns that nothing reads."""
    extra = [name for name in file.schema.names if name not in used and not INDEX.fullmatch(name)]
    if extra:
        warnings.warn(f"{file.name}: columns {', '.join(extra)} are not used", stacklevel=4)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts of a column as one."""
    return np.concatenate(parts)
