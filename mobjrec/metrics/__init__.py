"""Metrics. Per list: (scores, labels, *, where) -> [...], NaN where undefined: means leave such lists out, counted.

Relevant is what has a label above 0; ties are ranked in order of appearance, or, with `ties="expected"`, averaged over all
their orders. `pooled` holds what is not a mean over lists, `beyond` what speaks of the items shown and not of labels.

| metric | takes | setting | expected ties |
|---|---|---|---|
| ndcg, dcg | grades, or amounts with gain="linear" | gain | yes |
| precision, recall, f_beta, hit, mrr, average_precision, rbp | relevant or not | beta, persistence, capped | yes |
| err | grades up to `highest` | highest | no: order of appearance |
| mean_label | any label | | yes |
| auc, kendall | relevant or not; any label | | by definition |
"""

import functools
import re
from typing import Any

import jax

from mobjrec.errors import meant
from mobjrec.metrics.pairs import auc, kendall
from mobjrec.metrics.ranking import (
    Gain,
    average_precision,
    dcg,
    err,
    f_beta,
    hit,
    mean_label,
    mrr,
    ndcg,
    precision,
    rbp,
    recall,
)
from mobjrec.types import Metric

__all__ = [
    "auc",
    "average_precision",
    "dcg",
    "err",
    "f_beta",
    "hit",
    "kendall",
    "mean_label",
    "mrr",
    "named",
    "ndcg",
    "precision",
    "rbp",
    "recall",
]

AT_K = (average_precision, dcg, err, f_beta, hit, mean_label, mrr, ndcg, precision, rbp, recall)
WHOLE = (auc, kendall)
BY_NAME = {m.__name__: m for m in (*AT_K, *WHOLE)}
BY_NAME |= {"f": BY_NAME.pop("f_beta"), "capped_recall": functools.partial(recall, capped=True)}
# The one setting that a number right behind the name is: f2, rbp0.95, err5.
SETTING = {"f": "beta", "rbp": "persistence", "err": "highest"}
KEY = re.compile(r"(?P<name>[a-z_]*)(?P<setting>[0-9]+(\.[0-9]+)?)?(@(?P<k>[1-9][0-9]{0,8}))?")
# 2^y is for grades: on a longer scale the highest label would be all that counts.
GRADES = 10.0


def gain_of(largest: float) -> Gain:
    """The gain of `ndcg` for a label by its largest value: exponential for grades, up to GRADES, linear beyond.

    Where a label has a natural unit (seconds, euros), 2^y says nothing; on 1 to 5 or 1 to 10 it is the usual gain.
    """
    return "exponential" if largest <= GRADES else "linear"


def named(key: str, gain: Gain = "exponential") -> Metric:
    """The metric that a key means, `NAME[SETTING][@K]`: ndcg@10, f2@10, rbp0.95, err5@20, auc.

    SETTING is f's beta, rbp's persistence, err's highest grade. ValueError with the nearest name for any other key.
    gain: of `ndcg` and `dcg`, see `gain_of`
    """
    told = KEY.fullmatch(key)
    name = told["name"] if told else re.match("[a-z_]*", key)[0]
    if name not in BY_NAME:
        name = name or key
        raise ValueError(f"no metric {name}; there are {', '.join(sorted(BY_NAME))}{meant(name, BY_NAME)}")
    function = BY_NAME[name]
    if told is None or (told["k"] and function in WHOLE) or (told["setting"] and name not in SETTING):
        settings = ", ".join(f"{one}'s {setting}" for one, setting in SETTING.items())
        whole = " and ".join(one.__name__ for one in WHOLE)
        raise ValueError(
            f"{key} is no metric: write NAME or NAME@K with K a number from 1 up ({whole} take none); a number behind "
            f"the name is {settings}"
        )
    settings: dict[str, Any] = {"gain": gain} if name in ("dcg", "ndcg") and gain != "exponential" else {}
    settings |= {SETTING[name]: float(told["setting"])} if told["setting"] else {}
    settings |= {"k": int(told["k"])} if told["k"] else {}
    made = functools.partial(function, **settings) if settings else function
    if told["setting"]:
        # A setting out of its range is refused here, not when the metric is first called.
        jax.eval_shape(lambda s, w: made(s, s, where=w), *(jax.ShapeDtypeStruct((1,), d) for d in ("float32", "bool")))
    return made
