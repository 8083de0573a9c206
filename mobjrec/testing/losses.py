"""What every loss and every per-list metric promises, checked on small random lists.

Compiling is nearly all that a check costs, so each checks what it can in one program, called with other numbers.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.testing.lists import EMPTY, RUBBISH, Kind, Lists, cut, filled, lists, permuted
from mobjrec.types import Loss, Metric

STEP = 1e-5
# Several roundings of bfloat16, which has 8 bits.
HALF = 2.0**-5

Found = dict[str, Any]


def check_loss(
    loss: Loss, labels: Kind = "binary", smooth: bool = True, needs_relevant: bool = False, width: int = 1
) -> None:
    """Every promise of a loss; AssertionError says which does not hold.

    One finite value per list; the order of items, and whether padding stands between them and what it holds, have no
    influence on value and gradient; a list without items gives 0 with gradient 0; weights of 1 are no weights; twice
    the weights are twice the loss; jit, vmap, jvp and grad agree with the plain call; the gradient agrees with finite
    differences in float64; value and gradient are finite for scores of +-1e4; of bfloat16 scores and labels they are
    finite too, and the value is that of the same numbers in float32, within bfloat16's precision.

    labels: what the loss is for: 0/1, grades 0 to 4, any number, or numbers >= 0 with zeros, such as seconds or money
    smooth: False for a loss that stops gradients on purpose (weights made of hard ranks), which finite differences do
    not see   needs_relevant: whether a list of labels 0 gives 0 with gradient 0
    width: above 1 for scores [..., L, width], an item's logits; grades then go to width where that is less than 4
    """
    name, given = _name(loss), lists(labels, width)
    call = _forms(loss, name)
    found = call(given)
    value, grad = found["value"], found["grad"]
    _check(value.shape == given.where.shape[:-1], f"{name}: the value has shape {value.shape}, one per list is wanted")
    _check(np.isfinite(value).all() and np.isfinite(grad).all(), f"{name}: a value or gradient is not finite")
    _check(bool(np.abs(grad).max() > 0), f"{name}: no score has a gradient")
    _check_empty(name, value, grad, given)
    _check_order(name, call, given, found)
    _check_transforms(name, loss, given, found)
    _check_padding(name, call, given, found)
    _check_weights(name, call, given, found)
    _check_extremes(name, call, given)
    _check_half(name, call, given, found)
    if needs_relevant:
        _check_relevant(name, call, given)
    if smooth:
        _check_differences(name, loss, given)


def check_metric(metric: Metric, labels: Kind = "graded") -> None:
    """Every promise of a per-list metric; AssertionError says which does not hold.

    One value per list, NaN for a list without items; the order of items (scores are distinct), and whether padding
    stands between them and what it holds, have no influence; jit and vmap agree with the plain call; finite or NaN
    for scores of +-1e4, and NaN for the same lists as before; of bfloat16 scores and labels the value is that of the
    same numbers in float32, within bfloat16's precision. labels: as for `check_loss`.
    """
    name, given = _name(metric), lists(labels)

    @jax.jit
    def forms(given: Lists, short: list[Lists]) -> Found:
        half = _plain(metric, _half(given)).astype(jnp.float32)
        return {"value": _plain(metric, given), "half": half, **_transformed(metric, given, short)}

    def call(given: Lists) -> Found:
        return jax.tree.map(np.asarray, forms(given, [part for _, part in cut(given)]))

    found = call(given)
    value = found["value"]
    _check(value.shape == given.where.shape[:-1], f"{name}: the value has shape {value.shape}, one per list is wanted")
    _check(bool(np.isnan(value[EMPTY])), f"{name}: a list without items gives {value[EMPTY]}, NaN is wanted")
    _check(bool(np.isfinite(value[0])), f"{name}: a full list with several labels gives {value[0]}")
    _check_order(name, call, given, found)
    _check_transforms(name, metric, given, found)
    _check_padding(name, call, given, found)
    _check_half(name, call, given, found)
    far = call(given._replace(scores=np.sign(given.scores) * np.float32(1e4) + given.scores))["value"]
    _check(not np.isinf(far).any(), f"{name}: infinite for scores of +-1e4")
    _check(bool((np.isnan(far) == np.isnan(value)).all()), f"{name}: which lists are undefined depends on the scores")


def _forms(loss: Loss, name: str) -> Callable[[Lists], Found]:
    """Lists -> value and gradient of the values' sum, and what other ways lead to the same; compiled once."""

    def total(scores: Any, given: Lists, weights: Any) -> tuple[Any, Any]:
        value = loss(scores, given.labels, where=given.where, weights=weights)
        return value.sum(), value

    both = jax.value_and_grad(total, has_aux=True)

    def tangent(given: Lists) -> Any:
        along = (jnp.cos(given.scores),)
        return jax.jvp(lambda scores: total(scores, given, None)[1], (given.scores,), along)[1]

    @jax.jit
    def forms(given: Lists, short: list[Lists]) -> Found:
        (_, value), grad = both(given.scores, given, None)
        (_, heavy), heavy_grad = both(given.scores, given, given.weights)
        half = _half(given)
        (_, half_value), half_grad = both(half.scores, half, None)
        return {
            **{"value": value, "grad": grad, "weighted": heavy, "weighted grad": heavy_grad, "jvp": tangent(given)},
            **{"half": half_value.astype(jnp.float32), "half grad": half_grad.astype(jnp.float32)},
            **_transformed(loss, given, short),
        }

    def call(given: Lists) -> Found:
        try:
            return jax.tree.map(np.asarray, forms(given, [part for _, part in cut(given)]))
        except TypeError as error:
            # JAX notices a function without a forward derivative while it compiles.
            _check("jvp" not in str(error), f"{name}: jvp fails: {error}")
            raise

    return call


