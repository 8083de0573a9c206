"""What bounds a step's memory, and what that costs: rows in chunks, layers recomputed, both, neither.

    python benchmarks/memory.py                 # memory at 64, 256 and 1,024 lists
    python benchmarks/memory.py --what time     # a step's time likewise
    python benchmarks/memory.py --what flops    # per-device FLOPs of the compiled step on 1 and 8 virtual devices
    python benchmarks/memory.py --what processes    # a run of one process and the same of two, Linux alone

The encoder is `bert` at its default size over the synthetic corpus, user texts of 32 tokens. temporaries: what the compiled
step allocates beside arguments and results; peak: the largest resident set of a process that ran two steps; time: processor
time of a step, the ways in turn, as median and range of its ratio to the first way in the same round. processes: the largest
memory of each process' own and of files it has mapped (tokens, libraries), which processes of one machine share.
"""

import argparse
import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mobjrec import mesh
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.dry import flops
from mobjrec.parts import assemble, sizes_of
from mobjrec.train import mapped_step

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
LISTS, CHUNK = (64, 256, 1024), 16
# name -> (batch.chunk_rows, model.encoder.remat)
WAYS = {
    "plain": ("null", "false"),
    "layers again": ("null", "true"),
    "chunks": (str(CHUNK), "false"),
    "both": (str(CHUNK), "true"),
}
# What two processes train: many texts, little to compute.
LARGE = [
    "data={use: synthetic, users: 2000, items: 20000, topics: 8, lists_per_user: 10, list_size: 10}",
    "model.encoder={use: bert, layers: 1, width: 16, heads: 2}",
    "lists.split={use: by_time, valid: 0.01, test: 0.01}",
    "evaluate={metrics: [auc]}",
    "steps=4",
    "epochs=null",
    "parallel.devices=null",
]


def prepared(
    lists: int, way: str, cache: Path, devices: int = 1, encoder: str = "", multiple: int = CHUNK
) -> tuple[Any, Any, Any]:
    """(traced step, first state, batch) of one global batch, its rows the same whatever the way and the devices."""
    chunk, again = WAYS[way]
    changes = ["weighting={use: mgda}", f"batch.lists={lists}", f"batch.chunk_rows={chunk}"]
    changes += [f"model.encoder={{use: bert, dropout: 0.1, remat: {again}{encoder}}}", f"parallel.devices={devices}"]
    parts = assemble(load(QUICKSTART, changes), cache)
    train, over = parts.dataset.train, mesh.make(devices)
    rows = order.rows(0, 0, len(train.user), lists)
    drawn = parts.train_candidates(parts.dataset, train, rows, order.random(0, 0))
    batch, _ = build(parts.feed, train, rows, drawn, sizes_of(parts, multiple)[-1:], multiple)
    state = mesh.place(jax.jit(parts.first_state)(), over)
    return mapped_step(parts, over).trace(state, batch), state, batch


