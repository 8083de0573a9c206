"""Smooth recall and precision at k, mixed with a list loss, at temperatures that may fall."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from mobjrec.losses import precision_at_k, recall_at_k
from mobjrec.losses import softmax as softmax_loss
from mobjrec.objectives.single import tried
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Tree


class Anneal(NamedTuple):
    """Temperatures that begin at `factor` times what is set and fall geometrically to it over these epochs or steps."""

    factor: float = 10.0
    epochs: int = 0
    steps: int = 0


def recall(
    label: str = "click",
    k: int = 20,
    head: str = "",
    softmax: float = 0.5,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
    anneal: Anneal | None = None,
) -> Objective:
    """Smooth recall at k mixed with a list loss: (1 - softmax) RS@k + softmax cross-entropy per gain.

    On the label's own head by default, so it shares click's. Alone (softmax: 0) the surrogate has next to no gradient
    far from the cut; wide temperatures at first (anneal) help as well.
    ValueError unless k >= 1, softmax is in [0, 1], both temperatures are above 0, and what `anneal` says is.
    """
    settings = {"offset": offset, "temperature_rank": temperature_rank, "temperature_cut": temperature_cut}
    return _mixture(recall_at_k, label, k, head, softmax, settings, anneal)


def precision(
    label: str = "click",
    k: int = 5,
    head: str = "",
    softmax: float = 0.5,
    offset: float = 0.5,
    temperature_rank: float = 0.1,
    temperature_cut: float | None = None,
    anneal: Anneal | None = None,
) -> Objective:
    """Smooth precision at k mixed with a list loss, as `recall`: a list of few relevant items pulls less."""
    settings = {"offset": offset, "temperature_rank": temperature_rank, "temperature_cut": temperature_cut}
    return _mixture(precision_at_k, label, k, head, softmax, settings, anneal)


def recall_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The head of `recall` by its name, and the temperature of its cut."""
    head, cut, k = settings["head"] or settings["label"], settings["temperature_cut"], settings["k"]
    return {"head": head} if k < 1 else {"head": head, "temperature_cut": k / 2 if cut is None else cut}


precision_settled = recall_settled


def _mixture(
    surrogate: Callable[..., Array],
    label: str,
    k: int,
    head: str,
    softmax: float,
    settings: dict[str, float | None],
    anneal: Anneal | None,
) -> Objective:
    tried(surrogate, {"k": k, **settings})
    if not 0 <= softmax <= 1:
        raise ValueError(f"softmax is {softmax}; it is a share of the mixture, from 0 to 1")
    cut = settings["temperature_cut"]
    warm = {"temperature_rank": settings["temperature_rank"], "temperature_cut": k / 2 if cut is None else cut}
    factor = _falling(anneal)
    head = head or label

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        scores, labels, where = outputs.scores[head], batch.labels[label], batch.observed[label]
        now = warm if anneal is None else {name: one * factor(clock) for name, one in warm.items()}
        given = {"where": where, "weights": batch.weights}
        smooth = surrogate(scores, labels, k=k, offset=settings["offset"], **given, **now)
        gain = jnp.sum(labels, axis=-1, where=where)
        entropy = softmax_loss(scores, labels, **given) / jnp.where(gain > 0, gain, 1.0)
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


def _falling(anneal: Anneal | None) -> Callable[[Clock], Array]:
    """What multiplies the temperatures at a clock's time."""
    if anneal is None:
        return lambda clock: jnp.float32(1.0)
    if not anneal.factor > 0:
        raise ValueError(f"anneal has the factor {anneal.factor}; it must be above 0")
    if min(anneal.epochs, anneal.steps) != 0 or max(anneal.epochs, anneal.steps) < 1:
        raise ValueError(f"anneal has epochs {anneal.epochs} and steps {anneal.steps}; one of them must be at least 1")

    def factor(clock: Clock) -> Array:
        gone = clock.epoch / anneal.epochs if anneal.epochs else clock.step / anneal.steps
        return anneal.factor ** (1.0 - jnp.minimum(gone, 1.0))

    return factor
