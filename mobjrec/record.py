"""The run folder: who writes into it, with which config and on what machine, and every number that was measured.

    config.yaml         the complete config        env.json        a list with one entry a start
    metrics.jsonl       the record, a row a line   events/, wandb/ views of it, see views.py
    result.json         there once the run is over checkpoints/    and best/: see checkpoint.py
    mobjrec.lock        marks the folder as ours; locked as long as a process writes, by the kernel, so never stale

In a run of several processes only the first one opens the folder.
"""

import fcntl
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, final

import numpy as np

from mobjrec import views
from mobjrec.environment import changes, environment
from mobjrec.errors import RunFolderError

LOCK = "mobjrec.lock"
# What a clock says in a row of training: all else comes again to the bit.
TIMED = ("wait", "seconds", "lists_per_second")


class Status(NamedTuple):
    """How a run stands: last recorded step (-1 = none), whether a process writes (which, and where), if it is over."""

    step: int
    running: bool
    pid: int
    host: str
    over: bool


@final
class Record:
    """A locked run folder. `previous`: the config text it was started with, None for a new run.

    Nothing but the lock is written before `start`. Closing gives the folder back; leaving a `with` block closes.
    """

    def __init__(self, folder: Path, lock: int, config_text: str):
        self.folder = folder
        self.previous = _text(folder / "config.yaml")
        self.lost = 0
        self._lock, self._config = lock, config_text
        self._rows: int | None = None
        self._starts: list[dict[str, Any]] = []
        self._views: list[views.View] = []

    def start(
        self,
        step: int,
        command: Sequence[str] = tuple(sys.argv),
        again: bool = False,
        wandb: str | None = None,
        overridden: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[str]:
        """Make the folder that of a run at `step`: rows of later steps are cut, config and environment written.

        again: whether `step` is evaluated again, whose evaluations are cut, too   wandb: the project of a view there, None
        for no such view   overridden: config keys in which it was another run's
        Returns a sentence for each version or device that is not that of the last start. RunFolderError where the disk
        does not take them.
        """
        starts = starts_of(self.folder)
        now = {"step": step, "command": list(command), "overridden": dict(overridden), **environment()}
        with _written(self.folder):
            replaced(self.folder / "config.yaml", self._config)
            self._starts = [*starts, now]
            replaced(self.folder / "env.json", json.dumps(self._starts, indent=1))
            (self.folder / "result.json").unlink(missing_ok=True)
            _cut(self.folder / "metrics.jsonl", step, again)
            self._rows = os.open(self.folder / "metrics.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._views.append(views.tensorboard(self.folder, len(starts), step))
        if wandb is not None:
            self._views.append(views.wandb(self.folder, wandb))
        return changes(starts[-1], now) if starts else []

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """One row: {"step", "kind", **values}. `kind` is "train" or "eval"; `step` counts the updates done.

        values: numbers, strings, arrays and lists of them, host or device; what is not finite becomes null. Views get the
        finite scalars as KIND/NAME. A disk that is full loses the row, not the run: `lost` counts them.

        ValueError if a value is named step or kind.
        """
        if {"step", "kind"} & values.keys():
            raise ValueError("a value cannot be named 'step' or 'kind': those name the row itself")
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"step": step, "kind": kind, **plain}, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        size = os.fstat(self._rows).st_size
        try:
            if os.write(self._rows, line) < len(line):
                os.ftruncate(self._rows, size)
                raise OSError("the disk is full")
        except OSError as error:
            if not self.lost:
                print(f"cannot record step {step} in {self.folder}: {error}; the run goes on", file=sys.stderr)
            self.lost += 1
        scalars = {f"{kind}/{name}": value for name, value in plain.items() if isinstance(value, int | float)}
        self._seen(lambda view: view.scalars(step, scalars))

    def timed(self, clock: Mapping[str, float]) -> dict[str, float]:
        """Seconds by stage over all starts, `clock` being those of this one; env.json keeps them where the disk takes it."""
        self._starts[-1]["timing"] = {stage: round(seconds, 2) for stage, seconds in clock.items()}
        with suppress(OSError):
            replaced(self.folder / "env.json", json.dumps(self._starts, indent=1))
        return timing(self._starts)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """A text that only the views hold."""
        self._seen(lambda view: view.text(step, tag, markdown))

    def settings(self, values: Mapping[str, Any], metrics: Sequence[str]) -> None:
        """The settings {dotted key: value} that views compare runs by, and the names of the evaluation's metrics."""
        self._seen(lambda view: view.settings(values, [f"eval/{name}" for name in metrics]))

    def _seen(self, write: Callable[[views.View], None]) -> None:
        """What fails to be shown is lost, not the run: that view ends."""
        for view in list(self._views):
            try:
                write(view)
            except Exception as error:
                print(f"a view of {self.folder} ends here: {error}; metrics.jsonl goes on", file=sys.stderr)
                self._views.remove(view)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`: the run is over. A later start with more steps takes it away again.

        RunFolderError where the disk does not take it; given again, the command comes here from the last sealed step.
        """
        plain = {name: _plain(value) for name, value in result.items()}
        with _written(self.folder):
            replaced(self.folder / "result.json", json.dumps(plain, indent=1))

    def close(self) -> None:
        """Close the files and free the folder; a second call does nothing."""
        self._seen(lambda view: view.close())
        for handle in (self._rows, self._lock):
            if handle is not None:
                os.close(handle)
        self._views, self._rows, self._lock = [], None, None

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(folder: Path, config_text: str) -> Record:
    """The run folder, made if it is not there, locked until it is closed or the process ends in any way.

    RunFolderError if another process has it (named), if it holds files and is not a run's, if something in it is a link
    to outside, or if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path.name for path in folder.iterdir())
        if there and LOCK not in there:
            raise RunFolderError(
                f"{folder} is not a run folder: it holds {', '.join(there[:3])}{' ...' if len(there) > 3 else ''}; "
                "name an empty folder or one that does not exist yet"
            )
        folder = folder.resolve()
        _within(folder)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except (OSError, ValueError) as error:
        # A ValueError is a NUL in the name.
        known = "it is a file or a broken link" if isinstance(error, FileExistsError) else ""
        reason = known or getattr(error, "strerror", None) or error
        raise RunFolderError(f"{str(folder)!r} cannot be a run folder: {reason}") from error
    if not _locked(lock, fcntl.LOCK_EX, tries=3):
        os.close(lock)
        owner = _owner(folder)
        raise RunFolderError(
            f"{folder} is in use by process {owner.get('pid', 'unknown')} on {owner.get('host', 'this machine')}; "
            "wait for it, stop it, or give this run a folder of its own"
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    return Record(folder.resolve(), lock, config_text)


def _within(folder: Path) -> None:
    """RunFolderError where something in the folder is a link to outside: what is written or removed there is not ours."""
    for path in folder.iterdir():
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(folder):
            raise RunFolderError(
                f"{path} is a link to {real}; a run writes inside its folder alone: move that here, or link the whole folder"
            )


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of `metrics.jsonl` in the order of writing; a last line that is still being written is left out.

    Nothing if there is no record. RunFolderError for a broken line, with its number.
    """
    path = folder / "metrics.jsonl"
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not (isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str)):
            raise RunFolderError(f"{path}, line {number} is damaged; a resumed run drops it")
        yield row


def state(folder: Path) -> Status:
    """How the run in `folder` stands, looked at without disturbing it. RunFolderError if the folder is not a run's."""
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY)
    except OSError as error:
        raise RunFolderError(f"{folder} is not a run folder: it has no {LOCK}") from error
    running = not _locked(lock, fcntl.LOCK_SH)
    os.close(lock)
    owner = _owner(folder) if running else {}
    step = max((row["step"] for row in rows(folder)), default=-1)
    return Status(step, running, owner.get("pid", 0), owner.get("host", ""), (folder / "result.json").is_file())


def _locked(lock: int, kind: int, tries: int = 1) -> bool:
    for _ in range(tries):
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            # `state` holds the lock for an instant when it looks; a start must not fail by that.
            time.sleep(0.1 if tries > 1 else 0.0)
    return False


def _owner(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / LOCK).read_text())
    except ValueError:
        return {}


def timing(starts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage over these starts, each up to its last save or evaluation."""
    found: dict[str, float] = {}
    for start in starts:
        for stage, seconds in start.get("timing", {}).items():
            found[stage] = round(found.get(stage, 0.0) + seconds, 2)
    return found


def starts_of(folder: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(_text(folder / "env.json") or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and {"versions", "devices"} <= one.keys() and _timed(one.get("timing", {}))
        for one in found
    ):
        raise RunFolderError(f"{folder / 'env.json'} is damaged; move it away to go on without it")
    return found


def _timed(timing: Any) -> bool:
    return isinstance(timing, dict) and all(isinstance(seconds, int | float) for seconds in timing.values())


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise RunFolderError(
            f"{path} is damaged: {error}; put back what it was, or train into another folder"
        ) from error


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """RunFolderError, with path and reason, for what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; the steps sealed before are intact: "
            "mend that (df says if the disk is full) and give the same command again"
        ) from error


def replaced(path: Path, text: str) -> None:
    """Put a text in the place of a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _cut(path: Path, step: int, again: bool) -> None:
    """Leave the rows up to `step` and nothing of a line that a kill cut short.

    What the test split gave at `step` goes, too: that is measured before the first step and after the last save. And all
    evaluations there, if they are made `again`.
    """
    content = path.read_bytes() if path.is_file() else b""
    kept = []
    for line in content.splitlines(keepends=True):
        try:
            row = json.loads(line)
            comes = (
                row["step"] == step and row["kind"] == "eval" and (again or any(key.startswith("test/") for key in row))
            )
            keeps = line.endswith(b"\n") and row["step"] <= step and not comes
        except (ValueError, KeyError, TypeError):
            keeps = False
        kept += [line] if keeps else []
    if b"".join(kept) != content:
        replaced(path, b"".join(kept).decode())


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    array = np.asarray(value)
    # JSON's encoder knows no bfloat16, nor does `tolist`.
    return _plain((array.astype(np.float64) if array.dtype.kind == "V" else array).tolist())
