"""The training loop, top to bottom."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mobjrec import checkpoint, choice, conflicts, evaluate, exhausted, mesh, progress, record, resume
from mobjrec.checkpoint import BEST
from mobjrec.config import Config, Every, Pace, dump, plain
from mobjrec.data.loading import Loaded, batches
from mobjrec.data.sizes import Size
from mobjrec.defaults import compared_at, settled
from mobjrec.errors import NumericError, Stopped
from mobjrec.frozen import with_store
from mobjrec.link import Link
from mobjrec.optimizers import averaged
from mobjrec.parts import Parts, assemble, multiple_of, shares_candidates, sizes_of
from mobjrec.reading import warn_of
from mobjrec.report import ranked_lists
from mobjrec.saving import Saver
from mobjrec.state import TrainState
from mobjrec.step import Setting, make_step
from mobjrec.stopping import bounded, stopping
from mobjrec.types import Batch, Tree


def run(
    config: Config,
    folder: Path,
    cache: Path,
    *,
    quiet: bool = False,
    accepted: Sequence[str] = (),
    link: Link | None = None,
    enough: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> dict[str, Any]:
    """Train to the config's last step, from the newest sealed checkpoint in `folder` if there is one, to the same bits.

    Returns the content of the run's `result.json`: {"steps", "table": {metric: {"before", "after", ...}}, "timing"}; that
    of a run that is over already as it stands, if its data are as they were. timing: seconds; compile: the first step of
    each shape until it is sent off, so that wait / (wait + train) is the share of time in which steps wait for data.
    accepted: keys that may differ from those of the run in `folder`, see resume.check
    enough: (step, validation metrics) -> whether training ends here, as it does for want of `patience`
    link: to the other processes of the run, this one being the first; they run `follow.run`. One of errors.MISTAKES
    where it cannot; Stopped after a signal.
    """
    config, link = settled(config), link or Link()
    with link, record.open(folder, dump(config)) as log, stopping(at_once=True):
        overridden = resume.check(log.previous, config, resume.alone(log.folder), accepted)
        # A run that is over, told to go on with another key, is chosen from and evaluated anew.
        done = None if overridden else resume.finished(log.previous, config, folder)
        began = time.monotonic()
        link.same("another config", resume.told(config))
        mesh.keep_compilations(cache / "compiled")
        machine = config.parallel.devices, config.batch.lists, config.parallel.map
        # Before the data are read: what the machine refuses is told at once. The others wait in it for this one.
        devices = None if done is not None and link.count == 1 else mesh.make(*machine)
        parts = assemble(config, cache)
        content = resume.content(parts)
        if done is not None:
            resume.unchanged(folder, content)
            link.lead({"result": done})
            return done
        link.lead({"step": None})  # what the caches take of texts is in them
        state, seal = resume.state(folder, parts, devices, content, link)
        parts = with_store(parts, mesh.local(state.params))
        link.lead({"step": int(state.step)})
        multiple = multiple_of(config, devices.size)
        sizes = sizes_of(parts, multiple)
        step = mapped_step(parts, devices)
        again = seal is not None and "unmeasured" in seal["run"]
        changed = resume.goes_on(resume.changes(log.previous, config))
        changed += log.start(int(state.step), again=again, wandb=config.views.wandb, overridden=overridden)
        warn_of(config, parts.objectives, parts.dataset)
        clock = {"prepare": time.monotonic() - began}
        clock |= dict.fromkeys(("compile", "wait", "train", "evaluate", "save"), 0.0)
        number, lists, rules, met = int(state.step), config.batch.lists, config.evaluate, set()
        standing = missed = resume.standing(folder, seal, rules)
        stop = number if choice.over(standing, rules) else parts.steps
        with (
            exhausted.told(lambda error: exhausted.of_step(error, config, devices.size, step, state, batch)),
            stopping(link.asked) as asked,
            progress.shown(parts.steps, number, lists, quiet) as view,
            Saver(folder, content, view.say) as saver,
            closing(fed(parts, sizes, multiple, number, stop, link)) as loaded,
        ):
            parts = parts._replace(functions=bounded(parts.functions, asked, config.save.grace))
            for sentence in [*parts.notes, *changed, *(seal["skipped"] if seal else [])]:
                view.say(sentence)
            if number == 0:
                first = noted(log, parts, 0, "test", evaluated(parts, used(state), "test", clock))
                log.settings(resume.flat(plain(config)), list(first))
            pending, batch, skipped = None, None, passed_over(folder)
            saved = sent = time.monotonic()
            todo = chain([(number, None, {}, 0.0)] * again, loaded)
            for number, batch, numbers, waited in todo:
                began = time.monotonic()
                if batch is not None:
                    link.lead({"step": number + 1})
                    state, logs = step(state, batch)
                    if unmet(batch, met):
                        # The call returns once the program is compiled and sent off; its run is fetched with the next step.
                        clock["compile"] += time.monotonic() - began
                        began = time.monotonic()
                    if pending is not None:
                        # Fetches the step before while this one runs.
                        skipped = written(log, view, saver, parts, skipped, *pending)
                    now = time.monotonic()
                    pending = number + 1, logs, batch.row, {**numbers, "wait": waited, "seconds": now - sent}
                    sent = now
                    number += 1
                measure = batch is None or due(number, config.evaluate.every, parts)
                last = number == parts.steps or bool(asked)
                keep = due(number, config.save.every, parts, since=saved) or last
                if pending is not None and (measure or keep):
                    skipped = written(log, view, saver, parts, skipped, *pending)
                    pending = None
                clock["wait"] += waited
                clock["train"] += time.monotonic() - began
                given_up = {}
                if measure:
                    try:
                        values = validated(log, view, parts, number, used(state), clock)
                    except Stopped:
                        # Measured when the run goes on.
                        last, given_up = True, {"unmeasured": True}
                if measure and not given_up:
                    standing = missed if saver.settle() == BEST else standing
                    missed = standing._replace(since=standing.since + 1)
                    standing = choice.after(standing, values, rules)
                    last |= choice.over(standing, rules) or bool(asked or (enough and enough(number, values)))
                    if standing.since == 0:
                        saver.save(used(state), number, choice.sealed(standing, rules), name=BEST, keep=1, last=last)
                if keep or last:
                    began = time.monotonic()
                    # A best step that could not be saved is not the best.
                    standing = missed if saver.settle() == BEST else standing
                    seal = {**choice.sealed(standing, rules), **given_up}
                    saver.save(state, number, seal, keep=config.save.keep, last=last)
                    saved = time.monotonic()
                    clock["save"] += saved - began
                if measure or keep:
                    log.timed(clock)
                    sent = time.monotonic()
                if last and asked:
                    raise Stopped(asked[0])
                if last:
                    break
            if standing.best is None:
                saver.save(used(state), number, choice.sealed(standing, rules), name=BEST, keep=1, last=True)
        result = {"steps": number, **measured(log, parts, sizes, number, used(state), clock)}
        result["told"] = choice.told(standing, rules, number, parts.steps) + result["told"]
        log.finish(result)
        link.lead({"result": resume.result(folder)})
        return result


def measured(
    log: record.Record, parts: Parts, sizes: tuple, number: int, like: dict[str, Tree], clock: dict[str, float]
) -> dict[str, Any]:
    """What the best step, which has the form of `like`, is worth on the test split, and what the run took."""
    final, sealed = checkpoint.best(log.folder, like)
    last = evaluated(parts, final, "test", clock)
    noted(log, parts, number, "test", last)
    rows = list(record.rows(log.folder))
    found = table(rows, parts, last)
    return {
        **found,
        "told": conflicts.told(rows, parts.objectives, parts.config.evaluate.metrics, found["table"]),
        "timing": log.timed(clock),
        "feed": feed_numbers(rows, sizes),
        "chosen": sealed["step"],
        "scale": evaluate.scale_of(parts, final["params"], final["memory"]),
    }


def fed(parts: Parts, sizes: tuple[Size, ...], multiple: int, start: int, stop: int, link: Link) -> Iterator[Loaded]:
    """This process' part of the batches of steps start .. stop - 1."""
    return batches(
        parts.feed,
        parts.dataset.train,
        parts.train_candidates,
        sizes,
        seed=parts.config.seed,
        batch=parts.config.batch.lists,
        start=start,
        stop=stop,
        multiple=multiple,
        part=(link.number, link.count),
    )


