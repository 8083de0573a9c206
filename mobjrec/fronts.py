"""What a front is measured by: for each preference one ordering, and on that ordering every objective's own metric.

Columns are the objectives that a label measures, in the config's order; higher is better in all of them.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from mobjrec import evaluate
from mobjrec import metrics as metric_room
from mobjrec.data.batching import labels_of
from mobjrec.errors import UserError
from mobjrec.evaluate import Block
from mobjrec.pareto import hypervolume
from mobjrec.parts import Parts, split_of
from mobjrec.problems import nearest
from mobjrec.types import Array, Candidates, Lists, Tree

# Random orders over which `err` is averaged: its mean over all of them has no closed form here.
SHUFFLES = 32
# Metrics whose value of equal scores is the mean over their orders by definition.
BY_DEFINITION = ("auc", "kendall")
SPLITS = ("train", "valid", "test")
Ordered = Iterator[tuple[Block, np.ndarray]]


def axes(parts: Parts, metrics: Mapping[str, str] | None = None) -> dict[str, str]:
    """{objective: the metric of its column}: the config's first one, or what `metrics` says of that objective.

    UserError for an objective that no label measures or that is not there, and where no objective has a label.
    """
    own = evaluate.labels_measured(parts)
    for name, metric in (metrics or {}).items():
        if name not in own:
            raise UserError(f"metrics: no label measures {name}{nearest(name, sorted(own), what='objectives')}")
        try:
            metric_room.named(metric)
        except ValueError as error:
            raise UserError(f"metrics: {name}: {error}") from None
    if not own:
        raise UserError("no objective of this config is measured by a label, so nothing says how good an ordering is")
    return {name: (metrics or {}).get(name, parts.config.evaluate.metrics[0]) for name in own}


def orderings(
    parts: Parts,
    params: Tree,
    memory: Tree,
    split: str,
    preferences: np.ndarray,
    *,
    metrics: Mapping[str, str] | None = None,
    scale: dict[str, tuple[float, float]] | None = None,
    candidates: Candidates | None = None,
    limit: int | None = None,
) -> np.ndarray:
    """Points [P, M]: each preference's utility ranks every list of the split, and each column is measured on that order.

    preferences: [P, K], >= 0, in the order of the objectives   metrics, M columns: see `axes`   scale: as in `evaluate.run`
    candidates, limit: as there. A model that reads the preference is asked anew for each, its encoders once
    The value of `evaluate.run(..., preference=p)` under "utility:LABEL/METRIC", for all p at once. UserError where a metric
    is defined on no list.
    """
    preferences = np.asarray(preferences, float)
    lists, columns = split_of(parts, split), axes(parts, metrics)
    scale = scale or evaluate.scale_of(parts, params, memory)

    wishes = [dict(zip(parts.objectives, one, strict=True)) for one in preferences.tolist()]

    def ordered() -> Ordered:
        asked = evaluate.asked(parts, params, memory, lists, candidates or parts.eval_candidates, limit)
        for rows, drawn, predicted in asked:
            same = None if parts.model.conditioned else predicted(None)
            mixed = [evaluate.utility(same or predicted(wish), scale, wish) for wish in wishes]
            yield Block(rows, drawn, {}, *labels_of(parts.dataset, lists, drawn)), np.stack(mixed)

    return measured(parts, lists, ordered(), columns)


def measured(
    parts: Parts, lists: Lists, ordered: Ordered, columns: Mapping[str, str], ties: str = "appearance"
) -> np.ndarray:
    """Points [P, M] of orders, whoever made them. ordered: (block, its scores [P, B, L])   columns: see `axes`

    ties: "expected" averages over the orders of equal scores. UserError as for `orderings`, and for a split without lists.
    """
    if not len(lists.user):
        raise UserError(f"the {SPLITS[lists.split]} split has no lists, so there is nothing to measure orderings on")
    gains, own = evaluate.gains_of(parts), evaluate.labels_measured(parts)
    # Two objectives may have one label and one metric: measured once.
    asked = {(own[name], metric): _each(metric, gains[own[name]], ties) for name, metric in columns.items()}
    rows: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in asked}
    for block, scores in ordered:
        for (label, metric), function in asked.items():
            found = function(scores, block.labels[label], evaluate.ranked(block, label, frozenset()))
            rows[label, metric].append(np.asarray(found)[:, block.rows >= 0])
    means = {key: _mean("/".join(key), lists, np.concatenate(found, axis=1)) for key, found in rows.items()}
    return np.stack([means[own[name], metric] for name, metric in columns.items()], axis=1)


def random_point(
    parts: Parts,
    split: str,
    *,
    metrics: Mapping[str, str] | None = None,
    candidates: Candidates | None = None,
    limit: int | None = None,
) -> np.ndarray:
    """What a random ranker reaches, [M]: the exact mean over all orders, for `err` that over SHUFFLES drawn ones.

    Of the lists and candidates that `orderings` measures. UserError as there.
    """
    lists, columns = split_of(parts, split), axes(parts, metrics)
    whole = {name: metric for name, metric in columns.items() if metric in BY_DEFINITION or _takes_ties(metric)}
    drawn = {name: metric for name, metric in columns.items() if name not in whole}

    def ordered(scores: Callable[[tuple[int, ...]], np.ndarray]) -> Ordered:
        for rows, found in evaluate.drawn_blocks(parts, lists, candidates or parts.eval_candidates, limit):
            yield Block(rows, found, {}, *labels_of(parts.dataset, lists, found)), scores(found.where.shape)

    told = {}
    if whole:
        equal = ordered(lambda shape: np.zeros((1, *shape), np.float32))
        told |= dict(zip(whole, measured(parts, lists, equal, whole, "expected")[0], strict=True))
    if drawn:
        random = np.random.default_rng(parts.config.seed)
        shuffled = ordered(lambda shape: random.random((SHUFFLES, *shape), np.float32))
        told |= dict(zip(drawn, measured(parts, lists, shuffled, drawn).mean(axis=0), strict=True))
    return np.array([told[name] for name in columns])


def units(points: np.ndarray, random: np.ndarray, best_single: np.ndarray) -> np.ndarray:
    """(value - random) / (best single-objective run - random), [..., M]: 0 is a random order, 1 the objective's own run.

    random, best_single: [M]. ValueError where a single-objective run is no better than the random ranker: no unit.
    """
    random, best = np.asarray(random, float), np.asarray(best_single, float)
    if not (best > random).all():
        at = int(np.argmin(best > random))
        raise ValueError(
            f"the single-objective run of column {at} reaches {best[at]:.4g}, no more than the random ranker's {random[at]:.4g}"
        )
    return (np.asarray(points, float) - random) / (best - random)


def reached(points: np.ndarray, random: np.ndarray, best_single: np.ndarray) -> float:
    """Hypervolume of points [P, M] from the random ranker, in the units of `units`; 1 is every own run's value at once."""
    return hypervolume(units(points, random, best_single), np.zeros(len(random)))


@functools.cache
def _each(metric: str, gain: str, ties: str) -> Callable[..., Array]:
    """(scores [P, B, L], labels, where [B, L]) -> [P, B]; one order after the other, for what is sorted is large."""
    made = metric_room.named(metric, gain)
    made = functools.partial(made, ties=ties) if _takes_ties(metric) else made
    return jax.jit(lambda scores, labels, where: jax.lax.map(lambda one: made(one, labels, where=where), scores))


def _takes_ties(metric: str) -> bool:
    """Whether equal scores can be averaged over their orders."""
    return "ties" in inspect.signature(metric_room.named(metric)).parameters


def _mean(key: str, lists: Lists, values: np.ndarray) -> np.ndarray:
    """[P] means over the lists [P, Q] that a metric is defined on; which these are no order decides."""
    known = ~np.isnan(values[0])
    if not known.any():
        split = SPLITS[lists.split]
        raise UserError(
            f"{key} is defined on no list of the {split} split, so no ordering can be told from another by it"
        )
    return values[:, known].astype(np.float64).mean(axis=1)
