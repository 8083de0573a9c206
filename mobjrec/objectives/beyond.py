"""Beyond relevance: diversity of what is on top, and exposure shared out between groups of items."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Tree


def diversity(head: str, k: int = 5, temperature: float = 1.0) -> Objective:
    """Expected similarity of two of the first k items by a head's scores, (1 + cosine of the item vectors) / 2.

    `losses.similarity_on_top`; the vectors are the model's own, without a gradient: the order becomes diverse, not the
    vectors. It reads no label, and is for a head that another objective teaches, since alone it prefers any diverse
    items. Lists of k items or fewer are not spoken of. Predicts that head's score.
    ValueError unless k >= 2 and temperature > 0.
    """
    if k < 2:
        raise ValueError(f"k is {k}; two items are the fewest that can be alike")
    _check_temperature(temperature)

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        vectors = jax.lax.stop_gradient(outputs.items)
        settings = {"where": batch.where, "k": k, "temperature": temperature}
        found = losses.similarity_on_top(outputs.scores[head], vectors, **settings)
        return found, batch.where.sum(-1) > k, memory

    return _objective(value, head, ())


def exposure(group: str, head: str, merit: str = "", temperature: float = 0.1) -> Objective:
    """Squared gap between a group's share of exposure, by a head's scores, and its share of the items or of merit.

    `losses.exposure_gap`. group: a label, 1 for items of the group and 0 for others, such as {use: at_least, of: votes,
    value: 1000} on a number of the items   merit: a label >= 0; with it exposure is to be in proportion to it, "" = to
    the number of items. It is for a head that another objective teaches. Lists all of whose items are in the group, or
    out of it, or that have no merit, are not spoken of. Predicts that head's score. ValueError unless temperature > 0.
    """
    _check_temperature(temperature)
    labels = (group, merit) if merit else (group,)

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        where = jnp.stack([batch.observed[label] for label in labels]).all(0)
        member, deserved = batch.labels[group], batch.labels[merit] if merit else None
        settings = {"where": where, "merit": deserved, "temperature": temperature}
        found = losses.exposure_gap(outputs.scores[head], member, **settings)
        speaks = (where & (member > 0)).any(-1) & (where & (member < 1)).any(-1)
        return found, speaks & (where & (deserved > 0)).any(-1) if merit else speaks, memory

    return _objective(value, head, labels)._replace(takes=("share", "gain")[: len(labels)])


def _objective(value: Callable, head: str, labels: tuple[str, ...]) -> Objective:
    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return outputs.scores[head]

    return Objective(value, predict, {head: 1}, labels, order=True)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