def one(lists: int, way: str, cache: Path) -> dict[str, float]:
    """MiB of the compiled step's temporaries, of its state, and of this process at its largest after two steps."""
    traced, state, batch = prepared(lists, way, cache)
    step = traced.lower().compile()
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    for _ in range(2):
        state, _ = jax.block_until_ready(step(state, batch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"temporaries": step.memory_analysis().temp_size_in_bytes, "state": held, "peak": peak}
    return {name: value / 2**20 for name, value in found.items()}


def times(lists: int, ways: list[str], rounds: int, cache: Path) -> dict[str, np.ndarray]:
    """[rounds] seconds of processor time of a step, the ways in turn; a first round of each is not counted."""
    steps, states, found = {}, {}, {way: [] for way in ways}
    for way in ways:
        traced, states[way], batch = prepared(lists, way, cache)
        steps[way] = traced.lower().compile()
    for number in range(rounds + 1):
        for way in np.roll(ways, number):
            began = time.process_time()
            states[way], _ = jax.block_until_ready(steps[way](states[way], batch))
            if number:
                found[way].append(time.process_time() - began)
    return {way: np.array(seconds) for way, seconds in found.items()}


def alone(what: str, *arguments: str, devices: int = 1) -> dict[str, Any]:
    """What `--what WHAT` says in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--what", what, *arguments]
    found = subprocess.run(command, env={**os.environ, "XLA_FLAGS": flags}, check=True, stdout=subprocess.PIPE)
    return json.loads(found.stdout.splitlines()[-1])


def counted(lists: int, cache: Path) -> dict[str, float]:
    """FLOPs a device: `compiled` as XLA counts them, the body of a loop once, and of the matrix products, loops counted.

    The encoder has one layer for the former, so that its loop is none.
    """
    found = {}
    for devices in (1, 8):
        traced, _, _ = prepared(lists, "plain", cache, devices, ", layers: 1")
        found[f"compiled {devices}"] = traced.lower().compile().cost_analysis()["flops"]
        found[f"products {devices}"] = flops(prepared(lists, "layers again", cache, devices)[0].jaxpr.jaxpr) / devices
    return found


def watched(commands: list[list[str]], environment: dict[str, str]) -> list[dict[str, float]]:
    """Run these together; the largest MiB of each of its own (`RssAnon`) and of mapped files (`RssFile`)."""
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    most = [dict.fromkeys(("RssAnon", "RssFile"), 0.0) for _ in processes]
    while any(process.poll() is None for process in processes):
        for process, found in zip(processes, most, strict=True):
            # A process that is over has neither.
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            for key, _, rest in (line.partition(":") for line in lines):
                if key in found:
                    found[key] = max(found[key], int(rest.split()[0]) / 1024)
        time.sleep(0.1)
    if any(process.returncode for process in processes):
        raise RuntimeError("a run failed; see above")
    return most


def of_processes(folder: Path) -> None:
    """Four steps over a larger synthetic corpus, on one process of two devices and on two of one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meeting = f"127.0.0.1:{listener.getsockname()[1]}"
    cache, command = folder / "cache", [sys.executable, "-m", "mobjrec", "train", str(QUICKSTART), *LARGE]
    together = ["--coordinator", meeting, "--processes", "2", "--process"]
    # The first one makes the tokens, which the others read.
    for name, devices, more in (("made", 2, [[]]), ("one", 2, [[]]), ("two", 1, [[*together, "0"], [*together, "1"]])):
        flags = f"--xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "MOBJREC_CACHE": str(cache), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        run = ["--run", str(folder / name)]
        for number, found in enumerate(watched([[*command, *run, *one] for one in more], environment)):
            said = f"its own {found['RssAnon']:,.0f} MiB, mapped files {found['RssFile']:,.0f} MiB"
            print(f"{name:5} process {number}: {said}", flush=True)
    tokens = sum(path.stat().st_size for path in (cache / "tokens").rglob("*") if path.is_file())
    print(f"token files: {tokens / 2**20:,.1f} MiB")


def main(what: str, lists: list[int], ways: list[str], rounds: int, cache: Path) -> None:
    if what == "one":
        print(json.dumps(one(lists[0], ways[0], cache)))
    elif what == "counted":
        print(json.dumps(counted(lists[0], cache)))
    elif what == "flops":
        for count in lists:
            found = alone("counted", "--lists", str(count), "--cache", str(cache), devices=8)
            for kind in ("compiled", "products"):
                alone_, eight = found[f"{kind} 1"], found[f"{kind} 8"]
                print(f"{count} lists, {kind}: 1 device {alone_ / 1e9:.3f} GFLOP, each of 8 {eight / 1e9:.3f}", end="")
                print(f", 8 x that is {8 * eight / alone_:.4f} of one device's", flush=True)
    elif what == "processes":
        of_processes(cache)
    elif what == "time":
        for count in lists:
            seconds = times(count, ways, rounds, cache)
            for name, found in seconds.items():
                ratio = found / seconds[ways[0]]
                said = f"{np.median(ratio):.3f} ({ratio.min():.3f}-{ratio.max():.3f}) x {ways[0]}"
                print(f"{count:5} lists  {name:13} {np.median(found):7.2f} s, {said}", flush=True)
    else:
        for count, name in itertools.product(lists, ways):
            found = alone("one", "--lists", str(count), "--ways", name, "--cache", str(cache))
            print(
                f"{count:5} lists  {name:13}", *(f"{kind} {mib:7,.0f} MiB" for kind, mib in found.items()), flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("memory", "time", "flops", "processes", "one", "counted"), default="memory")
    parser.add_argument("--lists", type=int, nargs="+", default=list(LISTS))
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS), help="ratios are to the first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="a folder for tokenised texts; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.what, given.lists, given.ways, given.rounds, given.cache or Path(folder))