def _plain(function: Any, given: Lists) -> Any:
    return function(given.scores, given.labels, where=given.where)


def _transformed(function: Any, given: Lists, short: list[Lists]) -> Found:
    """The values of each list by itself, of the lists twice, and of those without their padding."""
    twice = Lists(*(jnp.stack([array, array[::-1]]) for array in given))
    alone = jax.vmap(lambda given: _plain(function, given))
    return {
        "vmap": alone(given),
        "twice": _plain(function, twice),
        "short": [_plain(function, part) for part in short],
    }


def _check_empty(name: str, value: np.ndarray, grad: np.ndarray, given: Lists) -> None:
    _check(value[EMPTY] == 0, f"{name}: a list without items gives {value[EMPTY]}, exactly 0 is wanted")
    _check(not grad[EMPTY].any(), f"{name}: a list without items has a gradient, exactly 0 is wanted")
    _check(not grad[~given.where].any(), f"{name}: a masked item has a gradient, exactly 0 is wanted")


def _check_padding(name: str, call: Callable[[Lists], Found], given: Lists, wanted: Found) -> None:
    for fill in RUBBISH:
        found = call(filled(given, fill)._replace(weights=given.weights))
        for key, what in (("value", "value"), ("grad", "gradient")):
            same = key not in found or _close(found[key], wanted[key])
            _check(same, f"{name}: {fill} under the mask changes the {what}")
    for (rows, _), found in zip(cut(given), wanted["short"], strict=True):
        same = _close(found, wanted["value"][rows])
        _check(same, f"{name}: a list's value changes when its padding is cut away")


def _check_order(name: str, call: Callable[[Lists], Found], given: Lists, wanted: Found) -> None:
    moved, order = permuted(given)
    found = call(moved)
    _check(_close(found["value"], wanted["value"]), f"{name}: the order of the items changes the value")
    if "grad" in wanted:
        same = _close(found["grad"], wanted["grad"][:, order])
        _check(same, f"{name}: permuting the items does not permute the gradient")


def _check_transforms(name: str, function: Any, given: Lists, found: Found) -> None:
    value = found["value"]
    _check(_close(_plain(function, Lists(*map(jnp.asarray, given))), value), f"{name}: jit changes the value")
    _check(_close(found["vmap"], value), f"{name}: vmap changes the value, or lists know each other")
    twice = np.stack([value, value[::-1]])
    _check(_close(found["twice"], twice), f"{name}: a second leading axis changes the value")
    if "jvp" in found:
        slope = found["grad"] * np.cos(given.scores)
        wanted = slope.reshape(len(value), -1).sum(-1)
        _check(_close(found["jvp"], wanted), f"{name}: jvp disagrees with the gradient")


