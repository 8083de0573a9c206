"""Weightings: how K losses (and their gradients' inner products) become K weights. One file per method.

| weighting | reads | guarantee |
|---|---|---|
| static, equal | nothing | the weighted sum's minimiser |
| uncertainty | losses | losses' scales do not decide |
| mgda | Gram matrix | no objective gets worse to first order |
"""

from mobjrec.weightings.fixed import equal, static
from mobjrec.weightings.mgda import mgda
from mobjrec.weightings.uncertainty import uncertainty

__all__ = ["equal", "mgda", "static", "uncertainty"]
