"""Satisfaction as an index of many signals, whose weights are learnt where people said how satisfied they were."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Spec, Tree


def index(signals: tuple[str, ...], explicit: str, head: str = "", ridge: float = 1.0) -> Objective:
    """Squared error of a score and the index sum_s w_s x_s + w_0 that best explains a sparse explicit label.

    The weights are the ridge regression of `explicit` (a survey, a rating) on the signals over all items so far where
    both are observed, from sums of x x' and x y that the memory keeps: exact, whatever the learning rate. The head learns
    the index's value on every item where all signals are observed, so a few answers reach all feedback, and no gradient
    moves the index. Signals and label are standardised as in training; before any answer the index is the label's mean.

    signals: labels of any unit, the weights of which are learnt; with weights that are given, use the label rule `index`
    ridge: so many answers speak for weights of 0. Predicts the index in the unit of `explicit`.
    ValueError without signals, if one stands twice or is `explicit`, or unless ridge > 0.
    """
    if not signals or len({*signals, explicit}) != len(signals) + 1:
        said = ", ".join(signals) or "empty"
        raise ValueError(
            f"signals is {said}; expected at least one label, each once, and not {explicit}, which they explain"
        )
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; it must be above 0")
    head = head or explicit

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        about = [spec.labels[name] for name in (*signals, explicit)]
        size = len(signals) + 1
        return (), {
            "mean": jnp.array([one.mean for one in about], jnp.float32),
            "deviation": jnp.array([one.deviation for one in about], jnp.float32),
            "squares": jnp.zeros((size, size)),
            "products": jnp.zeros(size),
        }

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        x, y, known, answered = _given(batch, memory)
        # Of the sums so far, not of this batch's: every device has its own lists, and all have the same sums.
        target = x @ index_weights(memory, ridge)
        found = losses.squared(outputs.scores[head], target, where=known, weights=batch.weights)
        count = jnp.where(answered, batch.weights, 0.0)
        squares = jnp.einsum("bl,bls,blt->st", count, x, x, precision="highest")
        products = jnp.einsum("bl,bls,bl->s", count, x, y, precision="highest")
        sums = {"squares": memory["squares"] + squares, "products": memory["products"] + products}
        return found, known.any(-1), memory | sums

    def _given(batch: Batch, memory: Tree) -> tuple[Array, Array, Array, Array]:
        """Signals [B, L, S + 1] with a 1 at the end, answers [B, L], both standardised, and where each is known."""
        known = jnp.stack([batch.observed[name] for name in signals]).all(0)
        answered = known & batch.observed[explicit]
        columns = []
        for place, name in enumerate((*signals, explicit)):
            there = answered if name == explicit else known
            mean, deviation = memory["mean"][place], memory["deviation"][place]
            columns.append(jnp.where(there, (batch.labels[name] - mean) / deviation, 0.0))
        return jnp.stack([*columns[:-1], known.astype(jnp.float32)], -1), columns[-1], known, answered

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return memory["mean"][-1] + memory["deviation"][-1] * outputs.scores[head]

    return Objective(value, predict, {head: 1}, (*signals, explicit), init=init, label=explicit, expectation=True)


def index_weights(memory: Tree, ridge: float = 1.0) -> Array:
    """The index's weights [S + 1], those of the standardised signals in their order and the constant's, from its memory."""
    squares = memory["squares"] + ridge * jnp.eye(len(memory["products"]))
    return jax.scipy.linalg.solve(squares, memory["products"], assume_a="pos")


def index_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head by its name."""
    return {"head": settings["head"] or settings["explicit"]}
