"""Losses of pairs of items with different labels, means over these pairs; no [L, L] array for long lists."""

import jax

from mobjrec.losses.facts import states
from mobjrec.losses.pairs import Of, pair_mean
from mobjrec.ranks import check_above, check_lists, relevant_in
from mobjrec.types import Array


@states(order=True)
def pairwise_logistic(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """softplus(-(s_i - s_j)) over the pairs with y_i > y_j, mean over these pairs. Burges et al. 2005 (RankNet).

    labels [..., L] of any grades; a pair weighs as its better item does. Returns [...], 0 for a list without a pair.
    """
    check_lists(scores, labels, where, weights)
    return pair_mean(_logistic, scores, labels, where=where, weights=weights)


@states("gain", order=True, relevant=True)
def bpr(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """softplus(-(s_i - s_j)) over the pairs of a relevant item and another, mean over these pairs. Rendle et al. 2009.

    `pairwise_logistic` of labels cut to 0/1. labels [..., L], relevant where > 0. Returns [...], 0 for a list without
    a pair.
    """
    check_lists(scores, labels, where, weights)
    return pair_mean(_logistic, scores, relevant_in(labels, where), where=where, weights=weights)


@states(order=True)
def hinge(scores: Array, labels: Array, *, where: Array, weights: Array | None = None, margin: float = 1.0) -> Array:
    """max(0, margin - (s_i - s_j)) over the pairs with y_i > y_j, mean over these pairs. Joachims 2002 (ranking SVM).

    labels [..., L] of any grades; a pair weighs as its better item does. Returns [...], 0 for a list without a pair.
    ValueError unless margin > 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"margin": margin})
    return pair_mean(lambda d, i, j: jax.nn.relu(margin - d), scores, labels, where=where, weights=weights)


def _logistic(difference: Array, i: Of, j: Of) -> Array:
    return jax.nn.softplus(-difference)
