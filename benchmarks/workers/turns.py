"""Workers in turns: environments made, processes started, asked one after the other, their rates compared."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
# First losses in float32, of sums in another order.
APART = 1e-4


class Run(NamedTuple):
    """cache: mobjrec's   peers: folder of environments   folder: for what lasts as long as the run   tiny: does it work

    ml_1m: IR-Benchmark's folder of that name, or None
    """

    cache: Path
    peers: Path
    folder: Path
    rounds: int
    tiny: bool
    ml_1m: Path | None = None


class Task(NamedTuple):
    """A worker: its script here, what it is told, the environment (a file of benchmarks/peers/; "" = this one's)."""

    script: str
    spec: dict[str, Any]
    environment: str = ""


def environment(name: str, folder: Path) -> str:
    """The python of an environment that holds what benchmarks/peers/NAME.txt lists, made now if it is not there."""
    wanted = HERE.parent / "peers" / f"{name}.txt"
    place = folder / f"{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:8]}"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        print(f"making {place} from {wanted.name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(wanted)], check=True)
        (place / "done").touch()
    return str(python)


def started(task: Task, run: Run) -> tuple[subprocess.Popen, dict[str, Any]]:
    """(the process, what it says when it is ready)."""
    python = environment(task.environment, run.peers) if task.environment else sys.executable
    threads = {name: str(os.cpu_count()) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    # A variable that names other libraries' folders must not reach another environment.
    kept = {name: value for name, value in os.environ.items() if task.environment == "" or name != "PYTHONPATH"}
    quiet = {
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    if run.tiny:
        # To compile is most of what a tiny run does.
        quiet["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    process = subprocess.Popen(
        [python, str(HERE / task.script), json.dumps(task.spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=kept | threads | quiet,
        cwd=run.folder,
    )
    return process, answer(process)


def answer(process: subprocess.Popen) -> dict[str, Any]:
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a worker ended; what it said stands above")
    return json.loads(line)


def asked(process: subprocess.Popen) -> dict[str, Any]:
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process)


def ended(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.wait()


def in_turns(
    tasks: Mapping[str, Task], run: Run, check: Callable[[dict[str, dict]], object] = lambda said: None
) -> tuple[dict[str, dict], dict[str, list[dict]]]:
    """({who: what it said when ready}, {who: [rounds] its answers}): each round another begins.

    check: of what they said, before anything is timed
    """
    workers, said = {}, {}
    for who, task in tasks.items():
        workers[who], said[who] = started(task, run)
        print(f"{who}: ready", {k: v for k, v in said[who].items() if k != "versions"}, file=sys.stderr, flush=True)
    check(said)
    found: dict[str, list[dict]] = {who: [] for who in tasks}
    for number in range(run.rounds):
        for who in np.roll(list(workers), number).tolist():
            found[who].append(asked(workers[who]))
            print(f"{who}: {found[who][-1]}", file=sys.stderr, flush=True)
    for process in workers.values():
        ended(process)
    return said, found


def equal(said: dict[str, dict], names: list[str]) -> float:
    """The largest relative difference of the first losses from the first's. AssertionError beyond APART."""
    losses = {who: said[who]["loss"] for who in names}
    mine = losses[names[0]]
    worst = max(abs(one - mine) / max(abs(mine), 1e-3) for one in losses.values())
    assert worst <= APART, f"first losses differ: {losses}"
    return worst


def rates(answers: list[dict], how: str) -> np.ndarray:
    return np.array([one["count"] / one[how] for one in answers])


def rate(answers: list[dict], unit: str = "/s") -> str:
    """The median rate by the wall, in three digits."""
    return f"{float(format(np.median(rates(answers, 'wall')), '.3g')):,g} {unit}"


def ratio(mine: list[dict], theirs: list[dict]) -> dict[str, list[float]]:
    """{"wall", "cores": [median, least, most] of ours over theirs, round by round}."""
    found = {}
    for how in ("wall", "cores"):
        each = rates(mine, how) / rates(theirs, how)
        found[how] = [float(np.median(each)), float(each.min()), float(each.max())]
    return found


def compared(
    what: str, goal: str, tasks: Mapping[str, Task], run: Run, unit: str = "/s", pairs: Any = None, checked: Any = None
) -> list[dict]:
    """A row for each other worker: the first one's rate over its.

    pairs: {other: goal} in place of `goal` for all   checked: those whose first loss must equal the first one's (all)
    """
    mine, *others = tasks
    names = [mine, *(others if checked is None else checked)]
    said, found = in_turns(tasks, run, lambda said: equal(said, names) if len(names) > 1 else None)
    apart = equal(said, names) if len(names) > 1 else None
    rows = []
    for other in others:
        row = {
            "what": what.format(other=other),
            "goal": (pairs or {}).get(other, goal),
            "ratio": ratio(found[mine], found[other]),
        }
        row |= {"ours": rate(found[mine], unit), "theirs": rate(found[other], unit)}
        row |= {"apart": apart, "loss": {who: said[who].get("loss") for who in (mine, other)}, "rounds": run.rounds}
        row |= {"versions": {who: said[who].get("versions") for who in (mine, other)}}
        row |= {"raw": {who: found[who] for who in (mine, other)}}
        rows.append(row)
    return rows
