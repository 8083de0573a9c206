"""`mobjrec train CONFIG --dry-run`: one step traced by shape, compiled, not run."""

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import mesh
from mobjrec.config import Config
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.frozen import without_store
from mobjrec.parts import Parts, assemble, multiple_of, sizes_of
from mobjrec.train import gram_at, mapped_step
from mobjrec.types import Batch, Tree


def traced(config: Config, cache: Path) -> Group:
    """Parameters by part, the batch's shapes, FLOPs and memory of the compiled step. Nothing is written but cached tokens."""
    devices = mesh.make(config.parallel.devices, config.batch.lists)
    parts = assemble(config, cache)
    state = jax.eval_shape(parts.first_state)
    parts = without_store(parts, state.params)
    multiple = multiple_of(config, devices.size)
    lists = parts.dataset.train
    rows = order.rows(config.seed, 0, len(lists.user), config.batch.lists)
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(config.seed, 0))
    batch, _ = build(parts.feed, lists, rows, drawn, sizes_of(parts, multiple), multiple)
    placed = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
    # jit around the step, because what pmap maps has no `trace` of its own.
    step = jax.jit(mapped_step(parts, devices), donate_argnums=0).trace(placed, batch)
    said = costs(flops(step.jaxpr.jaxpr), step.lower().compile().memory_analysis(), parts)
    return Group(parameters(state.params, parts.model.trainable(state.params)), shapes(batch), Text(said))


def parameters(params: Tree, trainable: Tree) -> Grid:
    """Parameters and how many of them train, by part."""
    grid = Grid(title="parameters", title_justify="left")
    for name in ("part", "all", "trained"):
        grid.add_column(name, justify="left" if name == "part" else "right")
    total = np.zeros(2, int)
    for name, tree in params.items():
        counts = [
            (leaf.size, leaf.size * kept)
            for leaf, kept in zip(jax.tree.leaves(tree), jax.tree.leaves(trainable[name]), strict=True)
        ]
        if counts:
            both = np.sum(counts, axis=0)
            total += both
            grid.add_row(name, f"{both[0]:,}", f"{both[1]:,}")
    grid.add_row("all", f"{total[0]:,}", f"{total[1]:,}")
    return grid


def shapes(batch: Batch) -> Grid:
    """Shapes and types of a batch."""
    grid = Grid(title="batch", title_justify="left")
    for name in ("array", "shape", "type"):
        grid.add_column(name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if leaf.size:
            grid.add_row(jax.tree_util.keystr(path).lstrip("."), str(leaf.shape), str(leaf.dtype))
    return grid


def costs(count: float, memory: Any, parts: Parts) -> str:
    """FLOPs of the matrix products, memory as the compiler counts it, and the number of steps."""
    size = f"{memory.temp_size_in_bytes / 2**20:,.0f} MiB temporary" if memory is not None else "memory unknown"
    return (
        f"one step: {count / 1e9:,.2f} GFLOP in matrix products (on all devices, forward and back, each layer of a scan "
        f"counted), {size}\n"
        f"{parts.steps} steps, {parts.steps_per_epoch} an epoch; gradients compared at {gram_at(parts)}"
        f"{'' if parts.weighting.needs_gram else ' (not read by this weighting)'}"
    )


def flops(program: Jaxpr) -> float:
    """Multiplications and additions in a program's matrix products, 2 M N K each; what else there is, is small beside.

    Read off the traced program, not the compiled one: XLA's own count takes the body of a scan once, whatever its length.
    A part that runs on every device counts once for each, of the branches of a condition the dearest, and a loop of unknown
    length (none in our steps) once.
    """
    total = 0.0
    for line in program.eqns:
        inner = [flops(part) for part in jaxprs_in_params(line.params)]
        if line.primitive.name == "dot_general":
            (contracted, _), _ = line.params["dimension_numbers"]
            left = line.invars[0].aval.shape
            total += 2.0 * math.prod(line.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif line.primitive.name == "cond":
            total += max(inner)
        elif line.primitive.name == "scan":
            total += sum(inner) * line.params["length"]
        elif line.primitive.name == "shard_map":
            total += sum(inner) * line.params["mesh"].size
        else:
            total += sum(inner)
    return total
