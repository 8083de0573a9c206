"""Who pulls against whom: what a step's gradients say, and, from a run's record, which objectives conflicted and lost.

Numbers are made on the host, of K x K values that were fetched anyway.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from mobjrec.config import Config
from mobjrec.metrics.keys import keyed
from mobjrec.pareto import shortest
from mobjrec.types import Objective

# Below this cosine two gradients are said to conflict; rounding alone gives values around 0.
CONFLICT = -0.01
# Above this residual a weighting's problem is said not to be solved. In 32 bits ordinary ones are at most 1e-4.
UNSOLVED = 1e-3
# Metrics that fall as a model gets better.
ERRORS = ("rmse", "log_loss", "ece")


class Ends(NamedTuple):
    """An objective's own metric on the test split before and after training with its standard error, and on validation.

    before, after: of validation, and error 0, while there is no table   valid: (step, value), rising
    """

    metric: str
    before: float
    after: float
    error: float
    valid: list[tuple[int, float]]


def numbers(names: Sequence[str], logs: Mapping[str, Any]) -> dict[str, Any]:
    """A step's numbers by the record's keys: losses (NaN where absent), weights, what its Gram matrix and residual say, and
    the gradient's norm, learning rate and whether it was finite, where they are told.

    cosine/A/B where both gradients are there and not 0; min_norm: length of the shortest vector in the hull of the present
    objectives' gradients, 0 where no direction helps them all. Nothing of these in a step that compared no gradients.
    """
    present = np.asarray(logs["present"])
    losses = np.where(present, logs["losses"], np.nan).tolist()
    found: dict[str, Any] = {f"loss/{name}": loss for name, loss in zip(names, losses, strict=True)}
    found |= {f"weight/{name}": weight for name, weight in zip(names, logs["weights"].tolist(), strict=True)}
    gram = logs.get("gram")
    if gram is not None and not np.isnan(gram).all():
        norms = np.sqrt(np.maximum(np.diagonal(gram).astype(np.float64), 0.0))
        found["gram"] = gram
        found |= {f"gradient_norm/{name}": norm for name, norm in zip(names, norms.tolist(), strict=True)}
        for a, b in combinations(np.flatnonzero(norms > 0), 2):
            found[f"cosine/{names[a]}/{names[b]}"] = float(gram[a, b] / norms[a] / norms[b])
        found["min_norm"] = min_norm(gram[np.ix_(present, present)])
    found |= {"residual": float(logs["residual"])} if "residual" in logs else {}
    found |= {name: logs[name] for name in ("gradient_norm", "learning_rate") if name in logs}
    return found | ({"finite": bool(logs["finite"])} if "finite" in logs else {})


def min_norm(gram: np.ndarray) -> float:
    """The length of the shortest vector in the hull of rows with this Gram matrix [K, K]; NaN where that is not finite."""
    if not len(gram) or not np.isfinite(gram).all():
        return math.nan
    scale = max(float(np.diagonal(gram).max()), np.finfo(np.float32).tiny)
    point = shortest(gram / np.float64(scale))
    return math.sqrt(max(point @ gram @ point, 0.0))


def unsolved(logs: Mapping[str, Any]) -> bool:
    """Whether a step's weighting, or a row of the record, says that a problem was not solved."""
    return (logs.get("residual") or 0.0) > UNSOLVED


def stopped(step: int, logs: Mapping[str, Any], config: Config, sealed: Sequence[int]) -> str:
    """The sentence on a run that ends at a problem that was not solved. sealed: steps with a checkpoint, rising"""
    good = f"the last checkpoint is that of step {sealed[-1]}" if sealed else "there is no checkpoint yet"
    return (
        f"step {step}: {config.weighting.use} did not solve its problem: it misses its own condition by "
        f"{logs['residual']:.2g}, above {UNSOLVED:g}; {good}. Set unsolved: count to go on with such steps, or take "
        "another weighting"
    )


