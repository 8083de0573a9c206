"""`mobjrec tune`: one config trained with many settings, the next ones proposed by Optuna, each run in a folder of its own.

config.yaml   the config that is searched around     search.json   the space, metrics and seed of the search
study.db      Optuna's storage: all that was proposed   trials.json   what was found   trial-000/ ...   run folders
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from mobjrec import evaluate, record, resume, train
from mobjrec import space as spaces
from mobjrec.checks import selectable
from mobjrec.config import Config, dump
from mobjrec.defaults import settled
from mobjrec.errors import NumericError, RunFolderError, UserError
from mobjrec.metrics.keys import keyed
from mobjrec.pareto import front
from mobjrec.problems import nearest
from mobjrec.rank import load
from mobjrec.reading import objectives_of

# Trials that are measured whole before any is ended early, and validations that each has at least.
STARTUP, LEAST = 4, 2
Course = list[list[float]]


def run(
    config: Config,
    folder: Path,
    cache: Path,
    trials: int,
    *,
    space: spaces.Space | None = None,
    metrics: Sequence[str] = (),
    prune: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train `trials` runs in all into `folder / trial-NNN`, from what is there on, for the highest validation metrics.

    space: see spaces.default, which it is without   metrics: keys of metrics, for several the trials' front is looked for;
    the utility's by each label by default (with one objective, its own)   prune: see `behind`
    A trial counts with its kept step's metrics. One that was interrupted is marked as failed and made again, in its
    folder; where the loss is not finite or settings do not fit each other it is a failed one. The sampler is TPE, for each
    trial seeded by (seed, its number), so that a search that was interrupted proposes what it would have proposed.
    Returns what `trials.json` holds, see `summary`. UserError before training for a space or metrics that do not fit, and
    without Optuna; RunFolderError where the folder holds another search.
    """
    optuna = imported()
    config, space = asked(settled(config), space)
    metrics = tuple(metrics) or of_utility(config)
    check(config, metrics, trials)
    spaces.check(config, space)
    about = {"space": spaces.written(space), "metrics": list(metrics), "seed": seed}
    with record.open(folder, dump(config)) as log:
        resume.check(log.previous, config, log.folder)
        # Before `start`, which would cut the record of a run that is no search.
        remembered(log, about)
        log.start(0)
        study = kept_study(optuna, log.folder, len(metrics))
        redo(optuna, study)
        kinds = {key: distribution(optuna, one) for key, one in space.items()}
        while (number := len(over(study))) < trials:
            study.sampler = optuna.samplers.TPESampler(
                seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            )
            trial = study.ask(kinds)
            name, began = f"trial-{number:03d}", time.monotonic()
            others = [one.user_attrs["told"]["course"] for one in over(study)] if prune else []
            told = tried(config, log.folder / name, cache, trial.params, metrics, others)
            told |= {"folder": name, "seconds": round(time.monotonic() - began, 1)}
            trial.set_user_attr("told", told)
            state = optuna.trial.TrialState.FAIL if told["values"] is None else optuna.trial.TrialState.COMPLETE
            study.tell(trial, told["values"], state)
            say(f"{name}: {line(trial.params, told, metrics)}")
        found = summary(study, metrics)
        record.replaced(log.folder / "trials.json", json.dumps(found, indent=1))
    return found


