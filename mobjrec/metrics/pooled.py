"""Metrics over all lists together, summed shard by shard on the host in float64: any cut gives the same value."""

from typing import NamedTuple

import numpy as np

from mobjrec.types import PooledMetric


class Sums(NamedTuple):
    """A running sum and what divides it."""

    total: float
    count: float


def auc() -> PooledMetric:
    """Area under the curve over every (relevant, other) pair of any lists, equal scores counting half.

    Relevant: label > 0. Keeps every score. NaN where one kind is absent.
    """

    def update(state: list, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> list:
        return [*state, (np.asarray(scores)[where].astype(np.float64), np.asarray(labels)[where] > 0)]

    def value(state: list) -> float:
        if not state:
            return float("nan")
        scores, relevant = (np.concatenate(parts) for parts in zip(*state, strict=True))
        return pairs_in_order(scores, relevant)

    return PooledMetric(list, update, lambda one, other: [*one, *other], value)


def gauc() -> PooledMetric:
    """Within-list AUC, mean over lists with both kinds, weighted by a list's number of items. Zhu et al. 2017, eq. 8.

    A group is a list here, where the paper has a user. NaN where no list has both kinds.
    """

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        total, count = state
        for score, label, inside in zip(scores, labels, where, strict=True):
            found = pairs_in_order(np.asarray(score)[inside].astype(np.float64), np.asarray(label)[inside] > 0)
            if not np.isnan(found):
                total, count = total + found * inside.sum(), count + inside.sum()
        return Sums(total, count)

    return PooledMetric(_none, update, _added, _mean)


def log_loss() -> PooledMetric:
    """Mean cross-entropy of probabilities with labels in [0, 1]. Lower is better; NaN without items.

    Probabilities are kept one eps of their own type away from 0 and 1 (1e-7 for float32), as in scikit-learn.
    """

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        eps = np.finfo(scores.dtype).eps
        p = np.clip(np.asarray(scores)[where].astype(np.float64), eps, 1 - eps)
        y = np.asarray(labels)[where]
        return Sums(state.total - float(np.sum(y * np.log(p) + (1 - y) * np.log1p(-p))), state.count + len(p))

    return PooledMetric(_none, update, _added, _mean)


def accuracy(threshold: float = 0.5) -> PooledMetric:
    """Share of items whose probability is on the label's side of the threshold; relevant: label > 0."""

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        right = (np.asarray(scores)[where] >= threshold) == (np.asarray(labels)[where] > 0)
        return Sums(state.total + float(right.sum()), state.count + len(right))

    return PooledMetric(_none, update, _added, _mean)


def rmse() -> PooledMetric:
    """Root of the mean squared difference of prediction and label, in the label's unit. Lower is better."""

    def update(state: Sums, scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> Sums:
        error = np.asarray(scores)[where].astype(np.float64) - np.asarray(labels)[where]
        return Sums(state.total + float(np.square(error).sum()), state.count + len(error))

    return PooledMetric(_none, update, _added, lambda state: float(np.sqrt(_mean(state))))


def pairs_in_order(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Share of (relevant, other) pairs with the relevant one higher, ties half. NaN where one kind is absent."""
    positives, others = int(relevant.sum()), int((~relevant).sum())
    if not positives or not others:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2.0
    return float((middle[inverse][relevant].sum() - positives * (positives + 1) / 2) / (positives * others))


def _none() -> Sums:
    return Sums(0.0, 0.0)


def _added(one: Sums, other: Sums) -> Sums:
    return Sums(one.total + other.total, one.count + other.count)


def _mean(state: Sums) -> float:
    return state.total / state.count if state.count else float("nan")
