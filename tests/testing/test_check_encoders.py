"""An encoder that breaks one promise is found out, and told which."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mobjrec.testing import check_encoder


class Bag(nnx.Module):
    """A text as the mean of its tokens' and positions' rows, with dropout by row."""

    def __init__(self, fault, vocabulary, positions, rngs):
        self.fault, self.width = fault, 6 if fault != "width" else 7
        self.frozen = ("unread",) if fault == "frozen" else ()
        self.word = nnx.Embed(vocabulary, 6, rngs=rngs)
        self.place = nnx.Embed(positions, 6, rngs=rngs)
        self.unread = nnx.Param(jnp.ones(6)) if fault in ("unread", "frozen") else None

    def __call__(self, texts, keys):
        rows, slots = texts.used.shape
        tokens = self.word(texts.tokens) + self.place(texts.position)
        if self.fault == "constant":
            tokens = jnp.ones_like(tokens)
        if self.fault == "column":
            tokens = self.word(texts.tokens) + self.place(jnp.arange(12))
        member = jax.nn.one_hot(texts.slot - 1, slots)
        if self.fault == "padding":
            member = member.at[..., 0].add(texts.slot == 0)
        found = jnp.einsum("rts,rtd->rsd", member, tokens) / jnp.maximum(member.sum(1), 1)[..., None]
        if self.fault == "leak":
            found = found + 0.1 * found.mean((0, 1), where=texts.used[..., None])
        if self.fault == "gradient":
            found = found + (found.sum() - jax.lax.stop_gradient(found.sum()))
        if self.fault == "infinite":
            found = found / 0.0
        if self.fault == "nan gradient":
            found = found / jnp.where(texts.used, 1.0, 0.0)[..., None]
        if keys is not None:
            keys = keys[:1].repeat(rows) if self.fault == "one key" else keys
            turn = jnp.arange(rows) if self.fault == "place" else jnp.zeros(rows, int)
            kept = jax.vmap(lambda key, n: jax.random.bernoulli(jax.random.fold_in(key, n), 0.5, (6,)))(keys, turn)
            found = found * kept[:, None]
        return found + 1.0 if self.fault == "unused" else jnp.where(texts.used[..., None], found, 0.0)


def bag(fault):
    return lambda vocabulary, positions, rngs: Bag(fault, vocabulary, positions, rngs)


@pytest.mark.parametrize("fault", ["", "frozen"])
def test_an_encoder_that_keeps_its_promises_passes(fault):
    check_encoder(bag(fault))


@pytest.mark.parametrize(
    "fault, said",
    [
        ("width", r"shape \(6, 4, 6\), not \(6, 4, 7\)"),
        ("infinite", "an embedding is not finite"),
        ("unused", "the embedding of an unused slot is not 0"),
        ("nan gradient", "the gradient of .* is not finite"),
        ("constant", "do not depend on the tokens"),
        ("column", "not the embedding that the text has in a full row"),
        ("padding", "in a full row|in the padding"),
        ("leak", "in a full row|other texts"),
        ("gradient", "the gradient of a text's embedding depends on the other texts"),
        ("place", "dropout depends on a row's place"),
        ("one key", "dropout"),
        ("unread", r"no gradient reaches \['unread'\]"),
    ],
)
def test_a_broken_promise_is_named(fault, said):
    with pytest.raises(AssertionError, match=said):
        check_encoder(bag(fault))
