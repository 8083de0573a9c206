"""Dynamic weight average: who came down the least from one epoch to the next gets the most."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings.given import check_rate, softmax, sound


class Epochs(NamedTuple):
    """All [K]. total, seen: of the epoch that runs   last, before: means of the two before it   means: how many

    epoch: when the objective was last present
    """

    total: Array
    seen: Array
    last: Array
    before: Array
    means: Array
    epoch: Array


def dwa(temperature: float = 2.0) -> Weighting:
    """Weights K softmax(r / T) with r_k the ratio of a loss's last two epoch means. Liu, Johns & Davison 2019, eq. 7.

    An objective's ratio is 1 until it has two means, so the weights are 1 in the first two epochs; an epoch in which
    it was absent throughout does not count for it. Weights sum to the number of present objectives. Needs losses above
    0, and epochs of many steps; invariant to a factor on any loss. Guarantees nothing; breaks where a loss nears 0, its
    ratio is then noise (a ratio counts as at most 1e6). ValueError unless 0 < temperature < inf.
    """
    check_rate("temperature", temperature)

    def init(count: int) -> Epochs:
        zeros = jnp.zeros(count)
        return Epochs(zeros, zeros, zeros, zeros, jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.int32))

    def update(signals: Signals, state: Epochs) -> tuple[Array, Epochs]:
        signals = sound(signals)
        turn = (state.epoch != signals.epoch) & (state.seen > 0)
        state_now = Epochs(
            total=jnp.where(turn, 0.0, state.total) + signals.losses,
            seen=jnp.where(turn, 0.0, state.seen) + 1.0,
            last=jnp.where(turn, state.total / jnp.maximum(state.seen, 1.0), state.last),
            before=jnp.where(turn, state.last, state.before),
            means=state.means + turn,
            epoch=jnp.broadcast_to(signals.epoch, state.epoch.shape).astype(state.epoch.dtype),
        )
        state = jax.tree.map(lambda new, old: jnp.where(signals.present, new, old), state_now, state)
        known = (state.means >= 2) & (state.before > 0)
        ratio = jnp.where(known, state.last / jnp.where(known, state.before, 1.0), 1.0)
        weights = softmax(jnp.clip(ratio, 0.0, 1e6) / temperature, signals.present)
        return weights * jnp.sum(signals.present), state

    return Weighting(init, update, needs_positive=True)
