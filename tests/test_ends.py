"""How a run ends: what it leaves behind, what a second signal does, and what clocks and absent devices do to it."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import mobjrec
from mobjrec import checkpoint, cli, record, train
from mobjrec.config import load
from mobjrec.errors import NumericError, Stopped, UserError

TINY = Path(__file__).parent / "tiny.yaml"
# Ids alone, where it does not matter what is trained.
IDS = [
    "tokenizer=null",
    "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}",
    "weighting={use: equal}",
    "evaluate={metrics: [auc]}",
    "save={every: {steps: 1}, keep: 9}",
    "steps=12",
]


def left() -> tuple[set[str], set[str], set[str]]:
    """(threads of Python, children, sockets) of this process."""
    children, sockets = set(), set()
    for task in Path("/proc/self/task").iterdir():
        try:
            children |= set((task / "children").read_text().split())
        except OSError:
            # A thread that ended meanwhile.
            continue
    for handle in Path("/proc/self/fd").iterdir():
        try:
            sockets |= {target} if (target := os.readlink(handle)).startswith("socket:") else set()
        except OSError:
            continue
    return {f"{thread.name} {thread.ident}" for thread in threading.enumerate()}, children, sockets


@pytest.fixture(scope="module")
def first(tiny_cache, tmp_path_factory) -> Path:
    """A run that is over."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    train.run(load(TINY, IDS), folder, tiny_cache, quiet=True)
    return folder


def then(step: int, *numbers: int):
    """Record.write that raises these signals once the step is on record."""
    write = record.Record.write

    def written(self, number, kind, values):
        write(self, number, kind, values)
        for one in numbers if (number, kind) == (step, "train") else ():
            signal.raise_signal(one)

    return written


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="/proc lists what a process holds")
@pytest.mark.parametrize("end", ["error", "fault", "signal", "two signals"])
def test_no_thread_no_child_and_no_socket_is_left(end, first, tiny_cache, tmp_path, monkeypatch):
    # Libraries keep what they started for all runs.
    before, raised = left(), {"error": NumericError, "fault": ZeroDivisionError}.get(end, Stopped)
    assert not [name for name in before[0] if name.startswith(("batches", "save"))]
    if end == "fault":
        monkeypatch.setattr(train, "noted", lambda *_: 1 / 0)
    elif end != "error":
        monkeypatch.setattr(record.Record, "write", then(2, *[signal.SIGTERM] * (1 + (end == "two signals"))))
    changes = ["optimizer={use: sgd, learning_rate: 1e30}"] if end == "error" else []
    # Its traceback holds the frames of the run: they must not be what keeps a thread.
    with pytest.raises(raised) as held:
        train.run(load(TINY, [*IDS, *changes]), tmp_path / "run", tiny_cache, quiet=True)
    assert held.tb
    for now, was in zip(left(), before, strict=True):
        assert now <= was
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    # Nor is the folder kept.
    record.open(tmp_path / "run", "").close()


@pytest.mark.parametrize(
    ("signals", "code", "said", "sealed"),
    [
        ([signal.SIGINT], 130, "stopped by SIGINT; the same command goes on from here", [1, 2, 3]),
        # Step 3 was to be saved after its row was written.
        ([signal.SIGTERM, signal.SIGINT], 143, "stopped at once by SIGTERM; .* from the last sealed step", [1, 2]),
    ],
)
def test_a_second_signal_stops_at_once_and_what_is_sealed_is_whole(
    signals, code, said, sealed, tiny_cache, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    monkeypatch.setenv("MOBJREC_CACHE", str(tiny_cache))
    monkeypatch.setattr(sys, "argv", ["mobjrec", "train", str(TINY), *IDS, "--run", str(run)])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(record.Record, "write", then(3, *signals))
        cli.main()
    told = capsys.readouterr().err
    assert end.value.code == code and "Traceback" not in told and re.search(said, told)
    assert checkpoint.steps(run)[:3] == sealed
    train.run(load(TINY, IDS), run, tiny_cache, quiet=True)
    assert [row["step"] for row in record.rows(run) if row["kind"] == "train"] == list(range(1, 13))


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_duration_and_no_order(tiny_cache, tmp_path, monkeypatch):
    """Back a day, forward ten years, an hour of daylight saving: within a run, and between it and its resumption."""
    now, jumps = time.time, itertools.cycle(np.repeat([0.0, -86400.0, 10 * 365 * 86400.0, 3600.0], 7).tolist())
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(record.Record, "write", then(6, signal.SIGTERM))
        train.run(load(TINY, IDS), run, tiny_cache, quiet=True)
    # The newest by its number, whatever files say of their age.
    reached = checkpoint.steps(run)[-1]
    for step in checkpoint.steps(run):
        for path in (run / "checkpoints").glob(f"*{step}*"):
            os.utime(path, (now() - 86400 * step, now() - 86400 * step))
    result = train.run(load(TINY, IDS), run, tiny_cache, quiet=True)
    rows = [row for row in record.rows(run) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert json.loads((run / "env.json").read_text())[-1]["step"] == reached
    assert all(0 <= row[name] < 600 for row in rows for name in ("seconds", "wait"))
    assert all(0 <= seconds < 600 for seconds in result["timing"].values())


def test_the_wall_clock_is_read_for_views_and_the_start_alone():
    package, found = Path(train.__file__).parent, set()
    for path in package.rglob("*.py"):
        if any(word in path.read_text() for word in ("time.time(", "st_mtime", "getmtime", "datetime.now", "gmtime(")):
            found.add(path.name)
    assert found == {"views.py", "environment.py"}


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'tpu': no (set JAX_PLATFORMS='')")]
)
@pytest.mark.parametrize("start", ["train", "load"])
def test_devices_that_are_asked_for_and_not_there_are_an_error_that_names_those_here(
    start, error, first, tiny_cache, tmp_path, monkeypatch
):
    def absent():
        raise error

    monkeypatch.setattr(jax, "devices", absent)
    with pytest.raises(
        UserError, match=r"JAX_PLATFORMS is cpu, which is not there.*; the devices here are cpu:0, "
    ) as told:
        if start == "train":
            train.run(load(TINY, IDS), tmp_path / "run", tiny_cache, quiet=True)
        else:
            mobjrec.load(first, tiny_cache)
    assert ("Unable to initialize backend 'tpu': no)" in str(told.value)) == isinstance(error, RuntimeError)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_a_platform_that_is_not_there_is_code_2_and_never_the_cpu(tmp_path):
    there = {**os.environ, "JAX_PLATFORMS": "cuda", "MOBJREC_CACHE": str(tmp_path / "cache")}
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be one")
    command = [sys.executable, "-m", "mobjrec", "train", str(TINY), "--run", str(tmp_path / "run")]
    done = subprocess.run(command, env=there, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "JAX_PLATFORMS is cuda, which is not there; the devices here are cpu:0" in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
