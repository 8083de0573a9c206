"""Memory-mapped outputs of frozen encoders, keyed by weights and texts."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mobjrec.cache import unwritable


class States(NamedTuple):
    """What frozen lower layers make of N texts. begin: [N] row of a text's first token   states: [tokens, H] float32"""

    begin: np.ndarray
    states: np.ndarray


def taken(states: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """[R, T, H]: the states of these cells, 0 where a cell is -1."""
    return np.where((cells >= 0)[..., None], states[np.maximum(cells, 0)], np.float32(0.0))


def key_of(*parts: bytes | str | int | np.ndarray) -> str:
    """A content hash over everything a store depends on."""
    digest = hashlib.sha256()
    for part in parts:
        # A view, not a copy: of token ids there may be gigabytes. What is no plain memory, text, has no such view.
        array = isinstance(part, np.ndarray)
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8) if array else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def stored(
    folder: Path, key: str, count: int, width: int, fill: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
) -> np.ndarray:
    """[count, width] float32, from the file of this key, or filled by (rows, vectors) pairs and then written once.

    The file takes its place by an atomic rename; one of another size is made anew. UserError where it cannot be written.
    """
    path = folder / f"{key}.npy"
    if path.is_file():
        try:
            # Not `load`, which also takes archives and pickles.
            found = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, OSError, EOFError):
            found = None
        if found is not None and found.shape == (count, width) and found.dtype == np.float32:
            return found
    temporary = folder / f".{key}.{os.getpid()}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(count, width))
        for rows, vectors in fill():
            array[rows] = vectors
        array.flush()
        del array
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        # Where the folder itself is a file, there is nothing to remove.
        with contextlib.suppress(NotADirectoryError):
            temporary.unlink(missing_ok=True)
    return np.lib.format.open_memmap(path, mode="r")
