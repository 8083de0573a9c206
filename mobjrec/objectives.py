"""A loss bound to a head and a label, and the one reduction over lists."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from mobjrec.losses import huber, masked_mean, recall_at_k, squared
from mobjrec.losses import softmax as softmax_loss
from mobjrec.types import Array, Batch, Clock, Loss, Objective, Outputs, Spec, Tree

__all__ = ["recall", "satisfied_click", "single"]


def mean_over_lists(values: Array, speaks: Array) -> Array:
    """The mean of values [B] over the lists spoken of [B] bool; 0 where there is none."""
    return jnp.sum(values, where=speaks) / jnp.maximum(jnp.sum(speaks), 1)


def single(
    loss: Loss,
    label: str,
    head: str = "",
    link: Literal["identity", "sigmoid"] = "identity",
    standardise: bool = False,
    needs_relevant: bool = False,
) -> Objective:
    """One loss of one head on one label, over the items whose label is observed.

    head: the label's name by default   link: what makes a score a prediction   standardise: the head learns
    (label - mean) / deviation of the training labels and predicts in the label's own unit
    needs_relevant: lists without a label above 0 are not spoken of

    ValueError for an unknown link, and for `standardise` with the sigmoid link: a probability has no other unit.
    """
    if link not in ("identity", "sigmoid"):
        raise ValueError(f"link is {link!r}; it may be identity or sigmoid")
    if standardise and link == "sigmoid":
        raise ValueError(
            f"link is sigmoid and standardise true for the label {label}; a standardised label is no probability: "
            "drop one of the two"
        )
    head = head or label
    regression = standardise or (link == "identity" and getattr(loss, "func", loss) in (squared, huber))

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        about = spec.labels[label]
        return (), {"mean": jnp.float32(about.mean), "deviation": jnp.float32(about.deviation)}

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        labels, where = batch.labels[label], batch.observed[label]
        spoken = where & (labels > 0) if needs_relevant else where
        if standardise:
            labels = (labels - memory["mean"]) / memory["deviation"]
        return loss(outputs.scores[head], labels, where=where, weights=batch.weights), spoken.any(-1), memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        scores = outputs.scores[head]
        if standardise:
            scores = memory["mean"] + memory["deviation"] * scores
        return jax.nn.sigmoid(scores) if link == "sigmoid" else scores

    return Objective(
        value,
        predict,
        heads={head: 1},
        labels=(label,),
        init=init if standardise else None,
        probability=link == "sigmoid",
        label=label,
        expectation=regression,
    )


def single_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head of `single` by its name."""
    return {"head": settings["head"] or settings["label"]}


def recall(
    label: str = "click",
    k: int = 20,
    head: str = "",
    softmax: float = 0.5,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
) -> Objective:
    """Smooth recall at k mixed with a list loss: (1 - softmax) RS@k + softmax cross-entropy per gain.

    On the label's own head by default, so it shares click's. Alone (softmax: 0) the surrogate has next to no gradient
    far from the cut. ValueError unless k >= 1, softmax is in [0, 1] and both temperatures are above 0.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if not 0 <= softmax <= 1:
        raise ValueError(f"softmax is {softmax}; it is a share of the mixture, from 0 to 1")
    for name, temperature in (("temperature_rank", temperature_rank), ("temperature_cut", temperature_cut)):
        if temperature is not None and not temperature > 0:
            raise ValueError(f"{name} is {temperature}; it must be above 0")
    head = head or label

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        scores, labels, where = outputs.scores[head], batch.labels[label], batch.observed[label]
        settings = {"offset": offset, "temperature_rank": temperature_rank, "temperature_cut": temperature_cut}
        smooth = recall_at_k(scores, labels, where=where, weights=batch.weights, k=k, **settings)
        gain = jnp.sum(labels, axis=-1, where=where)
        entropy = softmax_loss(scores, labels, where=where, weights=batch.weights) / jnp.where(gain > 0, gain, 1.0)
        return (1 - softmax) * smooth + softmax * entropy, gain > 0, memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return outputs.scores[head]

    # The surrogate alone falls below 0 where |P| > k (-0.09 found by descent); mixed half with the list loss it does not.
    return Objective(value, predict, heads={head: 1}, labels=(label,), label=label, positive=softmax >= 0.5)


def recall_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head of `recall` by its name, and the temperature of its cut."""
    head, cut, k = settings["head"] or settings["label"], settings["temperature_cut"], settings["k"]
    return {"head": head} if k < 1 else {"head": head, "temperature_cut": k / 2 if cut is None else cut}


def satisfied_click(click: str = "click", after: str = "satisfied") -> Objective:
    """Cross-entropy of click-and-satisfied, p = sigmoid(a) sigmoid(b), mean over shown items. Ma et al. 2018, eq. 1.

    A shown item without a click counts as not satisfied; left out are items whose click is unknown, and clicked ones
    whose satisfaction is. ValueError where both are one label: p would be its square.
    """
    if click == after:
        raise ValueError(f"after is {after}, the same label as click; name what is asked of those who clicked")

    def logits(outputs: Outputs, where: Array | bool = True) -> tuple[Array, Array]:
        a, b = (jnp.where(where, outputs.scores[head], 0.0) for head in (click, after))
        return a, b

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        clicked = batch.observed[click] & (batch.labels[click] > 0)
        known = batch.observed[click] & (batch.observed[after] | ~clicked)
        a, b = logits(outputs, known)
        log_both = log_sigmoid(a) + log_sigmoid(b)
        # log(1 - p), exact when p is near 1
        log_rest = log_both + jnp.logaddexp(jnp.logaddexp(-a, -b), -(a + b))
        target = jnp.where(known & clicked, batch.labels[click] * batch.labels[after], 0.0)
        entropy = -(target * log_both + (1.0 - target) * log_rest)
        return masked_mean(entropy, known, batch.weights), known.any(-1), memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        a, b = logits(outputs)
        return jnp.exp(log_sigmoid(a) + log_sigmoid(b))

    return Objective(value, predict, heads={click: 1, after: 1}, labels=(click, after), label=after)
