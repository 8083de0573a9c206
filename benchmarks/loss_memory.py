"""Peak memory of losses with their gradient, and of AUC, on one list of 10,000 and of 100,000 items.

    python benchmarks/loss_memory.py                        # from the compiled programs alone
    python benchmarks/loss_memory.py --run 10000 --keep     # runs lists up to this long too; adds to the results

temporaries: what the compiled program allocates beside arguments and results, in MB; an [L, L] array of float32 would be
400 MB and 40,000 MB. Seconds are of processor time, of all threads, so that they mean something on a machine that is not idle.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobjrec import losses, metrics

RESULTS = Path(__file__).parent / "results" / "loss_memory.jsonl"
LOSSES = {
    "lambda_rank": losses.lambda_rank,
    "lambda_loss": losses.lambda_loss,
    "lambda_loss of precision@5": partial(losses.lambda_loss, metric="precision", k=5),
    "lambda_loss of average_precision": partial(losses.lambda_loss, metric="average_precision"),
    "pairwise_logistic": losses.pairwise_logistic,
    "recall_at_k": losses.recall_at_k,
    "softmax": losses.softmax,
    "list_mle": losses.list_mle,
}


def programs() -> dict[str, Callable[..., Any]]:
    """(scores, labels, where) -> value and gradient of each loss, and the value of the metric, which has none."""

    def both(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda s, y, where: jax.value_and_grad(lambda s: loss(s, y, where=where))(s)

    return {name: both(loss) for name, loss in LOSSES.items()} | {
        "auc": lambda s, y, where: metrics.auc(s, y, where=where)
    }


def measured(name: str, length: int, run: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = np.where(random.random(length) < 0.1, random.integers(1, 4, length), 0).astype(np.float32)
    given = random.normal(size=length).astype(np.float32), labels, np.ones(length, bool)
    began = time.process_time()
    program = jax.jit(programs()[name]).lower(*given).compile()
    row = {"what": name, "items": length, "compile_cpu_s": round(time.process_time() - began, 2)}
    row["temporaries_mb"] = round(program.memory_analysis().temp_size_in_bytes / 1e6, 3)
    if length <= run:
        began = time.process_time()
        jax.block_until_ready(program(*given))
        row |= {"run_cpu_s": round(time.process_time() - began, 3), "load": round(os.getloadavg()[0], 1)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", nargs="+", default=list(programs()), choices=list(programs()))
    parser.add_argument("--run", type=int, default=0, metavar="ITEMS", help="run lists up to this long once too")
    parser.add_argument("--keep", action="store_true", help=f"add the rows to {RESULTS.name}")
    given = parser.parse_args()
    machine = {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "processor": platform.machine()}
    machine["cores"] = os.cpu_count()
    for name in given.only:
        for length in given.items:
            row = measured(name, length, given.run) | machine
            print(json.dumps(row), flush=True)
            if given.keep:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
