"""Runs that are killed at any moment, or lose what they wrote last, end at the bits of one that nothing interrupted."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from mobjrec import checkpoint, record

pytestmark = pytest.mark.slow

TINY = Path(__file__).parent / "tiny.yaml"
# Weights with a state, a mean of parameters in the optimizer's, a memory in `satisfaction`.
CHANGES = [
    "weighting={use: uncertainty}",
    "optimizer={use: adamw, learning_rate: 3e-3, average: 0.9}",
    "evaluate={every: {steps: 2}, metrics: [ndcg@5], select: utility:click/ndcg@5, floors: {satisfaction/ndcg@5: 0.9}}",
    "save={every: {steps: 3}, keep: 2}",
    "steps=24",
]
STAGES = ("step", "save", "evaluate")
# How many kills: 3 for a quick look, 30 and three truncated steps to be sure.
KILLS = int(os.environ.get("MOBJREC_KILLS", "3"))

# The command, saying on its output what it begins and ends.
TELLING = """
import os, sys
from mobjrec import checkpoint, cli, train
say = lambda *words: os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def told(module, name, stage):
    function = getattr(module, name)
    def call(*given, **named):
        say("begin", stage)
        found = function(*given, **named)
        say("end", stage)
        return found
    setattr(module, name, call)
told(checkpoint, "write", "save")
told(train, "evaluated", "evaluate")
mapped = train.mapped_step
def telling(*given):
    step = mapped(*given)
    def call(state, batch):
        say("begin", "step")
        return step(state, batch)
    return call
train.mapped_step = telling
cli.main()
"""


class Ended(NamedTuple):
    """code: of the process, -9 after a kill   lines: what it said, [(seconds since its first step, word, stage)]"""

    code: int
    lines: list[tuple[float, str, str]]
    error: str


def trained(folder: Path, cache: Path, kill: tuple[str, int, float] | None = None) -> Ended:
    """The run, or what a kill left of it: `delay` seconds after the `count`th time that `stage` began."""
    command = [sys.executable, "-c", TELLING, "train", str(TINY), *CHANGES, "--run", str(folder)]
    environment = {**os.environ, "MOBJREC_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines, met, errors = [], 0, []
    reading = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reading.start()
    for line in process.stdout:
        word, _, stage = line.strip().partition(" ")
        if word not in ("begin", "end"):
            continue
        lines.append((time.monotonic(), word, stage))
        met += kill is not None and (word, stage) == ("begin", kill[0])
        if kill is not None and met == kill[1]:
            killer = threading.Timer(kill[2], process.kill)
            killer.start()
            met += 1
    process.wait()
    reading.join()
    process.stdout.close()
    process.stderr.close()
    return Ended(process.returncode, lines, errors[0])


def under_way(lines: list[tuple[float, str, str]]) -> str:
    """What a process was doing when it was killed: saves go on beside the rest."""
    saving = sum({"begin": 1, "end": -1}[word] for _, word, stage in lines if stage == "save") > 0
    others = [(word, stage) for _, word, stage in lines if stage != "save"]
    doing = "step" if not others or others[-1][0] == "end" else others[-1][1]
    return f"{doing} beside a save" if saving else doing


def state(folder: Path, name: str) -> tuple[dict, dict]:
    """(what the newest seal says, every leaf's type, shape and bytes)."""
    seal = checkpoint.sealed(folder, name=name)
    like = {path: jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"]) for path, leaf in seal["tree"].items()}
    found, seal = checkpoint.latest(folder, like, name=name)
    assert seal["skipped"] == []
    leaves = {path: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for path, leaf in found.items()}
    return {key: seal[key] for key in ("step", "run", "tree")}, leaves


def outcome(folder: Path) -> dict:
    """All that must not depend on interruptions; times are left out."""
    result = json.loads((folder / "result.json").read_text())
    del result["timing"]
    rows = [{key: value for key, value in row.items() if key not in record.TIMED} for row in record.rows(folder)]
    return {
        "newest": state(folder, checkpoint.RECENT),
        "best": state(folder, checkpoint.BEST),
        "steps": checkpoint.steps(folder),
        "rows": rows,
        "result": result,
    }


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert one[key] == other[key], key


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory) -> tuple[Path, dict[str, float]]:
    """(a run that nothing interrupted, how many seconds each stage takes)."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ended = trained(folder, cache)
    assert ended.code == 0, ended.error
    seconds, open_since = {stage: [] for stage in STAGES}, {}
    for when, word, stage in ended.lines:
        if stage == "step":
            seconds[stage] += [when - open_since[stage]] if stage in open_since else []
        elif word == "end":
            seconds[stage].append(when - open_since[stage])
        open_since[stage] = when
    return folder, {stage: float(np.median(times)) for stage, times in seconds.items()}


def test_the_state_that_is_compared_has_all_its_parts(whole):
    paths = state(whole[0], checkpoint.RECENT)[1]
    for part in ("params/encoder", "opt_state", "weighting_state", "memory/satisfaction"):
        assert any(path.startswith(part) for path in paths), part
    assert len([path for path in paths if path.startswith("opt_state")]) > 20


def test_kills_change_nothing(whole, cache, tmp_path):
    random = np.random.default_rng(0)
    folder, seconds = whole
    expected, hits, runs = outcome(folder), [], 0
    while len(hits) < KILLS:
        run, runs = tmp_path / str(runs), runs + 1
        while True:
            stage = STAGES[len(hits) % len(STAGES)]
            # Moments are shares of a stage's own time: they fall inside it on a machine of any speed.
            when = int(random.integers(1, 7)), float(random.uniform(0, 1.5) * seconds[stage])
            ended = trained(run, cache, (stage, *when) if len(hits) < KILLS else None)
            if ended.code == 0:
                break
            assert ended.code == -9, ended.error
            newest = (checkpoint.steps(run) or [0])[-1]
            hits.append(f"{under_way(ended.lines)}, newest sealed step {newest}")
        assert_same(outcome(run), expected)
        shutil.rmtree(run)
    print(f"{len(hits)} kills in {runs} runs survived:", *hits, sep="\n  ")


@pytest.mark.parametrize("seed", range(max(1, KILLS // 10)))
def test_a_truncated_newest_step_falls_back_to_the_one_before(seed, whole, cache, tmp_path):
    random = np.random.default_rng(seed)
    run = Path(shutil.copytree(whole[0], tmp_path / "run"))
    (run / "result.json").unlink()
    newest = checkpoint.steps(run)[-1]
    files = sorted(
        path for path in (run / "checkpoints" / str(newest)).rglob("*") if path.stat().st_size and path.is_file()
    )
    file = files[random.integers(len(files))]
    os.truncate(file, random.integers(file.stat().st_size))
    ended = trained(run, cache)
    assert ended.code == 0, ended.error
    assert f"step {newest} is not used: file {file.relative_to(run / 'checkpoints' / str(newest))}" in " ".join(
        ended.error.split()
    )
    assert sum(stage == "step" for _, _, stage in ended.lines) == 3
    assert_same(outcome(run), outcome(whole[0]))
