"""Small random lists on which losses and metrics are checked: full and gappy ones, and what stands under a mask."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

ITEMS = 7
# Full, padded at the end, with a gap, one item, nothing relevant, all relevant, empty.
WHERE = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 1, 0, 1],
        [0, 0, 1, 0, 0, 0, 0],
        *[[1] * 7] * 2,
        [0] * 7,
    ],
    bool,
)
EMPTY = len(WHERE) - 1
# What padding may hold: also what a broken row or a fill value leaves there.
RUBBISH = (np.nan, np.inf, -np.inf, 1e30, -7.0)

Kind = Literal["binary", "graded", "real", "positive"]


class Lists(NamedTuple):
    """scores [N, L], or [N, L, W] for a wide head; labels, where, weights [N, L]"""

    scores: np.ndarray
    labels: np.ndarray
    where: np.ndarray
    weights: np.ndarray


def lists(kind: Kind, width: int = 1) -> Lists:
    weights = np.random.default_rng(2).uniform(0.5, 2.0, WHERE.shape).astype(np.float32)
    return Lists(scores(width), labels(kind, 4 if width == 1 else min(4, width)), WHERE, weights)


def scores(width: int = 1) -> np.ndarray:
    """Distinct within a list, also after rounding to half precision, and away from whole numbers, where hinges bend."""
    random = np.random.default_rng(0)
    shape = WHERE.shape if width == 1 else (*WHERE.shape, width)
    steps = np.argsort(random.random(shape), axis=1)
    return (0.61 * (steps - ITEMS // 2) + random.uniform(0.05, 0.35, shape)).astype(np.float32)


def labels(kind: Kind, top: int = 4) -> np.ndarray:
    """[N, L] of 0/1, grades up to `top`, any number, or numbers >= 0 of which many are 0."""
    random = np.random.default_rng(3)
    if kind == "real":
        return random.normal(0.0, 2.0, WHERE.shape).astype(np.float32)
    top = 1 if kind == "binary" else top
    found = random.integers(0, top, WHERE.shape, endpoint=True)
    found[:3, :3], found[:3, 4] = [[0, top, 0], [top, 0, top], [top, 0, top]], top
    found[3], found[4], found[5] = top, 0, np.maximum(found[5], 1)
    if kind == "positive":
        return (np.minimum(found, 1) * random.lognormal(0.0, 1.0, WHERE.shape)).astype(np.float32)
    return found.astype(np.float32)


def filled(given: Lists, fill: float) -> Lists:
    """The same lists, with `fill` for what stands under the mask."""
    return given._replace(
        scores=np.where(_over(given.where, given.scores), given.scores, np.float32(fill)),
        labels=np.where(given.where, given.labels, np.float32(fill)),
        weights=np.where(given.where, given.weights, np.float32(fill)),
    )


def permuted(given: Lists) -> tuple[Lists, np.ndarray]:
    order = np.random.default_rng(1).permutation(ITEMS)
    return Lists(*(array[:, order] for array in given)), order


def cut(given: Lists) -> Iterator[tuple[np.ndarray, Lists]]:
    """The padded lists without their padding, and their rows, for each number of items that they have."""
    counts = given.where.sum(-1)
    for count in np.unique(counts[(counts > 0) & (counts < ITEMS)]):
        rows = np.flatnonzero(counts == count)
        places = np.stack([np.flatnonzero(given.where[row]) for row in rows])
        yield rows, Lists(*(array[rows[:, None], places] for array in given))


def _over(where: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return where if scores.ndim == where.ndim else where[..., None]
