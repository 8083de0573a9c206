"""Metrics. Per list: (scores, labels, *, where) -> [...], NaN where undefined: means leave such lists out, counted.

Relevant is what has a label above 0; ties are ranked in order of appearance. `pooled` holds what is not a mean over
lists.
"""

import functools
from typing import Literal

from mobjrec.errors import meant
from mobjrec.metrics.ranking import auc, average_precision, hit, mean_label, mrr, ndcg, precision, recall
from mobjrec.types import Metric

__all__ = ["auc", "average_precision", "hit", "mean_label", "mrr", "named", "ndcg", "precision", "recall"]

BY_NAME = {m.__name__: m for m in (auc, average_precision, hit, mean_label, mrr, ndcg, precision, recall)}
# 2^y is for grades: on a longer scale the highest label would be all that counts.
GRADES = 10.0


def gain_of(largest: float) -> Literal["exponential", "linear"]:
    """The gain of `ndcg` for a label by its largest value: exponential for grades, up to GRADES, linear beyond.

    Where a label has a natural unit (seconds, euros), 2^y says nothing; on 1 to 5 or 1 to 10 it is the usual gain.
    """
    return "exponential" if largest <= GRADES else "linear"


def named(key: str, gain: Literal["exponential", "linear"] = "exponential") -> Metric:
    """The metric that `name` or `name@k` means, as `ndcg@10`. ValueError with the nearest name for any other.

    gain: of `ndcg`, see `gain_of`
    """
    name, at, k = key.partition("@")
    if name not in BY_NAME:
        raise ValueError(f"no metric {name}; there are {', '.join(BY_NAME)}{meant(name, BY_NAME)}")
    function = functools.partial(ndcg, gain=gain) if name == "ndcg" and gain != "exponential" else BY_NAME[name]
    if not at:
        return function
    if name == "auc" or not k.isdecimal() or not 1 <= int(k) < 2**31:
        raise ValueError(f"{key} is no metric: write NAME or NAME@K with K a number from 1 up (auc takes none)")
    return functools.partial(function, k=int(k))
