"""NDCG of a soft permutation. It keeps [L, L] arrays per list by its nature: for lists up to about a thousand."""

import jax
import jax.numpy as jnp

from mobjrec.losses.approximate import gains, ideal
from mobjrec.losses.facts import states
from mobjrec.ranks import check_above, check_lists
from mobjrec.types import Array

# A share of a rank below this is none.
TINY = 1e-10


@states("grade", order=True, relevant=True, positive=False)
def neural_ndcg(
    scores: Array,
    labels: Array,
    *,
    where: Array,
    weights: Array | None = None,
    k: int | None = None,
    temperature: float = 1.0,
    rounds: int = 50,
    tolerance: float = 1e-6,
) -> Array:
    """One minus NDCG of softly sorted gains: 1 - sum_{r <= k} (S g)_r / log2(1 + r) / IDCG@k, g = 2^y - 1.

    S is NeuralSort's [rank, item] matrix (Grover et al. 2019) at this temperature, made doubly stochastic by at most
    `rounds` of Sinkhorn's scaling, fewer where all sums are within `tolerance` of 1. Pobrotyn & Bialobrzeski 2021,
    whose code drops ranks under the mask; here padding may stand anywhere. Weights as in `approx_ndcg`.

    labels [..., L] grades >= 0; k: all ranks by default. Returns [...], 0 for a list without gain; a little below 0
    where Sinkhorn has not converged. ValueError unless k and rounds are at least 1, temperature and tolerance above 0.
    """
    check_lists(scores, labels, where, weights, k)
    check_above({"temperature": temperature, "tolerance": tolerance, "rounds": rounds})
    kept = jnp.where(where, scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), 0.0)
    sort = _neural_sort(kept, where, temperature)
    rows, columns = _sinkhorn(sort, where, rounds, tolerance)
    gain, weight = gains(labels, where, weights, kept.dtype)
    sorted_gain = rows * jnp.einsum("...ri,...i->...r", sort, columns * gain)
    place = jnp.arange(kept.shape[-1])
    discount = jnp.where(place < (kept.shape[-1] if k is None else k), 1.0 / jnp.log2(2.0 + place), 0.0)
    return weight * (1.0 - jnp.sum(sorted_gain * discount, axis=-1) / ideal(gain, k))


def _neural_sort(kept: Array, where: Array, temperature: float) -> Array:
    """[..., rank, item]: softmax over items of ((n + 1 - 2 r) s_i - sum_j |s_i - s_j|) / temperature; 0 past n."""
    count = jnp.sum(where, axis=-1)[..., None, None]
    rank = jnp.arange(1, kept.shape[-1] + 1)[:, None]
    apart = jnp.sum(jnp.abs(kept[..., :, None] - kept[..., None, :]), axis=-1, where=where[..., None, :])
    logits = ((count + 1 - 2 * rank) * kept[..., None, :] - apart[..., None, :]) / temperature
    pairs = where[..., None, :] & (rank <= count)
    logits = jnp.where(pairs, logits, jnp.finfo(kept.dtype).min)
    return jnp.where(pairs, jax.nn.softmax(logits, axis=-1), 0.0)


def _sinkhorn(sort: Array, where: Array, rounds: int, tolerance: float) -> tuple[Array, Array]:
    """Scales of ranks and items [..., L] that make `sort` doubly stochastic; of the matrix only they are kept a round."""

    def scaled(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        rows, columns, done = state
        new_columns = 1.0 / jnp.maximum(jnp.einsum("...ri,...r->...i", sort, rows), TINY)
        new_rows = 1.0 / jnp.maximum(jnp.einsum("...ri,...i->...r", sort, new_columns), TINY)
        # Sums over items are 1 now, those over ranks perhaps not yet.
        sums = new_columns * jnp.einsum("...ri,...r->...i", sort, new_rows)
        now = jnp.max(jnp.where(where, jnp.abs(sums - 1.0), 0.0), axis=-1, keepdims=True) < tolerance
        kept = jnp.where(done, rows, new_rows), jnp.where(done, columns, new_columns)
        return (*kept, done | now), None

    ones = jnp.ones(sort.shape[:-1], sort.dtype)
    (rows, columns, _), _ = jax.lax.scan(scaled, (ones, ones, jnp.zeros((*ones.shape[:-1], 1), bool)), length=rounds)
    return rows, columns
