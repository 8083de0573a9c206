"""Maps one device's step over the devices: `jax.shard_map` (default) or `jax.pmap`, bit for bit the same."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mobjrec.errors import UserError
from mobjrec.types import Batch, Tree


def make(devices: int | None = None, lists: int | None = None, how: str = "shard_map") -> Mesh:
    """A mesh over the axis `data` of the first `devices` devices, all of them by default; those of all processes.

    UserError where those that JAX is told to take are not there, for more devices than there are, where `lists` of a batch
    cannot be cut into equal parts, and for several processes that have not as many devices each, do not use them all, or
    shall be mapped by pmap.
    """
    found = sorted(present(), key=lambda device: (device.process_index, device.id))
    if jax.process_count() > 1:
        _fit_processes([device.process_index for device in found], devices, how)
    if devices is not None and not 1 <= devices <= len(found):
        raise UserError(f"parallel.devices is {devices}, but there are {len(found)} {found[0].platform} devices")
    count = devices or len(found)
    if lists is not None and lists % count:
        said = f"is {count}" if devices else f"is null, which takes all {count} {found[0].platform} devices"
        raise UserError(uneven(lists, count, said))
    # Not make_mesh: in what order it takes them is its own, and a process' devices have to stand side by side.
    mesh = Mesh(np.array(found[:count]), ("data",), axis_types=(AxisType.Auto,))
    if mesh.is_multi_process:
        # The first collective connects the processes and waits 30 s for the last of them (any later one much longer): it
        # must not be a step's, before which one may have to compile and another finds its program kept.
        ones = place(np.ones(count, np.float32), mesh)
        together = jax.shard_map(
            partial(jax.lax.psum, axis_name="data"),
            mesh=mesh,
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec(),
        )
        jax.block_until_ready(jax.jit(together)(ones))
    return mesh


def present() -> list[jax.Device]:
    """The devices of JAX. UserError where JAX_PLATFORMS names some that are not there; it tells which are."""
    try:
        return jax.devices()
    # An AssertionError is what JAX raises for a CUDA that is not there.
    except (RuntimeError, AssertionError) as error:
        asked, why = jax.config.jax_platforms, str(error).partition(" (set JAX_PLATFORMS")[0]
        # Asked of another process: this one would take them for what was asked for from here on.
        told = "import jax; print(*(f'{device.platform}:{device.id}' for device in jax.devices()))"
        command, free = [sys.executable, "-c", told], {**os.environ, "JAX_PLATFORMS": ""}
        there = subprocess.run(command, env=free, capture_output=True, text=True).stdout.split()
        raise UserError(
            f"JAX_PLATFORMS is {asked}, which is not there{f' ({why})' if why else ''}; the devices here are "
            f"{', '.join(there[:8]) or 'unknown'}: name their platform, or install what the other needs, such as "
            "mobjrec[cuda] or mobjrec[tpu]"
        ) from error


def _fit_processes(owners: list[int], devices: int | None, how: str) -> None:
    each = np.bincount(owners)
    if how == "pmap":
        raise UserError("parallel.map: pmap maps over the devices of one process; with --processes use shard_map")
    if len(set(each.tolist())) > 1:
        told = ", ".join(f"process {number} has {count}" for number, count in enumerate(each.tolist()))
        raise UserError(f"every process needs the same number of devices: {told}")
    if devices not in (None, len(owners)):
        raise UserError(
            f"parallel.devices is {devices}, but {len(each)} processes have {len(owners)} devices and use all of them: "
            f"give parallel.devices=null or {len(owners)}"
        )


def uneven(lists: int, devices: int, said: str) -> str:
    """The sentence on `lists` of a batch that so many devices cannot share alike. said: what parallel.devices is"""
    fits = max(1, round(lists / devices)) * devices
    fewer = max(n for n in range(1, devices) if lists % n == 0)
    return (
        f"batch.lists is {lists}, but parallel.devices {said}, and each takes the same number of lists: give a multiple, "
        f"such as batch.lists={fits}, or parallel.devices={fewer}"
    )


def keep_compilations(folder: Path) -> None:
    """Compiled programs are kept in this folder and found there by the next start, unless JAX was told another one."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # Small programs too: a start has many, 0.2 s each.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def place(tree: Tree, mesh: Mesh) -> Tree:
    """The tree copied to all devices, so that the first step does not compile twice."""
    whole = NamedSharding(mesh, PartitionSpec())
    if whole.is_fully_addressable:
        return jax.device_put(tree, whole)
    copy = lambda leaf: jax.make_array_from_callback(leaf.shape, whole, np.asarray(leaf).__getitem__)
    return jax.tree.map(copy, tree)


def local(tree: Tree) -> Tree:
    """A replicated tree as this process' own arrays, to be used without the other processes."""
    return jax.tree.map(lambda leaf: leaf if leaf.is_fully_addressable else leaf.addressable_data(0), tree)


def mapped(
    step: Callable,
    mesh: Mesh,
    shared: bool,
    how: Literal["shard_map", "pmap"] = "shard_map",
    checked: bool = False,
) -> Callable:
    """(state, global batch) -> (state, logs), compiled once per shape; the state is donated.

    shared: the candidate set [1, L] goes to every device whole, everything else is cut along its first axis.
    Of several processes each gives its part of the batch. checked: shard_map proves that what varies over devices is
    summed before it counts; pmap cannot, and the program of a proven step differs from pmap's in its rounding.
    """
    if how == "pmap":
        devices = list(mesh.devices.flat)
        return _pmapped(step, devices, shared)

    def call(state: Tree, batch: Batch):
        specs = jax.tree.map(lambda whole: PartitionSpec() if whole else PartitionSpec("data"), _whole(batch, shared))
        whole, specs = PartitionSpec(), (PartitionSpec(), specs)
        return jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=whole, check_vma=checked)(state, batch)

    compiled = jax.jit(call, donate_argnums=0)
    if mesh.is_multi_process:
        return lambda state, batch: compiled(state, _joined(batch, mesh, shared))
    return compiled


def _joined(batch: Batch, mesh: Mesh, shared: bool) -> Batch:
    """The global batch, of whose arrays each process has its part."""

    def joined(part: np.ndarray, whole: bool) -> jax.Array:
        sharding = NamedSharding(mesh, PartitionSpec() if whole else PartitionSpec("data"))
        return jax.make_array_from_process_local_data(sharding, part)

    return jax.tree.map(joined, batch, _whole(batch, shared))


def _pmapped(step: Callable, devices: list, shared: bool) -> Callable:
    functions: dict = {}

    def call(state: Tree, batch: Batch):
        whole = _whole(batch, shared)
        folded = jax.tree.map(
            lambda a, w: a if w else a.reshape(len(devices), a.shape[0] // len(devices), *a.shape[1:]), batch, whole
        )
        structure = jax.tree.structure(batch)
        if structure not in functions:
            axes = jax.tree.map(lambda w: None if w else 0, whole)
            functions[structure] = jax.pmap(
                step, axis_name="data", in_axes=(None, axes), out_axes=None, donate_argnums=0, devices=devices
            )
        return functions[structure](state, folded)

    return call


def _whole(batch: Batch, shared: bool) -> Batch:
    """Like the batch: True for arrays that every device gets whole."""
    cut = jax.tree.map(lambda _: False, batch)
    if not shared:
        return cut
    return cut._replace(items=jax.tree.map(lambda _: True, batch.items), log_q=True)