def imported() -> Any:
    """Optuna, without its own log. UserError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise UserError("mobjrec tune wants Optuna, which is not installed; pip install 'mobjrec[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def asked(config: Config, space: spaces.Space | None) -> tuple[Config, spaces.Space]:
    """The config that is searched around, validated once an epoch where it says nothing of that, and its space."""
    if config.evaluate.every is None:
        config = spaces.changed(config, {"evaluate.every": {"epochs": 1}})
    return spaces.default(config) if space is None else (config, space)


def of_utility(config: Config) -> tuple[str, ...]:
    """What a trial is worth by default: the first metric of each label, of the order that all objectives make together."""
    labels = dict.fromkeys(one.label for one in objectives_of(config).values() if one.label)
    order = "utility" if len(config.objectives) > 1 else next(iter(config.objectives))
    return tuple(keyed(order, label, config.evaluate.metrics[0]) for label in labels)


def check(config: Config, metrics: Sequence[str], trials: int) -> None:
    """UserError for a number of trials below 1, no metric, and one that a validation of this config does not measure."""
    if trials < 1:
        raise UserError(f"--trials {trials}: give at least 1")
    if not metrics:
        raise UserError("no objective of this config is measured by a label; there is nothing to search for")
    known = selectable(objectives_of(config), config.evaluate.metrics)
    for key in metrics:
        if key not in known:
            raise UserError(f"--metrics: {key} is not measured{nearest(key, known, what='metrics')}")
    if len(set(metrics)) < len(metrics):
        raise UserError(f"--metrics {','.join(metrics)}: one is given twice; keep one")


def remembered(log: record.Record, about: Mapping[str, Any]) -> None:
    """Keep what the search is, RunFolderError where the folder's is another one, or no search."""
    folder, path = log.folder, log.folder / "search.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{path} is damaged; put it back, or search into another folder (--run)") from error
        for key, value in about.items():
            if before.get(key) != value:
                raise RunFolderError(
                    f"{folder} holds a search with another {key}: {json.dumps(before.get(key))} there, "
                    f"{json.dumps(value)} now; use another folder (--run)"
                )
    elif log.previous is not None:
        raise RunFolderError(f"{folder} holds a run that is no search; name another folder (--run)")
    record.replaced(path, json.dumps(about, indent=1))


def kept_study(optuna: Any, folder: Path, count: int) -> Any:
    """The folder's study of so many metrics, made where there is none. RunFolderError where its file is damaged."""
    path, directions = folder / "study.db", ["maximize"] * count
    try:
        return optuna.create_study(
            storage=f"sqlite:///{path.resolve()}", study_name="tune", load_if_exists=True, directions=directions
        )
    # Whatever the library below Optuna raises.
    except Exception as error:
        raise RunFolderError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); put it back, or search into another folder (--run)"
        ) from error


def redo(optuna: Any, study: Any) -> None:
    """Mark trials that were interrupted as failed, and have them proposed again."""
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        if "told" in trial.user_attrs:
            # It came to its end, and was interrupted before Optuna had its values.
            study.tell(trial.number, trial.user_attrs["told"]["values"])
        else:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)


def over(study: Any) -> list[Any]:
    """Trials that came to an end, failed ones too; not those that were interrupted."""
    return [trial for trial in study.get_trials() if "told" in trial.user_attrs]


