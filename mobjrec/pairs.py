"""Pairs of users and items in a Parquet file, scored piece by piece: memory does not grow with the file."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobjrec import evaluate
from mobjrec.errors import UserError
from mobjrec.rank import Trained
from mobjrec.told import checked_preference

SIDES = ("user", "item")
# Pairs that are in memory at a time.
ROWS = 1 << 16


def scored(trained: Trained, path: Path, out: Path, prefer: dict[str, float] | None = None) -> int:
    """Write the file's rows with a float32 column for each objective, and "utility"; the number of rows.

    `path` has the columns user and item; others are kept. The file takes its place whole, by a rename. UserError, with
    file, row and column, for an id that the run does not know, and for what is no Parquet file or lacks a column.
    """
    prefer = checked_preference(trained.parts, prefer)
    new = (*trained.parts.objectives, "utility")
    file = _opened(path, new)
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}; make it first")
    names = [*file.schema_arrow, *(pa.field(name, pa.float32()) for name in new)]
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    done = 0
    try:
        with pq.ParquetWriter(temporary, pa.schema(names)) as writer:
            for batch in file.iter_batches(ROWS):
                users, items = (_ids(trained, path, batch, side, done) for side in SIDES)
                found = trained.score(users, items, prefer)
                found["utility"] = evaluate.utility(found, trained.scale, prefer)
                columns = [pa.array(np.asarray(found[name], np.float32)) for name in new]
                writer.write_batch(pa.record_batch([*batch.columns, *columns], schema=writer.schema))
                done += batch.num_rows
        os.replace(temporary, out)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{out} cannot be written, or {path} not be read to its end: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return done


def _opened(path: Path, new: tuple[str, ...]) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no Parquet file that can be read: {error}") from error
    there = file.schema_arrow.names
    for name in SIDES:
        if name not in there:
            raise UserError(f"{path} has no column {name}; it has {', '.join(there)}: name them user and item")
    taken = [name for name in new if name in there]
    if taken:
        raise UserError(f"{path} has a column {taken[0]} already, which is to be written; rename or drop it")
    return file


def _ids(trained: Trained, path: Path, batch: pa.RecordBatch, side: str, before: int) -> list[str]:
    """The ids of a piece as text, all known. before: rows of the file that came before it"""
    column = batch.column(side)
    try:
        ids = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        raise UserError(
            f"{path}, column {side}: {column.type} cannot be read as ids; give text or whole numbers"
        ) from None
    known = trained.rows[side]
    for row, name in enumerate(ids, start=before + 1):
        if name not in known:
            found = "is empty" if name is None else f"there is no {side} {name!r} in the run's corpus"
            raise UserError(f"{path}, row {row}, column {side}: {found}; only pairs of known ids can be scored")
    return ids
