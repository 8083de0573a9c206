"""Relevant items against a logsumexp of the others.

P are the items with a label above 0, N the other real ones. Weights multiply a positive's part. Scores are best cosines
in [-1, 1], whose temperatures are these defaults. But for `psl`, whose activation does not factor, nothing larger than
[..., L] is kept.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.losses.reduce import masked_mean
from mobjrec.ranks import by_blocks, check_above, check_lists, relevant_in, top_k
from mobjrec.types import Array

# 1 + d and 1 + atan(d) are cut here: below lie log 0 and the log of negative numbers.
FLOOR = 1e-6

Over = Literal["negatives", "all"]


@states("gain", order=True, relevant=True)
def sampled_softmax(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    temperature: float = 1.0,
    log_q: Array | None = None,
) -> Array:
    """Cross-entropy of each positive among itself and all negatives, mean over P: mean_P softplus(logsumexp_N z - z_i).

    z = s / temperature - log_q; log_q [..., L] is the log-probability that a candidate is among these, 0 where that is
    sure: with it the sum estimates that over the catalogue. Jean et al. 2015; Yi et al. 2019 (in-batch).
    Other positives are left out of a positive's sum, and false negatives are what `where` masks.

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items or without others.
    ValueError for a temperature that is not above 0 or a log_q of another shape.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    positive, negative, logits = _sides(scores, labels, where, temperature)
    if log_q is not None:
        _check_shape("log_q", log_q, scores.shape)
        logits = logits - jnp.where(where, log_q, 0.0)
    total, spoken = _logsumexp(logits, negative)
    return masked_mean(jax.nn.softplus(total - logits), positive & spoken, weights)


@states("gain", order=True, relevant=True, positive=False)
def sl(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    temperature: float = 0.2,
    over: Over = "negatives",
) -> Array:
    """Softmax loss: mean_P log sum_j exp((s_j - s_i) / temperature) over the negatives, or over all items.

    Wu et al. 2024 (BSL) and Yang et al. 2024 (PSL) name it so. Over all items it is `softmax` on s / temperature with
    labels over |P|; over negatives it falls without end.

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items or without others (over all
    items: without relevant ones). ValueError for a temperature that is not above 0 or another `over`.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    positive, negative, logits = _sides(scores, labels, where, temperature)
    total, spoken = _logsumexp(logits, _others(negative, where, over))
    return masked_mean(total - logits, positive & spoken, weights)


@states("gain", order=True, relevant=True, positive=False)
def sl_at_k(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int = 20,
    temperature: float = 0.2,
    temperature_weight: float = 2.5,
    beta: Array | None = None,
) -> Array:
    """`sl`, each positive weighed by how far it is above the k-th score: mean_P sigmoid((s_i - beta) / t_w) sl_i.

    Yang et al. 2025 (SL@K). beta [...] has no gradient: what is given, or the list's k-th largest score (its least, if it
    is shorter). sl_i can be negative, and then a positive far above all negatives is pulled down by its weight's growth.

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items or without others.
    ValueError for k below 1, temperatures that are not above 0, or a beta that is not one number a list.
    """
    check_lists(scores, labels, where, weights, k)
    check_above({"temperature": temperature, "temperature_weight": temperature_weight})
    positive, negative, logits = _sides(scores, labels, where, temperature)
    if beta is None:
        beta = kth_largest(jax.lax.stop_gradient(scores), where, k)
    _check_shape("beta", beta, scores.shape[:-1])
    above = jnp.where(where, scores, 0.0) - jax.lax.stop_gradient(jnp.asarray(beta))[..., None]
    total, spoken = _logsumexp(logits, negative)
    near = jax.nn.sigmoid(above.astype(logits.dtype) / temperature_weight)
    return masked_mean(near * (total - logits), positive & spoken, weights)


@states("gain", order=True, relevant=True, positive=False)
def psl(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    temperature: float = 0.1,
    activation: Literal["tanh", "relu", "atan"] = "tanh",
    over: Over = "negatives",
) -> Array:
    """`sl` with another activation than exp: mean_P log sum_j a((s_j - s_i) / 2)^(1 / temperature). Yang et al. 2024, PSL.

    a(d) is 1 + tanh d, max(1 + d, 0) or 1 + atan d, made for scores in [-1, 1]; the latter two are cut at 1e-6, where
    theirs is log 0 or the log of a negative number. Theirs sums over all items, their code over negatives.
    O(L^2) time, block by block. Returns and raises as `sl`; ValueError for another activation too.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    positive, negative, kept = _sides(scores, labels, where, 1.0)
    others = _others(negative, where, over)
    log_activation = _log_activation(activation)

    def block(some: Array, place: Array) -> Array:
        logits = log_activation(0.5 * (kept[..., None, :] - some[..., :, None])) / temperature
        return _logsumexp(logits, others[..., None, :])[0][..., 0]

    return masked_mean(by_blocks(block, kept), positive & others.any(-1, keepdims=True), weights)


