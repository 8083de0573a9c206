"""What an order shows, whatever its labels: how much of the catalogue, how evenly, how well known, how alike.

`coverage` and `gini` are pooled metrics, whose `update` takes the items' rows in the catalogue in the place of labels;
`novelty` and `diversity` are per list. Items are ranked as in `ranking`: by score, ties in order of appearance.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from mobjrec.metrics.ranked import in_order
from mobjrec.metrics.ranking import mean_label
from mobjrec.ranks import check_lists
from mobjrec.types import Array, PooledMetric


def coverage(items: int, k: int) -> PooledMetric:
    """Share of the catalogue's `items` that stand among the first k of some list. NaN without lists."""
    return _of_counts(items, k, lambda counts: float(np.mean(counts > 0)))


def gini(items: int, k: int) -> PooledMetric:
    """Gini index of how often each of the catalogue's `items` stands among the first k: 0 all alike, near 1 one alone.

    sum_i (2 i - n - 1) c_i / (n sum c), counts c in rising order. Lower is more even. NaN without lists.
    """

    def value(counts: np.ndarray) -> float:
        place = 2 * np.arange(1, items + 1) - items - 1
        return float((place * np.sort(counts)).sum() / (items * counts.sum()))

    return _of_counts(items, k, value)


def self_information(counts: np.ndarray, users: int) -> np.ndarray:
    """Bits -log2(users who met the item / users) of each item, by how many met it; one that nobody met counts as met once."""
    return -np.log2(np.maximum(counts, 1) / users)


def novelty(scores: Array, information: Array, *, where: Array, k: int | None = None) -> Array:
    """Mean self-information of the first k items, in bits: how little known they are. Zhou et al. 2010.

    information: [..., L] of each item, see `self_information`. NaN without items.
    """
    if jnp.shape(information) != jnp.shape(scores):
        raise ValueError(
            f"information has shape {jnp.shape(information)}; expected that of scores, {jnp.shape(scores)}"
        )
    return mean_label(scores, information, where=where, k=k)


def diversity(scores: Array, vectors: Array, *, where: Array, k: int | None = None) -> Array:
    """Mean of 1 - cosine over the pairs of the first k items' vectors, in [0, 2]. Ziegler et al. 2005.

    vectors: [..., L, D]; one of length 0 has cosine 0 with all. By the sum of the k vectors: no pair is made. NaN for
    lists of fewer than two items. ValueError for vectors that are not of the items' shape.
    """
    check_lists(scores, scores, where, None, k)
    if jnp.shape(vectors)[:-1] != jnp.shape(scores):
        raise ValueError(
            f"vectors has shape {jnp.shape(vectors)}; expected {(*jnp.shape(scores), 'D')}, scores' and a width"
        )
    where = jnp.asarray(where)
    first = in_order(scores, where)[0][..., :k]
    there = jnp.take_along_axis(where, first, -1)[..., None]
    chosen = jnp.where(there, jnp.take_along_axis(jnp.asarray(vectors), first[..., None], -2), 0.0)
    lengths = jnp.linalg.norm(chosen, axis=-1, keepdims=True)
    units = chosen / jnp.where(lengths > 0, lengths, 1.0)
    # The square of a sum is each with each, twice, and each with itself.
    alike = jnp.sum(jnp.square(units.sum(-2)), axis=-1) - jnp.sum(jnp.square(units), axis=(-2, -1))
    count = there.sum((-2, -1))
    pairs = count * (count - 1)
    return jnp.where(pairs > 0, 1.0 - alike / jnp.maximum(pairs, 1), jnp.nan)


def _of_counts(items: int, k: int, value: Callable[[np.ndarray], float]) -> PooledMetric:
    """A metric of how often each item stands among the first k."""
    if items < 1 or k < 1:
        raise ValueError(f"items is {items} and k is {k}; both must be at least 1")

    def update(state: np.ndarray, scores: np.ndarray, rows: np.ndarray, where: np.ndarray) -> np.ndarray:
        scores, rows, where = (np.asarray(one) for one in (scores, rows, where))
        check_lists(scores, rows, where, None, k)
        bad = rows[where & ((rows < 0) | (rows >= items))]
        if len(bad):
            raise ValueError(f"labels holds {bad[0]}; expected rows of a catalogue of {items} items")
        first = np.lexsort((-scores, ~where), axis=-1)[..., :k]
        shown = np.take_along_axis(rows, first, -1)[np.take_along_axis(where, first, -1)]
        return state + np.bincount(shown, minlength=items)

    def of_state(state: np.ndarray) -> float:
        return value(state) if state.any() else float("nan")

    return PooledMetric(lambda: np.zeros(items, np.int64), update, np.add, of_state)
