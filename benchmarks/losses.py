"""Loss and gradient of [512, 200]: ours, rax and torch (allRank's where it has one) in turns, after their values agree.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/losses.txt
    peers/bin/pip install --no-deps allrank==1.4.3
    python benchmarks/losses.py --peers peers/bin/python --keep

Each runs in a process of its own, on the jax that it works with, compiled where it can be; compiling is told apart. All
reduce to one number, so that the values can be compared. Rounds take turns, the median counts, by the wall and of all
cores: on a machine that is not idle only the second means something. Ratios are ours over theirs, below 1 being faster.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "losses.jsonl"
# Agreement of the reduced values in float32, of sums in another order and an epsilon in some logarithms.
APART = 2e-4
# Lists of what keeps [L, L] arrays of every one of its 50 rounds: 512 take 16 GB in torch.
FEW = {"neural_ndcg": 64}
PACKAGES = ("jax", "rax", "torch", "allrank", "numpy")

# {loss: (what computes value and gradient, which labels it is given)}
Works = dict[str, tuple[Callable[..., Any], str]]


def data(lists: int, items: int) -> dict[str, np.ndarray]:
    """Scores; grades 0 to 4 of which about a tenth is above 0; the same cut to 0/1; an order without ties."""
    random = np.random.default_rng(0)
    grades = np.where(random.random((lists, items)) < 0.1, random.integers(1, 5, (lists, items)), 0)
    grades[:, 0] = 1
    order = random.permuted(np.tile(np.arange(items) / items, (lists, 1)), axis=1)
    found = {"scores": random.normal(size=(lists, items)), "grades": grades, "binary": grades > 0, "order": order}
    return {name: array.astype(np.float32) for name, array in found.items()}


def of_jax(losses: dict[str, tuple[Callable[..., Any], str]]) -> Works:
    import jax

    def both(loss: Callable[..., Any]) -> Callable[..., Any]:
        program = jax.jit(jax.value_and_grad(loss))
        return lambda s, y: jax.block_until_ready(program(s, y))[0]

    return {name: (both(loss), labels) for name, (loss, labels) in losses.items()}


def ours(given: dict[str, np.ndarray]) -> Works:
    import jax.numpy as jnp

    from mobjrec import losses

    where = np.ones(given["scores"].shape, bool)
    grades = given["grades"]
    pairs = np.array([sum((row > grade).sum() for grade in row) for row in grades], np.float32)

    def mean(loss: Callable[..., Any], less: float = 0.0, **settings: Any) -> Callable[..., Any]:
        return lambda s, y: loss(s, y, where=where[: len(s)], **settings).mean() - less

    def over_pairs(loss: Callable[..., Any]) -> Callable[..., Any]:
        """The mean over all pairs, from the lists' means."""
        return lambda s, y: jnp.sum(loss(s, y, where=where) * (pairs / pairs.sum()))

    return of_jax(
        {
            "sigmoid_cross_entropy": (mean(losses.sigmoid_cross_entropy), "binary"),
            "softmax": (mean(losses.softmax), "grades"),
            "listnet": (mean(losses.listnet), "grades"),
            "list_mle": (mean(losses.list_mle), "order"),
            "pairwise_logistic": (over_pairs(losses.pairwise_logistic), "grades"),
            "hinge": (over_pairs(losses.hinge), "grades"),
            "lambda_rank": (mean(losses.lambda_rank), "grades"),
            "lambda_loss": (mean(losses.lambda_loss), "grades"),
            "approx_ndcg": (mean(losses.approx_ndcg, less=1.0, temperature=1.0), "grades"),
            "neural_ndcg": (mean(losses.neural_ndcg, less=1.0, temperature=1.0), "grades"),
        }
    )


