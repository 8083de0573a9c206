"""Tables on disk or in memory as batches of Arrow columns: CSV, JSON lines, Parquet, data frames.

CSV cells come as text, so that an id keeps its zeros and all 64 bits and a wrong cell can be shown as it stands; the
schema says what the first megabytes look like. Rows are counted from 1, the header not included.
"""

import codecs
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from mobjrec.data.corpus import report
from mobjrec.errors import UserError

# A file's name; from Python also a list of dicts, an Arrow table, or a pandas or polars frame, whose libraries we spare.
Source = Any
NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
# A row that is null: where it comes first in a block, Arrow ends the process (apache/arrow issue 47409). It may be text, too.
NULL_ROW = re.compile(rb"(\A(\xef\xbb\xbf)?|\})\s*null")
ROWS = 1 << 17
BLOCK = 1 << 24
# What Arrow raises for values that make no column; text with half a surrogate is a ValueError.
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, OverflowError)


class File(NamedTuple):
    """A table to read. batches: names of columns -> record batches of those columns; name: for messages."""

    name: str
    schema: pa.Schema
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]


def opened(
    source: Source, folder: Path, encoding: str = "utf-8", errors: Literal["strict", "replace"] = "strict"
) -> File:
    """The table that `source` names, by its suffix: .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet.

    Anything but UTF-8 read strictly is decoded in memory first. UserError if the file is absent, empty or of another
    kind.
    """
    if not isinstance(source, (str, Path)):
        return held(source)
    folder = _near(Path(folder))
    path = folder / source
    if not path.is_file():
        there = ", ".join(sorted(x.name for x in folder.iterdir())[:10]) if folder.is_dir() else "no such folder"
        raise UserError(f"{path} is not a file; {folder} holds: {there}")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; expected a table with a header")
    if suffix in (".parquet", ".pq"):
        return _parquet(path)
    if suffix in (".csv", ".tsv", ".tab"):
        return _csv(path, "," if suffix == ".csv" else "\t", encoding, errors)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json(path, encoding, errors)
    raise UserError(f"{path} ends in {suffix!r}; expected .csv, .tsv, .jsonl, .ndjson (each also .gz) or .parquet")


def _near(folder: Path) -> Path:
    """The same folder as messages name it: from the working directory where it lies below."""
    return Path(os.path.relpath(folder)) if folder.is_absolute() and folder.is_relative_to(os.getcwd()) else folder


