"""Losses of a whole list."""

import jax
import jax.numpy as jnp

from mobjrec.losses.facts import states
from mobjrec.ranks import check_lists
from mobjrec.types import Array


@states("gain", order=True, relevant=True)
def softmax(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of a list's gains under the softmax of its scores.

    -sum_i w_i y_i log softmax(s)_i over the items in `where`. Cao et al. 2007 (ListNet), top-one case; unlike there,
    gains are not normalised, so a list with more relevant items counts for more.

    scores [..., L] logits; labels [..., L] gains >= 0; weights [..., L]. Returns [...]; 0 for a list without items or
    gain. Whatever stands under the mask, NaN too, has no influence.
    """
    check_lists(scores, labels, where, weights)
    gain = jnp.where(where, labels if weights is None else labels * weights, 0.0)
    # The lowest finite number, not -inf: a list masked as a whole would pass through NaN, at which jax_debug_nans stops.
    kept = jnp.where(where, scores, jnp.finfo(scores.dtype).min)
    return -jnp.sum(gain * jnp.where(where, jax.nn.log_softmax(kept, axis=-1), 0.0), axis=-1)
