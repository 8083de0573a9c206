"""Beyond relevance: how alike the items on top are, and how exposure is shared out. No labels of clicks or satisfaction.

Not of the form that a config's `loss` takes; the objectives `diversity` and `exposure` call them.
"""

import jax.numpy as jnp

from mobjrec.ranks import check_above, check_lists, soft_ranks, soft_top_k
from mobjrec.types import Array


def similarity_on_top(scores: Array, vectors: Array, *, where: Array, k: int = 5, temperature: float = 1.0) -> Array:
    """Expected similarity of two items among the first k: sum_{i != j} m_i m_j u_ij / sum_{i != j} m_i m_j.

    m are soft shares of the first k places (`soft_top_k`), u_ij = (1 + cosine of the vectors) / 2, so a value is from 0
    to 1 and, for a low temperature, 1 - d / 2 with d the metric intra-list diversity at k. Time and memory are O(L D).

    scores, where [..., L]; vectors [..., L, D] or what broadcasts to it; a vector of 0 is like nothing (1/2). Returns
    [...]; 0 for a list of one item or none, and without a gradient to scores for one of k or fewer. ValueError for k
    below 2, vectors of another shape, or a temperature (in the scores' unit) that is not above 0.
    """
    check_lists(scores, where, where, None, k)
    check_above({"temperature": temperature})
    if k < 2:
        raise ValueError(f"k is {k}; two items are the fewest that can be alike")
    _check_vectors(vectors, jnp.shape(scores))
    share = soft_top_k(scores, where, k, temperature)
    vectors = jnp.where(where[..., None], vectors.astype(share.dtype), 0.0)
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    there = squares > 0
    units = vectors / jnp.sqrt(jnp.where(there, squares, 1.0))
    # The square of a sum is each with each, twice, and each with itself.
    each = jnp.sum(jnp.square(share), axis=-1)
    pairs = jnp.square(jnp.sum(share, axis=-1)) - each
    own = jnp.sum(jnp.square(share) * there[..., 0], axis=-1)
    alike = jnp.sum(jnp.square(jnp.sum(share[..., None] * units, axis=-2)), axis=-1) - own
    several = jnp.sum(where, axis=-1) > 1
    # Rounding may lead a hair below what a cosine can be.
    cosine = jnp.maximum(alike / jnp.where(several, pairs, 1.0), -1.0)
    return jnp.where(several, 0.5 + 0.5 * cosine, 0.0)


def exposure_gap(
    scores: Array, group: Array, *, where: Array, merit: Array | None = None, temperature: float = 0.1
) -> Array:
    """(the group's share of exposure - its share of merit)^2, exposure 1 / log2(1 + soft rank).

    Singh & Joachims 2018: without merit every item deserves the same (demographic parity), with it exposure in
    proportion to merit (disparate treatment). As a squared distance of exposures, and from a smooth rank, it is the
    group form of Diaz et al. 2020's expected exposure. For several groups take one gap for each.

    scores, where [..., L]; group [..., L], 1 or 0, or to what share an item belongs to it; merit [..., L] >= 0. Returns
    [...] from 0 to 1; 0 for a list without items or without merit. ValueError for a temperature that is not above 0.
    """
    for name, array in (("group", group), ("merit", merit)):
        if array is not None and jnp.shape(array) != jnp.shape(scores):
            raise ValueError(f"{name} has shape {jnp.shape(array)}; expected that of scores, {jnp.shape(scores)}")
    check_lists(scores, group, where)
    check_above({"temperature": temperature})
    exposure = jnp.where(where, 1.0 / jnp.log2(1.0 + soft_ranks(scores, where, temperature)), 0.0)
    merit = jnp.where(where, 1.0 if merit is None else merit, 0.0)
    group = jnp.where(where, group, 0.0)
    total = jnp.sum(merit, axis=-1)
    gap = _share(exposure, group, jnp.sum(exposure, axis=-1)) - _share(merit, group, total)
    return jnp.where(total > 0, jnp.square(gap), 0.0)


def _share(amount: Array, group: Array, total: Array) -> Array:
    return jnp.sum(amount * group, axis=-1) / jnp.where(total > 0, total, 1.0)


def _check_vectors(vectors: Array, shape: tuple[int, ...]) -> None:
    try:
        fits = jnp.broadcast_shapes(jnp.shape(vectors)[:-1], shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"vectors has shape {jnp.shape(vectors)}; expected {(*shape, 'D')}, or what broadcasts to it")