def mapped_step(parts: Parts, devices: Mesh) -> Callable:
    """The compiled step of these parts on these devices."""
    own = setting(parts)
    step = make_step(parts.model, parts.objectives, parts.weighting, parts.optimizer, own)
    return mesh.mapped(step, devices, own.shared, parts.config.parallel.map)


def setting(parts: Parts) -> Setting:
    """What the step of these parts is made of beside its functions."""
    config, draw = parts.config, parts.preference
    return Setting(
        seed=config.seed,
        steps_per_epoch=parts.steps_per_epoch,
        chunk_rows=config.batch.chunk_rows,
        shared=shares_candidates(parts),
        gram_at=gram_at(parts),
        unit=config.weight_scale == "unit",
        preference=draw and (lambda key: draw(key, len(parts.objectives))),
    )


def unmet(batch: Batch, met: set[tuple]) -> bool:
    """Whether a batch of these shapes comes for the first time; `met` is kept up to date."""
    shape = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    before = len(met)
    met.add(shape)
    return len(met) > before


def gram_at(parts: Parts) -> str:
    """Where gradients are compared, also where the config alone could not say it."""
    return parts.config.gram_at or compared_at(parts.model)


def used(state: TrainState) -> dict[str, Tree]:
    """What a trained model is used with: parameters (their running average where one is kept) and memories."""
    return mesh.local({"params": averaged(state.opt_state, state.params), "memory": state.memory})


