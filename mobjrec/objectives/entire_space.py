"""Satisfaction that is known only after a click, learnt over all that was shown."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from mobjrec.losses import masked_mean
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Tree


def satisfied_click(click: str = "click", after: str = "satisfied") -> Objective:
    """Cross-entropy of click-and-satisfied, p = sigmoid(a) sigmoid(b), mean over shown items. Ma et al. 2018, eq. 1.

    ESMM without its cross-entropy of the click, which is an objective of its own here: `single` on the head `click`.
    A shown item without a click counts as not satisfied; left out are items whose click is unknown, and clicked ones
    whose satisfaction is. ValueError where both are one label: p would be its square.
    """
    _check_labels(click, after)

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        shown = _shown(outputs, batch, click, after)
        return masked_mean(_of_product(shown), shown.known, batch.weights), shown.known.any(-1), memory

    return _objective(value, click, after)


def escm2_ips(click: str = "click", after: str = "satisfied", clip: float = 20.0, corrected: float = 1.0) -> Objective:
    """`satisfied_click` plus `corrected` times satisfaction after the click, each clicked item weighing 1 / P(click).

    mean over shown items of H(click and satisfied, sigmoid(a) sigmoid(b)) + corrected [clicked] w H(satisfied, sigmoid(b)),
    w = min(1 / sigmoid(a), clip) without a gradient. Wang et al. 2022 (ESCM^2-IPS), their click loss being an objective
    of its own here. In expectation the second part is that of a satisfaction known everywhere, as far as sigmoid(a) is
    right; the clip limits its variance. Which items are left out, ValueError: as `satisfied_click`; and unless
    clip >= 1 and corrected >= 0.
    """
    _check_labels(click, after)
    _check_clip(clip)
    _check_not_negative("corrected", corrected)

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        shown = _shown(outputs, batch, click, after)
        factual = jnp.where(shown.clicked, _inverse(shown.a, clip) * _entropy(shown.b, shown.satisfied), 0.0)
        each = _of_product(shown) + corrected * factual
        return masked_mean(each, shown.known, batch.weights), shown.known.any(-1), memory

    return _objective(value, click, after)


def dcmt(
    click: str = "click",
    after: str = "satisfied",
    head: str = "",
    clip: float = 20.0,
    corrected: float = 1.0,
    regulariser: float = 0.001,
) -> Objective:
    """`satisfied_click` plus satisfaction with the click and, by a head of its own, dissatisfaction without it.

    corrected times the mean over shown items of
    [clicked] w H(satisfied, q) + [not clicked] v H(not satisfied, q') + regulariser |1 - q - q'|,
    q = sigmoid(b), q' = sigmoid(c) for the counterfactual head c, w = min(1 / p, clip), v = min(1 / (1 - p), clip),
    p = sigmoid(a) without a gradient. Zhu et al. 2023 (DCMT): an item that was not clicked did not satisfy, so its
    q' is taught 1, which the last part softly ties to q. Their click loss is an objective of its own here.

    head: the counterfactual's, after + "_counterfactual" by default. Which items are left out, ValueError: as
    `escm2_ips`; and where head is one of the others', or regulariser is below 0.
    """
    _check_labels(click, after)
    _check_clip(clip)
    _check_not_negative("corrected", corrected)
    _check_not_negative("regulariser", regulariser)
    head = head or f"{after}_counterfactual"
    if head in (click, after):
        raise ValueError(f"head is {head}, which is read for something else; name one of its own")

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        shown = _shown(outputs, batch, click, after)
        c = jnp.where(shown.known, outputs.scores[head], 0.0)
        factual = _inverse(shown.a, clip) * _entropy(shown.b, shown.satisfied)
        counterfactual = _inverse(-shown.a, clip) * _entropy(c, 1.0)
        apart = jnp.abs(sigmoid(-shown.b) - sigmoid(c))
        direct = jnp.where(shown.clicked, factual, counterfactual) + regulariser * apart
        each = _of_product(shown) + corrected * direct
        return masked_mean(each, shown.known, batch.weights), shown.known.any(-1), memory

    objective = _objective(value, click, after)
    return objective._replace(heads=objective.heads | {head: 1})


def dcmt_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The counterfactual head by its name."""
    return {"head": settings["head"] or f"{settings['after']}_counterfactual"}


class _Shown(NamedTuple):
    """[B, L] each. known: items that count; clicked: those of them   satisfied, both: after a click, 0 without; both is
    times the click's label   a, b: logits of the click and of satisfaction after it, 0 where nothing is known
    """

    known: Array
    clicked: Array
    satisfied: Array
    both: Array
    a: Array
    b: Array


def _shown(outputs: Outputs, batch: Batch, click: str, after: str) -> _Shown:
    clicked = batch.observed[click] & (batch.labels[click] > 0)
    known = batch.observed[click] & (batch.observed[after] | ~clicked)
    clicked = clicked & known
    satisfied = jnp.where(clicked, batch.labels[after], 0.0)
    a, b = (jnp.where(known, outputs.scores[head], 0.0) for head in (click, after))
    return _Shown(known, clicked, satisfied, jnp.where(clicked, batch.labels[click], 0.0) * satisfied, a, b)


def _objective(value: Callable, click: str, after: str) -> Objective:
    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return jnp.exp(log_sigmoid(outputs.scores[click]) + log_sigmoid(outputs.scores[after]))

    return Objective(
        value, predict, heads={click: 1, after: 1}, labels=(click, after), label=after, takes=("share", "share")
    )


def _of_product(shown: _Shown) -> Array:
    """[B, L] cross-entropy of clicked-and-satisfied and the product of the two probabilities."""
    a, b = shown.a, shown.b
    log_both = log_sigmoid(a) + log_sigmoid(b)
    # log(1 - p), exact when p is near 1
    log_rest = log_both + jnp.logaddexp(jnp.logaddexp(-a, -b), -(a + b))
    return -(shown.both * log_both + (1.0 - shown.both) * log_rest)


def _entropy(logits: Array, target: Array | float) -> Array:
    return jax.nn.softplus(logits) - target * logits


def _inverse(logits: Array, clip: float) -> Array:
    """min(1 / sigmoid, clip), without a gradient."""
    return jax.lax.stop_gradient(1.0 / jnp.maximum(sigmoid(logits), 1.0 / clip))


def _check_labels(click: str, after: str) -> None:
    if click == after:
        raise ValueError(f"after is {after}, the same label as click; name what is asked of those who clicked")


def _check_clip(clip: float) -> None:
    if not clip >= 1:
        raise ValueError(f"clip is {clip}; it is the largest weight of an item, at least 1")


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} is {value}; it must not be negative")
