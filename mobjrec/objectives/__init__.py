"""Objectives: a loss bound to heads and labels, with what ranks for it; and the one reduction over lists.

| objective | labels | heads | `predict` is |
|---|---|---|---|
| single | one, as its loss wants it | 1 | the score, its sigmoid, or the label's expectation |
| recall | gains | 1, shared with click | the score |
| satisfied_click | click, and what is known after it, 0/1 | 2 | P(click and satisfied) |
"""

from mobjrec.objectives.entire_space import satisfied_click
from mobjrec.objectives.recall import recall
from mobjrec.objectives.single import mean_over_lists as mean_over_lists
from mobjrec.objectives.single import single

__all__ = ["recall", "satisfied_click", "single"]
