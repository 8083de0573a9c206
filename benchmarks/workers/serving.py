"""How a process that is timed talks to benchmarks/speed.py: a line when it is ready, then a line for each that it reads.

Standard library alone: every worker imports it, whatever environment it runs in.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

# What libraries print goes to the standard error; the answers have the standard output for themselves.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def spec() -> dict[str, Any]:
    """What this worker was told to do."""
    return json.loads(sys.argv[1])


def ready(**facts: Any) -> None:
    """Tells that the next line is waited for. facts: loss of the first step, versions, ..."""
    _answer(facts)


def told(work: Callable[[], dict[str, Any]]) -> None:
    """For every line read: the work, and a line of its numbers, its seconds by the wall and of all cores, the peak so far.

    work: () -> {"count": what a rate is of, ...}; it ends what it began, so that nothing runs on between two lines.
    """
    for _ in sys.stdin:
        clock = Clock()
        found = work()
        _answer({**clock.read(), **found})


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cores = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"wall": time.perf_counter() - self.wall, "cores": time.process_time() - self.cores}


def waited() -> bool:
    """Whether another line came; for work that calls back instead of being called."""
    return bool(sys.stdin.readline())


def answer(**facts: Any) -> None:
    _answer(facts)


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _answer(facts: dict[str, Any]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ANSWERS.write(json.dumps({**facts, "peak_gib": round(peak, 3)}) + "\n")
    ANSWERS.flush()
