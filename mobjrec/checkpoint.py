"""Sealed checkpoints: a step counts only where its seal proves that the files are those that were written.

`folder/checkpoints/N` holds step N as orbax writes it, one array a leaf under the leaf's path; `seal-N.json` beside it
holds every file's sha256, every leaf's shape and dtype, the versions at work and what the caller adds. `folder/best` is
the same for the best step. Orbax alone restores a flipped byte without a word, casts dtypes silently and takes a
half-written step for the newest. Saving and cleaning want the run folder's lock (record.py); reading does not.
Of several processes, all of which have the whole state, the first one alone comes here.
"""

import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from mobjrec.environment import versions
from mobjrec.errors import RunFolderError
from mobjrec.types import Tree

SCHEMA = 1
RECENT, BEST = "checkpoints", "best"
LISTED = 20  # leaves that a message names before it only counts
# Orbax's barriers would wait for the other processes.
ALONE = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="mobjrec")


class Copied(NamedTuple):
    """A state on the host, in memory that no step writes to. leaves: {path: array}   tree: {path: shape and dtype}"""

    leaves: dict[str, np.ndarray]
    tree: dict[str, dict[str, Any]]


def copied(state: Tree) -> Copied:
    """The state's leaves: JAX arrays, typed keys too, numpy arrays, numbers. ValueError for one that is none of them."""
    stored = jax.device_get({path: _stored(path, leaf) for path, leaf in _leaves(state).items()})
    # On a CPU what `device_get` hands out is the array itself, which the next step takes over: hence a true copy.
    copies = {path: np.array(leaf, copy=True) for path, leaf in stored.items()}
    return Copied(copies, {path: _spec(leaf) for path, leaf in _leaves(state).items()})


def save(folder: Path, state: Tree, step: int, seal: dict[str, Any], *, name: str = RECENT, keep: int = 2) -> None:
    """`write` of the state as it is now. ValueError for a leaf that is no array and no number."""
    write(folder, copied(state), step, seal, name=name, keep=keep)


def write(folder: Path, state: Copied, step: int, seal: dict[str, Any], *, name: str = RECENT, keep: int = 2) -> None:
    """Write a state as step `step` and seal it; then drop what it replaces: all but the `keep` newest steps up to it.

    Returns when the seal is on disk; nothing else is touched before. A step that is there already and verifies is left
    as it is. `seal`: JSON values to find again with the state (hashes of config, tokeniser and data).
    Arrays without elements are kept in the seal alone.

    RunFolderError if the disk has less than 1.5 times the state's size free, if writing fails, or if a later step is
    there that verifies; older steps are then as they were. A later best step is one of a course that is not this one's:
    it is replaced, and so is one of this number with other bits, which is read until then.
    """
    root = folder.resolve() / name
    there = [other for other in steps(folder, name=name) if other >= step and not _examined(root, other)[1]]
    if name != BEST and there[-1:] > [step]:
        raise RunFolderError(f"{root} holds step {there[-1]}; step {step} cannot be saved after it")
    if not (step in there and (name != BEST or _holds(root, step, state))):
        try:
            clean(folder, name=name)
            if step in there:
                _set_aside(root, step)
            _write(root, step, {path: leaf for path, leaf in state.leaves.items() if leaf.size})
            whole = {"schema": SCHEMA, "step": step, "tree": state.tree, "versions": versions(), "run": seal}
            _write_seal(root, step, whole)
        # Orbax tells of a full disk by ValueError.
        except (OSError, ValueError) as error:
            clean(folder, name=name)
            raise RunFolderError(f"step {step} could not be written to {root}: {_sentence(error)}") from error
    there = steps(folder, name=name)
    kept = [other for other in there if other <= step][-keep:]
    for other in set(there) - set(kept):
        _drop(root, other)


def latest(
    folder: Path, like: Tree, *, name: str = RECENT, partial: bool = False
) -> tuple[Tree, dict[str, Any]] | None:
    """The newest step that verifies, in the form of `like`, with its seal; None where nothing was ever sealed.

    like: arrays or ShapeDtypeStructs, whose shardings decide where the arrays go (else the first device).
    partial: read only the leaves of `like`, `{"params": ...}` of a whole training state, say.
    The seal is the file's content (`step`, `run`: what the caller of `save` gave, `versions`, `tree`) and
    `skipped`: a sentence for each newer step that does not verify.

    RunFolderError if there are sealed steps and none verifies, if the step was written by a newer schema, or if leaves
    are missing, unexpected, or of another shape or dtype; every one is named. Nothing is cast.
    """
    root, skipped = folder.resolve() / name, []
    for step in reversed(_present(root)):
        seal, fault = _examined(root, step)
        if not fault:
            _check_fit(root, seal, like, partial)
            return _read(root, step, like), {**seal, "skipped": skipped}
        skipped.append(f"step {step} is not used: {fault}")
    if steps(folder, name=name):
        raise RunFolderError(f"no checkpoint in {root} can be trusted; " + "; ".join(skipped))
    return None


