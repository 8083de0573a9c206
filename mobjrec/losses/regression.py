"""Losses of a label in its own unit: a quantile, a time that is mostly 0, an amount that is mostly 0."""

import math

import jax
import jax.numpy as jnp
from jax.nn import softplus

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import masked_mean
from mobjrec.ranks import check_lists
from mobjrec.types import Array

# Beyond it an exponential goes on as its tangent.
STEEP = 40.0
# The least deviation of a logarithm.
NARROW = 1e-4
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@states(value=True)
def quantile(scores: Array, labels: Array, *, where: Array, weights: Array | None = None, tau: float = 0.5) -> Array:
    """The pinball loss max(tau e, (tau - 1) e), e = y - s, mean over the items in `where`. Koenker & Bassett 1978.

    Least where a score is the label's tau-quantile, in the label's unit: at 1/2 the median, and half the absolute error.
    labels [..., L] in any unit. Returns [...], 0 for a list without items. ValueError unless 0 < tau < 1.
    """
    check_lists(scores, labels, where, weights)
    if not 0 < tau < 1:
        raise ValueError(f"tau is {tau}; it must be between 0 and 1")
    error = jnp.where(where, labels, 0.0) - jnp.where(where, scores, 0.0)
    return masked_mean(jnp.maximum(tau * error, (tau - 1) * error), where, weights)


@states("gain")
def watch_time_logistic(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Logistic loss in which a click weighs its watch time: y sp(-s) where y > 0, sp(s) where it is 0; mean over items.

    Covington et al. 2016: w sp(s) - w s c with w = y for the clicked and 1 for the others; the clicked are those of
    watch time above 0, so the time is all that is asked for. e^s then estimates E[y] / P(not clicked), nearly the
    expected time where clicks are few; in a unit in which times are about 1 the clicked do not drown the others.

    labels [..., L] >= 0, 0 for what was shown and not clicked. Returns [...], 0 for a list without items.
    """
    check_lists(scores, labels, where, weights)
    scores, labels = jnp.where(where, scores, 0.0), jnp.where(where, labels, 0.0)
    return masked_mean(jnp.where(labels > 0, labels * softplus(-scores), softplus(scores)), where, weights)


@states("gain", positive=False)
def ziln(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Zero-inflated lognormal: cross-entropy of y > 0, plus -log of y's lognormal density where it is. Wang et al. 2019.

    sp(z1) - z1 [y > 0] + [y > 0] (log y + log d + log(2 pi) / 2 + (log y - z2)^2 / (2 d^2)), d = max(sp(z3), 1e-4), mean
    over items. The mean of y is `ziln_mean`. A density may be above 1, so a value may be below 0.

    scores [..., L, 3]; labels, where, weights [..., L], labels >= 0. Returns [...], 0 for a list without items.
    """
    check_wide("ziln", scores, labels, where, weights, 3)
    z1, z2, deviation = _three(jnp.where(where[..., None], scores, 0.0))
    labels = jnp.where(where, labels, 0.0).astype(z1.dtype)
    # Masked before the logarithm: that of 0 has no gradient, but one times 0 is NaN.
    logs = jnp.log(jnp.where(labels > 0, labels, 1.0))
    density = logs + jnp.log(deviation) + HALF_LOG_TWO_PI + 0.5 * jnp.square((logs - z2) / deviation)
    return masked_mean(softplus(z1) + jnp.where(labels > 0, density - z1, 0.0), where, weights)


def ziln_mean(scores: Array) -> Array:
    """The mean sigmoid(z1) e^(z2 + d^2 / 2) that scores [..., 3] say -> [...], finite for any; see `ziln`."""
    z1, z2, deviation = _three(scores)
    return jax.nn.sigmoid(z1) * tame_exp(z2 + 0.5 * jnp.square(deviation))


@states("gain")
def tweedie(scores: Array, labels: Array, *, where: Array, weights: Array | None = None, power: float = 1.5) -> Array:
    """Tweedie's likelihood with a log link: -y e^((1-p) s) / (1-p) + e^((2-p) s) / (2-p), mean over the items.

    Amounts with a mass at 0 and a variance of mean^p; e^s estimates the mean. Up to a constant of the label it is half
    the deviance. Where an exponent passes 40 the exponential goes on as its tangent, so that no score overflows.

    labels [..., L] >= 0. Returns [...], 0 for a list without items. ValueError unless 1 < power < 2.
    """
    check_lists(scores, labels, where, weights)
    if not 1 < power < 2:
        raise ValueError(f"power is {power}; it must be between 1 and 2")
    scores = jnp.where(where, scores, 0.0).astype(_counting(scores))
    labels = jnp.where(where, labels, 0.0).astype(scores.dtype)
    part = labels * tame_exp((1 - power) * scores) / (power - 1) + tame_exp((2 - power) * scores) / (2 - power)
    return masked_mean(part, where, weights)


def tame_exp(x: Array) -> Array:
    """e^x, from x = 40 on as its tangent there: it rises for ever and overflows nowhere."""
    return jnp.exp(jnp.minimum(x, STEEP)) * (1.0 + jnp.maximum(x - STEEP, 0.0))


def check_wide(name: str, scores: Array, labels: Array, where: Array, weights: Array | None, width: int = 0) -> None:
    """What `check_lists` refuses, and scores that are not an item's `width` logits (0: one or more), [..., L, width]."""
    shape = jnp.shape(scores)
    if len(shape) != jnp.ndim(labels) + 1 or not shape[-1] or (width and shape[-1] != width):
        raise ValueError(
            f"scores has shape {shape} for labels of shape {jnp.shape(labels)}; {name} takes [..., L, {width or 'W'}], an "
            f"item's logits; in a config that is the objective {name}, not a loss of single"
        )
    check_lists(scores[..., 0], labels, where, weights)


def _three(scores: Array) -> tuple[Array, Array, Array]:
    """The logit of being above 0, and the mean and deviation of the logarithm, at least float32."""
    z1, z2, z3 = jnp.moveaxis(scores.astype(_counting(scores)), -1, 0)
    return z1, z2, jnp.maximum(softplus(z3), NARROW)


def _counting(scores: Array) -> jnp.dtype:
    return jnp.promote_types(scores.dtype, jnp.float32)
