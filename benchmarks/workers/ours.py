"""What mobjrec does, to be timed by benchmarks/speed.py: steps, epochs, evaluations of a config.

`export`: a file to write for the peers: token ids of all texts, training lists, the lists of every step, parameters.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import serving
from given import STEPS, as_pairs, distinct, export, given_label, identity, listed, strings, told_interactions

from mobjrec import evaluate, mesh, train
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.data.loading import batches
from mobjrec.frozen import with_store
from mobjrec.parts import Parts, assemble, multiple_of, sizes_of
from mobjrec.shipped import config as shipped
from mobjrec.state import TrainState
from mobjrec.types import Batch, Tree


def assembled(given: dict[str, Any]) -> Parts:
    cache = Path(given["cache"])
    mesh.keep_compilations(cache / "compiled")
    parts = assemble(load(shipped(given["config"]), given["changes"]), cache)
    return as_pairs(parts) if given.get("pairs") else parts


class Steps:
    """A run's steps, its batches built ahead as in training."""

    def __init__(self, given: dict[str, Any]):
        self.parts = parts = assembled(given)
        devices = mesh.make(parts.config.parallel.devices, parts.config.batch.lists)
        state = parts.first_state()
        self.pairs = bool(given.get("pairs"))
        # A pair counts once, and an event where what was drawn for it is no other event of its user's.
        self.by_list = self.pairs or given["work"] == "epochs"
        if self.pairs:
            state = state._replace(params=identity(state.params))
        self.parts = parts = with_store(parts, state.params)
        # Batches are planned for what is timed, not for a whole run.
        self.parts = parts = parts._replace(steps=min(parts.steps, given.get("plan", STEPS)))
        self.multiple = multiple_of(parts.config, devices.size)
        self.sizes = sizes_of(parts, self.multiple)
        self.step, self.compiled = train.mapped_step(parts, devices), {}
        self.state = mesh.place(state, devices)
        rows = listed(parts)
        if self.pairs:
            rows = np.concatenate([distinct(parts)[None], rows])
        if given.get("export"):
            export(parts, state.params, given["export"], rows)
        self.loaded = self.batches(0, 1 << 30)

    def batches(self, start: int, stop: int) -> Iterator:
        parts = self.parts
        return batches(
            parts.feed,
            parts.dataset.train,
            parts.train_candidates,
            self.sizes,
            seed=parts.config.seed,
            batch=parts.config.batch.lists,
            start=start,
            stop=stop,
            multiple=self.multiple,
        )

    def program(self, state: TrainState, batch: Batch) -> Callable:
        """The step, compiled ahead for each shape."""
        shape = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shape not in self.compiled:
            self.compiled[shape] = self.step.lower(state, batch).compile()
        return self.compiled[shape]

    def first_loss(self, run: bool = True) -> float | None:
        """The loss before any step; every planned shape is compiled. run: False compiles alone. The state is as it was."""
        parts, lists = self.parts, self.parts.dataset.train
        count = parts.config.batch.lists
        rows = distinct(parts) if self.pairs else order.rows(parts.config.seed, 0, len(lists.user), count)
        # One list alone fits every shape.
        one = np.where(np.arange(count) == 0, rows, -1)
        for mine, sizes in [*((one, (size,)) for size in self.sizes), (rows, self.sizes)]:
            drawn = parts.train_candidates(parts.dataset, lists, mine, order.random(parts.config.seed, 0))
            batch, _ = build(parts.feed, lists, mine, drawn, sizes, self.multiple)
            self.program(self.state, batch)
        if not run:
            return None
        copy = jax.tree.map(jax.numpy.array, self.state)
        return float(self.program(copy, batch)(copy, batch)[1]["losses"][0])

    def several(self, count: int, loaded: Iterator | None = None) -> dict[str, Any]:
        """So many steps: rows whose loss entered one, tokens, cells of the packed rows, FLOPs of the tokens."""
        rows = tokens = cells = 0
        met: list[Batch] = []
        for _ in range(count):
            batch, numbers = next(loaded or self.loaded)[1:3]
            self.state, logs = self.program(self.state, batch)(self.state, batch)
            counted = batch.where.sum(1) > 1 if self.by_list else next(iter(batch.observed.values()))
            rows += int(counted.sum())
            tokens, cells = tokens + numbers["tokens"], cells + numbers["cells"]
            met.append(batch)
        loss = float(logs["losses"][0])
        jax.block_until_ready(self.state)
        return {"count": rows, "tokens": tokens, "cells": cells, "loss": loss, "met": met}