def _check_weights(name: str, call: Callable[[Lists], Found], given: Lists, wanted: Found) -> None:
    def weighted(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = call(given._replace(weights=weights))
        return found["weighted"], found["weighted grad"]

    ones = weighted(np.ones_like(given.weights))
    same = _close(ones[0], wanted["value"]) and _close(ones[1], wanted["grad"])
    _check(same, f"{name}: weights of 1 are not the same as no weights")
    value, grad = wanted["weighted"], wanted["weighted grad"]
    _check(not _close(value, wanted["value"]), f"{name}: weights have no influence")
    twice = weighted(2 * given.weights)[0]
    _check(_close(twice, 2 * value), f"{name}: twice the weights are not twice the loss")
    for fill in RUBBISH:
        found = weighted(filled(given, fill).weights)
        same = _close(found[0], value) and _close(found[1], grad)
        _check(same, f"{name}: a weight of {fill} under the mask changes the value or the gradient")


def _check_extremes(name: str, call: Callable[[Lists], Found], given: Lists) -> None:
    for far in (1e4 * np.sign(given.scores), np.full_like(given.scores, 1e4), np.full_like(given.scores, -1e4)):
        found = call(given._replace(scores=far.astype(given.scores.dtype)))
        _check(np.isfinite(found["value"]).all(), f"{name}: not finite for scores of +-1e4")
        _check(np.isfinite(found["grad"]).all(), f"{name}: the gradient is not finite for scores of +-1e4")


def _check_half(name: str, call: Callable[[Lists], Found], given: Lists, found: Found) -> None:
    finite = "half grad" not in found or (np.isfinite(found["half"]).all() and np.isfinite(found["half grad"]).all())
    _check(bool(finite), f"{name}: a value or gradient of bfloat16 scores and labels is not finite")
    rounded = call(_half(given, np.float32))["value"]
    same = _close(found["half"], rounded, HALF)
    _check(same, f"{name}: of bfloat16 scores and labels the value is {found['half']}, {rounded} in float32")


def _check_relevant(name: str, call: Callable[[Lists], Found], given: Lists) -> None:
    found = call(given._replace(labels=np.zeros_like(given.labels)))
    for key in ("value", "grad", "weighted", "weighted grad"):
        _check(not found[key].any(), f"{name}: lists without a relevant item have a {key}, exactly 0 is wanted")


def _check_differences(name: str, loss: Loss, given: Lists) -> None:
    """Central differences in float64; lists do not know each other, so one score of all lists is moved at a time."""
    with jax.enable_x64(True):
        given = Lists(*(array if array.dtype == bool else array.astype(np.float64) for array in given))
        found, grad = map(np.asarray, jax.jit(_differences, static_argnums=0)(loss, given))
        same = _close(found.T.reshape(grad.shape), grad)
        _check(same, f"{name}: the gradient disagrees with finite differences in float64")


def _differences(loss: Loss, given: Lists) -> tuple[Any, Any]:
    """Central differences [a list's scores, N], and the gradient [N, L] or [N, L, W]."""

    def value(scores: Any) -> Any:
        return loss(scores, given.labels, where=given.where)

    one = given.scores.shape[1:]
    moves = STEP * jnp.eye(np.prod(one)).reshape(-1, *one)
    ahead, behind = jax.vmap(jax.vmap(lambda move: value(given.scores + move)))(jnp.stack([moves, -moves]))
    return (ahead - behind) / (2 * STEP), jax.grad(lambda scores: value(scores).sum())(given.scores)


def _half(given: Lists, kind: Any = jnp.bfloat16) -> Lists:
    """The lists' numbers rounded to bfloat16, and held as `kind`."""
    return Lists(*(array if array.dtype == bool else array.astype(jnp.bfloat16).astype(kind) for array in given))


def _name(function: Any) -> str:
    return getattr(getattr(function, "func", function), "__name__", repr(function))


def _close(left: Any, right: Any, tolerance: float = 2e-5) -> bool:
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return bool(np.allclose(left, right, atol=tolerance, rtol=tolerance, equal_nan=True))


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
