"""What mobjrec does, to be timed by benchmarks/speed.py: steps, epochs, evaluations of a config.

`export`: a file to write for the peers: token ids of all texts, training lists, the lists of every step, parameters.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import serving

from mobjrec import evaluate, mesh, train
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build, item_sequences, reads_users, user_sequences
from mobjrec.data.loading import batches
from mobjrec.data.texts import divide, render
from mobjrec.frozen import with_store
from mobjrec.parts import Parts, assemble, multiple_of, sizes_of
from mobjrec.shipped import config as shipped
from mobjrec.types import Batch, Lists, Tree

STEPS = 400  # steps whose lists are told to the peers


def assembled(given: dict[str, Any]) -> Parts:
    cache = Path(given["cache"])
    mesh.keep_compilations(cache / "compiled")
    parts = assemble(load(shipped(given["config"]), given["changes"]), cache)
    return as_pairs(parts) if given.get("pairs") else parts


def as_pairs(parts: Parts) -> Parts:
    """One list for each that has a history and a liked item: that item alone; nothing is masked as met elsewhere."""
    lists, label = parts.dataset.train, given_label(parts)
    liked = lists.labels[label] > 0
    owner = np.repeat(np.arange(len(lists.user)), np.diff(lists.start))
    told = lists.history[:, 1] > lists.history[:, 0]
    place = np.flatnonzero(liked & told[owner])
    place = place[np.unique(owner[place], return_index=True)[1]]
    mine = owner[place]
    fewer = lists._replace(
        user=lists.user[mine],
        time=lists.time[mine],
        history=lists.history[mine],
        start=np.arange(len(place) + 1),
        item=lists.item[place],
        event=lists.event[place],
        labels={name: values[place] for name, values in lists.labels.items()},
        weights=lists.weights[place],
        context_ids=lists.context_ids[place],
        context=lists.context[place],
        position=None if lists.position is None else lists.position[place],
    )
    none = np.zeros(len(parts.dataset.users.id) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int8)
    dataset = parts.dataset._replace(train=fewer, seen=none, everywhere=frozenset({label}))
    per_epoch = order.steps_per_epoch(len(mine), parts.config.batch.lists)
    return parts._replace(dataset=dataset, feed=parts.feed._replace(dataset=dataset), steps_per_epoch=per_epoch)


def given_label(parts: Parts) -> str:
    return next(iter(parts.objectives.values())).label


def export(parts: Parts, params: Tree, path: str, rows: np.ndarray) -> None:
    """All that a peer must know to do the same work. rows: [S, B] the lists of every step"""
    feed, lists = parts.feed, parts.dataset.train
    found = {"rows": rows, "start": lists.start, "item": lists.item, "label": lists.labels[given_label(parts)]}
    if feed.item_text is not None:
        texts = item_sequences(feed, np.arange(len(feed.item_tokens.start) - 1))
        found |= {"item_start": texts.start, "item_token": texts.token, "item_text": feed.item_text[lists.item]}
    if reads_users(feed):
        texts = user_sequences(feed, lists.user, lists.history)
        found |= {"user_start": texts.start, "user_token": texts.token}
    rest = {name: tree for name, tree in params.items() if name != "encoder"}
    for place, leaf in jax.tree_util.tree_leaves_with_path(rest):
        found["params/" + "/".join(str(getattr(step, "key", step)) for step in place)] = np.asarray(leaf)
    np.savez(path, **found)
    Path(path).with_suffix(".json").write_text(json.dumps(strings(parts, lists)), encoding="utf-8")


def strings(parts: Parts, lists: Lists) -> dict[str, list[str]]:
    """These lists' user texts and the items' texts as they were before they became tokens."""
    found: dict[str, list[str]] = {}
    user, item = parts.inputs["user"], parts.inputs["item"]
    if item.text:
        found["items"] = render(item.text, parts.corpus.items, "model.item.text").tolist()
    event = divide(user.text)[1]
    if event:
        told = render(event, parts.corpus.items, "model.user.text")
        spans = (parts.dataset.history[begin:stop][::-1] for begin, stop in lists.history.tolist())
        found["users"] = ["".join(told[span].tolist()) for span in spans]
    return found


def identity(params: Tree) -> Tree:
    """The towers' projections as the identity: the vectors are then the encoder's own."""
    changed = dict(params)
    for side in ("user", "item"):
        kernel = params[side]["join"]["text"]["kernel"]
        text = {**params[side]["join"]["text"], "kernel": np.eye(*kernel.shape, dtype=np.float32)}
        changed[side] = {**params[side], "join": {**params[side]["join"], "text": text}}
    return changed


def distinct(parts: Parts) -> np.ndarray:
    """The first lists, a batch of them, in which no text stands twice."""
    lists, feed, taken, met = parts.dataset.train, parts.feed, [], set()
    users = user_sequences(feed, lists.user, lists.history)
    for row in order.permutation(parts.config.seed, 0, len(lists.user)).tolist():
        mine = {users.token[users.start[row] : users.start[row + 1]].tobytes(), int(feed.item_text[lists.item[row]])}
        if not mine & met:
            met |= mine
            taken.append(row)
        if len(taken) == parts.config.batch.lists:
            break
    return np.array(taken)


class Steps:
    """A run's steps, its batches built ahead as in training."""

    def __init__(self, given: dict[str, Any]):
        self.parts = parts = assembled(given)
        devices = mesh.make(parts.config.parallel.devices, parts.config.batch.lists)
        state = parts.first_state()
        self.pairs = bool(given.get("pairs"))
        # A list of a pair or of an event and what was drawn for it counts once.
        self.by_list = self.pairs or given["work"] == "epochs"
        if self.pairs:
            state = state._replace(params=identity(state.params))
        self.parts = parts = with_store(parts, state.params)
        # Batches are planned for what is timed, not for a whole run.
        self.parts = parts = parts._replace(steps=min(parts.steps, given.get("plan", STEPS)))
        self.multiple = multiple_of(parts.config, devices.size)
        self.sizes = sizes_of(parts, self.multiple)
        self.step = train.mapped_step(parts, devices)
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

    def first_loss(self) -> float:
        """The loss before any step; every planned shape is compiled by then. The state is as it was."""
        parts, lists = self.parts, self.parts.dataset.train
        count = parts.config.batch.lists
        rows = distinct(parts) if self.pairs else order.rows(parts.config.seed, 0, len(lists.user), count)
        # One list alone fits every shape.
        one = np.where(np.arange(count) == 0, rows, -1)
        for mine, sizes in [*((one, (size,)) for size in self.sizes), (rows, self.sizes)]:
            drawn = parts.train_candidates(parts.dataset, lists, mine, order.random(parts.config.seed, 0))
            batch, _ = build(parts.feed, lists, mine, drawn, sizes, self.multiple)
            logs = self.step(jax.tree.map(jax.numpy.array, self.state), batch)[1]
        return float(logs["losses"][0])

    def several(self, count: int, loaded: Iterator | None = None) -> dict[str, Any]:
        """So many steps: rows whose loss entered one, tokens, cells of the packed rows, FLOPs of the tokens."""
        rows = tokens = cells = 0
        met: list[Batch] = []
        for _ in range(count):
            batch, numbers = next(loaded or self.loaded)[1:3]
            self.state, logs = self.step(self.state, batch)
            counted = batch.row >= 0 if self.by_list else next(iter(batch.observed.values()))
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
    first = made.first_loss()
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