def told(
    rows: Sequence[Mapping[str, Any]],
    objectives: Mapping[str, Objective],
    metrics: Sequence[str],
    table: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Sentences on a run's objectives: which gradients pulled apart, which objective was sacrificed, what was not solved.

    rows: the record   metrics: the config's   table: the closing one, {} for a run that is not over
    """
    train = [row for row in rows if row["kind"] == "train"]
    if not train:
        return []
    ends = {name: end for name in objectives if (end := _ends(name, objectives[name].label, metrics, rows, table))}
    return [*apart(train), *_lost(train, list(objectives), ends, bool(table)), *_gave_way(ends), *_missed(train)]


def apart(train: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each pair of objectives on how often their gradients conflicted, and how strongly."""
    names = [key.removeprefix("loss/") for key in train[0] if key.startswith("loss/")]
    if len(names) < 2:
        return []
    if not any(row.get("gram") is not None for row in train):
        return ["conflicts between gradients: not measured, as this weighting compares none (mgda and upgrad do)"]
    lines = ["conflicts between gradients:"]
    for a, b in combinations(names, 2):
        key = f"cosine/{a}/{b}"
        cosines = np.array([row[key] for row in train if row.get(key) is not None])
        if len(cosines):
            lines.append(
                f"  {a} and {b}: cosine {cosines.mean():+.2f} on average, "
                f"apart in {(cosines < CONFLICT).mean():.0%} of {len(cosines)} steps"
            )
    return lines


def _ends(
    name: str,
    label: str,
    metrics: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    table: Mapping[str, Mapping[str, Any]],
) -> Ends | None:
    """The ends of an objective's own order by its own label, by the first metric that is there."""
    for metric in [one for one in metrics if label and one not in ERRORS]:
        key = keyed(name, label, metric)
        seen = [row for row in rows if row["kind"] == "eval" and row.get(f"valid/{key}") is not None]
        valid = [(row["step"], row[f"valid/{key}"]) for row in seen]
        if table:
            found = [table.get(key, {}).get(one) for one in ("before", "after", "error")]
        else:
            found = [valid[0][1], valid[-1][1], 0.0] if len(valid) > 1 else [None]
        if None not in found:
            return Ends(metric, *found, valid)
    return None


def _lost(
    train: Sequence[Mapping[str, Any]], objectives: Sequence[str], ends: Mapping[str, Ends], over: bool
) -> list[str]:
    """Who ended worse than it began, by its own metric or, without one, by its loss; a line each on what it had to say."""
    since = "before training" if over else "the first validation" if ends else "the first steps"
    lines, worse, level = [], [], []
    for name in objectives:
        weights = [row[f"weight/{name}"] for row in train if row.get(f"weight/{name}") is not None]
        losses = [row[f"loss/{name}"] for row in train if row.get(f"loss/{name}") is not None]
        part = max(1, len(losses) // 10)
        first, last = (float(np.mean(some)) if losses else math.nan for some in (losses[:part], losses[-part:]))
        said = f"  {name}: loss {first:.3f} to {last:.3f}, mean weight {np.mean(weights or [0.0]):.2g}"
        if name in ends:
            metric, before, after, error, _ = ends[name]
            said += f", {metric} {before:.3f} to {after:.3f}" + (f" ± {error:.3f}" if error else "")
            fell, flat = after < before - error, abs(after - before) <= error
        else:
            fell, flat = False, True
        # Where its metric cannot tell, its loss does.
        worse += [name] * (fell or (flat and last > first))
        level += [name] * (flat and last <= first and name in ends)
        lines.append(said)
    if worse:
        lines.append(f"sacrificed: {', '.join(worse)}, worse than {since}")
    elif lines:
        lines.append(f"sacrificed: none, no objective is worse than {since}")
    if level:
        lines.append(f"not learnt: {', '.join(level)}, within a standard error of {since}")
    return [f"objectives, against {since}:", *lines]


def _gave_way(ends: Mapping[str, Ends]) -> list[str]:
    """Who was better on validation, by more than a standard error of the test split, than at the last evaluation."""
    lines = []
    for name, (metric, _, _, error, valid) in ends.items():
        step, most = max(valid, key=lambda one: one[1], default=(0, -math.inf))
        if valid and most > valid[-1][1] + error:
            lines.append(
                f"gave way: {name}, whose {metric} on validation was {most:.3f} after step {step} and is {valid[-1][1]:.3f} "
                f"after step {valid[-1][0]}"
            )
    return lines


def _missed(train: Sequence[Mapping[str, Any]]) -> list[str]:
    """How often the weighting's problem was not solved, if ever."""
    found = [row for row in train if unsolved(row)]
    if not found:
        return []
    most = max(found, key=lambda row: row["residual"])
    return [
        f"the weighting's problem was not solved in {len(found)} of {len(train)} steps: it missed its own condition by more "
        f"than {UNSOLVED:g}, most by {most['residual']:.2g} in step {most['step']} (unsolved: raise stops at the first)"
    ]
