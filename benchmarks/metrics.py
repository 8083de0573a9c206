"""Ten metrics at three cut-offs over 100,000 lists of 100 items: ours, ranx and pytrec_eval in one run, once they agree.

    python -m venv peers && peers/bin/pip install . -r benchmarks/peers/metrics.txt
    peers/bin/python benchmarks/metrics.py --keep

Each is given what suits it best, made before the clock starts: ours two arrays and a mask; ranx arrays of ids that are
sorted already, with and without the time of sorting them, and all threads; pytrec_eval, which has five of the ten, its
dicts. Compiling is told apart. Rounds take turns, the median counts; ratios are ours over theirs, below 1 being faster.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobjrec.metrics import named

RESULTS = Path(__file__).parent / "results" / "metrics.jsonl"
CUTS, BLOCK = (5, 10, 20), 4096
# Ours, and what ranx calls it. ranx's map divides by all relevant items, ours by min(K, these) unless told.
RANX = {
    "ndcg": "ndcg_burges", "dcg": "dcg_burges", "ndcg_linear": "ndcg", "dcg_linear": "dcg", "average_precision": "map",
    "mrr": "mrr", "precision": "precision", "recall": "recall", "f": "f1", "hit": "hit_rate",
}  # fmt: skip
PYTREC = {
    "ndcg_linear": "ndcg_cut", "average_precision": "map_cut", "precision": "P", "recall": "recall", "hit": "success",
}  # fmt: skip


def data(lists: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, grades 0 to 4 of which about a tenth is above 0, and a mask; each list has something relevant."""
    random = np.random.default_rng(0)
    scores = np.argsort(random.random((lists, items), np.float32), axis=-1).astype(np.float32)
    grades = random.integers(1, 5, (lists, items))
    relevant = random.random((lists, items)) < 0.1
    relevant[:, 0] |= ~relevant.any(-1)
    return scores, np.where(relevant, grades, 0).astype(np.float32), np.ones((lists, items), bool)


def metric(name: str, k: int) -> Callable[..., jax.Array]:
    if name == "average_precision":
        return lambda s, y, where: named(f"{name}@{k}")(s, y, where=where, capped=False)
    gain = "linear" if name.endswith("_linear") else "exponential"
    made = named(f"{name.removesuffix('_linear')}@{k}", gain)
    return lambda s, y, where: made(s, y, where=where)


def ours(scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> tuple[Callable[[], dict], float]:
    """(what computes {(metric, k): [Q]}, seconds of compiling)."""
    made = {(name, k): metric(name, k) for name in RANX for k in CUTS}
    together = jax.jit(lambda s, y, w: {key: one(s, y, w) for key, one in made.items()})
    block = min(BLOCK, len(scores))
    began = time.perf_counter()
    program = together.lower(
        *(jax.ShapeDtypeStruct((block, scores.shape[1]), a.dtype) for a in (scores, labels, where))
    )
    program = program.compile()
    compiling = time.perf_counter() - began

    def run() -> dict[tuple[str, int], np.ndarray]:
        # The last block is filled from the list before it, so that all have the one shape.
        starts = [min(begin, len(scores) - block) for begin in range(0, len(scores), block)]
        found = [program(*(a[at : at + block] for a in (scores, labels, where))) for at in starts]
        fresh = len(scores) - block * (len(starts) - 1)
        cut = [*found[:-1], jax.tree.map(lambda a: a[block - fresh :], found[-1])]
        return {key: np.concatenate([np.asarray(one[key]) for one in cut]) for key in made}

    return run, compiling


def of_ranx(scores: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[], dict], float]:
    """(what sorts, what computes, seconds of the first call): arrays [Q, n, 2] of (id, score), by falling score."""
    from ranx import evaluate

    held: dict[str, np.ndarray] = {}
    names = [f"{one}@{k}" for one in RANX.values() for k in CUTS]
    most = int((labels > 0).sum(-1).max())
    best = np.argsort(-labels, axis=-1, kind="stable")[:, :most]
    # Relevant items alone: it looks for every ranked item among them.
    qrels = np.stack([best.astype(float), np.take_along_axis(labels, best, -1).astype(float)], -1)

    def sort() -> None:
        order = np.argsort(-scores, axis=-1)
        held["run"] = np.stack([order.astype(float), np.take_along_axis(scores, order, -1).astype(float)], -1)

    def run() -> dict[tuple[str, int], np.ndarray]:
        found = evaluate(qrels, held["run"], names, return_mean=False)
        return {(name, k): found[f"{one}@{k}"] for name, one in RANX.items() for k in CUTS}

    sort()
    began = time.perf_counter()
    run()
    return sort, run, time.perf_counter() - began