def listed(parts: Parts) -> np.ndarray:
    """[S, B] the lists of every step."""
    count, lists = len(parts.dataset.train.user), parts.config.batch.lists
    return np.stack([order.rows(parts.config.seed, step, count, lists) for step in range(STEPS)])


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
        told_interactions(made.parts, made.state.params, given["interactions"], made.sizes)
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


def told_interactions(parts: Parts, params: Tree, path: str, sizes: tuple) -> None:
    """For peers without text: the splits' (user, item), the first batch's pairs and every user's and item's vector."""
    dataset, feed, first = (
        parts.dataset,
        parts.feed,
        order.rows(parts.config.seed, 0, len(parts.dataset.train.user), parts.config.batch.lists),
    )
    drawn = parts.train_candidates(dataset, dataset.train, first, order.random(parts.config.seed, 0))
    pair = drawn.where[:, :2].all(1)
    found = {"pairs": np.concatenate([dataset.train.user[first[pair]][:, None], drawn.item[pair, :2]], 1)}
    for name in ("train", "valid", "test"):
        lists = getattr(dataset, name)
        found[name] = np.stack([np.repeat(lists.user, np.diff(lists.start)), lists.item], 1)
    for side, ids in (("user", feed.user_ids), ("item", feed.item_ids)):
        found[f"{side}_vectors"] = np.asarray(params[side]["join"]["ids"][side]["rows"])[ids[:, 0]]
    np.savez(path, **found)


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
        told_interactions(parts, state.params, given["interactions"], ())
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
