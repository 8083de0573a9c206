"""The training loop, top to bottom."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mobjrec import checkpoint, evaluate, mesh, progress, record, resume
from mobjrec.config import Config, Every, Pace, dump
from mobjrec.data.loading import batches
from mobjrec.defaults import compared_at, settled
from mobjrec.errors import NumericError, RunFolderError
from mobjrec.frozen import with_store
from mobjrec.optimizers import averaged
from mobjrec.parts import Parts, assemble, shares_candidates, sizes_of
from mobjrec.reading import warn_of_lists_of_one
from mobjrec.state import TrainState
from mobjrec.step import Setting, make_step
from mobjrec.types import Batch, Tree


class Stopped(Exception):
    """A signal asked the run to save and stop; `code` is the exit code that says so."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}; the same command goes on from here")
        self.code = 128 + number


def run(config: Config, folder: Path, cache: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train to the config's last step, from the newest sealed checkpoint in `folder` if there is one, to the same bits.

    Returns the content of the run's `result.json`: {"steps", "table": {metric: {"before", "after", ...}}, "timing"}; that
    of a run that is over already as it stands, if its data are as they were. timing: seconds; compile: the first step of
    each shape until it is sent off, so that wait / (wait + train) is the share of time in which steps wait for data. One of
    errors.MISTAKES where it cannot; Stopped after a signal.
    """
    config = settled(config)
    with record.open(folder, dump(config)) as log:
        resume.check(log.previous, config, folder)
        done = resume.finished(log.previous, config, folder)
        began = time.monotonic()
        mesh.keep_compilations(cache / "compiled")
        # Before the data are read: what the machine refuses is told at once.
        devices = None if done is not None else mesh.make(config.parallel.devices, config.batch.lists)
        parts = assemble(config, cache)
        content = resume.content(parts)
        if done is not None:
            resume.unchanged(folder, content)
            return done
        state, seal = resume.state(folder, parts, devices, content)
        parts = with_store(parts, state.params)
        multiple = devices.size * (config.batch.chunk_rows or 1)
        sizes = sizes_of(parts, multiple)
        step = mapped_step(parts, devices)
        changed = log.start(int(state.step))
        warn_of_lists_of_one(config, parts.dataset)
        # A best step that was sealed after the state we go on from will come again.
        checkpoint.forget(folder, int(state.step), name=checkpoint.BEST)
        clock = {"prepare": time.monotonic() - began}
        clock |= dict.fromkeys(("compile", "wait", "train", "evaluate", "save"), 0.0)
        best = seal["run"].get("best") if seal else None
        lists, failed, met = config.batch.lists, set(), set()

        with stopping() as asked, progress.shown(parts.steps, int(state.step), lists, quiet) as view:
            for sentence in [*parts.notes, *changed, *(seal["skipped"] if seal else [])]:
                view.say(sentence)
            if int(state.step) == 0:
                log.write(0, "eval", _values(evaluated(parts, used(state), "test", clock), "test"))
            pending = None
            loaded = batches(
                parts.feed,
                parts.dataset.train,
                parts.train_candidates,
                sizes,
                seed=config.seed,
                batch=lists,
                start=int(state.step),
                stop=parts.steps,
                multiple=multiple,
            )
            saved = time.monotonic()
            for number, batch, numbers, waited in loaded:
                began = time.monotonic()
                state, logs = step(state, batch)
                if unmet(batch, met):
                    # The call returns once the program is compiled and sent off; its run is fetched with the next step.
                    clock["compile"] += time.monotonic() - began
                    began = time.monotonic()
                if pending is not None:
                    written(log, view, parts, *pending)  # fetches the step before while this one runs
                pending = number + 1, logs, batch.row, {**numbers, "wait": waited}
                number += 1
                measure = due(number, config.evaluate.every, parts)
                keep = due(number, config.save.every, parts, since=saved) or number == parts.steps or bool(asked)
                if measure or keep:
                    written(log, view, parts, *pending)
                    pending = None
                clock["wait"] += waited
                clock["train"] += time.monotonic() - began
                if measure:
                    found = evaluated(parts, used(state), "valid", clock, config.evaluate.lists)
                    values = _values(found, "valid")
                    log.write(number, "eval", values)
                    view.evaluated(number, shown_metrics(parts, values))
                    chosen = values.get(f"valid/{config.evaluate.select}", float("nan"))
                    if chosen > (-np.inf if best is None else best):
                        save = partial(checkpoint.save, folder, used(state), number, {**content, "best": chosen})
                        best = chosen if attempted(checkpoint.BEST, save, 1, failed, view.say) else best
                if keep:
                    began, last = time.monotonic(), number == parts.steps or bool(asked)
                    save = partial(checkpoint.save, folder, state, number, {**content, "best": best})
                    attempted(checkpoint.RECENT, save, config.save.keep, failed, view.say, last)
                    saved = time.monotonic()
                    clock["save"] += saved - began
                if asked:
                    raise Stopped(asked[0])

        if best is None:
            save = partial(checkpoint.save, folder, used(state), parts.steps, {**content, "best": None})
            attempted(checkpoint.BEST, save, 1, failed, view.say, last=True)
        final, sealed = checkpoint.best(folder, used(state))
        last = evaluated(parts, final, "test", clock)
        log.write(parts.steps, "eval", _values(last, "test"))
        result = {
            "steps": parts.steps,
            **table(folder, parts, last),
            "timing": {name: round(seconds, 2) for name, seconds in clock.items()},
            "feed": feed_numbers(folder, sizes),
            "chosen": sealed["step"],
            "scale": evaluate.scale_of(parts, final["params"], final["memory"]),
        }
        log.finish(result)
        return result


def mapped_step(parts: Parts, devices: Mesh) -> Callable:
    """The compiled step of these parts on these devices."""
    config, shared = parts.config, shares_candidates(parts)
    setting = Setting(
        seed=config.seed,
        steps_per_epoch=parts.steps_per_epoch,
        chunk_rows=config.batch.chunk_rows,
        shared=shared,
        gram_at=gram_at(parts),
        unit=config.weight_scale == "unit",
    )
    step = make_step(parts.model, parts.objectives, parts.weighting, parts.optimizer, setting)
    return mesh.mapped(step, devices, shared, config.parallel.map)


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
    return {"params": averaged(state.opt_state, state.params), "memory": state.memory}


def evaluated(parts: Parts, model: dict[str, Tree], split: str, clock: dict[str, float], limit: int | None = None):
    """The split's metrics, their time counted."""
    began = time.monotonic()
    found = evaluate.run(parts, model["params"], model["memory"], split, limit=limit)
    clock["evaluate"] += time.monotonic() - began
    return found


def written(log: record.Record, view: progress.Shown, parts: Parts, number: int, logs, rows, numbers) -> None:
    """The step's row. NumericError where it was not finite and the config does not say to skip it."""
    logs = jax.device_get(logs)
    names = list(parts.objectives)
    # An absent objective has no loss in this step, not one of 0.
    losses = {
        n: float(x) if p else float("nan") for n, x, p in zip(names, logs["losses"], logs["present"], strict=True)
    }
    weights = dict(zip(names, logs["weights"].tolist(), strict=True))
    values = {f"loss/{name}": loss for name, loss in losses.items()}
    values |= {f"weight/{name}": weight for name, weight in weights.items()}
    if "gram" in logs:
        values["gram"] = logs["gram"]
    log.write(
        number, "train", {**values, "gradient_norm": logs["gradient_norm"], "finite": bool(logs["finite"]), **numbers}
    )
    view.step(number, losses)
    if not logs["finite"] and parts.config.non_finite == "raise":
        bad = [
            name
            for name, loss in losses.items()
            if np.isinf(loss) or (np.isnan(loss) and logs["present"][names.index(name)])
        ]
        what = f"the loss of {', '.join(bad)} is" if bad else "a gradient is"
        listed = [int(r) for r in rows if r >= 0][:10]
        raise NumericError(
            f"step {number}: {what} not finite; training lists {listed} ...; the step was not applied. "
            "Lower optimizer.learning_rate, clip gradients (optimizer.clip), or set non_finite: skip to pass over such steps"
        )


def attempted(
    name: str, save: Callable[..., None], keep: int, failed: set[str], say: Callable[[str], None], last: bool = False
) -> bool:
    """Whether the step was saved. A save that fails is told of and passes; the second in a row of one `name` does not.

    failed: names whose last save failed, kept up to date   last: no save follows, so a failed one is tried again at once
    RunFolderError when training has to stop; what was sealed before is as it was.
    """
    for _ in range(2 if last else 1):
        try:
            save(name=name, keep=keep)
        except RunFolderError as error:
            if name in failed:
                text = f"{error}; two saves in a row failed, so training stops. The steps sealed before are intact: free space"
                raise RunFolderError(f"{text} and give the same command again") from error
            failed.add(name)
            say(f"{error}; {'it is tried again' if last else 'training goes on and stops if the next save fails, too'}")
        else:
            failed.discard(name)
            return True
    return False


def due(number: int, every: Every | Pace | None, parts: Parts, since: float | None = None) -> bool:
    """Whether something that happens `every` so often happens after `number` updates."""
    if every is None:
        return False
    if every.steps is not None:
        return number % every.steps == 0
    if every.epochs is not None:
        return number % max(1, round(every.epochs * parts.steps_per_epoch)) == 0
    return since is not None and time.monotonic() - since > 60 * every.minutes


@contextmanager
def stopping() -> Iterator[list[int]]:
    """A list that gets the number of a SIGTERM or SIGINT; a second signal stops at once."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _values(found: evaluate.Evaluation, split: str) -> dict[str, float]:
    return {f"{split}/{key}": measured.value for key, measured in found.measured.items()}


def table(folder: Path, parts: Parts, after: evaluate.Evaluation) -> dict[str, Any]:
    """{"table": {metric: {"before", "after", "error"}} on the test split, with "best" and "truth" where they are known}

    and "no_best", a sentence, where the corpus has a law but no posterior of what this model reads.
    """
    first = next((row for row in record.rows(folder) if row["kind"] == "eval" and row["step"] == 0), {})
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


def feed_numbers(folder: Path, sizes: tuple) -> dict[str, Any]:
    """The share of padding in the packed rows, and the shapes that were compiled."""
    rows = [row for row in record.rows(folder) if row["kind"] == "train"]
    cells, tokens = sum(row["cells"] for row in rows), sum(row["tokens"] for row in rows)
    return {
        "padding": 1 - tokens / cells if cells else 0.0,
        "shapes": len(sizes) + int(sum(row["extra"] for row in rows)),
        "sizes": [list(size) for size in sizes],
    }
