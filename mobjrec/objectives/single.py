"""A loss bound to a head and a label, and the one reduction over lists."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mobjrec.losses import facts_of
from mobjrec.types import Array, Batch, Clock, Loss, Objective, Outputs, Spec, Tree


def mean_over_lists(values: Array, speaks: Array) -> Array:
    """The mean of values [B] over the lists spoken of [B] bool; 0 where there is none."""
    return jnp.sum(values, where=speaks) / jnp.maximum(jnp.sum(speaks), 1)


def tried(loss: Callable[..., Array], settings: Mapping[str, Any]) -> None:
    """Nothing, or the ValueError that the loss raises at these settings: before any data are read."""
    # Not an array: making one takes the devices, which several processes have to join before.
    jax.eval_shape(lambda one: loss(one, one, where=one > 0, **settings), jax.ShapeDtypeStruct((1,), "float32"))


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
    facts = facts_of(loss)

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
        positive=facts.positive,
        expectation=standardise or (link == "identity" and facts.value),
        takes=("share" if link == "sigmoid" else facts.labels,),
        order=facts.order,
        relevant=facts.relevant or needs_relevant,
    )


def single_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head of `single` by its name."""
    return {"head": settings["head"] or settings["label"]}
