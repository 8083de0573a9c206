"""BERT over packed rows: several texts a row, attention within a text. Devlin et al. 2019."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from mobjrec.models import pretrained
from mobjrec.models.dropout import check_rate
from mobjrec.models.dropout import dropout as dropped
from mobjrec.models.functional import opened, stack
from mobjrec.models.pooling import pool_cls, pool_mean
from mobjrec.models.pretrained import bert_settled as bert_settled
from mobjrec.types import Array, Encoder, Texts

EPSILON = 1e-12
# Dropout masks of a layer, and where a layer's places begin: place 0 is the embeddings'.
PLACES = 2


class Last(NamedTuple):
    """Train the last so many layers."""

    last: int


def bert(
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    feed_forward: int | None = None,
    dropout: float = 0.1,
    pooling: Literal["mean", "cls"] = "mean",
    normalise: bool = False,
    train: Literal["all", "none"] | Last = "all",
    weights: str = "",
    compute: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
) -> Encoder:
    """A BERT encoder from scratch, or with the weights of a Hugging Face folder (or `minilm`), whose sizes then count.

    feed_forward: inner width, 4 width by default   pooling: of a text's tokens   normalise: to length 1
    train: all parameters, none, or `{last: N}` layers; what lies below is computed without a backward pass
    compute: precision inside the layers; parameters, pooling and output are float32
    remat: layers keep their inputs alone and are computed again in the backward pass (Chen et al. 2016)

    ValueError for a width that heads do not divide, more layers to train than there are, and values outside these;
    UserError for weights that cannot be read.
    """
    for name, value, allowed in (
        ("pooling", pooling, ("mean", "cls")), ("compute", compute, ("float32", "bfloat16")),
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; it may be {' or '.join(allowed)}")
    check_rate("dropout", dropout)
    loaded = pretrained.read_sizes(weights) if weights else None
    sizes = loaded or pretrained.Sizes(
        layers, width, heads, 4 * width if feed_forward is None else feed_forward, positions=1, vocabulary=1, types=1,
        pooling=pooling, normalise=normalise,
    )  # fmt: skip
    sizes = sizes._replace(normalise=sizes.normalise or normalise)
    for name in ("layers", "width", "heads", "feed_forward"):
        if getattr(sizes, name) < 1:
            raise ValueError(f"{name} is {getattr(sizes, name)}; it must be at least 1")
    if sizes.width % sizes.heads:
        raise ValueError(
            f"width is {sizes.width}; it must be divisible by the encoder's heads, of which it has {sizes.heads}"
        )
    trained = _trained(train, sizes.layers)

    def make(vocabulary: int, positions: int, rngs: nnx.Rngs) -> Bert:
        if loaded is None:
            fitted = sizes._replace(vocabulary=vocabulary, positions=positions)
        else:
            fitted = sizes
            pretrained.check_fit(weights, loaded, vocabulary, positions)
        module = Bert(fitted, trained, train == "all", dropout, compute, remat, bool(weights), rngs=rngs)
        # Built by shape alone, a module has no arrays to fill.
        if weights and not isinstance(module.embeddings.word[...], jax.core.Tracer):
            pretrained.fill(module, weights, fitted)
        return module

    return make


def _trained(train: str | Last, layers: int) -> int:
    """How many of the layers train."""
    if isinstance(train, str):
        if train not in ("all", "none"):
            raise ValueError(f"train is {train!r}; it may be all, none or {{last: N}}")
        return layers if train == "all" else 0
    if not 1 <= train.last <= layers:
        raise ValueError(f"train is {{last: {train.last}}}, but the encoder has {layers} layers")
    return train.last


class Bert(nnx.Module):
    """(Texts, [R] keys or None) -> [R, S, width]; starts from `hidden` or `vector` where the texts have them.

    `lower` and `embeddings` are frozen unless all trains, `upper` is what trains; either stack may be absent.
    """

    def __init__(
        self,
        sizes: pretrained.Sizes,
        trained: int,
        whole: bool,
        rate: float,
        compute: str,
        remat: bool,
        empty: bool,
        *,
        rngs: nnx.Rngs,
    ):
        self.width, self.sizes, self.rate, self.remat = sizes.width, sizes, rate, remat
        self.dtype = jnp.dtype(compute)
        self.below = 0 if whole else sizes.layers - trained
        self.frozen = () if whole else ("embeddings", "lower")
        # What is filled from a folder is not drawn first: 22 million normals take 8 s. NaN shows what was not filled.
        normal = nnx.initializers.constant(jnp.nan) if empty else nnx.initializers.normal(0.02)
        self.embeddings = Embeddings(sizes, normal, rngs=rngs)

        def make(key: nnx.Rngs) -> Layer:
            return Layer(sizes.width, sizes.heads, sizes.feed_forward, rate, normal, rngs=key)

        self.lower = stack(make, self.below, rngs) if self.below else None
        self.upper = stack(make, sizes.layers - self.below, rngs) if sizes.layers > self.below else None

    def __call__(self, texts: Texts, keys: Array | None) -> Array:
        if texts.vector is not None:
            return texts.vector
        hidden = texts.hidden if texts.hidden is not None else self.frozen_part(texts, keys)
        hidden = hidden.astype(self.dtype)
        if self.frozen:
            hidden = jax.lax.stop_gradient(hidden)
        if self.upper is not None:
            hidden = run(self.upper, hidden, texts.slot, keys, self.below, self.remat)
        return self.pooled(hidden.astype(jnp.float32), texts)

    def frozen_part(self, texts: Texts, keys: Array | None) -> Array:
        """[R, T, width]: embeddings and lower layers. No dropout where they do not train: their output is then one."""
        keys = None if self.frozen else keys
        hidden = dropped(self.embeddings(texts.tokens, texts.position), self.rate, keys, 0).astype(self.dtype)
        return hidden if self.lower is None else run(self.lower, hidden, texts.slot, keys, 0, self.remat)

    def pooled(self, hidden: Array, texts: Texts) -> Array:
        """[R, S, width] of the last hidden states, 0 for unused slots."""
        slots = texts.used.shape[1]
        if self.sizes.pooling == "cls":
            found = pool_cls(hidden, texts.slot, texts.position, slots)
        else:
            found = pool_mean(hidden, texts.slot, slots)
        if self.sizes.normalise:
            # The floor keeps an unused slot at 0 with a finite gradient.
            found = found * jax.lax.rsqrt(jnp.maximum(jnp.sum(found**2, -1, keepdims=True), 1e-24))
        return jnp.where(texts.used[..., None], found, 0.0)


class Embeddings(nnx.Module):
    """Token plus position plus the first type's embedding, normalised. tokens, position [R, T] -> [R, T, width]."""

    def __init__(self, sizes: pretrained.Sizes, initial: nnx.Initializer, *, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(initial(rngs.params(), (rows, sizes.width), jnp.float32))

        self.word, self.position, self.type = table(sizes.vocabulary), table(sizes.positions), table(1)
        self.norm = nnx.LayerNorm(sizes.width, epsilon=EPSILON, rngs=rngs)

    def __call__(self, tokens: Array, position: Array) -> Array:
        return self.norm(self.word[...][tokens] + self.position[...][position] + self.type[...][0])


class Layer(nnx.Module):
    """One post-norm layer. The keys have no bias: it changes no output and would get rounding noise for a gradient."""

    def __init__(
        self, width: int, heads: int, feed_forward: int, rate: float, initial: nnx.Initializer, *, rngs: nnx.Rngs
    ):
        self.count, self.rate = heads, rate

        def linear(size_in: int, size_out: int, bias: bool = True) -> nnx.Linear:
            return nnx.Linear(size_in, size_out, use_bias=bias, kernel_init=initial, rngs=rngs)

        self.query, self.value, self.out = (linear(width, width) for _ in range(3))
        self.key = linear(width, width, bias=False)
        self.norm = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)
        self.wide, self.narrow = linear(width, feed_forward), linear(feed_forward, width)
        self.last = nnx.LayerNorm(width, epsilon=EPSILON, rngs=rngs)

    def __call__(self, x: Array, same: Array, keys: Array | None, place: Array) -> Array:
        attended = dropped(cast(self.out, self.attended(x, same)), self.rate, keys, place)
        x = self.norm(x + attended).astype(x.dtype)
        inner = cast(self.narrow, jax.nn.gelu(cast(self.wide, x), approximate=False))
        return self.last(x + dropped(inner, self.rate, keys, place + 1)).astype(x.dtype)

    def attended(self, x: Array, same: Array) -> Array:
        """[R, T, width]: what each token reads of its own text. same [R, T, T]."""
        query, key, value = (
            cast(part, x).reshape(*x.shape[:-1], self.count, -1) for part in (self.query, self.key, self.value)
        )
        read = jax.nn.dot_product_attention(query, key, value, mask=same[:, None])
        return read.reshape(x.shape)


def cast(linear: nnx.Linear, x: Array) -> Array:
    """The linear map in the precision of x; its parameters stay float32."""
    found = x @ linear.kernel[...].astype(x.dtype)
    return found if linear.bias is None else found + linear.bias[...].astype(x.dtype)


def run(layers: Layer, hidden: Array, slot: Array, keys: Array | None, first: int, remat: bool = False) -> Array:
    """Stacked layers one after the other; layer n draws its dropout masks at places of its own. remat: as in `bert`"""
    same = slot[:, :, None] == slot[:, None, :]
    params, layer = opened(layers)
    count = jax.tree.leaves(params)[0].shape[0]

    def apply(x: Array, part: tuple) -> tuple[Array, None]:
        return layer(part[0])(x, same, keys, 1 + PLACES * part[1]), None

    # prevent_cse=False is right inside a scan or map only.
    body = jax.checkpoint(apply, prevent_cse=False) if remat else apply
    return jax.lax.scan(body, hidden, (params, first + jnp.arange(count)))[0]
