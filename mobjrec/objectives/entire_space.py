"""Satisfaction that is known only after a click, learnt over all that was shown."""

import jax.numpy as jnp
from jax.nn import log_sigmoid

from mobjrec.losses import masked_mean
from mobjrec.types import Array, Batch, Clock, Objective, Outputs, Tree


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

    return Objective(
        value, predict, heads={click: 1, after: 1}, labels=(click, after), label=after, takes=("share", "share")
    )
