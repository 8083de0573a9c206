"""Metrics over all lists together, summed shard by shard on the host: any cut and any order of merging give the same bits."""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np

from mobjrec.ranks import check_lists
from mobjrec.types import Metric, PooledMetric

# Sums are whole numbers of this unit, of which every float64 is a multiple, so that adding up rounds nothing.
UNIT = 1126


class Sums(NamedTuple):
    """A running sum in units of 2^-UNIT, exact, what divides it, and how many values were no numbers."""

    total: int
    count: int
    lost: int = 0


def auc() -> PooledMetric:
    """Area under the curve over every (relevant, other) pair of any lists, equal scores counting half.

    Relevant: label > 0. Keeps every score. NaN where one kind is absent.
    """
    return _of_all(pairs_in_order)


def pr_auc() -> PooledMetric:
    """Area under precision by recall over all items, step-wise: the mean precision at relevant items' scores.

    Equal scores enter together, as in scikit-learn's average_precision_score. A score that says nothing is worth the
    share of relevant items. Relevant: label > 0. Keeps every score. NaN without relevant items.
    """
    return _of_all(_stepwise)


def gauc() -> PooledMetric:
    """Within-list AUC, mean over lists with both kinds, weighted by a list's number of items. Zhu et al. 2017, eq. 8.

    A group is a list here, where the paper has a user. NaN where no list has both kinds.
    """

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        check_lists(scores, labels, where)
        lists = zip(scores, labels, where, strict=True)
        found = [pairs_in_order(np.asarray(s)[w].astype(np.float64), np.asarray(y)[w] > 0) for s, y, w in lists]
        known, items = ~np.isnan(found), np.asarray(where).sum(-1)
        return _added(state, _summed((np.array(found) * items)[known], int(items[known].sum())))

    return PooledMetric(_none, update, _added, _mean)


def mean(metric: Metric) -> PooledMetric:
    """The mean of a per-list metric over the lists where it is defined, each counting once. NaN where it is nowhere."""

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        values = np.asarray(metric(scores, labels, where=where), np.float64)
        return _added(state, _summed(values[~np.isnan(values)]))

    return PooledMetric(_none, update, _added, _mean)


def log_loss() -> PooledMetric:
    """Mean cross-entropy of probabilities with labels in [0, 1]. Lower is better; NaN without items.

    Probabilities are kept one eps of their own type away from 0 and 1 (1e-7 for float32), as in scikit-learn.
    """

    def of_items(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        eps = np.finfo(p.dtype).eps
        p = np.clip(p.astype(np.float64), eps, 1 - eps)
        return -(y * np.log(p) + (1 - y) * np.log1p(-p))

    return _of_items(of_items, _mean)


def accuracy(threshold: float = 0.5) -> PooledMetric:
    """Share of items whose probability is on the label's side of the threshold; relevant: label > 0."""
    return _of_items(lambda p, y: (p >= threshold) == (y > 0), _mean)


def rmse() -> PooledMetric:
    """Root of the mean squared difference of prediction and label, in the label's unit. Lower is better."""
    return _of_items(lambda p, y: np.square(p.astype(np.float64) - y), lambda state: float(np.sqrt(_mean(state))))


def ece(bins: int = 10) -> PooledMetric:
    """Expected calibration error: how far probabilities are from rates, over bins of equal width. Naeini et al. 2015.

    sum over bins of (share of items) |mean probability - mean label|, labels in [0, 1]. Bins are (i/n, (i+1)/n], 0 in the
    first, as in scikit-learn's calibration_curve. Lower is better; NaN without items. ValueError if bins is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]

    def update(state: list[Sums], scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> list[Sums]:
        p, y = (values.astype(np.float64) for values in _inside(scores, labels, where))
        place = np.searchsorted(edges, p)
        # Exact in each of the two: the difference of two probabilities near each other would be rounded.
        here = [place == n for n in range(bins)]
        return merge(state, [_added(_summed(p[one]), _summed(-y[one], 0)) for one in here])

    def merge(one: list[Sums], other: list[Sums]) -> list[Sums]:
        return [_added(*pair) for pair in zip(one, other, strict=True)]

    def value(state: list[Sums]) -> float:
        return _mean(reduce(_added, (one._replace(total=abs(one.total)) for one in state)))

    return PooledMetric(lambda: [_none()] * bins, update, merge, value)


def pairs_in_order(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Share of (relevant, other) pairs with the relevant one higher, ties half; a NaN score is the lowest.

    NaN where one kind is absent.
    """
    # Else numpy sorts it above all others.
    scores = np.where(np.isnan(scores), -np.inf, scores)
    positives, others = scores[relevant], np.sort(scores[~relevant])
    if not len(positives) or not len(others):
        return float("nan")
    # A plain sort of one kind: several times as fast as the ranks of all.
    lower, level = (int(np.searchsorted(others, positives, side).sum()) for side in ("left", "right"))
    return (lower + level) / 2 / (len(positives) * len(others))


def _stepwise(scores: np.ndarray, relevant: np.ndarray) -> float:
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, relevant, len(counts))
    return float((hits * np.cumsum(hits) / np.cumsum(counts)).sum() / hits.sum()) if relevant.any() else float("nan")


def _of_all(value: Callable[[np.ndarray, np.ndarray], float]) -> PooledMetric:
    """A metric of all (scores, relevant) at once, which has one value for any order of them."""

    def update(state: list, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> list:
        known, truth = _inside(scores, labels, where)
        return [*state, (known.astype(np.float64), truth > 0)]

    def of_state(state: list) -> float:
        return value(*(np.concatenate(parts) for parts in zip(*state, strict=True))) if state else float("nan")

    return PooledMetric(list, update, lambda one, other: [*one, *other], of_state)


def _of_items(of: Callable[[np.ndarray, np.ndarray], np.ndarray], value: Callable[[Sums], float]) -> PooledMetric:
    """A mean over items of what prediction and label give, before `value`."""

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        return _added(state, _summed(of(*_inside(scores, labels, where))))

    return PooledMetric(_none, update, _added, value)


def _inside(scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of real items. ValueError for shapes that differ and a mask that is not bool."""
    check_lists(scores, labels, where)
    return np.asarray(scores)[where], np.asarray(labels)[where]


def _none() -> Sums:
    return Sums(0, 0)


def _summed(values: np.ndarray, count: int | None = None) -> Sums:
    known = np.isfinite(values)
    count = len(values) if count is None else count
    return Sums(_exact(np.asarray(values, np.float64)[known]), count, int((~known).sum()))


def _exact(values: np.ndarray) -> int:
    """The sum in units of 2^-UNIT."""
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, 53).astype(np.int64)
    # In halves of 27 bits: float64 counts as many as 2^26 of them exactly.
    total = 0
    for half, shift in ((whole >> 27, 27), (whole & (2**27 - 1), 0)):
        sums = np.bincount(exponent + UNIT - 53, half)
        total += sum(int(sums[place]) << (int(place) + shift) for place in np.flatnonzero(sums))
    return total


def _added(one: Sums, other: Sums) -> Sums:
    return Sums(one.total + other.total, one.count + other.count, one.lost + other.lost)


def _mean(state: Sums) -> float:
    """NaN without values, and where one was no number."""
    return state.total / (state.count << UNIT) if state.count and not state.lost else float("nan")
