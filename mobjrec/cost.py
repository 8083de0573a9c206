"""What a run's metrics lose when its weights are kept in 8 bits."""

from typing import NamedTuple

import jax
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table as Grid

from mobjrec import evaluate, quantise
from mobjrec.export import flat, path_name
from mobjrec.frozen import with_store
from mobjrec.rank import Trained
from mobjrec.types import Tree


class Cost(NamedTuple):
    """A metric before and after, the mean difference over lists and its standard error; NaN for pooled metrics' errors."""

    before: float
    after: float
    difference: float
    error: float


def rounded(params: Tree) -> Tree:
    """The parameters as a program sees them that holds their large matrices in 8 bits."""
    held = quantise.packed(flat(params))
    return jax.tree_util.tree_map_with_path(lambda path, _: np.asarray(quantise.opened(held, path_name(path))), params)


def measured(trained: Trained, split: str = "test") -> dict[str, Cost]:
    """{metric: Cost} of the run's own metrics on a split, every text encoded anew by the weights of 8 bits.

    Orders on their own label, the utility's too; both in the units of the run's utility.
    """
    parts, rows = trained.parts, rounded(trained.params)
    bare = parts.feed._replace(stored_items=None, stored_users=None, lower_items=None, lower_users=None)
    eight = with_store(parts._replace(feed=bare), rows)
    before, after = (
        evaluate.run(one, params, trained.memory, split, scale=trained.scale)
        for one, params in ((parts, trained.params), (eight, rows))
    )
    found = {}
    for key, value in before.measured.items():
        if evaluate.is_own(parts.objectives, key):
            other = after.measured[key].value
            lists = after.per_list.get(key, np.zeros(0)) - before.per_list.get(key, np.zeros(0))
            lists = lists[np.isfinite(lists)]
            error = float(lists.std(ddof=1) / np.sqrt(len(lists))) if len(lists) > 1 else float("nan")
            found[key] = Cost(value.value, other, other - value.value, error)
    return found


def table(costs: dict[str, Cost]) -> Grid:
    """The costs, a metric a row."""
    grid = Grid(title="test split", title_justify="left", box=SIMPLE_HEAD)
    grid.add_column("metric", no_wrap=True)
    for name in ("32 bits", "8 bits", "difference", "±"):
        grid.add_column(name, justify="right")
    for key, cost in costs.items():
        grid.add_row(key, *(f"{value:.4f}" if np.isfinite(value) else "–" for value in cost))
    return grid
