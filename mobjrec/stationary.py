"""How far from Pareto-stationary a trained run is on lists that it has not trained on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.data import order
from mobjrec.data.batching import build, needs
from mobjrec.data.sizes import plan
from mobjrec.errors import UserError
from mobjrec.gram import gram
from mobjrec.inference import wished
from mobjrec.pareto import stationarity
from mobjrec.parts import Parts, multiple_of, split_of
from mobjrec.state import divide
from mobjrec.step import Moment, gradients, share_of
from mobjrec.types import Array, Batch, Clock, Tree


class Held(NamedTuple):
    """value: 0 to 1, see `pareto.stationarity`   gram: [K, K] of the objectives' mean gradients   lists: [K] that speak

    objectives: their names, those that some list speaks of; one that none does is left out of all
    """

    value: float
    gram: np.ndarray
    lists: np.ndarray
    objectives: tuple[str, ...]


def held_out(
    parts: Parts, params: Tree, memory: Tree, split: str = "valid", limit: int | None = None, shared: bool = True
) -> Held:
    """The K gradients of the training losses over a split's lists at these parameters, without dropout, compared.

    Candidates are drawn as in training, from the config's seed. shared: at the trained parameters that more than one
    objective reaches, as in a step; False: at all that train, the definition to the letter, where heads of their own keep
    objectives apart. limit: only the first so many lists   A conditioned model is told the equal preference.
    At the end of training the value on training lists is near 0 where the run has come to a Pareto-stationary point; on
    validation lists a larger one says that some direction would still have served every objective there. UserError for a
    split without lists, or of which no objective speaks.
    """
    lists, config, names = split_of(parts, split), parts.config, tuple(parts.objectives)
    count, size = min(limit or len(lists.user), len(lists.user)), config.batch.lists
    if not count:
        raise UserError(f"the {split} split has no lists, so there is nothing to compare gradients on")
    drawn = []
    for begin in range(0, count, size):
        rows = np.arange(begin, begin + size)
        rows = np.where(rows < count, rows, -1)
        drawn.append((rows, parts.train_candidates(parts.dataset, lists, rows, order.random(config.seed, begin))))
    multiple = multiple_of(config, 1)
    sizes = plan([needs(parts.feed, lists, *one) for one in drawn], multiple)
    mask = parts.model.trainable(params)
    wish = wished(parts.model, parts.objectives, None)

    def summed(params: Tree, batch: Batch) -> tuple[Tree, Array]:
        clock = Clock(jnp.int32(parts.steps), jnp.int32(parts.steps // parts.steps_per_epoch))
        now = Moment(batch, mask, memory, clock, None, None, None, jax.random.key(config.seed), wish)
        share = share_of(parts.model, parts.objectives, config.batch.chunk_rows, params, now)
        rows = gradients(share, jnp.eye(len(names)))
        kept = divide(rows, divide(parts.model.shared(params), mask)[0])[0] if shared else rows
        return kept, jax.lax.psum(share.spoken, "data")

    # The axis `data` of one device.
    step = jax.jit(jax.vmap(summed, in_axes=(None, 0), axis_name="data"))
    total, spoken = None, 0.0
    for rows, found in drawn:
        # What memories know by the row of a training list is not this list's.
        batch = build(parts.feed, lists, rows, found, sizes, multiple)[0]._replace(row=np.full(len(rows), -1, np.int32))
        sums, lists_of = step(params, jax.tree.map(lambda leaf: leaf[None], batch))
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        spoken = spoken + np.asarray(lists_of[0])
    products = np.asarray(gram(jax.tree.map(lambda leaf: leaf[0], total)), float)
    there = np.flatnonzero(spoken)
    if not len(there):
        raise UserError(f"no objective has a label in the {split} split, so there are no gradients to compare")
    products = products[np.ix_(there, there)] / np.outer(spoken[there], spoken[there])
    return Held(stationarity(products), products, spoken[there], tuple(names[k] for k in there))
