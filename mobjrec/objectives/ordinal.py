"""Grades by thresholds: stars, answers on a scale."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.objectives.single import single_settled
from mobjrec.types import Array, Batch, Clock, Loss, Objective, Outputs, Spec, Tree


def coral(label: str, classes: int = 5, lowest: int = 0, head: str = "") -> Objective:
    """One score and the thresholds that it passes: z_k = s + b_k, cross-entropy of y > k. Cao et al. 2020.

    The b_k are the objective's own parameters, b_0 and the gaps below it, softplus each: they fall whatever is learnt,
    so P(y > k) does too. They begin where all grades are equally likely for a score of 0.

    label: grades lowest, lowest + 1 ... lowest + classes - 1 (stars: classes 5, lowest 1); what is between two passes
    those below, what is outside counts as the nearest. Predicts the expected grade. ValueError unless classes >= 2.
    """
    count, head = _thresholds(classes), head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        even = jnp.array([math.log((count - k) / (k + 1)) for k in range(count)], jnp.float32)
        return {"first": even[0], "gaps": jnp.log(jnp.expm1(even[:-1] - even[1:]))}, ()

    def logits(outputs: Outputs, params: Tree) -> Array:
        below = jnp.cumsum(jax.nn.softplus(params["gaps"]))
        biases = params["first"] - jnp.concatenate([jnp.zeros(1), below])
        return outputs.scores[head][..., None] + biases

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        return *_value(losses.coral, logits(outputs, params), batch, label, lowest), memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return lowest + jax.nn.sigmoid(logits(outputs, params)).sum(-1)

    return _objective(value, predict, label, {head: 1}, lowest)._replace(init=init)


def corn(label: str, classes: int = 5, lowest: int = 0, head: str = "") -> Objective:
    """A score for each threshold, of passing it once the one before is passed. Shi et al. 2021.

    P(y > k) is the product of the sigmoids up to k: in order without a constraint, and each threshold may depend on
    user and item in its own way. The head is classes - 1 wide. label, predict, ValueError: as `coral`.
    """
    count, head = _thresholds(classes), head or label

    def logits(outputs: Outputs) -> Array:
        scores = outputs.scores[head]
        return scores[..., None] if count == 1 else scores

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        return *_value(losses.corn, logits(outputs), batch, label, lowest), memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return lowest + jnp.cumprod(jax.nn.sigmoid(logits(outputs)), axis=-1).sum(-1)

    return _objective(value, predict, label, {head: count}, lowest)


def _thresholds(classes: int) -> int:
    if classes < 2:
        raise ValueError(f"classes is {classes}; it must be at least 2")
    return classes - 1


def _value(loss: Loss, logits: Array, batch: Batch, label: str, lowest: int) -> tuple[Array, Array]:
    where = batch.observed[label]
    # The losses count from 0; a label that nobody knows is 0 too, and masked.
    grades = jnp.maximum(batch.labels[label] - lowest, 0.0)
    return loss(logits, grades, where=where, weights=batch.weights), where.any(-1)


def _objective(value: Callable, predict: Callable, label: str, heads: dict[str, int], lowest: int) -> Objective:
    takes = ("gain" if lowest >= 0 else "any",)
    return Objective(value, predict, heads, (label,), label=label, expectation=True, takes=takes)


coral_settled = corn_settled = single_settled