@states("gain", order=True, relevant=True, positive=False)
def bsl(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    temperature_positive: float = 0.3,
    temperature_negative: float = 0.2,
) -> Array:
    """Bilateral softmax loss: -t1 log mean_P e^(s / t1) + t2 log mean_N e^(s / t2), in the scores' unit. Wu et al. 2024.

    The set form. The form per positive in public code, mean_P -s_i / t1 + (t2 / t1) log sum_N e^(s_j / t2), is `sl` of
    temperature t2 times t2 / t1: use that. The mean over P is weighted, the whole times the mean weight.

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items or without others.
    ValueError for temperatures that are not above 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature_positive": temperature_positive, "temperature_negative": temperature_negative})
    positive, negative, kept = _sides(scores, labels, where, 1.0)
    weight = jnp.where(positive, 1.0 if weights is None else weights, 0.0).astype(kept.dtype)
    mass = jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), 0.0)
    of_positives, some = _logsumexp(kept / temperature_positive + mass, positive & (weight > 0))
    of_negatives, others = _logsumexp(kept / temperature_negative, negative)
    heavy, count = jnp.sum(weight, axis=-1), jnp.sum(negative, axis=-1)
    attained = of_positives[..., 0] - jnp.log(jnp.where(heavy > 0, heavy, 1.0))
    against = of_negatives[..., 0] - jnp.log(jnp.maximum(count, 1))
    value = temperature_negative * against - temperature_positive * attained
    scale = heavy / jnp.maximum(jnp.sum(positive, axis=-1), 1)
    return jnp.where((some & others)[..., 0], scale * value, 0.0)


@states("gain", order=True, relevant=True)
def adv_infonce(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    temperature: float = 0.2,
    negatives: float = 64.0,
    g: Array | None = None,
) -> Array:
    """InfoNCE with hardness: mean_P softplus(log K + logsumexp_N(delta_j + s_j / t) - s_i / t), e^delta = |N| softmax_N(g).

    Zhang et al. 2023 (AdvInfoNCE). g [..., L] is the adversary's and ascends elsewhere; without it all negatives are
    alike. K, here `negatives`, is how many of them each stands for.

    labels [..., L], relevant where > 0. Returns [...], 0 for a list without relevant items or without others.
    ValueError for a temperature or `negatives` not above 0, or a g of another shape.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature, "negatives": negatives})
    positive, negative, logits = _sides(scores, labels, where, temperature)
    hard = jnp.zeros_like(logits) if g is None else g
    _check_shape("g", hard, scores.shape)
    hard = jnp.where(negative, hard, 0.0).astype(logits.dtype)
    count = jnp.maximum(jnp.sum(negative, axis=-1, keepdims=True), 1)
    total, spoken = _logsumexp(logits + hard, negative)
    total = total - _logsumexp(hard, negative)[0] + jnp.log(count) + math.log(negatives)
    return masked_mean(jax.nn.softplus(total - logits), positive & spoken, weights)


