"""A table of items or users: which column is what, and the rows read by that."""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mobjrec.data import parse
from mobjrec.data.corpus import listed, repeats, report
from mobjrec.data.files import File, headless
from mobjrec.data.parse import Wish
from mobjrec.errors import UserError, closest
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
    file: File,
    id_column: str = "item",
    columns: SideColumns = SIDE,
    separator: str = "|",
    needed: Sequence[str] = (),
    named: bool = True,
) -> Table:
    """Items to rank, as they are told.

    needed: columns that must be there; of the others that `columns` names those that are absent are passed over with a
    warning   named: whether the id must be there; without it rows are called 1, 2, ...
    Where `columns` names all kinds, other columns are passed over. UserError as for `side_table`, and where none of the
    columns is there.
    """
    there = file.schema.names
    kinds = [one for one in (columns.text, columns.categories, columns.numbers) if one is not None]
    wanted = list(dict.fromkeys(name for one in kinds for name in one))
    required = [id_column, *needed] if named else list(needed)
    missing = [name for name in required if name not in there]
    if not missing and wanted and not set(wanted) & set(there):
        missing = wanted
    if missing:
        said = f"the id {id_column}" + (f", and {', '.join(wanted)}" if wanted else "")
        near = closest(missing[0], there)
        hint = f"; is {missing[0]} called {near} there?" if near else ""
        raise UserError(
            f"{file.name} has no column {', '.join(missing)}; it has {', '.join(there) or 'none'}. Read are {said}, as the "
            f"run's config names them{hint}"
        )
    absent = [name for name in wanted if name not in there]
    if absent:
        warnings.warn(f"{file.name}: no column {', '.join(absent)}; what it would say is not known", stacklevel=2)
        columns = SideColumns(*(_kept(one, there) if isinstance(one, tuple) else one for one in columns))
    if id_column not in there:
        file = _counted(file, id_column)
    if len(kinds) == 3:
        kept = [id_column, *(name for name in wanted if name in there)]
        file = file._replace(schema=pa.schema([file.schema.field(name) for name in kept]))
    return side_table(file, columns, id_column, Reading("s", separator, "empty"))


def _kept(names: tuple[str, ...], there: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in there)


def _counted(file: File, id_column: str) -> File:
    """The file with a first column of row numbers."""

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        row = 1
        for batch in file.batches([name for name in columns if name != id_column]):
            numbers = pa.array([str(n) for n in range(row, row + len(batch))], pa.string())
            row += len(batch)
            yield pa.RecordBatch.from_arrays(
                [numbers if name == id_column else batch.column(name) for name in columns], names=list(columns)
            )

    return file._replace(schema=file.schema.insert(0, pa.field(id_column, pa.string())), batches=batches)


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
    there, hint = ", ".join(file.schema.names) or "none at all", headless(file.schema.names)
    return [f"{file.name} has no column {', '.join(missing)}; it has {there}; name its columns in the config{hint}"]


def unused(file: File, used: set[str]) -> None:
    """Warn once of columns that nothing reads."""
    extra = [name for name in file.schema.names if name not in used and not INDEX.fullmatch(name)]
    if extra:
        warnings.warn(f"{file.name}: columns {', '.join(extra)} are not used", stacklevel=4)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts of a column as one."""
    return np.concatenate(parts)
