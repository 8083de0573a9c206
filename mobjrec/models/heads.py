"""The last layer of the scorers that have hidden ones: a linear map per head."""

import jax.numpy as jnp
from flax import nnx

from mobjrec.types import Array


def linear_heads(size: int, heads: dict[str, int], bias: bool, *, rngs: nnx.Rngs) -> nnx.Dict:
    """A linear map of `size` inputs per head, {head: nnx.Linear}.

    Without a bias unless asked: a loss that a shift of all scores does not change (softmax, soft ranks, pairwise) gives
    a head's bias no gradient but rounding noise, which Adam turns into full steps. A head that needs an offset
    (sigmoid) finds it through the biases of the hidden layers before it.
    """
    return nnx.Dict({name: nnx.Linear(size, width, use_bias=bias, rngs=rngs) for name, width in heads.items()})


def read(heads: nnx.Dict, x: Array) -> dict[str, Array]:
    """Scores of every head from x [B, L, size]: {head: [B, L], or [B, L, width] for a head wider than 1}."""
    return {name: squeezed(heads[name](x)) for name in heads}


def squeezed(scores: Array) -> Array:
    """scores [..., width] without the last axis where width is 1."""
    return jnp.squeeze(scores, -1) if scores.shape[-1] == 1 else scores
