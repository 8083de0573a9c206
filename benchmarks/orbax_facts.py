"""What orbax does by itself where a checkpoint is damaged, misused or cut short: one row a situation.

    python benchmarks/orbax_facts.py

These are the traps that mobjrec/checkpoint.py is built around; run it when orbax has a new version, and compare.
"""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

STATE = {"w": jnp.arange(4096, dtype=jnp.float32), "n": jnp.int32(7)}
SHAPES = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), STATE)
# Saves one large step, says so, begins the next and lives until it is killed.
SAVER = """
import sys, time, jax.numpy as jnp, orbax.checkpoint as ocp
manager = ocp.CheckpointManager(sys.argv[1])
state = {str(n): jnp.full((23_000_000,), n, jnp.float32) for n in range(3)}
manager.save(1, args=ocp.args.StandardSave(state)); manager.wait_until_finished()
manager.save(2, args=ocp.args.StandardSave(state)); print("saving", flush=True); time.sleep(60)
"""


def manager(folder: Path, **options: Any) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options))


def saved(folder: Path, *steps: int, state: Any = STATE) -> None:
    with manager(folder) as one:
        for step in steps:
            one.save(step, args=ocp.args.StandardSave(state))
        one.wait_until_finished()


def restored(folder: Path, like: Any = SHAPES, step: int | None = None) -> Any:
    with manager(folder) as one:
        return one.restore(one.latest_step() if step is None else step, args=ocp.args.StandardRestore(like))


def told(found: Any) -> str:
    """Whether a restored state is the one that was saved."""
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(STATE), strict=True))
    return "restores the values" if same else "RESTORES OTHER VALUES WITHOUT A WORD"


def largest(folder: Path) -> Path:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name == "d")
    return max(files, key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damaged(folder: Path, pick: Callable[[Path], Path], damage: Callable[[Path], Any]) -> str:
    saved(folder, 1)
    damage(pick(folder / "1"))
    return told(restored(folder))


def named(name: str) -> Callable[[Path], Path]:
    return lambda step: next(path for path in sorted(step.rglob(name)) if path.is_file())


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def killed(folder: Path) -> str:
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as one:
        one.stdout.readline()
        time.sleep(0.05)
        one.kill()
    left = sorted(path.name for path in folder.iterdir())
    with manager(folder, cleanup_tmp_directories=True) as again:
        latest = again.latest_step()
        shapes = {str(n): jax.ShapeDtypeStruct((23_000_000,), jnp.float32) for n in range(3)}
        exact = all(
            (leaf == int(n)).all() for n, leaf in again.restore(1, args=ocp.args.StandardRestore(shapes)).items()
        )
    after = sorted(path.name for path in folder.iterdir())
    return f"left {left}, latest {latest}, step 1 exact: {exact}; opened with cleanup_tmp_directories: {after}"


def empty_step(folder: Path) -> str:
    saved(folder, 1)
    (folder / "2").mkdir()
    with manager(folder) as one:
        latest = one.latest_step()
    return f"latest is {latest}; {told(restored(folder))}"


def of_dtype(name: str, dtype: Any) -> str:
    def situation(folder: Path) -> str:
        saved(folder, 1)
        found = restored(folder, {**SHAPES, name: jax.ShapeDtypeStruct(STATE[name].shape, dtype)})[name]
        return f"{STATE[name].dtype} becomes {found.dtype} WITHOUT A WORD"

    return situation


def like(**leaves: Any) -> Callable[[Path], str]:
    """A restore into a tree with these leaves changed; None takes one away."""

    def situation(folder: Path) -> str:
        saved(folder, 1)
        wanted = {name: leaf for name, leaf in {**SHAPES, **leaves}.items() if leaf is not None}
        return f"restores {sorted(restored(folder, wanted))}"

    return situation


def again(step: int, **named: Any) -> Callable[[Path], str]:
    def situation(folder: Path) -> str:
        saved(folder, 1, 2)
        with manager(folder) as one:
            return f"save returns {one.save(step, args=ocp.args.StandardSave(STATE), **named)}"

    return situation


def two_managers(folder: Path) -> str:
    with manager(folder, max_to_keep=2) as one, manager(folder, max_to_keep=2) as other:
        for step in range(1, 7):
            (one if step % 2 else other).save(step, args=ocp.args.StandardSave(STATE))
        one.wait_until_finished()
        other.wait_until_finished()
        seen = one.all_steps(), other.all_steps()
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    return f"with max_to_keep=2 each sees {seen}, the folder holds {steps}"


def leaf(value: Any) -> Callable[[Path], str]:
    def situation(folder: Path) -> str:
        saved(folder, 1, state={"leaf": value, "other": jnp.ones(1)})
        found = restored(folder, {"leaf": value, "other": jax.ShapeDtypeStruct((1,), jnp.float32)})["leaf"]
        return f"restores {type(found).__name__} {getattr(found, 'dtype', '')}"

    return situation


def kinds(folder: Path) -> str:
    state = {
        name: jnp.array([0, 1, 2], name) for name in ("bfloat16", "float16", "float8_e4m3fn", "int8", "uint32", "bool")
    }
    state |= {
        "key": jax.random.key(3),
        "rbg": jax.random.key(3, impl="rbg"),
        "keys": jax.random.split(jax.random.key(3)),
    }
    state |= {
        "odd": jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45]),
        "f64": np.array([0.1]),
        "i64": np.array([2**62]),
        "int": 2**40,
    }
    saved(folder, 1, state=state)
    found, wrong = restored(folder, state), []
    for name, old in state.items():
        new = found[name]
        a, b = ((jax.random.key_data(x) if name in ("key", "rbg", "keys") else x) for x in (old, new))
        if type(old) is not type(new) or np.asarray(a).tobytes() != np.asarray(b).tobytes():
            wrong.append(name)
    return f"{len(state) - len(wrong)} of {len(state)} kinds exact; wrong: {wrong}"


