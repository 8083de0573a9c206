"""What serving costs: opening a run with and without its item matrix on disk, and the best ten of many users and items.

python benchmarks/inference.py RUN [--users 20000] [--items 100000] [--repeats 5]

RUN has a dot scorer and reads item texts (`mobjrec train ml-100k`). CPU seconds and wall seconds, medians over the repeats;
the peer is numpy's matrix product in the same blocks with argpartition, on one score where ours mixes all objectives.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import mobjrec
from mobjrec import catalogue
from mobjrec.inference import item_matrix

K = 10


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of CPU and wall seconds, after one run that compiles."""
    work()
    found = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return tuple(statistics.median(column) for column in zip(*found, strict=True))


def numpy_best(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    rows = np.empty((len(users), K), np.int64)
    for begin in range(0, len(users), catalogue.USERS):
        scores = users[begin : begin + catalogue.USERS] @ items.T
        part = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, part, 1), axis=1)
        rows[begin : begin + catalogue.USERS] = np.take_along_axis(part, order, 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    run = mobjrec.load(asked.run)
    parts, params = run.parts, run.params
    bare = parts.feed._replace(stored_items=None, lower_items=None)
    rows = {
        "item matrix, every text encoded": timed(lambda: item_matrix(parts.functions, params, bare), asked.repeats),
        "item matrix from disk": timed(lambda: np.asarray(catalogue.matrix(parts, params)), asked.repeats),
        "load, matrix on disk": timed(lambda: mobjrec.load(asked.run), asked.repeats),
    }
    random = np.random.default_rng(0)
    items = jax.device_put(random.normal(size=(asked.items, run.items.matrix.shape[1])).astype(np.float32))
    known = run._known_users(random.integers(0, len(parts.corpus.users.id), asked.users))
    gone = [np.zeros(0, np.int32)] * asked.users
    prefer = dict.fromkeys(parts.objectives, 1.0)
    given = (parts, params, run.memory, items, known, gone, K, run.scale, prefer)
    rows[f"best {K}, {asked.users} x {asked.items}"] = timed(lambda: catalogue.best(*given), asked.repeats)
    vectors = random.normal(size=(asked.users, items.shape[1])).astype(np.float32)
    rows["the same by numpy, one score"] = timed(lambda: numpy_best(vectors, np.asarray(items)), asked.repeats)
    print(f"{'':40} {'CPU s':>9} {'wall s':>9}")
    for name, (cpu, wall) in rows.items():
        print(f"{name:40} {cpu:9.2f} {wall:9.2f}")


if __name__ == "__main__":
    main()
