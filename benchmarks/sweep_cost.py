"""What a sweep costs beside one run of its config: CPU and wall seconds of whole commands, in alternating processes.

    python benchmarks/sweep_cost.py [--config ml-100k] [--preferences 16] [--repeats 3] [KEY=VALUE ...]
    python benchmarks/sweep_cost.py --config tests/tiny.yaml --preferences 16 --repeats 1 tokenizer=null ...

Each command is a process of its own with a compilation cache of its own, empty at its start; what the data are turned into
(tokens, stored vectors) is there already, from a run that is not counted. CPU seconds are those of the process and its
children, which other work on the machine does not touch much; wall seconds mean something on a quiet machine alone.
Prints medians and their ratios; the target is at most 3 for 16 preferences.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """(CPU, wall) seconds of a command of ours that writes into `folder`."""
    compiled = folder.with_name(f"{folder.name}-compiled")
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "mobjrec", *words, "--run", str(folder)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="ml-100k")
    parser.add_argument("--preferences", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("changes", nargs="*")
    asked = parser.parse_args()
    one = ["train", asked.config, *asked.changes]
    metrics = [word for metric in asked.metric for word in ("--metric", metric)]
    many = ["sweep", asked.config, *asked.changes, "--preferences", str(asked.preferences), *metrics]
    found: dict[str, list[tuple[float, float]]] = {"one run": [], "sweep": []}
    with tempfile.TemporaryDirectory() as place:
        timed(one, Path(place) / "warm")
        for repeat in range(asked.repeats):
            for name, words in (("one run", one), ("sweep", many)):
                found[name].append(timed(words, Path(place) / f"{name.split()[0]}{repeat}"))
                print(f"{name} {repeat}: CPU {found[name][-1][0]:.1f} s, wall {found[name][-1][1]:.1f} s", flush=True)
    cpu, wall = (
        {name: statistics.median(pair[at] for pair in pairs) for name, pairs in found.items()} for at in (0, 1)
    )
    row = {
        "config": asked.config,
        "changes": asked.changes,
        "preferences": asked.preferences,
        "repeats": asked.repeats,
        "one_cpu": round(cpu["one run"], 1),
        "sweep_cpu": round(cpu["sweep"], 1),
        "ratio_cpu": round(cpu["sweep"] / cpu["one run"], 2),
        "ratio_wall": round(wall["sweep"] / wall["one run"], 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
