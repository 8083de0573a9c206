"""Scorers that are one product of the user's and the item's vector, so that the best items are found by one matmul."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mobjrec.models.heads import biased, squeezed
from mobjrec.types import Array, Scorer, Spec


def dot(bias: bool | tuple[str, ...] = False) -> Scorer:
    """Inner product of user and item: s_k = <a_k u, v>, a_k a learnt scale per dimension, from ones; zeros beside a bias.

    A single score has no scale: it is u.v, and with ids alone the ranker is matrix factorisation (Koren et al. 2009).
    bias: heads (true: all) to which m_k + <b_k, u> + <c_k, v> is added, all learnt from zero: the mean, the user's and
    the item's offset of that paper's eq. 4, read out of their vectors. For heads that predict their label, a rating or a
    probability; none by default, as a loss that a shift of a list's scores does not change cannot learn m_k and b_k.

    ValueError where the data has context columns, which this scorer does not read, and for a bias of no head.
    """

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Product:
        _check_context("dot", spec)
        return Product(width, heads, biased(bias, heads), temperature=None)

    return make


def cosine(temperature: float = 0.1, bias: bool | tuple[str, ...] = False) -> Scorer:
    """Cosine of user and item over a temperature: s_k = cos(a_k u, v) / t, in [-1 / t, 1 / t]; 0 where a vector is 0.

    a_k, bias, what is refused: as for `dot`; the offsets are read out of u and v at length 1, so that lengths have no
    influence at all. ValueError also if the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Product:
        _check_context("cosine", spec)
        return Product(width, heads, biased(bias, heads), temperature)

    return make


class Product(nnx.Module):
    """Products of scaled users [B, S, D] (the first of S) and items [B or 1, L, D]: {head: [B, L] or [B, L, width]}.

    own: heads that have a bias. Nothing else that a scorer is given is read.
    """

    def __init__(self, width: int, heads: dict[str, int], own: frozenset[str], temperature: float | None):
        self.temperature = temperature
        self.widths = tuple(heads.items())

        def start(name: str) -> float | None:
            """A head's first scale; from 0 a rating's need not spend the run on shrinking a click's large products."""
            if sum(heads.values()) == 1:
                return None
            return 0.0 if name in own and temperature is None else 1.0

        self.heads = nnx.Dict({name: Head(width, size, start(name), name in own) for name, size in heads.items()})

    def __call__(self, users: Array, items: Array, *unread: Array | None) -> dict[str, Array]:
        user = users[:, 0]
        scaled = jnp.concatenate([self.heads[name].scaled(user, self.temperature) for name, _ in self.widths], axis=1)
        if self.temperature is not None:
            user, items = unit(user), unit(items)
        # A shared set stays [1, L, D]: one matrix product, where gathering it per list cost fifty times as much.
        pattern = "bkd,ld->blk" if len(items) == 1 else "bkd,bld->blk"
        scores = jnp.einsum(pattern, scaled, items[0] if len(items) == 1 else items)
        stops = np.cumsum([size for _, size in self.widths])[:-1]
        parts = zip(self.widths, jnp.split(scores, stops, axis=-1), strict=True)
        return {name: squeezed(self.heads[name].shifted(part, user)) for (name, _), part in parts}


class Head(nnx.Module):
    """A head's scale of the user [size, width], None without; its bias [size] and read-outs of user and item, as the scale.

    The item's read-out is added to the scaled user, so that it costs no product of its own.
    """

    def __init__(self, width: int, size: int, start: float | None, bias: bool):
        self.scale = None if start is None else nnx.Param(jnp.full((size, width), start, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(size)) if bias else None
        self.user = nnx.Param(jnp.zeros((size, width))) if bias else None
        self.item = nnx.Param(jnp.zeros((size, width))) if bias else None

    def scaled(self, user: Array, temperature: float | None) -> Array:
        found = user[:, None] if self.scale is None else user[:, None] * self.scale[...]
        found = found if temperature is None else unit(found) / temperature
        return found if self.item is None else found + self.item[...]

    def shifted(self, scores: Array, user: Array) -> Array:
        return scores if self.bias is None else scores + (user @ self.user[...].T + self.bias[...])[:, None]


def _check_context(name: str, spec: Spec) -> None:
    columns = [*(column.name for column in spec.context.ids), *spec.context.numbers]
    if columns:
        raise ValueError(
            f"the scorer {name} reads user and item alone, but the data has the context columns {', '.join(columns)}; "
            "mlp and transformer read context: use one of them, or leave the columns out of data.columns"
        )


def unit(x: Array) -> Array:
    """x [..., D] at length 1; 0 where x is 0, with a gradient that is finite there."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(square > 0, square, 1.0))
