"""Scorers that are one product of the user's and the item's vector, so that the best items are found by one matmul."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mobjrec.models.heads import squeezed
from mobjrec.types import Array, Scorer, Spec


def dot(bias: bool = False) -> Scorer:
    """Inner product of user and item: s_k = <a_k u, v>, a_k a learnt scale per dimension, ones at the start.

    A single score has no scale: it is u.v, and with ids alone the ranker is matrix factorisation (Koren et al. 2009).
    Context is not read. `bias` adds a learnt constant to each score: only for heads read by losses that a shift of all
    scores changes.
    """

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Product:
        return Product(width, heads, bias=bias, temperature=None, rngs=rngs)

    return make


def cosine(temperature: float = 0.1, bias: bool = False) -> Scorer:
    """Cosine of user and item over a temperature: s_k = cos(a_k u, v) / t, in [-1 / t, 1 / t]; 0 where a vector is 0.

    a_k as for `dot`; context is not read. ValueError if the temperature is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Product:
        return Product(width, heads, bias=bias, temperature=temperature, rngs=rngs)

    return make


class Product(nnx.Module):
    """Products of scaled users [B, S, D] (the first of S) and items [B or 1, L, D]: {head: [B, L] or [B, L, width]}."""

    def __init__(self, width: int, heads: dict[str, int], bias: bool, temperature: float | None, *, rngs: nnx.Rngs):
        several = sum(heads.values()) > 1
        self.temperature = temperature
        self.widths = tuple(heads.items())
        self.heads = nnx.Dict({name: Head(width, size, several, bias) for name, size in heads.items()})

    def __call__(
        self,
        users: Array,
        items: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None,
        keys: Array | None,
    ) -> dict[str, Array]:
        scaled = jnp.concatenate([self.heads[name].scaled(users[:, 0]) for name, _ in self.widths], axis=1)
        if self.temperature is not None:
            scaled, items = unit(scaled) / self.temperature, unit(items)
        # A shared set stays [1, L, D]: one matrix product, where gathering it per list cost fifty times as much.
        pattern = "bkd,ld->blk" if len(items) == 1 else "bkd,bld->blk"
        scores = jnp.einsum(pattern, scaled, items[0] if len(items) == 1 else items)
        stops = np.cumsum([size for _, size in self.widths])[:-1]
        parts = jnp.split(scores, stops, axis=-1)
        return {
            name: squeezed(self.heads[name].shifted(part)) for (name, _), part in zip(self.widths, parts, strict=True)
        }


class Head(nnx.Module):
    """A head's scale of the user [size, width] and bias [size], where it has them."""

    def __init__(self, width: int, size: int, scale: bool, bias: bool):
        self.scale = nnx.Param(jnp.ones((size, width))) if scale else None
        self.bias = nnx.Param(jnp.zeros(size)) if bias else None

    def scaled(self, user: Array) -> Array:
        return user[:, None] if self.scale is None else user[:, None] * self.scale[...]

    def shifted(self, scores: Array) -> Array:
        return scores if self.bias is None else scores + self.bias[...]


def unit(x: Array) -> Array:
    """x [..., D] at length 1; 0 where x is 0, with a gradient that is finite there."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
