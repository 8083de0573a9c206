"""Metrics of one ranked list: (scores, labels, *, where) of [..., L] each -> [...] per list, NaN where undefined.

An item is relevant where its label is above 0. k = None counts the whole list. ties = "appearance" ranks equal scores in
order of appearance; "expected" gives the mean over all orders of them, in closed form (McSherry and Najork 2008). All are
in [0, 1] and higher is better, but for `dcg` and `mean_label`, which have the gain's and the label's unit.
"""

from typing import Literal

import jax.numpy as jnp

from mobjrec.metrics.ranked import Ranked, Ties, clean, falling, mean_of_ties, ranked, refuse_negative
from mobjrec.types import Array

Gain = Literal["exponential", "linear"]


def dcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    gain: Gain = "exponential",
    ties: Ties = "appearance",
) -> Array:
    """Discounted gain of the first k: sum over ranks r <= k of g(y) / log2(r + 1), g = 2^y - 1 or y.

    NaN without relevant items. ValueError for another gain, and for labels below 0 that are known when it is called.
    """
    found = ranked(scores, labels, where, k, ties)
    _check_gain(gain, labels, where)
    gains = found.labels if gain == "linear" else jnp.exp2(found.labels) - 1.0
    return _defined(_discounted(mean_of_ties(gains, found.ties), found, k), found)


def ndcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    gain: Gain = "exponential",
    ties: Ties = "appearance",
) -> Array:
    """Discounted gain of the order over that of the best order. Burges et al. 2005.

    sum over ranks r <= k of g(y) / log2(r + 1), g = 2^y - 1 or y, over the same sum with labels in falling order. 2^y is
    for grades of a few levels; for labels in natural units (seconds, euros) take the linear gain, as trec_eval and
    scikit-learn do. Labels of any size: neither overflows. NaN where the best is not above 0. ValueError for another gain,
    and for labels below 0 that are known when it is called; where they are not, one below 0 takes gain away.
    """
    found = ranked(scores, labels, where, k, ties)
    _check_gain(gain, labels, where)
    best = falling(clean(scores, labels, where), jnp.asarray(where), k)
    top = jnp.maximum(best[..., :1], 0.0)
    own = mean_of_ties(_scaled(found.labels, top, gain), found.ties)
    return _ratio(_discounted(own, found, k), _discounted(_scaled(best, top, gain), found, k))


def mrr(scores: Array, labels: Array, *, where: Array, k: int | None = None, ties: Ties = "appearance") -> Array:
    """One over the rank of the first relevant item, 0 where it stands below k. NaN without relevant items."""
    found = ranked(scores, labels, where, k, ties)
    return _defined(jnp.sum(_first_relevant(found)[..., :k] / found.place[:k], axis=-1), found)


def hit(scores: Array, labels: Array, *, where: Array, k: int | None = None, ties: Ties = "appearance") -> Array:
    """1 where a relevant item is among the first k, else 0; with expected ties, how likely that is.

    NaN without relevant items.
    """
    found = ranked(scores, labels, where, k, ties)
    return _defined(jnp.sum(_first_relevant(found)[..., :k], axis=-1), found)


def average_precision(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    capped: bool = True,
    ties: Ties = "appearance",
) -> Array:
    """Mean over relevant items P of the precision at their rank, 0 below k. NaN without relevant items.

    capped: over min(k, |P|), so that the best order is worth 1; else over |P|, as trec_eval does
    """
    found = ranked(scores, labels, where, k, ties)
    hits = (found.labels > 0).astype(found.labels.dtype)
    if found.ties is None:
        hits = hits[..., :k]
        inside = hits * jnp.cumsum(hits, axis=-1)
    else:
        before, relevant, size, above = _of_runs(found)
        # With one relevant item of the run here, each place of the run above it holds another by (m - 1) / (n - 1).
        inside = relevant / size * (before + 1 + above * (relevant - 1) / jnp.maximum(size - 1, 1))
    total = jnp.sum(inside[..., :k] / found.place[:k], axis=-1)
    return _ratio(total, found.relevant if k is None or not capped else jnp.minimum(found.relevant, k))


def precision(scores: Array, labels: Array, *, where: Array, k: int | None = None, ties: Ties = "appearance") -> Array:
    """Relevant items among the first k over min(k, items of the list). NaN without relevant items."""
    found = ranked(scores, labels, where, k, ties)
    return _defined(_hits(found, k) / jnp.maximum(_shown(found, k), 1), found)


def recall(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    capped: bool = False,
    ties: Ties = "appearance",
) -> Array:
    """Relevant items among the first k over all relevant items P. NaN without relevant items.

    capped: over min(k, |P|), as many as the first k could hold
    """
    found = ranked(scores, labels, where, k, ties)
    return _ratio(_hits(found, k), found.relevant if k is None or not capped else jnp.minimum(found.relevant, k))


def f_beta(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    beta: float = 1.0,
    ties: Ties = "appearance",
) -> Array:
    """Weighted harmonic mean of precision and recall of the first k; beta > 1 leans to recall. van Rijsbergen 1979.

    (1 + beta^2) hits / (beta^2 |P| + min(k, items)). NaN without relevant items. ValueError if beta is negative.
    """
    if beta < 0:
        raise ValueError(f"beta is {beta}; it must not be negative")
    found = ranked(scores, labels, where, k, ties)
    return _ratio((1 + beta**2) * _hits(found, k), beta**2 * found.relevant + _shown(found, k), found)