def other_devices(folder: Path) -> str:
    script = "import sys, pathlib, jax.numpy as jnp, jax, numpy as np; import orbax.checkpoint as ocp\n"
    script += "one = jax.sharding.NamedSharding(jax.make_mesh((8,), ('data',)), jax.sharding.PartitionSpec('data'))\n"
    script += "with ocp.CheckpointManager(sys.argv[1]) as m:\n"
    script += (
        "    m.save(1, args=ocp.args.StandardSave({'w': jax.device_put(jnp.ones(16), one)})); m.wait_until_finished()\n"
    )
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", script, str(folder)], env=flags, check=True, capture_output=True)
    with manager(folder) as one:
        return f"restores {one.restore(1, args=ocp.args.StandardRestore())}"


def full_disk(folder: Path) -> str:
    """A tmpfs of 40 MB, for which one must be root; it is written to until it is full."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", folder], capture_output=True).returncode:
        return "not measured: no tmpfs can be had here"
    try:
        with manager(folder) as one:
            one.save(1, args=ocp.args.StandardSave(STATE))
            one.wait_until_finished()
            big = np.random.default_rng(0).random(12_500_000)
            found = f"save returns {one.save(2, args=ocp.args.StandardSave({'w': big}))}; waiting: "
            try:
                one.wait_until_finished()
            except Exception as error:
                found += f"{type(error).__name__}: {sentence(error)}"
        return f"{found}; step 1: {told(restored(folder, step=1))}"
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)


def sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0][:110] + (f" ... ({len(lines)} lines)" if len(lines) > 1 else "")


SITUATIONS: dict[str, Callable[[Path], str]] = {
    "SIGKILL in an asynchronous save": killed,
    "a flipped byte in a data file": lambda folder: damaged(folder, largest, flip),
    "a truncated data file": lambda folder: damaged(folder, largest, halved),
    "an empty data file": lambda folder: damaged(folder, largest, lambda path: os.truncate(path, 0)),
    "a deleted data file": lambda folder: damaged(folder, largest, Path.unlink),
    "a truncated manifest.ocdbt": lambda folder: damaged(folder, named("manifest.ocdbt"), halved),
    "a deleted manifest.ocdbt": lambda folder: damaged(folder, named("manifest.ocdbt"), Path.unlink),
    "a truncated _METADATA": lambda folder: damaged(folder, named("_METADATA"), halved),
    "a deleted _METADATA": lambda folder: damaged(folder, named("_METADATA"), Path.unlink),
    "a truncated _CHECKPOINT_METADATA": lambda folder: damaged(folder, named("_CHECKPOINT_METADATA"), halved),
    "a deleted _CHECKPOINT_METADATA": lambda folder: damaged(folder, named("_CHECKPOINT_METADATA"), Path.unlink),
    "an empty step folder": empty_step,
    "no default/ in the step": lambda folder: damaged(folder, lambda step: step / "default", shutil.rmtree),
    "another shape wanted": like(w=jax.ShapeDtypeStruct((2048,), jnp.float32)),
    "bfloat16 wanted": of_dtype("w", jnp.bfloat16),
    "int32 wanted": of_dtype("w", jnp.int32),
    "a leaf more wanted": like(more=jax.ShapeDtypeStruct((2,), jnp.float32)),
    "a leaf less wanted": like(n=None),
    "a step that is not there": lambda folder: (saved(folder, 1), told(restored(folder, step=9)))[1],
    "saving a step that is there": again(2),
    "the same with force=True": again(2, force=True),
    "saving an earlier step": again(1),
    "two managers, one folder": two_managers,
    "keys, small floats, NaN, 64 bits": kinds,
    "an array without elements": leaf(jnp.zeros((0, 4))),
    "an integer of 2^64": leaf(2**64),
    "np.float32(.1)": leaf(np.float32(0.1)),
    "np.int64(5)": leaf(np.int64(5)),
    "text": leaf("text"),
    "8 devices' step on 1, no target": other_devices,
    "the disk is full": full_disk,
}


def main() -> None:
    logging.disable(logging.CRITICAL)
    print(f"orbax-checkpoint {version('orbax-checkpoint')}, jax {jax.__version__}")
    for name, situation in SITUATIONS.items():
        # What orbax leaves behind after a failed save goes on writing.
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            place = Path(folder) / "steps"
            place.mkdir()
            try:
                found = situation(place)
            except Exception as error:
                found = f"{type(error).__name__}: {sentence(error)}"
        print(f"| {name} | {found} |", flush=True)
    threads = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    print(
        f"| threads that failed saves left behind, for which the process would wait for good | {len(threads)} |",
        flush=True,
    )
    os._exit(0)


if __name__ == "__main__":
    main()
