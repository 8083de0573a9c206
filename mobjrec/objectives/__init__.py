"""Objectives: a loss bound to heads and labels, with what ranks for it; and the one reduction over lists.

| objective | labels | heads | `predict` is |
|---|---|---|---|
| single | one, as its loss wants it | 1 | the score, its sigmoid, or the label's expectation |
| recall, precision | gains | 1, shared with click | the score |
| sampled_softmax, sl_at_k, adv_infonce, llpauc | relevant where > 0 | 1 | the score |
| coral, corn | grades lowest, lowest + 1 ... | 1; classes - 1 | the expected grade |
| watch_time, tweedie, ziln | time or amount >= 0, often 0 | 1; ziln 3 | the mean, in the label's unit |
| d2q | share, from the label rule `quantile` | 1 | the expected quantile |
| satisfied_click, escm2_ips | click, and what is known after it, 0/1 | 2 | P(click and satisfied) |
| dcmt | the same | 3 | the same |
| index | signals, and an explicit label known here and there | 1 | the index, in the explicit label's unit |
| inverse_propensity, position_tower | as `single`; positions too | 1 | as `single`, position_tower in its reference slot |
| regression_em | click 0/1; positions too | 1 | P(click in slot 0); needs no propensities as inverse_propensity does |
| diversity | none; item vectors | 1, another's | the score |
| exposure | a group's share, and merit >= 0 if named | 1, another's | the score |

The losses inside say whose values they are held to; satisfied_click's formula is held to independent float64 values, too.
Beside slow numpy forms of our own, as nobody else's are at hand: escm2_ips, dcmt, index, inverse_propensity,
position_tower, regression_em, diversity, exposure.
"""

from mobjrec.objectives.beyond import diversity, exposure
from mobjrec.objectives.contrastive import adv_infonce, llpauc, sampled_softmax, sl_at_k
from mobjrec.objectives.debiased import inverse_propensity, position_tower, regression_em
from mobjrec.objectives.debiased import propensities_of as propensities_of
from mobjrec.objectives.entire_space import dcmt, escm2_ips, satisfied_click
from mobjrec.objectives.index import index
from mobjrec.objectives.index import index_weights as index_weights
from mobjrec.objectives.ordinal import coral, corn
from mobjrec.objectives.recall import Anneal as Anneal
from mobjrec.objectives.recall import precision, recall
from mobjrec.objectives.single import mean_over_lists as mean_over_lists
from mobjrec.objectives.single import single
from mobjrec.objectives.watch import d2q, tweedie, watch_time, ziln

__all__ = [
    "adv_infonce",
    "coral",
    "corn",
    "d2q",
    "dcmt",
    "diversity",
    "escm2_ips",
    "exposure",
    "index",
    "inverse_propensity",
    "llpauc",
    "position_tower",
    "precision",
    "recall",
    "regression_em",
    "sampled_softmax",
    "satisfied_click",
    "single",
    "sl_at_k",
    "tweedie",
    "watch_time",
    "ziln",
]
