"""`mobjrec.fit`: train from Python, on a config or on a table in memory; the same code as the command line."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobjrec import notes, shipped
from mobjrec.cache import cache_folder
from mobjrec.config import Config, plain
from mobjrec.data.files import File, held
from mobjrec.defaults import load, parse, settled
from mobjrec.errors import MISTAKES, RunFolderError, UserError
from mobjrec.overrides import override
from mobjrec.paths import located
from mobjrec.problems import report
from mobjrec.rank import Trained
from mobjrec.rank import load as load_run
from mobjrec.record import LOCK
from mobjrec.train import run as train_run

# Settings of a table that name a file.
SOURCES = ("events", "items", "users")


@notes.shown()
def fit(
    config: Config | Mapping[str, Any] | str | Path,
    events: Any = None,
    *,
    items: Any = None,
    users: Any = None,
    run: str | Path | None = None,
    changes: tuple[str, ...] = (),
    quiet: bool = False,
) -> Trained:
    """Train and open the run.

    config: a file, the name of a shipped config, a mapping like a file, or a Config; its `data` block may stand
        without files where frames are given
    events, items, users: pandas or polars frames, pyarrow Tables or lists of dicts, written beside the run as Parquet,
        which the run then reads in place of the files that the config names; files that no frame replaces are read where
        they lie
    run: the run folder; a new one under runs/ by default, which is taken away again where nothing could be trained
    changes: "a.b.c=value", over whatever `config` is
    UserError as on the command line, RunFolderError for a folder that cannot be one.
    """
    if not isinstance(config, str | Path | Mapping | Config):
        raise UserError(
            f"config is a {type(config).__name__}; expected a file, the name of a shipped config, a mapping or a Config; "
            "a frame is given beside it: fit(config, events=frame)"
        )
    if isinstance(config, str | Path):
        config = load(shipped.config(str(config)), changes)
    elif changes or not isinstance(config, Config):
        config = parse(_changed(config, changes))
    else:
        config = settled(config)
    frames = {"events": events, "items": items, "users": users}
    tables = {name: _held(name, frame) for name, frame in frames.items() if frame is not None}
    if tables and config.data.use != "table":
        raise UserError(f"data.use is {config.data.use}; frames are read by `table`, so give data: {{use: table, ...}}")
    folder = Path(run) if run is not None else _new_folder()
    try:
        config = with_frames(config, tables, folder) if tables else config
        train_run(config, folder, cache_folder(), quiet=quiet)
    except MISTAKES as error:
        if run is None:
            _taken_away(folder)
        if isinstance(error, UserError):
            raise UserError(_as_given(str(error), tables, folder)) from error
        raise
    return load_run(folder)


def with_frames(config: Config, tables: Mapping[str, File], folder: Path) -> Config:
    """The settled config reading these tables from Parquet files beside the run folder, and all else as before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = beside_of(folder)
    try:
        beside.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        # A ValueError is a NUL in the name.
        reason = getattr(error, "strerror", None) or error
        raise RunFolderError(f"{str(beside)!r} cannot be the folder of the frames: {reason}") from error
    data = plain(config.data)
    here = Path(data["path"])
    # What no table replaces stays where it lies.
    data |= {name: str(here / data[name]) for name in SOURCES if isinstance(data[name], str) and data[name]}
    for name, table in tables.items():
        whole = pa.Table.from_batches(table.batches(table.schema.names), table.schema)
        pq.write_table(whole, beside / f"{name}.parquet")
        data[name] = f"{name}.parquet"
    return parse({**plain(config), "data": {**data, "path": str(beside.resolve())}})


def beside_of(folder: Path) -> Path:
    """Where frames are written that the run in `folder` reads."""
    return folder.with_name(folder.name + "-data")


def _changed(config: Config | Mapping[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """A config's plain data with the changes in it."""
    places = dict(config.places) if isinstance(config, Config) else {}
    data = plain(config)
    if not isinstance(data, dict):
        return data
    data, problems = located(data, places), []
    override(data, changes, roots=tuple(Config.model_fields), places=places, problems=problems)
    if problems:
        raise report(problems, places)
    return data


def _held(name: str, frame: Any) -> File:
    if isinstance(frame, str | Path):
        raise UserError(f"{name} is {str(frame)!r}; expected a frame, as files are named by the config: data.{name}")
    return held(frame, name)


def _as_given(message: str, tables: Mapping[str, File], folder: Path) -> str:
    """The message with the frames as the user knows them in place of their files."""
    beside = beside_of(folder).resolve()
    for name, table in tables.items():
        # As `opened` names files: from the working directory where they lie below.
        for place in (beside, os.path.relpath(beside)):
            message = message.replace(f"{place}/{name}.parquet", table.name)
    return message


def _new_folder() -> Path:
    Path("runs").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="fit-", dir="runs"))


def _taken_away(folder: Path) -> None:
    """Remove a run folder in which nothing was written but its lock, and the frames beside it."""
    if all(path.name == LOCK for path in folder.iterdir()):
        shutil.rmtree(folder)
        shutil.rmtree(beside_of(folder), ignore_errors=True)
