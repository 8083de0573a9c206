"""Losses of a whole list."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.losses.pointwise import check_epsilon
from mobjrec.ranks import check_above, check_lists
from mobjrec.types import Array

# Sums of what comes after are counted within so many items at once, then over these groups likewise.
GROUP = 8


@states("gain", order=True, relevant=True)
def softmax(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, temperature: float = 1.0
) -> Array:
    """Cross-entropy of a list's gains under the softmax of its scores.

    -sum_i w_i y_i log softmax(s / temperature)_i over the items in `where`. Cao et al. 2007 (ListNet), top-one case;
    unlike there, gains are not normalised, so a list with more relevant items counts for more.

    scores [..., L] logits; labels [..., L] gains >= 0; weights [..., L]. Returns [...]; 0 for a list without items or
    gain. Whatever stands under the mask, NaN too, has no influence. ValueError unless temperature > 0.
    """
    check_lists(scores, labels, where, weights)
    check_above({"temperature": temperature})
    gain = jnp.where(where, labels if weights is None else labels * weights, 0.0)
    return -jnp.sum(gain * _log_shares(scores / temperature, where), axis=-1)


@states("gain", order=True, relevant=True)
def poly_1_softmax(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, epsilon: float = 1.0
) -> Array:
    """`softmax` plus epsilon (1 - p), p the gains' mean of softmax(s)_i. Leng et al. 2022 (poly-1).

    labels [..., L] gains >= 0; weights multiply an item's part of both. Returns [...]; 0 for a list without items or
    gain. ValueError unless epsilon >= -1.
    """
    check_lists(scores, labels, where, weights)
    check_epsilon(epsilon)
    gain, logs = jnp.where(where, labels, 0.0), _log_shares(scores, where)
    total = jnp.sum(gain, axis=-1, keepdims=True)
    missed = epsilon * (1.0 - jnp.exp(logs)) / jnp.where(total > 0, total, 1.0)
    if weights is not None:
        gain = gain * jnp.where(where, weights, 0.0)
    return jnp.sum(gain * (missed - logs), axis=-1)


@states(order=True)
def listnet(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of the softmax of labels under that of scores: -sum_i softmax(y)_i log softmax(s)_i. Cao et al. 2007.

    Theirs, top-one case; `softmax` takes the gains as they are, which keeps items of label 0 out. Least where s is y but
    for a constant, there the entropy of softmax(y). Weights multiply an item's part.

    labels [..., L] grades, of any sign. Returns [...], 0 for a list without items.
    """
    check_lists(scores, labels, where, weights)
    labels = labels.astype(jnp.promote_types(scores.dtype, jnp.float32))
    target = jnp.where(where, jnp.exp(_log_shares(labels, where)), 0.0)
    if weights is not None:
        target = target * jnp.where(where, weights, 0.0)
    return -jnp.sum(_log_shares(scores, where) * target, axis=-1)


@states(order=True)
def list_mle(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Minus the log-likelihood that items are drawn, by softmax among those left, in the order of their labels.

    sum_i log sum_{j not before i} exp(s_j) - s_i, best label first. Xia et al. 2008. Equal labels are drawn in order of
    appearance, so with labels of few values the order in which items come has influence. O(L log L). Weights multiply
    an item's draw.

    labels [..., L] any numbers. Returns [...], at least float32, 0 for a list without items.
    """
    check_lists(scores, labels, where, weights)
    order = jnp.lexsort((-jnp.where(where, labels, 0.0), ~jnp.asarray(where)), axis=-1)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    kept = jnp.where(where, scores, jnp.finfo(scores.dtype).min)
    kept, there = (jnp.take_along_axis(array, order, axis=-1) for array in (kept, where))
    draws = jnp.where(there, _log_sums_from(kept) - kept, 0.0)
    if weights is not None:
        draws = draws * jnp.take_along_axis(jnp.where(where, weights, 0.0), order, axis=-1)
    return jnp.sum(draws, axis=-1)


def _log_sums_from(logits: Array) -> Array:
    """log of the sum of exp over each place [..., L] and all after it."""
    length, low, lead = logits.shape[-1], jnp.finfo(logits.dtype).min, [(0, 0)] * (logits.ndim - 1)
    if length <= GROUP:
        # jax.lax.cumlogsumexp compiles for half a minute with its gradient, and is slower.
        return jax.nn.logsumexp(
            jnp.where(jnp.triu(jnp.ones((length, length), bool)), logits[..., None, :], low), axis=-1
        )
    count = -(-length // GROUP)
    padded = jnp.pad(logits, [*lead, (0, count * GROUP - length)], constant_values=low)
    groups = padded.reshape(*logits.shape[:-1], count, GROUP)
    after = _log_sums_from(jax.nn.logsumexp(groups, axis=-1))[..., 1:]
    after = jnp.pad(after, [*lead, (0, 1)], constant_values=low)
    found = jnp.logaddexp(_log_sums_from(groups), after[..., None])
    return found.reshape(*logits.shape[:-1], -1)[..., :length]


def _log_shares(scores: Array, where: Array) -> Array:
    """log softmax over the real items, 0 under the mask."""
    # The lowest finite number, not -inf: a list masked as a whole would pass through NaN, at which jax_debug_nans stops.
    kept = jnp.where(where, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(where, jax.nn.log_softmax(kept, axis=-1), 0.0)