def flops_of(batch: Batch, layer: Tree) -> float:
    """Multiplications and additions of an encoder's matrix products for the real tokens of a batch, forward and back.

    layer: the stacked layers' parameters
    """
    layers, width, inner = layer["wide"]["kernel"].shape
    total = 0.0
    for texts in (batch.user_texts, batch.item_texts):
        slots = np.asarray(texts.slot)
        place = (np.arange(len(slots))[:, None] * (slots.max() + 1) + slots)[slots > 0]
        lengths = np.bincount(place).astype(float)
        total += (2 * (4 * width**2 + 2 * width * inner) * lengths + 4 * width * lengths**2).sum()
    return 3 * layers * total


def gemm_rate() -> float:
    """FLOPs a second of the machine in float32, the best of products of 2,048 squared and of an encoder's shapes."""
    random, seconds = np.random.default_rng(0), []
    product = jax.jit(lambda a, b: a @ b)
    for rows, inner, columns in ((2048, 2048, 2048), (8192, 384, 1536), (8192, 1536, 384)):
        left, right = (random.random(shape, np.float32) for shape in ((rows, inner), (inner, columns)))
        placed = jax.device_put(left), jax.device_put(right)
        jax.block_until_ready(product(*placed))
        for one, two, multiply in [(left, right, np.matmul)] * 3 + [(*placed, product)] * 3:
            began = time.perf_counter()
            jax.block_until_ready(multiply(one, two))
            seconds.append((time.perf_counter() - began) / (2.0 * rows * inner * columns))
    return 1 / min(seconds)


def steps(given: dict[str, Any]) -> None:
    """Some steps a line; `gemm`: with their FLOPs and the machine's rate right after them."""
    made = Steps(given)
    first = made.first_loss(given.get("first", True))
    if given["warm"]:
        made.several(1)

    def work() -> dict[str, Any]:
        clock = serving.Clock()
        found = made.several(given.get("steps", 1))
        found |= clock.read()
        met = found.pop("met")
        if given.get("gemm"):
            layer = made.state.params["encoder"]["both"]["upper"]
            found |= {"flops": sum(flops_of(batch, layer) for batch in met), "gemm": gemm_rate()}
        return found

    shapes = {"sizes": len(made.sizes), "lists": len(made.parts.dataset.train.user)}
    serving.ready(loss=first, versions=serving.versions("jax", "jaxlib", "numpy"), **shapes)
    serving.told(work)


def export_alone(given: dict[str, Any]) -> None:
    """The peers' file and nothing else."""
    parts = assembled(given)
    export(parts, parts.first_state().params, given["export"], listed(parts))
    serving.ready()


