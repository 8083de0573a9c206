"""One program that trains a run for each preference: states stacked along a first axis, batches and frozen layers shared.

For configs whose text encoder does not train. Each run is that of `train.run` with its own config, to rounding: the same
first state, batches and keys. The sweep's folder holds the stacked checkpoint, and at the end every run has its own.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec import checkpoint, choice, conflicts, evaluate, exhausted, progress, record, resume, train
from mobjrec.checkpoint import BEST
from mobjrec.config import Config, Evaluate, dump
from mobjrec.data.sizes import Size
from mobjrec.errors import NumericError, Stopped
from mobjrec.link import Link
from mobjrec.optimizers import averaged
from mobjrec.parts import Parts, multiple_of, sizes_of
from mobjrec.state import TrainState, divide, join
from mobjrec.step import make_step
from mobjrec.stopping import stopping
from mobjrec.types import Array, Batch, Tree

# Where the sweep's folder keeps the stacked state.
STACK = "together"
# Rows of the sweep's record: a list, one entry a run, for each value.
KIND = "together"
FEWER = "Or give --one-by-one, which holds one run at a time"


class Stack(NamedTuple):
    """The runs at a step: `state` [P, ...] with the trained parameters alone, and each run's best model on the host.

    frozen: the other parameters, which all share   chosen: the best models' steps   standings: see `choice`
    """

    state: TrainState
    frozen: Tree
    best: list[Tree]
    chosen: list[int]
    standings: list[choice.Standing]


def run(
    log: record.Record, parts: Parts, configs: Mapping[str, Config], preferences: np.ndarray, quiet: bool = False
) -> None:
    """Train the runs to their last step and give each its folder, `log.folder / NAME`, as `train.run` leaves it.

    log: the sweep's record, started   parts: with what the frozen encoder makes of the texts, their weighting reading the
    step's preference   configs: {name: the run's own config}   preferences: [P, K] in their order
    Goes on from the newest stacked checkpoint; a run that is over stays as it is. NumericError as of a run, naming it;
    Stopped after a signal.
    """
    content = resume.content(parts)
    sizes = sizes_of(parts, multiple_of(parts.config, 1))
    stack = restored(log.folder, parts, preferences, content)
    if not over(stack, parts):
        stack = trained(log, parts, list(configs), jnp.asarray(preferences, jnp.float32), stack, sizes, content, quiet)
    rows, known = list(record.rows(log.folder)), evaluate.reached(parts)
    timing = {stage: seconds / len(configs) for stage, seconds in record.timing(record.starts_of(log.folder)).items()}
    for at, (name, config) in enumerate(configs.items()):
        with record.open(log.folder / name, dump(config)) as own:
            if resume.finished(own.previous, config, own.folder) is None:
                finish(own, parts._replace(config=config), of_run(rows, at), at, stack, sizes, content, known, timing)


def over(stack: Stack, parts: Parts) -> bool:
    """Whether no run has a step to go."""
    stopped = all(choice.over(one, parts.config.evaluate) for one in stack.standings)
    return stopped or int(stack.state.step[0]) >= parts.steps


def restored(folder: Path, parts: Parts, preferences: np.ndarray, content: Mapping[str, Any]) -> Stack:
    """The newest stacked state, or the first one."""
    one = parts.first_state()
    kept, frozen = divide(one.params, parts.model.trainable(one.params))
    count = len(preferences)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), one._replace(params=kept))
    best = [jax.device_get({"params": kept, "memory": one.memory})] * count
    seal = checkpoint.sealed(folder / STACK)
    if seal is not None:
        resume.check_content(seal["run"], content, folder)
    found = checkpoint.latest(folder / STACK, {"state": state, "best": best})
    if found is None:
        # Copies: an array that stands for all runs could not be given away to the step.
        return Stack(jax.tree.map(jnp.array, state), frozen, best, [0] * count, [choice.Standing()] * count)
    tree, seal = found
    standings = [choice.found(one, parts.config.evaluate) for one in seal["run"]["standings"]]
    return Stack(tree["state"], frozen, jax.device_get(tree["best"]), seal["run"]["chosen"], standings)


def mapped(parts: Parts) -> Callable[[TrainState, Tree, Array, Batch], tuple[TrainState, dict[str, Array]]]:
    """The compiled step (stacked state, frozen parameters, preferences [P, K], batch) -> (stacked state, logs [P, ...])."""
    setting = train.setting(parts)._replace(varying=False)

    def one(state: TrainState, frozen: Tree, preference: Array, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        wished = setting._replace(preference=lambda key: preference)
        step = make_step(parts.model, parts.objectives, parts.weighting, parts.optimizer, wished)
        whole = state._replace(params=join(state.params, frozen))
        # The axis `data` of one device.
        alone = jax.tree.map(lambda leaf: leaf[None], batch)
        made = jax.vmap(step, in_axes=(None, 0), axis_name="data")(whole, alone)
        after, logs = jax.tree.map(lambda leaf: leaf[0], made)
        return after._replace(params=divide(after.params, parts.model.trainable(whole.params))[0]), logs

    return jax.jit(jax.vmap(one, in_axes=(0, None, 0, None)), donate_argnums=0)


def trained(
    log: record.Record,
    parts: Parts,
    names: Sequence[str],
    wishes: Array,
    stack: Stack,
    sizes: tuple[Size, ...],
    content: Mapping[str, Any],
    quiet: bool,
) -> Stack:
    """The runs after their last step, sealed. wishes: [P, K]"""
    config, rules, step = parts.config, parts.config.evaluate, mapped(parts)
    clock = dict.fromkeys(("prepare", "compile", "wait", "train", "evaluate", "save"), 0.0)
    clock |= record.starts_of(log.folder)[-1].get("timing", {})
    number, batch, met = int(stack.state.step[0]), None, set()
    skipped, saved = np.zeros(len(names), int), time.monotonic()
    if number == 0:
        first = train.evaluated(parts, model_of(stack, 0), "test", clock)
        log.write(0, "eval", {f"test/{key}": measured.value for key, measured in first.measured.items()})
    with (
        exhausted.told(lambda error: f"{exhausted.of_step(error, config, 1, None, stack.state, batch)}. {FEWER}"),
        stopping() as asked,
        progress.shown(parts.steps, number, config.batch.lists * len(names), quiet) as view,
        closing(train.fed(parts, sizes, multiple_of(config, 1), number, parts.steps, Link())) as loaded,
    ):
        for number, batch, numbers, waited in loaded:
            began = time.monotonic()
            state, logs = step(stack.state, stack.frozen, wishes, batch)
            stack, number = stack._replace(state=state), number + 1
            if train.unmet(batch, met):
                clock["compile"] += time.monotonic() - began
                began = time.monotonic()
            logs = jax.device_get(logs)
            each = [{name: value[at] for name, value in logs.items()} for at in range(len(names))]
            skipped = passed(parts, log.folder, names, number, each, batch.row, skipped)
            values = row_of(list(parts.objectives), each, numbers)
            clock["wait"] += waited
            clock["train"] += time.monotonic() - began
            if rules.select and train.due(number, rules.every, parts):
                began = time.monotonic()
                stack, found = chosen(stack, parts, number)
                values |= found
                clock["evaluate"] += time.monotonic() - began
            log.write(number, KIND, values)
            view.step(number, {name: float(np.mean(values[f"loss/{name}"])) for name in parts.objectives})
            last = over(stack, parts) or bool(asked)
            if last or train.due(number, config.save.every, parts, since=saved):
                began = time.monotonic()
                seal = {"standings": [choice.sealed(one, rules) for one in stack.standings], "chosen": stack.chosen}
                tree = {"state": stack.state, "best": stack.best}
                checkpoint.save(log.folder / STACK, tree, number, {**content, **seal}, keep=config.save.keep)
                saved = time.monotonic()
                clock["save"] += saved - began
                log.timed(clock)
            if asked:
                raise Stopped(asked[0])
            if last:
                break
    return stack


def passed(
    parts: Parts,
    folder: Path,
    names: Sequence[str],
    number: int,
    logs: Sequence[Mapping[str, Any]],
    rows: np.ndarray,
    skipped: np.ndarray,
) -> np.ndarray:
    """How many steps in a row were not finite, [P]. logs: one a run. NumericError as of `train.written`, naming the run."""
    for name, own, before in zip(names, logs, skipped.tolist(), strict=True):
        if choice.ends(parts.config, own, before):
            raise NumericError(f"{name}: {choice.why(parts, folder / STACK, number, own, rows, before)}")
    return np.where([own["finite"] for own in logs], 0, skipped + 1)


def row_of(names: Sequence[str], logs: Sequence[Mapping[str, Any]], numbers: Mapping[str, float]) -> dict[str, Any]:
    """A step's row of the sweep's record: for each value of `train.written` a list, one entry a run, null where it has none."""
    told = [conflicts.numbers(names, own) for own in logs]
    keys = dict.fromkeys(key for own in told for key in own)
    return {key: [own.get(key) for own in told] for key in keys} | dict(numbers)


def of_run(rows: Sequence[Mapping[str, Any]], at: int) -> list[dict[str, Any]]:
    """The rows of a run's own record out of the sweep's: its steps, its validations, and what the first model gave."""
    found = []
    for row in rows:
        own = {name: value[at] if isinstance(value, list) else value for name, value in row.items()}
        measured = {name: value for name, value in own.items() if name.startswith("valid/")}
        # A loss that is not there is null in a run's record; any other number is not written.
        steps = {
            name: value
            for name, value in own.items()
            if name not in measured and (value is not None or name.startswith("loss/"))
        }
        found.append(steps | ({"kind": "train"} if row["kind"] == KIND else {}))
        found += [{"step": row["step"], "kind": "eval", **measured}] if measured else []
    return found


def chosen(stack: Stack, parts: Parts, number: int) -> tuple[Stack, dict[str, list[float]]]:
    """The runs' best models after a validation, and what it gave: {"valid/KEY": one entry a run}.

    Only what `evaluate.select` and the floors name is measured; a run that has stopped for want of a better one keeps its
    best.
    """
    rules = parts.config.evaluate
    best, steps, standings, rows = list(stack.best), list(stack.chosen), list(stack.standings), []
    for at in range(len(standings)):
        model = model_of(stack, at)
        values = validated(parts, model, rules)
        rows.append(values)
        if choice.over(standings[at], rules):
            continue
        standings[at] = choice.after(standings[at], values, rules)
        if standings[at].since == 0:
            kept, _ = divide(model["params"], parts.model.trainable(model["params"]))
            best[at], steps[at] = jax.device_get({"params": kept, "memory": model["memory"]}), number
    told = {f"valid/{key}": [values.get(key, float("nan")) for values in rows] for key in (rules.select, *rules.floors)}
    return stack._replace(best=best, chosen=steps, standings=standings), told


def validated(parts: Parts, model: Mapping[str, Tree], rules: Evaluate) -> dict[str, float]:
    """The validation metrics {key: value} of a model, at least those that the rules name."""
    keys = (rules.select, *rules.floors)
    ends = {key.rpartition("/")[2] for key in keys}
    names = tuple(name for name in rules.metrics if name in ends) or rules.metrics[:1]
    # A scale is a matter of the utility's order alone.
    scale = None if any(key.startswith("utility") for key in keys) else dict.fromkeys(parts.objectives, (0.0, 1.0))
    found = evaluate.run(parts, model["params"], model["memory"], "valid", names=names, limit=rules.lists, scale=scale)
    return {key: measured.value for key, measured in found.measured.items()}


def model_of(stack: Stack, at: int) -> dict[str, Tree]:
    """What a run's model is used with, as `train.used` has it."""
    state = jax.tree.map(lambda leaf: leaf[at], stack.state)
    return {"params": join(averaged(state.opt_state, state.params), stack.frozen), "memory": state.memory}


