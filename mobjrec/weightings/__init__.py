"""Weightings: how K losses (and their gradients' inner products) become K weights. One file per method.

Everywhere: an absent objective is left out of the problem, gets 0 and keeps its state; so is one whose loss or gradient
is not finite, and the step then changes nothing. With one objective there is nothing to weigh: its weight is above 0.
Those that solve a problem on the Gram matrix say how well they did (`residual`, in 32 bits at most 1e-4 on ordinary matrices).

| weighting | reads | guarantee | breaks |
|---|---|---|---|
| static, equal, preferred | nothing | the weighted sum's minimiser | concave fronts, unequal scales |
| cosmos | losses | none | a penalty that rules |
| rlw | nothing | the equal weights' minimiser on average | noise of the direction |
| uncertainty, imtl_l | losses | losses' scales do not decide | a loss that reaches 0 takes over |
| dwa | losses' epoch means | none | losses near 0, short epochs |
| gls | losses | critical points of sum log L | a loss that reaches 0 takes over |
| chebyshev, smooth_chebyshev | losses | every weakly Pareto-optimal point for some preference | unequal scales |
| famo | losses, before and after the step | the smallest log decrease is raised | decay holds it near equal |
| constrained | losses | bounds hold at a fixed point | no model that meets the bounds |
| gradnorm | Gram matrix's diagonal, losses | none | first losses that are not typical |
| mgda | Gram matrix | no objective gets worse to first order | follows the smallest gradient |
| pe_ltr | Gram matrix | stationary for weights of at least the bounds | as mgda, and may hurt |
| pcgrad, gradvac | Gram matrix, a random order | two objectives: none is hurt (pcgrad) | three and more may be hurt |
| cagrad | Gram matrix | c < 1: the mean's minimiser | a long gradient is the mean; may hurt |
| imtl_g | Gram matrix | equal projections on unit gradients | may hurt all at once; dependent gradients |
| config | Gram matrix | equal positive cosines, if independent | dependent or opposite gradients |
| nash_mtl, fairgrad | Gram matrix | every objective gains | near Pareto stationarity weights grow |
| aligned_mtl | Gram matrix | the aligned system's condition number is 1 | near dependence it stands still; may hurt |
| upgrad, dualproj | Gram matrix | no objective gets worse to first order | unequal lengths still decide |
| sdmgrad | Gram matrix | between mgda and the mean | as mgda; may hurt |
| epo | Gram matrix, losses | the ray r_1 L_1 = ... = r_K L_K | a ray that misses the front; far off the ray |
| smoothed, every | what their `of` reads | less noise, fewer solutions; not `of`'s of one step | |
| normalised | what its `of` reads | no loss's scale decides | losses near 0 |
"""

from mobjrec.weightings.aligned_mtl import aligned_mtl
from mobjrec.weightings.cagrad import cagrad
from mobjrec.weightings.chebyshev import chebyshev, smooth_chebyshev
from mobjrec.weightings.combinators import every, normalised, smoothed
from mobjrec.weightings.constrained import constrained
from mobjrec.weightings.dual_cone import dualproj, upgrad
from mobjrec.weightings.dwa import dwa
from mobjrec.weightings.epo import epo
from mobjrec.weightings.equal_angles import config, imtl_g
from mobjrec.weightings.famo import famo
from mobjrec.weightings.fixed import equal, static
from mobjrec.weightings.gls import gls
from mobjrec.weightings.gradnorm import gradnorm
from mobjrec.weightings.mgda import mgda
from mobjrec.weightings.nash import fairgrad, nash_mtl
from mobjrec.weightings.pcgrad import gradvac, pcgrad
from mobjrec.weightings.pe_ltr import pe_ltr
from mobjrec.weightings.preferred import cosmos, preferred
from mobjrec.weightings.rlw import rlw
from mobjrec.weightings.sdmgrad import sdmgrad
from mobjrec.weightings.uncertainty import imtl_l, uncertainty

__all__ = [
    "aligned_mtl",
    "cagrad",
    "chebyshev",
    "config",
    "constrained",
    "cosmos",
    "dualproj",
    "dwa",
    "epo",
    "equal",
    "every",
    "fairgrad",
    "famo",
    "gls",
    "gradnorm",
    "gradvac",
    "imtl_g",
    "imtl_l",
    "mgda",
    "nash_mtl",
    "normalised",
    "pcgrad",
    "pe_ltr",
    "preferred",
    "rlw",
    "sdmgrad",
    "smooth_chebyshev",
    "smoothed",
    "static",
    "uncertainty",
    "upgrad",
]