@states("gain", order=True, relevant=True, positive=False)
def llpauc(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    alpha: float = 0.7,
    beta: float = 0.1,
    kappa: float = 5.0,
    regularisation: float = 0.0,
    a: Array | float = 1.0,
    b: Array | float = 0.0,
    g: Array | float = 0.0,
    s_p: Array | float = 0.0,
    s_n: Array | float = 0.0,
) -> Array:
    """Lower-left partial AUC as a minimax value at given auxiliaries. Shi et al. 2024, the paper's scaling, f = sigmoid(s).

    mean_P(-alpha s_p - sp(-l_p - s_p)) + mean_N(beta s_n + sp(l_n - s_n)) - (regularisation + 1) g^2 with
    l_p = (f - a)^2 - 2 (1 + g) f, l_n = (f - b)^2 + 2 (1 + g) f, sp(x) = softplus(kappa x) / kappa; alpha and beta are
    the shares of positives and negatives that count. Minimised over scores, a and b in [0, 1] and s_n, maximised over g
    in [max(-a, b - 1), 1] and s_p: see the objective of this name. Weights multiply an item's part, and g^2 with P's.

    labels [..., L], relevant where > 0; auxiliaries [...] or numbers. Returns [...], 0 for a list without relevant items
    or without others. ValueError for a kappa not above 0, alpha or beta outside of 0 to 1.
    """
    check_lists(scores, labels, where, weights)
    check_above({"kappa": kappa})
    for name, share in (("alpha", alpha), ("beta", beta)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} is {share}; it must be above 0 and at most 1")
    positive, negative, kept = _sides(scores, labels, where, 1.0)
    likely = jax.nn.sigmoid(kept)
    a, b, g, s_p, s_n = (jnp.asarray(one, kept.dtype)[..., None] for one in (a, b, g, s_p, s_n))

    def sp(x: Array) -> Array:
        return jax.nn.softplus(kappa * x) / kappa

    of_positives = (likely - a) ** 2 - 2.0 * (1.0 + g) * likely
    of_negatives = (likely - b) ** 2 + 2.0 * (1.0 + g) * likely
    part = -alpha * s_p - sp(-of_positives - s_p) - (regularisation + 1.0) * g**2
    spoken = negative.any(-1, keepdims=True) & positive.any(-1, keepdims=True)
    against = masked_mean(beta * s_n + sp(of_negatives - s_n), negative & spoken, weights)
    return masked_mean(part, positive & spoken, weights) + against


def kth_largest(scores: Array, where: Array, k: int) -> Array:
    """The k-th largest real score [...], the least in a list of fewer than k, 0 in one of none."""
    kept = jnp.where(where, scores, -jnp.inf)
    best = jax.lax.top_k(kept, min(k, scores.shape[-1]))[0]
    last = jnp.maximum(jnp.minimum(jnp.sum(where, axis=-1), best.shape[-1]), 1) - 1
    found = jnp.take_along_axis(best, last[..., None], axis=-1)[..., 0]
    return jnp.where(where.any(-1), found, 0.0)


def hardest(scores: Array, labels: Array, where: Array, count: int) -> Array:
    """`where` [..., L] of the relevant items and of the `count` highest scored others alone. Zhang et al. 2013 (DNS).

    No gradient flows through the choice. ValueError for a count (k) below 1.
    """
    check_lists(scores, labels, where, None, count)
    relevant = relevant_in(labels, where)
    return relevant | top_k(scores, where & ~relevant, count)


def _sides(scores: Array, labels: Array, where: Array, temperature: float) -> tuple[Array, Array, Array]:
    """P, N and s / temperature in at least float32, 0 under the mask."""
    positive = relevant_in(labels, where)
    kept = jnp.where(where, scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), 0.0)
    return positive, where & ~positive, kept / temperature


def _others(negative: Array, where: Array, over: str) -> Array:
    if over not in ("negatives", "all"):
        raise ValueError(f"over is {over!r}; it may be negatives or all")
    return negative if over == "negatives" else where


def _logsumexp(logits: Array, where: Array) -> tuple[Array, Array]:
    """[..., 1] over what is in `where`, 0 where nothing is; and whether something is."""
    where = jnp.broadcast_to(where, logits.shape)
    spoken = where.any(-1, keepdims=True)
    kept = jnp.where(where, logits, jnp.finfo(logits.dtype).min)
    return jnp.where(spoken, jax.nn.logsumexp(kept, axis=-1, keepdims=True), 0.0), spoken


def _log_activation(name: str) -> Callable[[Array], Array]:
    if name == "tanh":
        # log(1 + tanh d), which is log 0 in float32 from d = -9 on if taken as it stands.
        return lambda d: math.log(2.0) - jax.nn.softplus(-2.0 * d)
    if name == "relu":
        return lambda d: jnp.log(jnp.maximum(1.0 + d, FLOOR))
    if name == "atan":
        return lambda d: jnp.log(jnp.maximum(1.0 + jnp.arctan(d), FLOOR))
    raise ValueError(f"activation is {name!r}; it may be tanh, relu or atan")


def _check_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if jnp.shape(array) != shape:
        raise ValueError(f"{name} has shape {jnp.shape(array)}; expected {shape}")
