"""The last layer of the scorers that have hidden ones, a linear map per head; and which heads have a bias."""

import jax.numpy as jnp
from flax import nnx

from mobjrec.errors import meant
from mobjrec.types import Array


def biased(bias: bool | tuple[str, ...], heads: dict[str, int]) -> frozenset[str]:
    """The heads that get a bias: all for true, none for false, else those named.

    A loss that a shift of all scores does not change (softmax, soft ranks, pairwise) gives a head's bias no gradient but
    rounding noise, which Adam turns into full steps; so only heads that another loss reads may have one, and a scorer
    does not see losses: they are named. ValueError for a name that is no head.
    """
    names = tuple(heads) if bias is True else bias or ()
    for name in names:
        if name not in heads:
            said = f"scorer.bias names {name!r}, which is no head; heads are {', '.join(heads)}"
            raise ValueError(said + meant(name, heads))
    return frozenset(names)


def linear_heads(size: int, heads: dict[str, int], own: frozenset[str], *, rngs: nnx.Rngs) -> nnx.Dict:
    """A linear map of `size` inputs per head, {head: nnx.Linear}; those in `own` have a bias.

    A head without one that needs an offset (sigmoid) finds it through the biases of the hidden layers before it.
    """
    return nnx.Dict({name: nnx.Linear(size, width, use_bias=name in own, rngs=rngs) for name, width in heads.items()})


def read(heads: nnx.Dict, x: Array) -> dict[str, Array]:
    """Scores of every head from x [B, L, size]: {head: [B, L], or [B, L, width] for a head wider than 1}."""
    return {name: squeezed(heads[name](x)) for name in heads}


def squeezed(scores: Array) -> Array:
    """scores [..., width] without the last axis where width is 1."""
    return jnp.squeeze(scores, -1) if scores.shape[-1] == 1 else scores
