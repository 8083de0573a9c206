"""`mobjrec.fit`: train from Python, on a config or on a table in memory; the same code as the command line."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobjrec import notes
from mobjrec.cache import cache_folder
from mobjrec.config import Config, load, parse
from mobjrec.errors import UserError
from mobjrec.rank import Trained
from mobjrec.rank import load as load_run
from mobjrec.train import run as train_run


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

    config: a file, a mapping like one, or a Config; its `data` block may stand without files where frames are given
    events, items, users: pandas DataFrames or pyarrow Tables, written beside the run as Parquet, which the run then reads
    run: the run folder; a new one under runs/ by default   changes: "a.b.c=value"
    UserError as on the command line.
    """
    folder = Path(run) if run is not None else _new_folder()
    if isinstance(config, str | Path):
        config = load(Path(config), changes)
    elif not isinstance(config, Config):
        config = parse(config)
    frames = {"events": events, "items": items, "users": users}
    if any(frame is not None for frame in frames.values()):
        config = with_frames(config, frames, folder)
    train_run(config, folder, cache_folder(), quiet=quiet)
    return load_run(folder)


def with_frames(config: Config, frames: dict[str, Any], folder: Path) -> Config:
    """The config reading these frames from Parquet files beside the run folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mobjrec.config import plain

    beside = folder.with_name(folder.name + "-data")
    beside.mkdir(parents=True, exist_ok=True)
    data = {**plain(config.data), "use": "table", "path": str(beside)}
    for name, frame in frames.items():
        if frame is None:
            continue
        table = frame if isinstance(frame, pa.Table) else _arrow(name, frame)
        pq.write_table(table, beside / f"{name}.parquet")
        data[name] = f"{name}.parquet"
    return parse({**plain(config), "data": data})


def _arrow(name: str, frame: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (AttributeError, TypeError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{name}: expected a pandas DataFrame or a pyarrow Table, found {type(frame).__name__} ({error})"
        ) from error


def _new_folder() -> Path:
    Path("runs").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="fit-", dir="runs"))