def evaluated(parts: Parts, model: dict[str, Tree], split: str, clock: dict[str, float], limit: int | None = None):
    """The split's metrics, their time counted."""
    began = time.monotonic()
    found = evaluate.run(parts, model["params"], model["memory"], split, limit=limit)
    clock["evaluate"] += time.monotonic() - began
    return found


def validated(
    log: record.Record, view: progress.Shown, parts: Parts, number: int, model: dict[str, Tree], clock: dict[str, float]
) -> dict[str, float]:
    """The validation metrics at a step, recorded and told of; keys without the split."""
    found = evaluated(parts, model, "valid", clock, parts.config.evaluate.lists)
    values = noted(log, parts, number, "valid", found)
    view.evaluated(number, shown_metrics(parts, values))
    return {key.removeprefix("valid/"): value for key, value in values.items()}


def passed_over(folder: Path) -> int:
    """How many steps in a row, the last recorded ones, were not finite."""
    finite = [row.get("finite", True) for row in record.rows(folder) if row["kind"] == "train"]
    return next((count for count, one in enumerate(reversed(finite)) if one), len(finite))


def written(
    log: record.Record, view: progress.Shown, saver: Saver, parts: Parts, skipped: int, number: int, logs, rows, numbers
) -> int:
    """The step's row written; how many steps in a row, this one the last, were not finite, `skipped` before it.

    NumericError where the config does not say to pass over it, or over so many, or to count problems that are not solved.
    """
    logs = jax.device_get(logs)
    values = conflicts.numbers(list(parts.objectives), logs) | numbers
    if numbers["cells"]:
        values["padding"] = 1 - numbers["tokens"] / numbers["cells"]
    log.write(number, "train", {**values, "lists_per_second": len(rows) / max(numbers["seconds"], 1e-9)})
    view.step(number, {name: values[f"loss/{name}"] for name in parts.objectives})
    if choice.ends(parts.config, logs, skipped):
        saver.settle()
        raise NumericError(choice.why(parts, log.folder, number, logs, rows, skipped))
    return 0 if logs["finite"] else skipped + 1


def due(number: int, every: Every | Pace | None, parts: Parts, since: float | None = None) -> bool:
    """Whether something that happens `every` so often happens after `number` updates."""
    if every is None:
        return False
    if every.steps is not None:
        return number % every.steps == 0
    if every.epochs is not None:
        return number % max(1, round(every.epochs * parts.steps_per_epoch)) == 0
    return since is not None and time.monotonic() - since > 60 * every.minutes


def shown_metrics(parts: Parts, values: Mapping[str, Any]) -> dict[str, float]:
    """The few metrics that a line has room for: the first named one of every objective, by its own order and label."""
    end = f"/{parts.config.evaluate.metrics[0]}"
    found = {key.removeprefix("valid/"): value for key, value in values.items() if key.endswith(end)}
    own = {
        key: value
        for key, value in found.items()
        if not key.startswith("utility") and evaluate.is_own(parts.objectives, key)
    }
    return {key: float("nan") if value is None else value for key, value in own.items()}


def noted(log: record.Record, parts: Parts, number: int, split: str, found: evaluate.Evaluation) -> dict[str, float]:
    """The evaluation's row, {"SPLIT/KEY": value}, written; the views get a few ranked lists, too."""
    values = {f"{split}/{key}": measured.value for key, measured in found.measured.items()}
    log.write(number, "eval", values)
    if found.first is not None:
        log.text(number, f"ranked/{split}", ranked_lists(parts, split, found.first))
    return values


def table(rows: list[dict[str, Any]], parts: Parts, after: evaluate.Evaluation) -> dict[str, Any]:
    """{"table": {metric: {"before", "after", "error"}} on the test split, with "best" and "truth" where they are known}

    and "no_best", a sentence, where the corpus has a law but no posterior of what this model reads.
    """
    first = next((row for row in rows if row["kind"] == "eval" and row["step"] == 0), {})
    known, why = evaluate.reached(parts)
    found = {
        key: {
            "own": evaluate.is_own(parts.objectives, key),
            "before": first.get(f"test/{key}"),
            "after": measured.value,
            "error": measured.error,
            **{name: found[key].value for name, found in known.items() if key in found},
        }
        for key, measured in after.measured.items()
    }
    return {"table": found} | ({"no_best": why} if why else {})


def feed_numbers(rows: list[dict[str, Any]], sizes: tuple) -> dict[str, Any]:
    """The share of padding in the packed rows, and the shapes that were compiled."""
    rows = [row for row in rows if row["kind"] == "train"]
    cells, tokens = sum(row["cells"] for row in rows), sum(row["tokens"] for row in rows)
    return {
        "padding": 1 - tokens / cells if cells else 0.0,
        "shapes": len(sizes) + int(sum(row["extra"] for row in rows)),
        "sizes": [list(size) for size in sizes],
    }
