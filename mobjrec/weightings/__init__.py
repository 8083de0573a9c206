"""Weightings: how K losses (and their gradients' inner products) become K weights. One file per method.

Everywhere: an absent objective is left out of the problem, gets 0 and keeps its state; so is one whose loss or gradient
is not finite, and the step then changes nothing. With one objective there is nothing to weigh: its weight is above 0.

| weighting | reads | guarantee | breaks |
|---|---|---|---|
| static, equal | nothing | the weighted sum's minimiser | concave fronts, unequal scales |
| rlw | nothing | the equal weights' minimiser on average | noise of the direction |
| uncertainty, imtl_l | losses | losses' scales do not decide | a loss that reaches 0 takes over |
| dwa | losses' epoch means | none | losses near 0, short epochs |
| gls | losses | critical points of sum log L | a loss that reaches 0 takes over |
| chebyshev, smooth_chebyshev | losses | every weakly Pareto-optimal point for some preference | unequal scales |
| famo | losses, before and after the step | the smallest log decrease is raised | decay holds it near equal |
| constrained | losses | bounds hold at a fixed point | no model that meets the bounds |
| mgda | Gram matrix | no objective gets worse to first order | follows the smallest gradient |
"""

from mobjrec.weightings.chebyshev import chebyshev, smooth_chebyshev
from mobjrec.weightings.constrained import constrained
from mobjrec.weightings.dwa import dwa
from mobjrec.weightings.famo import famo
from mobjrec.weightings.fixed import equal, static
from mobjrec.weightings.gls import gls
from mobjrec.weightings.mgda import mgda
from mobjrec.weightings.rlw import rlw
from mobjrec.weightings.uncertainty import imtl_l, uncertainty

__all__ = [
    "chebyshev",
    "constrained",
    "dwa",
    "equal",
    "famo",
    "gls",
    "imtl_l",
    "mgda",
    "rlw",
    "smooth_chebyshev",
    "static",
    "uncertainty",
]
