"""A scorer that lets every item read the user's history vector by vector."""

import jax
import jax.numpy as jnp
from flax import nnx

from mobjrec.models.dropout import check_rate
from mobjrec.models.dropout import dropout as dropped
from mobjrec.models.functional import opened, stack
from mobjrec.models.heads import biased, linear_heads, read
from mobjrec.models.mlp import context_join
from mobjrec.types import Array, Scorer, Spec


def transformer(layers: int = 2, heads: int = 4, dropout: float = 0.1, bias: bool | tuple[str, ...] = False) -> Scorer:
    """Transformer over the user, its history and the items, in which an item reads the user's tokens and itself only.

    Post-norm layers (Devlin et al. 2019) of width D and 4 D; so each item's score is a function of user and item alone,
    and its cost grows with L (1 + H), not L^2. A user's tokens do not read items. Order in the history is not seen.
    A history vector that is all zeros counts as absent (`user` writes them so), the user's own never does.
    `bias`: a constant for heads, as for `mlp`. ValueError if `heads` does not divide the width, for no layer or
    head, and for a dropout outside [0, 1).
    """
    if layers < 1:
        raise ValueError(f"layers is {layers}; a transformer needs at least 1")
    if heads < 1:
        raise ValueError(f"heads is {heads}; it must be at least 1")
    check_rate("dropout", dropout)

    attention_heads = heads

    def make(width: int, heads: dict[str, int], spec: Spec, rngs: nnx.Rngs) -> Transformer:
        if width % attention_heads:
            raise ValueError(f"scorer.heads is {attention_heads}; it must divide the model's width, which is {width}")
        return Transformer(width, heads, spec, layers, attention_heads, dropout, biased(bias, heads), rngs=rngs)

    return make


class Transformer(nnx.Module):
    """users [B, S, D], items [B or 1, L, D], context [B, L, F'], context_ids [B, L, C'] -> {head: scores}."""

    sequence = True

    def __init__(
        self,
        width: int,
        heads: dict[str, int],
        spec: Spec,
        layers: int,
        attention_heads: int,
        rate: float,
        own: frozenset[str],
        *,
        rngs: nnx.Rngs,
    ):
        self.rate, self.depth = rate, layers
        self.kind = nnx.Param(0.02 * jax.random.normal(rngs.params(), (3, width)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.context = context_join(spec, width, rngs=rngs)
        self.layers = stack(lambda key: Layer(width, attention_heads, rate, rngs=key), layers, rngs)
        self.heads = linear_heads(width, heads, own, rngs=rngs)

    def __call__(
        self,
        users: Array,
        items: Array,
        context: Array,
        context_ids: Array,
        preference: Array | None,
        keys: Array | None,
    ) -> dict[str, Array]:
        real = jnp.any(users != 0, axis=-1).at[:, 0].set(True)
        if self.context is not None:
            items = items + self.context(None, context_ids, context)
        items = jnp.broadcast_to(items, (len(users), *items.shape[1:]))
        kind = self.kind[...][jnp.array([0] + [1] * (users.shape[1] - 1) + [2] * items.shape[1])]
        x = self.norm(jnp.concatenate([users, items], axis=1) + kind)
        x = dropped(x, self.rate, keys, 0)
        params, layer = opened(self.layers)

        def apply(x: Array, part: tuple) -> tuple[Array, None]:
            return layer(part[0])(x, real, keys, 1 + 3 * part[1]), None

        x, _ = jax.lax.scan(apply, x, (params, jnp.arange(self.depth)))
        return read(self.heads, x[:, users.shape[1] :])


class Layer(nnx.Module):
    """One post-norm layer: x = norm(x + attention(x)), x = norm(x + feed-forward(x)).

    x [B, S + L, D], the user's S tokens first; real [B, S]. The keys have no bias (it changes no output), and the last
    norm none either: it would add the same to all items of a list.
    """

    def __init__(self, width: int, heads: int, rate: float, *, rngs: nnx.Rngs):
        self.count, self.rate = heads, rate
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.wide = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)
        self.last = nnx.LayerNorm(width, use_bias=False, rngs=rngs)

    def __call__(self, x: Array, real: Array, keys: Array | None, place: Array) -> Array:
        x = self.norm(x + dropped(self.out(self.attended(x, real)), self.rate, keys, place))
        inner = self.narrow(jax.nn.gelu(self.wide(x)))
        return self.last(x + dropped(inner, self.rate, keys, place + 1))

    def attended(self, x: Array, real: Array) -> Array:
        """What each token reads, [B, S + L, D]: the user's real tokens, and an item itself besides."""
        users = real.shape[1]
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        query = query / jnp.sqrt(query.shape[-1])
        logits = jnp.einsum("bnhd,bshd->bnhs", query, key[:, :users])
        logits = jnp.where(real[:, None, None], logits, jnp.finfo(logits.dtype).min)
        # The weight of oneself is a column of its own, closed to the user's tokens: they stand in the others already.
        own = jnp.sum(query * key, axis=-1).at[:, :users].set(jnp.finfo(logits.dtype).min)
        weights = jax.nn.softmax(jnp.concatenate([logits, own[..., None]], axis=-1), axis=-1)
        read = jnp.einsum("bnhs,bshd->bnhd", weights[..., :users], value[:, :users])
        return (read + weights[..., users:] * value).reshape(x.shape)

    def split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.count, -1)