def best(folder: Path, like: Tree, *, partial: bool = False) -> tuple[Tree, dict[str, Any]] | None:
    """The step that was saved with `name=BEST`, as `latest` returns it."""
    return latest(folder, like, name=BEST, partial=partial)


def sealed(folder: Path, *, name: str = RECENT, files: bool = False, until: float = math.inf) -> dict[str, Any] | None:
    """The newest seal that is whole, of no newer schema and no later step, None where there is none.

    files: whose step verifies, too
    """
    root = folder.resolve() / name
    for step in reversed([step for step in _present(root) if step <= until]):
        seal, fault = (_examined if files else _seal)(root, step)
        if seal and not fault and seal["schema"] <= SCHEMA:
            return seal
    return None


def steps(folder: Path, *, name: str = RECENT) -> list[int]:
    """Numbers of the sealed steps, ascending; whether they verify is not looked at."""
    root = folder.resolve() / name
    return [step for step in _present(root) if _seal_file(root, step).is_file()]


def forget(folder: Path, after: int, *, name: str = RECENT) -> None:
    """Remove steps later than `after`: a run that goes on from there makes them again. Wants the run folder's lock."""
    root = folder.resolve() / name
    for step in [one for one in _present(root) if one > after]:
        _drop(root, step)


def clean(folder: Path, *, name: str = RECENT) -> None:
    """Remove what a killed save left: temporary folders, unsealed steps and seals without a step. Nothing else."""
    root = folder.resolve() / name
    for path in root.glob("*"):
        if ".orbax-checkpoint-tmp" in path.name and path.is_dir():
            shutil.rmtree(path)
        seal = re.fullmatch(r"\.seal-\d+\.tmp|seal-(\d+)\.json", path.name)
        if seal and not (seal[1] and (root / seal[1]).is_dir()):
            path.unlink()
    for step in set(_present(root)) - set(steps(folder, name=name)):
        shutil.rmtree(root / str(step))


def _leaves(tree: Tree) -> dict[str, Any]:
    """Leaves by path, "params/encoder/kernel"; a NamedTuple and a dict of the same names have the same paths."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    if len(named) != len(flat):
        raise ValueError("two leaves of the state have the same path; a key of a dict must not contain '/'")
    return named


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def _stored(path: str, leaf: Any) -> jax.Array | np.ndarray:
    """The leaf as an array that orbax can write; numpy scalars and large integers it refuses too late."""
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf) if _is_key(leaf) else leaf
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMmT":
        raise ValueError(f"{path} is a {type(leaf).__name__}; a checkpoint holds arrays and numbers up to 64 bits")
    return array


def _spec(leaf: Any) -> dict[str, Any]:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _write(root: Path, step: int, leaves: dict[str, np.ndarray]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    needed, free = int(1.5 * sum(leaf.nbytes for leaf in leaves.values())), shutil.disk_usage(root).free
    if free < needed:
        raise RunFolderError(f"no room for step {step} in {root}: {needed:,} bytes needed, {free:,} free")
    # A step that is there was examined by `save` and does not verify: it is written anew.
    if (root / str(step)).is_dir():
        _drop(root, step)
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=ALONE)
    with ocp.Checkpointer(handler, multiprocessing_options=ALONE) as checkpointer:
        checkpointer.save(root / str(step), args=ocp.args.StandardSave(leaves))


def _write_seal(root: Path, step: int, seal: dict[str, Any]) -> None:
    place, temporary = root / str(step), root / f".seal-{step}.tmp"
    files = sorted(path for path in place.rglob("*") if path.is_file())
    told = {str(path.relative_to(place)): {"size": path.stat().st_size, "sha256": _hash(path)} for path in files}
    seal = {**seal, "files": told}
    temporary.write_text(json.dumps({**seal, "sha256": _digest(seal)}, indent=1, allow_nan=False), encoding="utf-8")
    _flush(temporary)
    os.replace(temporary, _seal_file(root, step))
    _flush(root)


def _seal_file(root: Path, step: int) -> Path:
    return root / f"seal-{step}.json"


def _digest(seal: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(seal, sort_keys=True).encode()).hexdigest()


def _hash(path: Path) -> str:
    # The seal must not reach the disk before what it speaks of.
    _flush(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _present(root: Path) -> list[int]:
    """Steps with a folder, sealed or not, ascending."""
    return sorted(int(path.name) for path in root.glob("*") if re.fullmatch("[0-9]+", path.name) and path.is_dir())


def _drop(root: Path, step: int) -> None:
    # The seal goes first: what a kill leaves between the two is an unsealed step, not a damaged one.
    _seal_file(root, step).unlink(missing_ok=True)
    shutil.rmtree(root / str(step))


def _set_aside(root: Path, step: int) -> None:
    """A step under the next number, where it is found until `step` is sealed anew; whole at any moment."""
    shutil.rmtree(root / str(step + 1), ignore_errors=True)
    shutil.copyfile(_seal_file(root, step), _seal_file(root, step + 1))
    os.rename(root / str(step), root / str(step + 1))
    _seal_file(root, step).unlink()


def _seal(root: Path, step: int) -> tuple[dict[str, Any] | None, str]:
    """The step's seal, or None and what is wrong with it."""
    try:
        seal = json.loads(_seal_file(root, step).read_bytes())
        body = {key: value for key, value in seal.items() if key != "sha256"}
        if seal["sha256"] != _digest(body):
            return None, f"its seal {_seal_file(root, step).name} was changed"
    except FileNotFoundError:
        return None, "it has no seal, the save was cut short"
    except (ValueError, KeyError, AttributeError, OSError):
        return None, f"its seal {_seal_file(root, step).name} cannot be read"
    return seal, ""


