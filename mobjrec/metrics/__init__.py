"""Metrics. Per list: (scores, labels, *, where) -> [...], NaN where undefined: means leave such lists out, counted.

Relevant is what has a label above 0; ties are ranked in order of appearance. `pooled` holds what is not a mean over
lists.
"""

import difflib
import functools

from mobjrec.metrics.ranking import auc, average_precision, hit, mean_label, mrr, ndcg, precision, recall
from mobjrec.types import Metric

__all__ = ["auc", "average_precision", "hit", "mean_label", "mrr", "named", "ndcg", "precision", "recall"]

BY_NAME = {m.__name__: m for m in (auc, average_precision, hit, mean_label, mrr, ndcg, precision, recall)}


def named(key: str) -> Metric:
    """The metric that `name` or `name@k` means, as `ndcg@10`. ValueError with the nearest name for any other."""
    name, at, k = key.partition("@")
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, 1)
        raise ValueError(
            f"no metric {name}; there are {', '.join(BY_NAME)}" + (f"; did you mean {near[0]}?" if near else "")
        )
    if not at:
        return BY_NAME[name]
    if name == "auc" or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"{key} is no metric: write NAME or NAME@K with K a number from 1 up (auc takes none)")
    return functools.partial(BY_NAME[name], k=int(k))
