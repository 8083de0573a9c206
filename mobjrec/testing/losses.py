"""What every loss and every per-list metric promises, checked on small random lists."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.types import Loss, Metric

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
STEP = 1e-5


def check_loss(loss: Loss, labels: Literal["binary", "graded", "real"] = "binary", smooth: bool = True) -> None:
    """Every promise of a loss; AssertionError says which does not hold.

    One finite value per list; the order of items, and whether padding stands between them and what it holds, have no
    influence on value and gradient; a list without items gives 0 with gradient 0; weights of 1 are no weights; twice
    the weights are twice the loss; jit, vmap and grad agree with the plain call; the gradient agrees with finite
    differences in float64; value and gradient are finite for scores of +-1e4. labels: what the loss is for, 0/1,
    grades 0 to 4, or any number. smooth: False for a loss that stops gradients on purpose (weights made of hard
    ranks), which finite differences do not see.
    """
    name, scores, truth = _name(loss), _scores(), _labels(labels)
    call = _call(loss)
    value, grad = call(scores, truth, WHERE)
    _check(value.shape == scores.shape[:-1], f"{name}: the value has shape {value.shape}, one per list is wanted")
    _check(np.isfinite(value).all() and np.isfinite(grad).all(), f"{name}: a value or gradient is not finite")
    _check(bool(np.abs(grad).max() > 0), f"{name}: no score has a gradient")
    _check_empty(name, value, grad)
    _check_order(name, call, scores, truth, (value, grad))
    _check_transforms(name, loss, scores, truth, value)
    _check_padding(name, call, scores, truth, (value, grad))
    _check_weights(name, call, scores, truth, value)
    _check_extremes(name, call, scores, truth)
    if smooth:
        _check_differences(name, loss, scores, truth)


def check_metric(metric: Metric) -> None:
    """Every promise of a per-list metric; AssertionError says which does not hold.

    One value per list, NaN for a list without items; the order of items (scores are distinct), and whether padding
    stands between them and what it holds, have no influence; jit and vmap agree with the plain call; finite or NaN
    for scores of +-1e4, and NaN for the same lists as before.
    """
    name, scores, truth = _name(metric), _scores(), _labels("graded")
    compiled = jax.jit(lambda scores, labels, where: metric(scores, labels, where=where))

    def call(scores: np.ndarray, labels: np.ndarray, where: np.ndarray) -> tuple[np.ndarray]:
        return (np.asarray(compiled(scores, labels, where)),)

    (value,) = call(scores, truth, WHERE)
    _check(value.shape == scores.shape[:-1], f"{name}: the value has shape {value.shape}, one per list is wanted")
    _check(bool(np.isnan(value[EMPTY])), f"{name}: a list without items gives {value[EMPTY]}, NaN is wanted")
    _check(bool(np.isfinite(value[0])), f"{name}: a full list with several labels gives {value[0]}")
    _check_order(name, call, scores, truth, (value,))
    _check_transforms(name, metric, scores, truth, value)
    _check_padding(name, call, scores, truth, (value,))
    (far,) = call(np.sign(scores) * 1e4 + scores, truth, WHERE)
    _check(not np.isinf(far).any(), f"{name}: infinite for scores of +-1e4")
    _check(bool((np.isnan(far) == np.isnan(value)).all()), f"{name}: which lists are undefined depends on the scores")


def _check_empty(name: str, value: np.ndarray, grad: np.ndarray) -> None:
    _check(value[EMPTY] == 0, f"{name}: a list without items gives {value[EMPTY]}, exactly 0 is wanted")
    _check(not grad[EMPTY].any(), f"{name}: a list without items has a gradient, exactly 0 is wanted")
    _check(not grad[~WHERE].any(), f"{name}: a masked item has a gradient, exactly 0 is wanted")


def _check_padding(name: str, call: Callable[..., Any], scores: np.ndarray, labels: np.ndarray, wanted: Any) -> None:
    for fill in RUBBISH:
        found = call(np.where(WHERE, scores, fill), np.where(WHERE, labels, fill), WHERE)
        for one, other, what in zip(found, wanted, ("value", "gradient"), strict=False):
            _check(_close(one, other), f"{name}: {fill} under the mask changes the {what}")
    for row in np.flatnonzero(~WHERE.all(-1) & WHERE.any(-1)):
        inside = WHERE[row]
        found = call(scores[row][inside], labels[row][inside], inside[inside])
        _check(_close(found[0], wanted[0][row]), f"{name}: a list's value changes when its padding is cut away")


def _check_order(name: str, call: Callable[..., Any], scores: np.ndarray, labels: np.ndarray, wanted: Any) -> None:
    order = np.random.default_rng(1).permutation(ITEMS)
    value, *grad = call(scores[:, order], labels[:, order], WHERE[:, order])
    _check(_close(value, wanted[0]), f"{name}: the order of the items changes the value")
    for found, before in zip(grad, wanted[1:], strict=True):
        _check(_close(found, before[:, order]), f"{name}: permuting the items does not permute the gradient")


def _check_transforms(name: str, function: Any, scores: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> None:
    def plain(scores: Any, labels: Any, where: Any) -> Any:
        return function(scores, labels, where=where)

    inputs = scores, labels, WHERE
    _check(_close(plain(*map(jnp.asarray, inputs)), wanted), f"{name}: jit changes the value")
    mapped = jax.jit(jax.vmap(plain))(*inputs)
    _check(_close(mapped, wanted), f"{name}: vmap changes the value, or lists know each other")
    stacked = jax.jit(plain)(*(np.stack([a, a[::-1]]) for a in inputs))
    _check(_close(stacked, np.stack([wanted, wanted[::-1]])), f"{name}: a second leading axis changes the value")


def _check_weights(
    name: str, call: Callable[..., Any], scores: np.ndarray, labels: np.ndarray, wanted: np.ndarray
) -> None:
    def weighted(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return call(scores, labels, WHERE, weights)

    _check(_close(weighted(np.ones_like(scores))[0], wanted), f"{name}: weights of 1 are not the same as no weights")
    weights = np.random.default_rng(2).uniform(0.5, 2.0, scores.shape).astype(scores.dtype)
    value, grad = weighted(weights)
    _check(not _close(value, wanted), f"{name}: weights have no influence")
    _check(_close(weighted(2 * weights)[0], 2 * value), f"{name}: twice the weights are not twice the loss")
    for fill in RUBBISH:
        found = weighted(np.where(WHERE, weights, fill).astype(scores.dtype))
        same = _close(found[0], value) and _close(found[1], grad)
        _check(same, f"{name}: a weight of {fill} under the mask changes the value or the gradient")


def _check_extremes(name: str, call: Callable[..., Any], scores: np.ndarray, labels: np.ndarray) -> None:
    for far in (1e4 * np.sign(scores), np.full_like(scores, 1e4), np.full_like(scores, -1e4)):
        value, grad = call(far.astype(scores.dtype), labels, WHERE)
        _check(np.isfinite(value).all(), f"{name}: not finite for scores of +-1e4")
        _check(np.isfinite(grad).all(), f"{name}: the gradient is not finite for scores of +-1e4")


def _check_differences(name: str, loss: Loss, scores: np.ndarray, labels: np.ndarray) -> None:
    """Central differences in float64; lists do not know each other, so one item of all lists is moved at a time."""
    with jax.enable_x64(True):
        call, scores, labels = _call(loss), scores.astype(np.float64), labels.astype(np.float64)
        _, grad = call(scores, labels, WHERE)
        for item, move in enumerate(STEP * np.eye(ITEMS)):
            found = (call(scores + move, labels, WHERE)[0] - call(scores - move, labels, WHERE)[0]) / (2 * STEP)
            _check(_close(found, grad[:, item]), f"{name}: the gradient disagrees with finite differences in float64")


def _call(loss: Loss) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(scores, labels, where, weights) -> value, and gradient of the values' sum; compiled once a shape."""

    def total(scores: Any, labels: Any, where: Any, weights: Any) -> tuple[Any, Any]:
        value = loss(scores, labels, where=where, weights=weights)
        return value.sum(), value

    both = jax.jit(jax.value_and_grad(total, has_aux=True))

    def call(
        scores: np.ndarray, labels: np.ndarray, where: np.ndarray, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        (_, value), grad = both(scores, labels, where, weights)
        return np.asarray(value), np.asarray(grad)

    return call


def _scores() -> np.ndarray:
    """Distinct within a list, also after rounding to half precision, and away from whole numbers, where hinges bend."""
    random = np.random.default_rng(0)
    steps = np.argsort(random.random(WHERE.shape), axis=-1)
    return (0.61 * (steps - ITEMS // 2) + random.uniform(0.05, 0.35, WHERE.shape)).astype(np.float32)


def _labels(kind: str) -> np.ndarray:
    random = np.random.default_rng(3)
    if kind == "real":
        return random.normal(0.0, 2.0, WHERE.shape).astype(np.float32)
    top = {"binary": 1, "graded": 4}[kind]
    labels = random.integers(0, top, WHERE.shape, endpoint=True)
    labels[:3, :3], labels[:3, 4] = [[0, top, 0], [top, 0, top], [top, 0, top]], top
    labels[3], labels[4], labels[5] = top, 0, np.maximum(labels[5], 1)
    return labels.astype(np.float32)


def _name(function: Any) -> str:
    return getattr(getattr(function, "func", function), "__name__", repr(function))


def _close(left: Any, right: Any, tolerance: float = 2e-5) -> bool:
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return bool(np.allclose(left, right, atol=tolerance, rtol=tolerance, equal_nan=True))


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
