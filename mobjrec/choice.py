"""Which evaluation's step is the best of a run, and when a run ends: for want of a better one, or at a step that went wrong."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobjrec import checkpoint, conflicts
from mobjrec.config import Config, Evaluate, plain
from mobjrec.parts import Parts
from mobjrec.report import not_finite

# What makes the values of two evaluations comparable.
RULE = ("select", "floors", "lists", "candidates")


class Standing(NamedTuple):
    """The best evaluation so far; every seal carries it, so that a resumed run chooses and stops alike.

    best: its value of `evaluate.select`, None where there is none   shortfall: by how much it misses the floor that it
    misses most, 0 where it meets all   since: evaluations after it
    """

    best: float | None = None
    shortfall: float = 0.0
    since: int = 0


def after(standing: Standing, values: Mapping[str, float], evaluate: Evaluate) -> Standing:
    """The standing once an evaluation gave `values` by metric key: since = 0 where it is the new best.

    The less an evaluation falls short of the floors the better; of equal ones that with the larger value of `select`.
    One where a metric of these is undefined is none.
    """
    value = values.get(evaluate.select, math.nan)
    shortfall = max([0.0, *(floor - values.get(key, math.nan) for key, floor in evaluate.floors.items())])
    known = all(math.isfinite(values.get(key, math.nan)) for key in (evaluate.select, *evaluate.floors))
    if known and (standing.best is None or (-shortfall, value) > (-standing.shortfall, standing.best)):
        return Standing(value, shortfall, 0)
    return standing._replace(since=standing.since + 1)


def over(standing: Standing, evaluate: Evaluate) -> bool:
    """Whether training stops here: `patience` evaluations in a row were no new best."""
    return evaluate.patience is not None and standing.since >= evaluate.patience


def sealed(standing: Standing, evaluate: Evaluate) -> dict[str, Any]:
    """What a seal holds of it."""
    return {**standing._asdict(), "rule": rule(evaluate)}


def found(seal: Mapping[str, Any], evaluate: Evaluate) -> Standing:
    """The standing that `sealed` gave, a new one where evaluations were compared by another rule."""
    if seal.get("rule") != rule(evaluate):
        return Standing()
    return Standing(**{name: seal[name] for name in Standing._fields})


def rule(evaluate: Evaluate) -> dict[str, Any]:
    """By what evaluations are compared, as JSON has it."""
    return {name: plain(getattr(evaluate, name)) for name in RULE}


def told(standing: Standing, evaluate: Evaluate, step: int, steps: int) -> list[str]:
    """Sentences for the end of a run that ended at `step` of `steps`."""
    said = (
        [f"the run had {step} steps already, beyond the {steps} of this config: none was trained"]
        if step > steps
        else []
    )
    if over(standing, evaluate) and step < steps:
        said.append(f"stopped early at step {step} of {steps}: no new best in {standing.since} evaluations")
    if standing.best is not None and standing.shortfall:
        floors = ", ".join(f"{key} >= {floor:g}" for key, floor in evaluate.floors.items())
        said.append(f"no evaluation met {floors}; the step that is kept misses by at most {standing.shortfall:.4g}")
    return said


def ends(config: Config, logs: Mapping[str, Any], skipped: int) -> bool:
    """Whether a run ends at a step: not finite, `skipped` before it in a row, or its weighting's problem not solved."""
    if logs["finite"]:
        return config.unsolved == "raise" and conflicts.unsolved(logs)
    return skipped >= (config.non_finite_limit if config.non_finite == "skip" else 0)


def why(parts: Parts, folder: Path, number: int, logs: Mapping[str, Any], rows: np.ndarray, skipped: int) -> str:
    """The sentence on a run that `ends` at a step; folder: where its checkpoints lie."""
    if logs["finite"]:
        return conflicts.stopped(number, logs, parts.config, checkpoint.steps(folder))
    return not_finite(parts, folder, number, logs, rows, skipped)
