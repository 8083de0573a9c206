"""Clicks freed of where an item was shown: inverse propensities, given or estimated, and a tower for the position."""

from typing import Literal

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.errors import UserError
from mobjrec.objectives.single import single, single_settled
from mobjrec.types import Array, Batch, Clock, Loss, Objective, Outputs, Spec, Tree


def inverse_propensity(
    loss: Loss,
    label: str,
    propensities: tuple[float, ...],
    head: str = "",
    link: Literal["identity", "sigmoid"] = "identity",
    needs_relevant: bool = False,
    clip: float = 10.0,
) -> Objective:
    """`single`, with an item of label above 0 weighing min(1 / propensity of its slot, clip). Joachims et al. 2017.

    A click in a slot that few look at stands for the clicks that were not seen there. Losses that sum over relevant items
    (softmax, recall) or over pairs by their better item are unbiased so, up to the clip; of one item at a time
    (sigmoid_cross_entropy) the order is right and the probability is not, since what was not clicked weighs 1: there
    take `regression_em`, which wants no propensities.

    propensities: for each slot from 0, P(looked at), above 0 and at most 1, one for every slot of the training lists. An
    item whose slot nobody knows weighs 1. ValueError for other propensities, or clip below 1; UserError, before the
    first step, where the training lists have no slots, or more of them.
    """
    wrong = [value for value in propensities if not 0 < value <= 1]
    if wrong or not propensities:
        raise ValueError(f"propensities holds {wrong or 'nothing'}; each slot's is above 0 and at most 1")
    if not clip >= 1:
        raise ValueError(f"clip is {clip}; it is the largest weight of an item, at least 1")
    base = single(loss, label, head, link, needs_relevant=needs_relevant)
    inverse = tuple(min(1.0 / value, clip) for value in propensities)

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        if _positions(spec) > len(inverse):
            raise UserError(
                f"propensities of the objective on {label} names {len(inverse)} slots, but items of the training lists "
                f"were shown in {spec.positions}; give one for each"
            )
        return (), ()

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        slot, known = _slots(batch, len(inverse))
        clicked = known & batch.observed[label] & (batch.labels[label] > 0)
        weights = batch.weights * jnp.where(clicked, jnp.asarray(inverse, jnp.float32)[slot], 1.0)
        return base.value(outputs, batch._replace(weights=weights), params, memory, clock)

    return base._replace(value=value, init=init, probability=False)


def position_tower(
    loss: Loss,
    label: str,
    head: str = "",
    link: Literal["identity", "sigmoid"] = "identity",
    needs_relevant: bool = False,
    reference: int = 0,
) -> Objective:
    """`single` on score + bias of the slot, a parameter of the objective's own; ranked by the score in `reference`'s slot.

    An additive tower of the position alone, as PAL and YouTube's shallow tower (Zhao et al. 2019): what a slot adds is
    learnt apart from the item, and left away where items are ranked. Biases begin at 0 and are relative to `reference`,
    which has none. An item whose slot nobody knows counts as shown in `reference`. ValueError if that is below 0;
    UserError, before the first step, where the training lists have no slots, or not this one.
    """
    if reference < 0:
        raise ValueError(f"reference is {reference}; it is a slot, counted from 0")
    base = single(loss, label, head, link, needs_relevant=needs_relevant)
    head = head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        if _positions(spec) <= reference:
            raise UserError(f"reference is {reference}, but the training lists have slots 0 to {spec.positions - 1}")
        return {"bias": jnp.zeros(spec.positions)}, ()

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        bias = params["bias"] - params["bias"][reference]
        slot, known = _slots(batch, len(bias))
        scores = outputs.scores[head] + jnp.where(known, bias[slot], 0.0)
        return base.value(outputs._replace(scores={**outputs.scores, head: scores}), batch, (), memory, clock)

    return base._replace(value=value, init=init, probability=False)


def regression_em(label: str = "click", head: str = "", start: float = 0.5) -> Objective:
    """Relevance and each slot's propensity estimated in turn: a click is both looked at and relevant. Wang et al. 2018.

    With g = sigmoid(s), t the slot's propensity and c the click: an item that was not clicked was looked at with
    probability 1 - (1 - t) / (1 - t g) and is relevant with g (1 - t) / (1 - t g). The score learns c + (1 - c) times the
    latter by cross-entropy (there by boosted trees on draws of it); t is the mean of the former over what the slot
    showed. Propensities are relative to slot 0, whose is 1, since only t g is ever seen; so g is P(click in slot 0).

    Memory: sums over the slots, of which later steps weigh more (step + 1), so what was estimated from an untrained score
    is forgotten; `propensities_of` reads it. start: the propensities before any list. An item whose slot nobody knows
    counts as in slot 0. Predicts g. ValueError unless 0 < start <= 1; UserError where the training lists have no slots.
    """
    if not 0 < start <= 1:
        raise ValueError(f"start is {start}; it must be above 0 and at most 1")
    head = head or label

    def init(key: Array, spec: Spec) -> tuple[Tree, Tree]:
        shown = jnp.ones(_positions(spec))
        return (), {"looked_at": start * shown, "shown": shown}

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        where = batch.observed[label]
        slot, known = _slots(batch, len(memory["shown"]))
        scores = jnp.where(where, outputs.scores[head], 0.0)
        click = jnp.where(where, batch.labels[label], 0.0)
        unseen = 1.0 - jnp.where(known, propensities_of(memory)[slot], 1.0)
        relevance = jax.nn.sigmoid(scores)
        # 1 - t g, and at least 1 - t: of what was not clicked, the share that nobody looked at.
        missed = unseen / jnp.maximum(jax.nn.sigmoid(-scores) + relevance * unseen, 1e-30)
        target = jax.lax.stop_gradient(click + (1.0 - click) * relevance * missed)
        looked_at = click + (1.0 - click) * (1.0 - missed)
        counted = jnp.where(where & known, clock.step + 1.0, 0.0)
        memory = {
            "looked_at": memory["looked_at"].at[slot].add(counted * looked_at),
            "shown": memory["shown"].at[slot].add(counted),
        }
        found = losses.sigmoid_cross_entropy(scores, target, where=where, weights=batch.weights)
        return found, where.any(-1), jax.lax.stop_gradient(memory)

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return jax.nn.sigmoid(outputs.scores[head])

    return Objective(value, predict, {head: 1}, (label,), init=init, label=label, takes=("share",))


def propensities_of(memory: Tree) -> Array:
    """What a `regression_em` has estimated: for each slot P(looked at), relative to slot 0 (1)."""
    return (memory["looked_at"] / memory["shown"]).at[0].set(1.0)


def _positions(spec: Spec) -> int:
    if not spec.positions:
        raise UserError(
            "no item of the training lists says in which slot it was shown, which this objective needs; name the events' "
            "column in data.columns.position, or take single"
        )
    return spec.positions


def _slots(batch: Batch, count: int) -> tuple[Array, Array]:
    """Slots [B, L] from 0 to count - 1, and where they are known; a slot beyond the last counts as the last."""
    if batch.position is None:
        raise ValueError("a batch without positions; this objective needs the slots in which items were shown")
    return jnp.clip(batch.position, 0, count - 1), batch.where & (batch.position >= 0)


inverse_propensity_settled = position_tower_settled = regression_em_settled = single_settled
