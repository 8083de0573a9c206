"""The gradients' system is made as well conditioned as can be: all its singular values become alike."""

from typing import Literal, get_args

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import preferring, shares, solving
from mobjrec.weightings.solvers import Solution

Scale = Literal["min", "median", "rmse"]


def aligned_mtl(preference: PerObjective = (), scale: Scale = "min") -> Weighting:
    """Weights B p, B J being the orthogonal matrix nearest to the gradients J, times their scale. Senushkin et al. 2023.

    B = s V Sigma^-1 V^T from the Gram matrix V Sigma^2 V^T; s is the smallest singular value (`min`), their median
    (the lower of two) or the root of their mean square. p is the preference over its sum, the step's if none is set,
    else all alike (the authors' code sums, K times as long). The aligned system's condition number is 1, and descent
    converges for a chosen preference. It may hurt an objective. Gradients that depend on each other: singular values
    of 0 and their directions are left out. Invariant to one factor on all losses. Breaks near dependence: with `min`
    the smallest singular value is the step. All gradients 0: weights p. ValueError unless preferences are one an
    objective, finite, not negative nor all 0; for another word.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; it must be one of {', '.join(get_args(Scale))}")

    def solve(signals: Signals) -> Solution:
        return aligned_weights(signals.gram, signals.present, shares(preference, signals), scale)

    return solving(solve, preferring(preference))


def aligned_weights(gram: Array, present: Array, preference: Array, scale: Scale) -> Solution:
    """[K] weights; gram has rows of 0, and preference 0, for absent objectives. The residual is that of the eigenvectors."""
    largest = jnp.max(jnp.diagonal(gram))
    gram = gram / jnp.where(largest > 0, largest, 1.0)
    values, vectors = jnp.linalg.eigh(gram)
    residual = jnp.max(jnp.abs(gram @ vectors - vectors * values))
    large = values > len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
    sigma = jnp.sqrt(jnp.where(large, values, 1.0))
    rank = jnp.maximum(jnp.sum(large), 1)
    if scale == "min":
        common = jnp.min(jnp.where(large, sigma, jnp.inf))
    elif scale == "median":
        # Values rise, so the large ones are the last; of two in the middle, the smaller.
        common = sigma[len(gram) - rank + (rank - 1) // 2]
    else:
        common = jnp.sqrt(jnp.sum(jnp.where(large, values, 0.0)) / rank)
    mixed = vectors @ (jnp.where(large, common / sigma, 0.0) * (vectors.T @ preference))
    return Solution(jnp.where(present, jnp.where(largest > 0, mixed, preference), 0.0), residual)
