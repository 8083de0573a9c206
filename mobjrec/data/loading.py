"""The batches of a run, built ahead of the step that takes them."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np

from mobjrec.data import order
from mobjrec.data.batching import Feed, build
from mobjrec.data.sizes import Size
from mobjrec.types import Batch, Candidates, Lists

AHEAD = 4  # batches that wait to be taken


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
) -> Iterator[Loaded]:
    """The batches of steps start .. stop - 1, a function of (seed, step) alone, built by a thread of their own.

    part: (n, of), what of each batch is built, see `build`
    """

    def made(step: int) -> tuple[int, Batch, dict[str, float]]:
        step = int(step)
        rows = order.rows(seed, step, len(lists.user), batch)
        drawn = candidates(feed.dataset, lists, rows, order.random(seed, step))
        return step, *build(feed, lists, rows, drawn, sizes, multiple, part)

    source = grain.MapDataset.source(np.arange(start, stop)).map(made)
    waiting = iter(source.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)))
    while True:
        began = time.monotonic()
        found = next(waiting, None)
        if found is None:
            return
        yield Loaded(*found, time.monotonic() - began)
