"""Objectives: a loss bound to heads and labels, with what ranks for it; and the one reduction over lists.

| objective | labels | heads | `predict` is |
|---|---|---|---|
| single | one, as its loss wants it | 1 | the score, its sigmoid, or the label's expectation |
| recall, precision | gains | 1, shared with click | the score |
| sampled_softmax, sl_at_k, adv_infonce, llpauc | relevant where > 0 | 1 | the score |
| satisfied_click | click, and what is known after it, 0/1 | 2 | P(click and satisfied) |
"""

from mobjrec.objectives.contrastive import adv_infonce, llpauc, sampled_softmax, sl_at_k
from mobjrec.objectives.entire_space import satisfied_click
from mobjrec.objectives.recall import Anneal as Anneal
from mobjrec.objectives.recall import precision, recall
from mobjrec.objectives.single import mean_over_lists as mean_over_lists
from mobjrec.objectives.single import single

__all__ = [
    "adv_infonce",
    "llpauc",
    "precision",
    "recall",
    "sampled_softmax",
    "satisfied_click",
    "single",
    "sl_at_k",
]
