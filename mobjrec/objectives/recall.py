"""Smooth recall at k mixed with a list loss."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mobjrec.losses import recall_at_k
from mobjrec.losses import softmax as softmax_loss
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Tree


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

    return Objective(
        value,
        predict,
        heads={head: 1},
        labels=(label,),
        label=label,
        # The surrogate alone falls below 0 where |P| > k (-0.09 found by descent); mixed half with the list loss it does not.
        positive=softmax >= 0.5,
        takes=("gain",),
        order=True,
        relevant=True,
    )


def recall_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head of `recall` by its name, and the temperature of its cut."""
    head, cut, k = settings["head"] or settings["label"], settings["temperature_cut"], settings["k"]
    return {"head": head} if k < 1 else {"head": head, "temperature_cut": k / 2 if cut is None else cut}