def _examined(root: Path, step: int) -> tuple[dict[str, Any], str]:
    """The step's seal, and what is wrong with the step in words; "" if it is as it was written."""
    seal, fault = _seal(root, step)
    if seal is None:
        return {}, fault
    if seal["schema"] > SCHEMA:
        raise RunFolderError(
            f"step {step} in {root} was written by a newer mobjrec ({seal['versions'].get('mobjrec')}, "
            f"checkpoint schema {seal['schema']}, this one reads {SCHEMA}); install that version"
        )
    for name, written in seal["files"].items():
        path = root / str(step) / name
        try:
            if (size := path.stat().st_size) != written["size"]:
                return seal, f"file {name} has {size:,} bytes, {written['size']:,} were written"
            if _hash(path) != written["sha256"]:
                return seal, f"file {name} was changed"
        except OSError:
            return seal, f"file {name} is missing or cannot be read"
    return seal, ""


def _holds(root: Path, step: int, state: Copied) -> bool:
    """Whether a step that verifies is this state bit for bit."""
    same = _seal(root, step)[0]["tree"] == state.tree
    found = _read(root, step, state.leaves) if same else {}
    return same and all(found[path].tobytes() == leaf.tobytes() for path, leaf in state.leaves.items())


def _check_fit(root: Path, seal: dict[str, Any], like: Tree, partial: bool) -> None:
    shown = lambda spec: f"{spec['dtype']}{spec['shape']}"
    stored, expected = seal["tree"], {path: _spec(leaf) for path, leaf in _leaves(like).items()}
    missing = [f"{path} {shown(expected[path])}" for path in expected if path not in stored]
    unexpected = [f"{path} {shown(stored[path])}" for path in stored if path not in expected and not partial]
    differing = [path for path in expected if path in stored and stored[path] != expected[path]]
    changed = [f"{path} ({shown(stored[path])} stored, {shown(expected[path])} expected)" for path in differing]
    parts = [("missing", missing), ("unexpected", unexpected), ("changed", changed)]
    more = lambda rows: f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    told = [f"{len(rows)} {word}: {', '.join(rows[:LISTED])}{more(rows)}" for word, rows in parts if rows]
    if told:
        raise RunFolderError(
            f"step {seal['step']} in {root} is of another model or optimizer; leaves {'; '.join(told)}. "
            "Use the config that the run was started with, or a new run folder."
        )


def _read(root: Path, step: int, like: Tree) -> Tree:
    leaves = _leaves(like)
    targets = {path: _target(leaf) for path, leaf in leaves.items()}
    wanted = {path: target for path, target in targets.items() if np.prod(target.shape)}
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    try:
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=ALONE)
        with ocp.Checkpointer(handler, multiprocessing_options=ALONE) as checkpointer:
            arrays = checkpointer.restore(root / str(step), args=arguments)
    # Orbax raises a bare Exception for a data file that it cannot read.
    except Exception as error:
        raise RunFolderError(f"step {step} in {root} could not be read: {_sentence(error)}") from error
    empty = {path: np.zeros(target.shape, target.dtype) for path, target in targets.items() if path not in wanted}
    values = [_restored(leaf, {**arrays, **empty}[path]) for path, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), values)


def _target(leaf: Any) -> jax.ShapeDtypeStruct | np.ndarray:
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return np.asarray(leaf)
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    sharding = leaf.sharding or SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)


def _restored(leaf: Any, value: jax.Array | np.ndarray) -> Any:
    """The value in the kind of `leaf`: typed key, JAX array, numpy array or scalar, Python number."""
    if _is_key(leaf):
        # `key_impl` takes no ShapeDtypeStruct, but a traced key, which is one in all else.
        found: list[Any] = []
        jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), leaf)
        return jax.random.wrap_key_data(value, impl=found[0])
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return value if isinstance(value, jax.Array) else jax.device_put(value, _target(leaf).sharding)
    value = np.asarray(value)
    return value if isinstance(leaf, np.ndarray) else value[()] if isinstance(leaf, np.generic) else value.item()


def _sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