def of_pytrec(scores: np.ndarray, labels: np.ndarray) -> Callable[[], dict]:
    import pytrec_eval

    measures = {f"{one}.{','.join(map(str, CUTS))}" for one in PYTREC.values()}
    ids = [f"d{item}" for item in range(scores.shape[1])]
    lists = [f"q{row}" for row in range(len(scores))]
    qrels = {
        q: {ids[item]: int(labels[row, item]) for item in np.flatnonzero(labels[row])} for row, q in enumerate(lists)
    }
    run = {q: dict(zip(ids, row, strict=True)) for q, row in zip(lists, scores.tolist(), strict=True)}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, measures)

    def evaluate() -> dict[tuple[str, int], np.ndarray]:
        found = evaluator.evaluate(run)
        return {
            (name, k): np.array([found[q][f"{one}_{k}"] for q in lists]) for name, one in PYTREC.items() for k in CUTS
        }

    return evaluate


def agree(mine: dict, theirs: dict, whose: str) -> float:
    """The largest difference of any list's value, relative where that is above 1. AssertionError beyond 1e-6."""
    worst = 0.0
    for key, values in theirs.items():
        apart = np.abs(mine[key] - values) / np.maximum(np.abs(values), 1.0)
        worst = max(worst, float(apart.max()))
        assert worst <= 1e-6, f"{key}: {apart.max():.2e} from {whose}"
    return worst


def timed(one: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the wall and of all cores."""
    wall, cores = time.perf_counter(), time.process_time()
    one()
    return time.perf_counter() - wall, time.process_time() - cores


def main(lists: int, items: int, rounds: int, keep: bool) -> None:
    scores, labels, where = data(lists, items)
    mine, compiling = ours(scores, labels, where)
    sort, ranx, first = of_ranx(scores, labels)
    pytrec = of_pytrec(scores, labels)
    found = mine()
    for whose, values in (("ranx", ranx()), ("pytrec_eval", pytrec())):
        print(f"{whose}: {len(values)} values a list, at most {agree(found, values, whose):.1e} apart")
    works = {"ours": mine, "ranx sorting": sort, "ranx": ranx, "pytrec_eval": pytrec}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, one in works.items():
            spent[name].append(timed(one))
    wall, cores = ({name: statistics.median(t[n] for t in times) for name, times in spent.items()} for n in (0, 1))
    row: dict[str, Any] = {"lists": lists, "items": items, "metrics": len(RANX), "cuts": CUTS, "rounds": rounds}
    row |= {"seconds": wall, "core_seconds": cores, "compile": {"ours": compiling}, "first_call": {"ranx": first}}
    row |= {"load": os.getloadavg()[0], "cores": os.cpu_count(), "machine": platform.machine()}
    row |= {"versions": {name: version(name) for name in ("jax", "numpy", "ranx", "pytrec-eval-terrier")}}
    row["ratios"] = {
        how: {
            "ranx": took["ours"] / took["ranx"],
            "ranx with its sort": took["ours"] / (took["ranx"] + took["ranx sorting"]),
            "pytrec_eval, half the metrics": took["ours"] / took["pytrec_eval"],
        }
        for how, took in (("wall", wall), ("cores", cores))
    }
    for name in works:
        print(f"{name:14} {wall[name]:7.3f} s, of all cores {cores[name]:7.3f} s")
    for how, ratios in row["ratios"].items():
        print(f"ours / theirs, {how}:", ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    print(f"compiling: ours {compiling:.1f} s; ranx's first call {first:.1f} s (numba keeps what it compiled)")
    print(f"load {row['load']:.1f} on {row['cores']} cores")
    if keep:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="append to benchmarks/results/metrics.jsonl")
    given = parser.parse_args()
    main(given.lists, given.items, given.rounds, given.keep)