def of_rax(given: dict[str, np.ndarray]) -> Works:
    import rax

    lists, items = given["scores"].shape

    def weighed(weight: Callable[..., Any]) -> Callable[..., Any]:
        """A mean over lists of sums; rax multiplies the weights by L."""
        settings = {"lambdaweight_fn": weight, "reduce_fn": lambda values, where: (values * where).sum()}
        return lambda s, y: rax.pairwise_logistic_loss(s, y, **settings) / (lists * items)

    def discounted(weight: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: weight(*args, **kwargs, normalize=True)

    approx = rax.approx_t12n(rax.ndcg_metric, temperature=1.0)
    return of_jax(
        {
            "sigmoid_cross_entropy": (rax.pointwise_sigmoid_loss, "binary"),
            "softmax": (rax.softmax_loss, "grades"),
            "list_mle": (rax.listmle_loss, "order"),
            "pairwise_logistic": (rax.pairwise_logistic_loss, "grades"),
            "hinge": (rax.pairwise_hinge_loss, "grades"),
            "lambda_rank": (weighed(discounted(rax.dcg_lambdaweight)), "grades"),
            "lambda_loss": (weighed(discounted(rax.dcg2_lambdaweight)), "grades"),
            "approx_ndcg": (approx, "grades"),
        }
    )


def of_torch(given: dict[str, np.ndarray]) -> Works:
    import torch

    # Its losses want one number of a module that loads its data, and names of one that copies files: each wants much more.
    sys.modules["allrank.data.dataset_loading"] = types.SimpleNamespace(PADDED_Y_VALUE=-1)
    sys.modules["allrank.utils.file_utils"] = types.SimpleNamespace(is_gs_path=None, copy_file_to_local=None)
    from allrank.models import losses as allrank

    lists = len(given["scores"])

    def both(loss: Callable[..., Any]) -> Callable[..., Any]:
        def run(scores: np.ndarray, labels: np.ndarray) -> Any:
            scores = torch.from_numpy(scores).requires_grad_()
            value = loss(scores, torch.from_numpy(labels))
            value.backward()
            return value.detach()

        return run

    def lambdas(scheme: str) -> Callable[..., Any]:
        settings = {"weighing_scheme": scheme, "reduction": "sum", "reduction_log": "natural"}
        return lambda s, y: allrank.lambdaLoss(s, y, **settings) / lists

    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    works = {
        "sigmoid_cross_entropy": (entropy, "binary"),
        "softmax": (lambda s, y: -(y * torch.log_softmax(s, -1)).sum(-1).mean(), "grades"),
        "listnet": (allrank.listNet, "grades"),
        "list_mle": (allrank.listMLE, "order"),
        "pairwise_logistic": (allrank.rankNet, "grades"),
        "lambda_rank": (lambdas("lambdaRank_scheme"), "grades"),
        "lambda_loss": (lambdas("ndcgLoss2_scheme"), "grades"),
        "approx_ndcg": (allrank.approxNDCGLoss, "grades"),
        "neural_ndcg": (allrank.neuralNDCG, "grades"),
    }
    return {name: (both(loss), labels) for name, (loss, labels) in works.items()}


WHOSE = {"ours": ours, "rax": of_rax, "torch": of_torch}


def work(whose: str, path: str) -> None:
    """A line {loss: [value, seconds of the first call]}, then, for each name read, a line [wall seconds, core seconds]."""
    given = dict(np.load(path))
    works = WHOSE[whose](given)

    def timed(name: str) -> tuple[Any, float, float]:
        function, labels = works[name]
        scores, labels = (given[one][: FEW.get(name)] for one in ("scores", labels))
        wall, cores = time.perf_counter(), time.process_time()
        value = function(scores, labels)
        return value, time.perf_counter() - wall, time.process_time() - cores

    first = {name: timed(name) for name in works}
    versions = {package: found for package in PACKAGES if (found := _version(package))}
    print(json.dumps([{name: [float(v), cores] for name, (v, _, cores) in first.items()}, versions]), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(line.strip())[1:]), flush=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def started(whose: str, python: str, path: str) -> subprocess.Popen:
    command = [python, __file__, "--worker", whose, "--data", path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def asked(process: subprocess.Popen, name: str = "") -> Any:
    if name:
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a worker ended; what it said stands above")
    return json.loads(line)


def main(peers: str, lists: int, items: int, rounds: int, keep: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "data.npz")
        np.savez(path, **data(lists, items))
        python = {"ours": sys.executable, "rax": peers, "torch": peers}
        workers = {whose: started(whose, python[whose], path) for whose in WHOSE}
        firsts, versions = {}, {}
        for whose, process in workers.items():
            firsts[whose], versions[whose] = asked(process)
        spent: dict[tuple[str, str], list[list[float]]] = {}
        for _ in range(rounds):
            for name in firsts["ours"]:
                for whose in [one for one in workers if name in firsts[one]]:
                    spent.setdefault((name, whose), []).append(asked(workers[whose], name))
        for process in workers.values():
            process.stdin.close()
            process.wait()
    machine = {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(), "machine": platform.machine()}
    for name, (value, compiling) in firsts["ours"].items():
        wall, cores = (
            {whose: statistics.median(t[n] for t in spent[name, whose]) for whose in WHOSE if (name, whose) in spent}
            for n in (0, 1)
        )
        theirs = {whose: firsts[whose][name][0] for whose in wall if whose != "ours"}
        worst = max(abs(other - value) / max(abs(value), 1e-3) for other in theirs.values())
        assert worst <= APART, f"{name}: ours is {value}, theirs {theirs}"
        row: dict[str, Any] = {
            "loss": name,
            "lists": min(lists, FEW.get(name, lists)),
            "items": items,
            "rounds": rounds,
            "apart": worst,
        }
        row |= {"seconds": wall, "core_seconds": cores, "compile_core_seconds": compiling}
        row["ratios"] = {how: _ratios(took) for how, took in (("wall", wall), ("cores", cores))}
        told = "; ".join(
            f"{how} " + ", ".join(f"{w} {r:.2f}" for w, r in rs.items()) for how, rs in row["ratios"].items()
        )
        print(f"{name:22} {cores['ours'] * 1e3:8.1f} ms of cores; ours / theirs: {told}; values {worst:.0e} apart")
        if keep:
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | machine | {"versions": versions}) + "\n")
    print(f"load {machine['load']} on {machine['cores']} cores; {versions}")


def _ratios(took: dict[str, float]) -> dict[str, float]:
    return {whose: took["ours"] / seconds for whose, seconds in took.items() if whose != "ours"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the python of the environment that has rax and torch")
    parser.add_argument("--lists", type=int, default=512)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help=f"append to benchmarks/results/{RESULTS.name}")
    parser.add_argument("--worker", choices=list(WHOSE), help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.data)
    elif given.peers:
        main(given.peers, given.lists, given.items, given.rounds, given.keep)
    else:
        parser.error("--peers is missing")
