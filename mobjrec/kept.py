"""Per-list values kept beside an evaluation, `eval-SPLIT.npz`, with what says that two runs measured the same lists."""

import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mobjrec import evaluate
from mobjrec.data.batching import labels_of
from mobjrec.errors import RunFolderError
from mobjrec.parts import Parts, split_of
from mobjrec.types import Candidates


class Kept(NamedTuple):
    """What an evaluation measured of each of Q lists, in the order of the split.

    user: [Q] ids   time: [Q] int64, unix seconds   lists: [Q] uint64, a hash of user, time and the items ranked, in order
    labels: {label: [Q] uint64, a hash of its values on those items}   values: {key: [Q] float32, NaN where undefined}
    metrics: those that the config names, chosen before anything was measured
    """

    user: np.ndarray
    time: np.ndarray
    lists: np.ndarray
    labels: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    metrics: tuple[str, ...]


def kept(parts: Parts, split: str, candidates: Candidates | None, values: dict[str, np.ndarray]) -> Kept:
    """The values of an evaluation with the identity of its lists: what is drawn, is drawn again, from the same seed."""
    lists = split_of(parts, split)
    user = np.array(parts.dataset.users.id[lists.user].tolist(), str)
    names = parts.dataset.items.id.tolist()
    items = np.array([_hash(name.encode()) for name in names], np.uint64)
    labels = list(dict.fromkeys(evaluate.labels_measured(parts).values()))
    found: dict[str, list[int]] = {name: [] for name in ("", *labels)}
    for rows, drawn in evaluate.drawn_blocks(parts, lists, candidates or parts.eval_candidates):
        value, observed = labels_of(parts.dataset, lists, drawn)
        item = np.broadcast_to(items[drawn.item], drawn.where.shape)
        for place in np.flatnonzero(rows >= 0):
            row, where = rows[place], drawn.where[place]
            who = f"{user[row]}\0{lists.time[row]}\0".encode()
            found[""].append(_hash(who + item[place][where].tobytes()))
            for name in labels:
                known = np.where(observed[name][place], value[name][place], np.nan)[where].astype(np.float32)
                found[name].append(_hash(known.tobytes()))
    hashes = {name: np.array(column, np.uint64) for name, column in found.items()}
    return Kept(user, np.asarray(lists.time), hashes.pop(""), hashes, values, parts.config.evaluate.metrics)


def path_of(folder: Path, split: str, full: bool) -> Path:
    """Where the values of a split stand, beside the JSON of the same name."""
    return folder / f"eval-{split}{'-full' if full else ''}.npz"


def write(path: Path, content: Kept) -> None:
    """Write by an atomic rename, compressed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    arrays = {"user": content.user, "time": content.time, "lists": content.lists}
    arrays["metrics"] = np.array(content.metrics, str)
    for name, columns in (("labels", content.labels), ("values", content.values)):
        arrays[f"{name}_of"] = np.array(list(columns), str)
        arrays[name] = np.stack(list(columns.values())) if columns else np.zeros((0, len(content.lists)))
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read(path: Path) -> Kept:
    """What `write` wrote. RunFolderError for a file that is damaged."""
    try:
        with np.load(path) as file:
            columns = [dict(_named(file[f"{name}_of"], file[name])) for name in ("labels", "values")]
            return Kept(file["user"], file["time"], file["lists"], *columns, tuple(file["metrics"].tolist()))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{path} is damaged: {error}; `mobjrec eval` writes it anew") from error


def _named(names: np.ndarray, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield from zip(names.tolist(), rows, strict=True)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