def _stream(path: Path, encoding: str, errors: str) -> pa.NativeFile:
    raw = pa.input_stream(str(path), compression="detect")
    if _as_it_stands(encoding, errors):
        return raw
    try:
        content = raw.read()
        text = content.decode(encoding, errors)
    except LookupError as error:
        raise UserError(
            f"encoding is {encoding!r}, which Python does not know; expected utf-8, latin-1, cp1252 ..."
        ) from error
    except UnicodeError as error:
        raise UserError(_undecodable(path, encoding) or f"{path} is not {encoding}: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from error
    replaced = text.count("\ufffd") - content.count("\ufffd".encode())
    if errors == "replace" and replaced > 0:
        warnings.warn(f"{path}: {replaced} characters were not {encoding} and are replaced", stacklevel=2)
    return pa.BufferReader(text.removeprefix("\ufeff").encode())


def _as_it_stands(encoding: str, errors: str) -> bool:
    """Whether Arrow reads the file itself, as it reads UTF-8."""
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8") and errors == "strict"


def _checked(path: Path, encoding: str, errors: str) -> None:
    """UserError where Arrow would meet what is not UTF-8: in a header or a short row it says so badly, or aborts.

    Reading a file once more for it takes a twentieth of what reading its cells does.
    """
    if not _as_it_stands(encoding, errors):
        return
    try:
        wrong = _undecodable(path, encoding)
    except OSError as error:
        raise UserError(f"{path} cannot be unpacked: {error}") from error
    if wrong:
        raise UserError(wrong)


def _undecodable(path: Path, encoding: str) -> str:
    """Where a file stops being text in this encoding, "" if it does not."""
    decoder, offset, line = codecs.getincrementaldecoder(encoding)(), 0, 1
    hint = "set `encoding` (latin-1, cp1252 ...) or `encoding_errors: replace`"
    with pa.input_stream(str(path), compression="detect") as stream:
        while True:
            block = stream.read(1 << 20)
            pending = decoder.getstate()[0]
            if not offset and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                hint = f"set `encoding: {'utf-32' if block.startswith(codecs.BOM_UTF32_LE) else 'utf-16'}`"
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                whole = pending + block
                line += whole[: error.start].count(b"\n")
                place = f"{path}, line {line}, byte offset {offset - len(pending) + error.start}"
                found = whole[error.start : error.start + 1].hex()
                return f"{place}: found byte 0x{found}, which is not {encoding}; {hint}"
            except UnicodeError as error:
                # A stream of UTF-16 that has no mark.
                return f"{path} is not {encoding}: {error}"
            if not block:
                return ""
            offset, line = offset + len(block), line + block.count(b"\n")


def _csv(path: Path, delimiter: str, encoding: str, errors: str) -> File:
    _checked(path, encoding, errors)
    # With threads Arrow does not tell the line of a row that it cannot cut into cells.
    read = pa.csv.ReadOptions(block_size=BLOCK, use_threads=False)

    def reader(convert: pa.csv.ConvertOptions, wrong: list[str]) -> pa.csv.CSVStreamingReader:
        def skip(row: pa.csv.InvalidRow) -> str:
            found = f"{row.actual_columns} cells in {row.text[:60]!r}"
            wrong.append(f"{path}, line {row.number}: found {found}; expected {row.expected_columns} as in the header")
            return "skip"

        parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
        return pa.csv.open_csv(_stream(path, encoding, errors), read, parse, convert)

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        wrong: list[str] = []
        as_text = dict.fromkeys(columns, pa.string())
        convert = pa.csv.ConvertOptions(
            column_types=as_text, include_columns=list(columns), null_values=[""], strings_can_be_null=True
        )
        try:
            for batch in reader(convert, wrong):
                if wrong:
                    break
                yield batch
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, "CSV", error) from error
        if wrong:
            raise UserError(report(str(path), wrong))

    try:
        names = reader(pa.csv.ConvertOptions(), []).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, "CSV", error) from error
    first = next(batches(_cut(path, _distinct(str(path), names).names, delimiter)), None)
    return File(str(path), names if first is None else _likely(first), batches)


def _cut(path: Path, names: Sequence[str], delimiter: str) -> Sequence[str]:
    """The names of a header. UserError where it is one cell that another delimiter would cut."""
    for other in [one for one in "\t;,|" if one != delimiter and len(names) == 1 and one in names[0]][:1]:
        found = f"{path}: {other!r} parts its header, {names[0]!r:.80}"
        raise UserError(f"{found}; expected commas in a .csv, tabs in a .tsv")
    return names


def headless(names: Sequence[str]) -> str:
    """A hint where a name of a header is a number, as in a file that begins with its data, "" elsewhere."""
    number = "".join([name for name in names if re.match(NUMBER, name)][:1])
    return number and f"; {number} stands in its header: is that its first row? Write a header above it"


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    # What Arrow says of a header without a line end, or of blank lines alone.
    if "Empty CSV" in str(error):
        return UserError(f"{path} holds no rows; expected a header and rows below it")
    return UserError(f"{path} cannot be read as {kind}: {error}")


def _likely(batch: pa.RecordBatch) -> pa.Schema:
    """What the cells look like: numbers where more than half of them are, so that one wrong cell is an error."""

    def kind(cells: pa.Array) -> pa.DataType:
        fits = pc.match_substring_regex(cells, rf"(?i){NUMBER}|^(true|false)$")
        return pa.float64() if (pc.mean(fits).as_py() or 0) > 0.5 else pa.string()

    return pa.schema([(name, kind(cells)) for name, cells in zip(batch.schema.names, batch.columns, strict=True)])


def _json(path: Path, encoding: str, errors: str) -> File:
    _checked(path, encoding, errors)
    try:
        content = _stream(path, encoding, errors).read()
        if NULL_ROW.search(content) and (problems := _json_problems(path, content)):
            raise UserError(report(str(path), problems))
        table = pa.json.read_json(pa.BufferReader(content), pa.json.ReadOptions(block_size=BLOCK))
    except OSError as error:
        raise _unreadable(path, "JSON lines", error) from error
    except pa.ArrowInvalid as error:
        unknown = [f"{path} cannot be read as JSON lines ({error}); one object a line is expected"]
        raise UserError(report(str(path), _json_problems(path, content) or unknown)) from error
    return _in_memory(str(path), table)