def to_auc(given: dict[str, Any]) -> None:
    """A step a line, then the AUC within the first test lists, whose time does not count. `auc`: a file that tells them."""
    made = Steps(given)
    lists, limit = made.parts.dataset.test, given["limit"]
    told = strings(made.parts, lists)["users"][:limit]
    spans = [slice(*lists.start[row : row + 2]) for row in range(limit)]
    values = lists.labels[given_label(made.parts)]
    evaluation = {"eval_user": told, "eval_item": [lists.item[s].tolist() for s in spans]}
    evaluation["eval_label"] = [values[s].tolist() for s in spans]
    Path(given["auc"]).write_text(json.dumps(evaluation), encoding="utf-8")
    made.first_loss()
    trained = 0.0

    def work() -> dict[str, Any]:
        nonlocal trained
        clock = serving.Clock()
        found = made.several(1)
        found |= clock.read()
        trained += found["wall"]
        del found["met"]
        state, scale = made.state, dict.fromkeys(made.parts.objectives, (0.0, 1.0))
        measured = evaluate.run(
            made.parts, state.params, state.memory, "test", scale=scale, names=("auc",), limit=limit
        ).measured
        return found | {"trained": trained, "auc": measured[f"{given_label(made.parts)}/auc"].value}

    serving.ready(versions=serving.versions("jax", "jaxlib", "numpy"))
    serving.told(work)


def padding(given: dict[str, Any]) -> None:
    """Cells without a token over an epoch, by the shapes that the whole run is planned with."""
    parts = assembled(given)
    sizes, numbers, lists = sizes_of(parts, 1), [], parts.dataset.train
    for step in range(min(parts.steps_per_epoch, STEPS)):
        rows = order.rows(parts.config.seed, step, len(lists.user), parts.config.batch.lists)
        drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(parts.config.seed, step))
        numbers.append(build(parts.feed, lists, rows, drawn, sizes, 1)[1])
    tokens, cells, extra = (sum(one[name] for one in numbers) for name in ("tokens", "cells", "extra"))
    serving.ready(padding=1 - tokens / cells, shapes=len(sizes), extra=extra, sizes=[list(size) for size in sizes])


def epochs(given: dict[str, Any]) -> None:
    """An epoch a line, its batches built in it, drawn anew; `evaluated` tells the test metrics of the first parameters."""
    made = Steps(given)
    first = made.first_loss()
    if given.get("interactions"):
        told_interactions(made.parts, made.state.params, given["interactions"])
    length, at = given.get("length") or made.parts.steps_per_epoch, iter(range(1 << 30))

    def epoch() -> dict[str, Any]:
        begin = next(at) * length
        found = made.several(length, made.batches(begin, begin + length))
        del found["met"]
        return found

    if given["warm"]:
        epoch()
    serving.ready(loss=first, versions=serving.versions("jax", "jaxlib", "numpy"), sizes=len(made.sizes))
    serving.told(epoch)


def many(given: dict[str, Any]) -> None:
    """Steps over a corpus of many events, after the seconds that its preparing took."""
    began = time.perf_counter()
    made = Steps(given)
    made.first_loss()
    made.several(given["steps"])

    def work() -> dict[str, Any]:
        found = made.several(given["steps"])
        del found["met"]
        return found

    serving.ready(prepared=time.perf_counter() - began)
    serving.told(work)


def evaluations(given: dict[str, Any]) -> None:
    """An evaluation of the test split over the whole catalogue a line, at the first parameters."""
    parts = assembled(given)
    state = parts.first_state()
    if given.get("interactions"):
        told_interactions(parts, state.params, given["interactions"])
    names = tuple(given["metrics"])

    def work() -> dict[str, Any]:
        scale = dict.fromkeys(parts.objectives, (0.0, 1.0))
        found = evaluate.run(parts, state.params, state.memory, "test", scale=scale, names=names).measured
        label = given_label(parts)
        return {
            "count": len(parts.dataset.test.user),
            "metrics": {name: found[f"{label}/{name}"].value for name in names},
        }

    first = work()
    serving.ready(metrics=first["metrics"], versions=serving.versions("jax", "jaxlib", "numpy"))
    serving.told(work)


def main(given: dict[str, Any]) -> None:
    WORKS[given["work"]](given)


WORKS = {
    "steps": steps,
    "export": export_alone,
    "to_auc": to_auc,
    "padding": padding,
    "epochs": epochs,
    "evaluations": evaluations,
    "many": many,
}

if __name__ == "__main__":
    main(serving.spec())
