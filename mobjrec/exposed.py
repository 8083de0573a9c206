"""What each order shows among its first K items, by no label: coverage, Gini of exposure, novelty, diversity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.evaluate import Block, Measured, summary
from mobjrec.metrics import left_out
from mobjrec.metrics.beyond import coverage, diversity, gini, novelty, self_information
from mobjrec.metrics.keys import ITEMS, keyed
from mobjrec.metrics.ranked import in_order
from mobjrec.parts import Parts
from mobjrec.types import Array, Dataset

K = 10
See = Callable[[Block, dict[str, np.ndarray]], None]
Found = Callable[[], tuple[dict[str, Measured], dict[str, np.ndarray]]]


def watching(parts: Parts, vectors: np.ndarray, k: int = K) -> tuple[See, Found]:
    """(see, found): `see` takes a block and its orders {name: [B, L]}, `found` gives ({key: Measured}, {key: [Q]}).

    vectors: [N, D] of all items, by which diversity is told   k: how many items of each list are looked at
    Keys are those of ITEMS in the place of a label. Nothing is found where no list has more than k items: every order
    shows the same then.
    """
    items = len(parts.dataset.items.id)
    bits, pools = self_information(*popularity(parts.dataset)), {"coverage": coverage(items, k), "gini": gini(items, k)}
    top, of_lists = _functions(k)
    columns: dict[str, list[np.ndarray]] = {}
    states: dict[tuple[str, str], np.ndarray] = {}
    codes: list[np.ndarray] = []
    sizes = [0]

    def see(block: Block, orders: dict[str, np.ndarray]) -> None:
        real = block.rows >= 0
        where = block.drawn.where & real[:, None]
        item = np.broadcast_to(block.drawn.item, where.shape)
        codes.append(left_out.item_codes(where)[real])
        sizes.append(int(where.sum(-1).max()))
        for name, scores in orders.items():
            place, there = (np.asarray(one) for one in top(scores, where))
            rows = np.where(there, np.take_along_axis(item, place, -1), 0)
            told = of_lists(bits[rows].astype(np.float32), vectors[rows], there)
            for metric, values in zip(("novelty", "diversity"), told, strict=True):
                columns.setdefault(keyed(name, ITEMS, f"{metric}@{k}"), []).append(np.asarray(values)[real])
            for metric, pool in pools.items():
                falling = -np.broadcast_to(np.arange(rows.shape[-1]), rows.shape)
                state = states.get((name, metric), pool.init())
                states[name, metric] = pool.update(state, falling, rows, there)

    def found() -> tuple[dict[str, Measured], dict[str, np.ndarray]]:
        if max(sizes) <= k:
            return {}, {}
        why = np.concatenate(codes)
        rows = {key: np.concatenate(column) for key, column in columns.items()}
        measured = {key: summary(key, column, why) for key, column in rows.items()}
        gone = why[np.isin(why, left_out.ITEMLESS)]
        for (name, metric), state in states.items():
            pool = pools[metric].value(state), float("nan"), len(why) - len(gone), len(gone), left_out.counted(gone)
            measured[keyed(name, ITEMS, f"{metric}@{k}")] = Measured(*pool)
        return measured, rows

    return see, found


def popularity(dataset: Dataset) -> tuple[np.ndarray, int]:
    """([N] how many users met each item in training, how many users training has)."""
    start, item, split = dataset.seen
    user = np.repeat(np.arange(len(start) - 1), np.diff(start))
    pairs = np.unique(np.stack([user, item], 1)[split == 0], axis=0)
    return np.bincount(pairs[:, 1], minlength=len(dataset.items.id)), max(len(np.unique(pairs[:, 0])), 1)


def _functions(k: int) -> tuple[Callable, Callable]:
    """Compiled: (scores, where) -> (places of the first k items, whether they are there), and these -> per-list metrics."""

    @jax.jit
    def top(scores: Array, where: Array) -> tuple[Array, Array]:
        place = in_order(scores, where)[0][..., :k]
        return place, jnp.take_along_axis(where, place, -1)

    @jax.jit
    def of_lists(bits: Array, vectors: Array, there: Array) -> tuple[Array, Array]:
        falling = -jnp.broadcast_to(jnp.arange(there.shape[-1], dtype=jnp.float32), there.shape)
        return novelty(falling, bits, where=there), diversity(falling, vectors, where=there)

    return top, of_lists