def _json_problems(path: Path, content: bytes) -> list[str]:
    """Lines that are no JSON objects, or whose values change their kind."""
    problems: list[str] = []
    kinds: dict[str, tuple[str, int]] = {}
    for line, text in enumerate(content.decode("utf-8-sig", "replace").split("\n"), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            problems.append(f"{path}, line {line}: found {text[:60]!r}, which is not JSON ({error})")
            continue
        if not isinstance(row, dict):
            problems.append(f"{path}, line {line}: found {text[:60]!r}; expected an object, one a line")
            continue
        for name, value in row.items():
            kind = "a number" if type(value) in (int, float) else f"a {type(value).__name__}"
            before, where = kinds.setdefault(name, (kind, line)) if value is not None else (kind, line)
            if kind != before:
                found = f"found {kind} ({str(value)[:40]!r}) but {before} in line {where}"
                problems.append(f"{path}, line {line}, column {name}: {found}; write one kind in all lines")
    return problems


def _parquet(path: Path) -> File:
    try:
        schema = pa.parquet.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        row = 1
        try:
            with pa.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS, columns=list(columns)):
                    yield _valid(str(path), batch, row)
                    row += len(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet from row {row} on: {error}") from error

    return File(str(path), _distinct(str(path), schema), batches)


def held(source: Source, name: str = "") -> File:
    """The table of a list of dicts, an Arrow table or a frame. name: what it is for, for messages."""
    listed = isinstance(source, list | tuple)
    kind = "the list of dicts" if listed else f"the {type(source).__module__.split('.')[0]} {type(source).__name__}"
    return (_listed if listed else _frame)(source, f"{name} ({kind})" if name else kind)


def _listed(rows: Sequence[Any], name: str) -> File:
    """One dict a row; a key that a row has not is an empty cell."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not all(isinstance(key, str) for key in row):
            raise UserError(f"{name}: row {number} is {row!r:.60}; expected a dict {{column: value}}")
    columns = {}
    for column in dict.fromkeys(key for row in rows for key in row):
        cells = [row.get(column) for row in rows]
        try:
            columns[column] = pa.array(cells, from_pandas=True)
        except UNFIT as error:
            raise UserError(_bad_cell(name, {column: cells}) or f"{name}, column {column}: {error}") from error
    return _in_memory(name, pa.table(columns))


def _frame(frame: Source, name: str) -> File:
    if isinstance(frame, pa.Table):
        return _in_memory(name, frame)
    if not hasattr(frame, "__arrow_c_stream__"):
        raise UserError(f"{name} is not a table; expected a file name, a frame, an Arrow table, or a list of dicts")
    try:
        return _in_memory(name, pa.table(frame))
    except UNFIT as error:
        wrong = f"{name} cannot be read: {error}"
        distinct = len(set(frame.columns)) == len(frame.columns)
        raise UserError(_bad_cell(name, {c: frame[c] for c in frame.columns} if distinct else {}) or wrong) from error


def _bad_cell(name: str, columns: Mapping[str, Iterable[Any]]) -> str:
    """The first cell that Arrow does not take, alone or beside what stands above it, "" if it is not to be found."""
    for column, cells in columns.items():
        first = None
        for row, value in enumerate(cells, 1):
            try:
                known = pa.array([first, value], from_pandas=True).is_valid()[1].as_py()
            except UNFIT as error:
                return f"{name}, row {row}, column {column}: found {value!r:.60} ({error}); write one kind of value in all rows"
            first = value if first is None and known else first
    return ""


def _in_memory(name: str, table: pa.Table) -> File:
    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        row = 1
        for batch in table.select(list(columns)).to_batches(ROWS):
            yield _valid(name, batch, row)
            row += len(batch)

    return File(name, _distinct(name, table.schema), batches)


def _distinct(name: str, schema: pa.Schema) -> pa.Schema:
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if twice:
        raise UserError(f"{name} names columns twice: {', '.join(twice)}; rename one of each{headless(schema.names)}")
    return schema


def _valid(name: str, batch: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """The batch, whose text is UTF-8; row is the number of its first row. UserError naming the first that is not."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
                continue
            for at, value in enumerate(values.cast(pa.large_binary())):
                try:
                    (value.as_py() or b"").decode()
                except UnicodeDecodeError as wrong:
                    place = f"{name}, row {row + at}, column {column}"
                    raise UserError(f"{place}: text is not UTF-8 at its byte {wrong.start}; write it again") from error
        raise UserError(f"{name}, rows {row} to {row + len(batch) - 1} are damaged: {error}") from error
    return batch