def distribution(optuna: Any, one: spaces.Range | spaces.Choice) -> Any:
    """How Optuna draws it. What is no scalar goes as JSON."""
    if isinstance(one, spaces.Choice):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in one.values])
    if isinstance(one.low, int):
        return optuna.distributions.IntDistribution(one.low, one.high, log=one.log)
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def plainly(params: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna proposed as values of a config."""
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in params.items()}


def tried(
    config: Config, folder: Path, cache: Path, params: Mapping[str, Any], metrics: Sequence[str], others: list[Course]
) -> dict[str, Any]:
    """A trial: {"values": [M] or None, "course", "pruned": at which validation or None, "why": it failed, or ""}."""
    enough = lambda step, values: behind(course(folder, metrics), others)
    try:
        result = train.run(spaces.changed(config, plainly(params)), folder, cache, quiet=True, enough=enough)
    except (UserError, NumericError) as error:
        return {"values": None, "course": [], "pruned": None, "why": str(error)}
    found = course(folder, metrics)
    ended = next((at for at in range(1, len(found) + 1) if behind(found[:at], others)), None)
    return {"values": kept(folder, cache, result["chosen"], metrics), "course": found, "pruned": ended, "why": ""}


def course(folder: Path, metrics: Sequence[str]) -> Course:
    """The best of each metric up to each validation of a run, [validations][M]; one that is undefined counts as the lowest."""
    best, found = [-np.inf] * len(metrics), []
    for row in record.rows(folder):
        if row["kind"] == "eval" and f"valid/{metrics[0]}" in row:
            values = [row.get(f"valid/{key}") for key in metrics]
            best = [max(b, -np.inf if v is None else v) for b, v in zip(best, values, strict=True)]
            found.append([float(value) if np.isfinite(value) else -1e30 for value in best])
    return found


def behind(own: Course, others: list[Course]) -> bool:
    """Whether a trial is ended: in every metric its best so far is below the median of the others' bests of that age.

    The median rule (Golovin et al. 2017), for several metrics at once, which Optuna's own pruners do not take: who leads in
    one goes on. Not before LEAST validations, nor before STARTUP others have come as far.
    """
    age = len(own)
    there = [one[age - 1] for one in others if len(one) >= age]
    if age < LEAST or len(there) < STARTUP:
        return False
    return all(
        value < statistics.median(column) for value, column in zip(own[-1], zip(*there, strict=True), strict=True)
    )


def kept(folder: Path, cache: Path, step: int, metrics: Sequence[str]) -> list[float]:
    """[M] validation metrics of the step that a run keeps, measured now where it was not validated there."""
    for row in record.rows(folder):
        if row["kind"] == "eval" and row["step"] == step and f"valid/{metrics[0]}" in row:
            values = [row[f"valid/{key}"] for key in metrics]
            break
    else:
        run = load(folder, cache)
        limit = run.parts.config.evaluate.lists
        found = evaluate.run(run.parts, run.params, run.memory, "valid", scale=run.scale, limit=limit).measured
        values = [found[key].value for key in metrics]
    return [-1e30 if value is None or not np.isfinite(value) else float(value) for value in values]


def summary(study: Any, metrics: Sequence[str]) -> dict[str, Any]:
    """{"metrics", "trials": [{"folder", "params", "values", "pruned", "why", "seconds", "front", "utility"}], "best"}

    front: whether no other trial that ran to its end is at least as good in all metrics and better in one   utility: the
    mean over metrics of how far the value lies from the lowest of such trials to their highest   best: the name of the
    one with the highest, "" where none ran to its end
    """
    rows = [
        {key: one.user_attrs["told"][key] for key in ("folder", "values", "pruned", "why", "seconds")}
        | {"params": plainly(one.params), "front": False, "utility": None}
        for one in over(study)
    ]
    whole = [row for row in rows if row["values"] is not None and row["pruned"] is None]
    if whole:
        points = np.array([row["values"] for row in whole])
        low, high = points.min(axis=0), points.max(axis=0)
        shares = (points - low) / np.where(high > low, high - low, 1.0)
        for row, inside, share in zip(whole, front(points), shares, strict=True):
            row |= {"front": bool(inside), "utility": float(share.mean())}
    best = max(whole, key=lambda row: row["utility"], default={"folder": ""})["folder"]
    return {"metrics": list(metrics), "trials": rows, "best": best}


def line(params: Mapping[str, Any], told: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """A trial in a line."""
    settings = ", ".join(f"{key}={brief(value)}" for key, value in plainly(params).items())
    if told["values"] is None:
        return f"{settings}: failed: {told['why'].splitlines()[0]}"
    found = ", ".join(f"{key} {value:.4f}" for key, value in zip(metrics, told["values"], strict=True))
    return f"{settings}: {found}" + (f", ended at validation {told['pruned']}" if told["pruned"] else "")


def brief(value: Any) -> str:
    """A setting as a table has room for."""
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def table(found: Mapping[str, Any], folder: Path) -> Group:
    """The trials that no other dominates, best utility first, and how to use the best."""
    rows = [row for row in found["trials"] if row["front"]]
    grid = Grid(title="validation split: trials that no other dominates", title_justify="left", box=SIMPLE_HEAD)
    keys = list(rows[0]["params"]) if rows else []
    for name in ("trial", *(key.replace(".", "\n") for key in keys), *found["metrics"], "utility"):
        grid.add_column(name.replace("/", "\n"), justify="left" if name == "trial" else "right")
    for row in sorted(rows, key=lambda row: -row["utility"]):
        values = (f"{value:.4f}" for value in (*row["values"], row["utility"]))
        grid.add_row(row["folder"], *(brief(row["params"][key]) for key in keys), *values)
    counts = {
        "ended early": sum(row["pruned"] is not None for row in found["trials"]),
        "failed": sum(row["values"] is None for row in found["trials"]),
    }
    lines = [
        f"{len(found['trials'])} trials, " + ", ".join(f"{count} {what}" for what, count in counts.items()),
        "utility: mean over metrics of where the value lies between the trials' lowest and highest",
        f"folder: {folder} (trials.json, study.db; every trial is a run folder)",
    ]
    if found["best"]:
        best = folder / found["best"]
        # With a folder: by the name of its file every such run would be `runs/config`.
        again = f"  mobjrec train {best / 'config.yaml'} seed=1 --run {folder}-seed1"
        lines += [f"best: {found['best']}", f"  mobjrec eval {best}", again]
    else:
        lines += [f"no trial ran to its end: {row['folder']}: {row['why']}" for row in found["trials"][-1:]]
    return Group(grid, Text("\n".join(lines)))
