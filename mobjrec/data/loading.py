"""The batches of a run, built ahead of the step that takes them by a thread of their own."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from mobjrec.data import order
from mobjrec.data.batching import Feed, build
from mobjrec.data.sizes import Size
from mobjrec.errors import PeerError
from mobjrec.types import Batch, Candidates, Lists

AHEAD = 4  # batches that wait to be taken
PATIENCE = 120.0  # seconds in which one has to come
SLICES = 100


class Loaded(NamedTuple):
    """number: the step, from 0   numbers: tokens, cells, extra (see batching.build)   waited: seconds it took to come"""

    number: int
    batch: Batch
    numbers: dict[str, float]
    waited: float


def batches(
    feed: Feed,
    lists: Lists,
    candidates: Candidates,
    sizes: tuple[Size, ...],
    *,
    seed: int,
    batch: int,
    start: int,
    stop: int,
    multiple: int = 1,
    part: tuple[int, int] = (0, 1),
    patience: float = PATIENCE,
) -> Iterator[Loaded]:
    """The batches of steps start .. stop - 1, a function of (seed, step) alone.

    part: (n, of), what of each batch is built, see `build`
    Closing it ends the thread. What building raises is raised here; PeerError where no batch comes in `patience` seconds.
    """
    ready, room, left = queue.SimpleQueue(), threading.Semaphore(AHEAD), threading.Event()

    def work() -> None:
        try:
            for step in range(start, stop):
                room.acquire()
                if left.is_set():
                    return
                rows = order.rows(seed, step, len(lists.user), batch)
                drawn = candidates(feed.dataset, lists, rows, order.random(seed, step))
                ready.put((step, *build(feed, lists, rows, drawn, sizes, multiple, part)))
        except BaseException as error:
            ready.put(error)

    # A daemon: one that hangs must not keep the process from ending.
    worker = threading.Thread(target=work, name="batches", daemon=True)
    worker.start()
    try:
        for step in range(start, stop):
            began = time.monotonic()
            found = _taken(ready, patience, f"process {part[0]} of {part[1]}", step)
            room.release()
            yield Loaded(*found, time.monotonic() - began)
        worker.join()
    finally:
        left.set()
        room.release()
        worker.join(1.0)


def _taken(ready: queue.SimpleQueue, patience: float, who: str, step: int) -> Any:
    # In slices: a process that was stopped for a while (Ctrl-Z) loses one of them, not its patience.
    for _ in range(SLICES):
        try:
            found = ready.get(timeout=patience / SLICES)
        except queue.Empty:
            continue
        if isinstance(found, BaseException):
            raise found
        return found
    raise PeerError(
        f"{who}: the thread that builds batches has not made that of step {step + 1} in {patience:g} seconds; look for a "
        "disk or a candidates function that hangs; the same command goes on from the last sealed checkpoint"
    )
