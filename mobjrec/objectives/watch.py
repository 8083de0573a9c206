"""Times and amounts that are mostly 0: what is predicted is their mean."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from mobjrec import losses
from mobjrec.objectives.single import single_settled, tried
from mobjrec.types import Array, Batch, Clock, Loss, Objective, Outputs, Tree


def watch_time(label: str, head: str = "") -> Objective:
    """Logistic regression in which a click weighs its watch time; predicts e^s. Covington et al. 2016.

    e^s is E[time] / P(not clicked), so a little more than the expected time where clicks are few, and in its unit.
    label: time >= 0, an observed 0 for what was shown and not clicked.
    """
    return _one(losses.watch_time_logistic, label, head, losses.tame_exp)


def tweedie(label: str, head: str = "", power: float = 1.5) -> Objective:
    """Tweedie's likelihood of amounts that are often 0; predicts the mean e^s. ValueError unless 1 < power < 2.

    power: variance grows as mean^power; near 1 like counts, near 2 like Gamma. label: amounts >= 0.
    """
    tried(losses.tweedie, {"power": power})
    return _one(partial(losses.tweedie, power=power), label, head, losses.tame_exp)


def ziln(label: str, head: str = "") -> Objective:
    """Zero-inflated lognormal likelihood of amounts; predicts the mean sigmoid(z1) e^(z2 + d^2 / 2). Wang et al. 2019.

    The head is three wide. For heavy tails, where one score as in `tweedie` says too little. A value may be below 0.
    label: amounts >= 0.
    """
    return _one(losses.ziln, label, head, losses.ziln_mean, width=3)


def d2q(label: str, head: str = "") -> Objective:
    """Squared error between sigmoid(s) and a quantile of watch time among items of like duration. Zhan et al. 2022, D2Q.

    label: in 0 to 1, from the label rule `quantile`. Predicts that quantile, not seconds: which group an item's duration
    falls into is not known where items are ranked, and ranking by the quantile is what removes the duration.
    """
    return _one(_of_sigmoid, label, head, jax.nn.sigmoid, takes="share")


def _of_sigmoid(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    return losses.squared(jax.nn.sigmoid(jnp.where(where, scores, 0.0)), labels, where=where, weights=weights)


def _one(
    loss: Loss, label: str, head: str, link: Callable[[Array], Array], width: int = 1, takes: str = "gain"
) -> Objective:
    """A loss of one head on one label, whose scores `link` turns into an estimate of the label."""
    head = head or label

    def value(outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock) -> tuple[Array, Array, Tree]:
        where = batch.observed[label]
        found = loss(outputs.scores[head], batch.labels[label], where=where, weights=batch.weights)
        return found, where.any(-1), memory

    def predict(outputs: Outputs, params: Tree, memory: Tree) -> Array:
        return link(outputs.scores[head])

    positive = losses.facts_of(loss).positive
    return Objective(
        value, predict, {head: width}, (label,), label=label, positive=positive, expectation=True, takes=(takes,)
    )


watch_time_settled = tweedie_settled = ziln_settled = d2q_settled = single_settled