def err(scores: Array, labels: Array, *, where: Array, k: int | None = None, highest: float = 4.0) -> Array:
    """Expected reciprocal rank at which someone stops who is content with an item by its grade. Chapelle et al. 2009.

    sum over r <= k of R_r / r prod_{q < r} (1 - R_q), R = (2^y - 1) / 2^highest; labels are cut to [0, highest]. Of equal
    scores only in order of appearance: the mean over their orders has no short closed form. NaN without relevant items.
    ValueError if highest is not above 0, and for labels below 0 that are known when it is called.
    """
    if highest <= 0:
        raise ValueError(f"highest is {highest}; it must be above 0")
    found = ranked(scores, labels, where, k)
    refuse_negative(labels, where)
    stops = jnp.exp2(jnp.clip(found.labels[..., :k], 0.0, highest) - highest) - 2.0**-highest
    return _defined(jnp.sum(stops * _product_before(1 - stops) / found.place[:k], axis=-1), found)


def rbp(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    k: int | None = None,
    persistence: float = 0.8,
    ties: Ties = "appearance",
) -> Array:
    """Rank-biased precision: relevant items met by one who goes on to the next by p = persistence. Moffat, Zobel 2008.

    (1 - p) sum over r <= k of p^(r - 1) [relevant]. Below 1 also for the best order. NaN without relevant items. ValueError
    if persistence is not inside (0, 1).
    """
    if not 0 < persistence < 1:
        raise ValueError(f"persistence is {persistence}; it must be inside (0, 1)")
    found = ranked(scores, labels, where, k, ties)
    patience = (1 - persistence) * persistence ** (found.place[:k] - 1).astype(found.labels.dtype)
    return _defined(jnp.sum(_relevant(found)[..., :k] * patience, axis=-1), found)


def mean_label(scores: Array, labels: Array, *, where: Array, k: int | None = None, ties: Ties = "appearance") -> Array:
    """The mean label of the first k items, in the label's unit: click rate, satisfaction of what is shown.

    NaN without items.
    """
    found = ranked(scores, labels, where, k, ties)
    return _ratio(jnp.sum(mean_of_ties(found.labels, found.ties)[..., :k], axis=-1), _shown(found, k))


def _relevant(found: Ranked) -> Array:
    """[..., L] how likely a place holds a relevant item."""
    return mean_of_ties((found.labels > 0).astype(found.labels.dtype), found.ties)


def _hits(found: Ranked, k: int | None) -> Array:
    return jnp.sum(_relevant(found)[..., :k], axis=-1)


def _shown(found: Ranked, k: int | None) -> Array:
    return found.items if k is None else jnp.minimum(found.items, k)


def _of_runs(found: Ranked) -> tuple[Array, Array, Array, Array]:
    """[..., L] by place: relevant items before its run, those in it, the run's size, and places of it above this one."""
    hits = found.labels > 0
    upto = jnp.cumsum(hits, axis=-1)
    at = lambda place: jnp.take_along_axis(upto, place - 1, -1)
    first, last = found.ties
    before = at(first) - jnp.take_along_axis(hits, first - 1, -1)
    whole = (before, at(last) - before, last - first + 1, found.place - first)
    return tuple(count.astype(found.labels.dtype) for count in whole)


def _first_relevant(found: Ranked) -> Array:
    """[..., L] how likely the first relevant item stands at a place."""
    if found.ties is None:
        hits = found.labels > 0
        return (hits & (jnp.cumsum(hits, axis=-1) == 1)).astype(found.labels.dtype)
    _, relevant, size, above = _of_runs(found)
    # Drawn one by one: none so far, then one. Behind a run that holds any, none so far is not likely but impossible.
    misses = jnp.maximum(size - relevant - above, 0) / (size - above)
    return _product_before(misses) * relevant / (size - above)


def _product_before(values: Array) -> Array:
    """[..., L] the product of all earlier values; 1 first."""
    ones = jnp.ones((*values.shape[:-1], 1), values.dtype)
    return jnp.concatenate([ones, jnp.cumprod(values[..., :-1], axis=-1)], axis=-1)


def _check_gain(gain: str, labels: Array, where: Array) -> None:
    if gain not in ("exponential", "linear"):
        raise ValueError(f"gain is {gain}; it must be exponential or linear")
    refuse_negative(labels, where)


def _scaled(labels: Array, top: Array, gain: str) -> Array:
    """The gains over 2^top or top, the largest label [..., 1]: a ratio of two does not see the divisor."""
    # 2^y alone is infinite from labels of 128 on, and infinity over infinity NaN.
    if gain == "exponential":
        return jnp.exp2(labels - top) - jnp.exp2(-top)
    return labels / jnp.where(top > 0, top, 1.0)


def _discounted(gains: Array, found: Ranked, k: int | None) -> Array:
    discounts = jnp.log2(found.place[:k] + 1.0).astype(gains.dtype)
    # Masked items have no gain.
    return jnp.sum(gains[..., :k] / discounts, axis=-1)


def _defined(values: Array, found: Ranked) -> Array:
    return jnp.where(found.relevant > 0, values, jnp.nan)


def _ratio(above: Array, below: Array, found: Ranked | None = None) -> Array:
    """NaN where there is nothing below, or where `found` has no relevant item."""
    known = below > 0 if found is None else found.relevant > 0
    return jnp.where(known, above / jnp.where(below > 0, below, 1), jnp.nan)