def finish(
    own: record.Record,
    parts: Parts,
    rows: Sequence[Mapping[str, Any]],
    at: int,
    stack: Stack,
    sizes: tuple[Size, ...],
    content: Mapping[str, Any],
    known: tuple[dict[str, Any], str],
    timing: Mapping[str, float],
) -> None:
    """Write a run's folder: config, environment, record, best step and result, as `train.run` does at its end.

    timing: the run's share of what all took   known: see `evaluate.reached`
    """
    standing, steps = stack.standings[at], int(stack.state.step[at])
    model, step = model_of(stack, at), steps
    if standing.best is not None:
        model = {"params": join(stack.best[at]["params"], stack.frozen), "memory": stack.best[at]["memory"]}
        step = stack.chosen[at]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (own.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    own.start(steps)
    rules = parts.config.evaluate
    checkpoint.save(own.folder, model, step, {**content, **choice.sealed(standing, rules)}, name=BEST, keep=1)
    scale = evaluate.scale_of(parts, model["params"], model["memory"])
    found = evaluate.run(parts, model["params"], model["memory"], "test", scale=scale)
    train.noted(own, parts, steps, "test", found)
    # What no run decides, an oracle's orders, is measured once for all.
    reached, why = known
    table = train.table(list(rows), parts._replace(corpus=parts.corpus._replace(best=None)), found)["table"]
    for key, row in table.items():
        row |= {name: best[key].value for name, best in reached.items() if key in best}
    result = {
        "steps": steps,
        "told": choice.told(standing, rules, steps, parts.steps)
        + conflicts.told(rows, parts.objectives, rules.metrics, table),
        "table": table,
        **({"no_best": why} if why else {}),
        "timing": own.timed(timing),
        "feed": train.feed_numbers(list(rows), sizes),
        "chosen": step,
        "scale": scale,
    }
    own.finish(result)
