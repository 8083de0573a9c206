"""Packed rows to one vector a text, against a loop over slots."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.models.pooling import pool_cls, pool_mean

ROWS, TOKENS, WIDTH, SLOTS = 2, 7, 3, 4
HIDDEN = hnp.arrays(np.float32, (ROWS, TOKENS, WIDTH), elements=st.floats(-100, 100, width=32, allow_subnormal=False))
# Texts of any lengths one after the other, padding anywhere.
SLOT = hnp.arrays(np.int32, (ROWS, TOKENS), elements=st.integers(0, SLOTS)).map(lambda a: np.sort(a, 1))
mean, cls = jax.jit(pool_mean, static_argnums=2), jax.jit(pool_cls, static_argnums=3)


def places(slot):
    """Position within the text of each token of a sorted row."""
    return np.array([[n - row.index(s) for n, s in enumerate(row)] for row in slot.tolist()], np.int32)


def reference(hidden, slot, pick):
    found = np.zeros((ROWS, SLOTS, WIDTH))
    for row in range(ROWS):
        for text in set(slot[row].tolist()) - {0}:
            found[row, text - 1] = pick(hidden[row, slot[row] == text].astype(np.float64))
    return found


@given(HIDDEN, SLOT)
def test_the_mean_is_over_a_texts_own_tokens(hidden, slot):
    wanted = reference(hidden, slot, lambda tokens: tokens.mean(0))
    np.testing.assert_allclose(mean(hidden, slot, SLOTS), wanted, rtol=1e-5, atol=1e-4)


@given(HIDDEN, SLOT)
def test_cls_is_the_texts_first_token_exactly(hidden, slot):
    wanted = reference(hidden, slot, lambda tokens: tokens[0])
    np.testing.assert_array_equal(cls(hidden, slot, places(slot), SLOTS), wanted)


@given(HIDDEN, SLOT)
def test_a_mean_spreads_its_gradient_evenly_and_padding_gets_none(hidden, slot):
    pull = np.arange(1.0, 1 + ROWS * SLOTS * WIDTH, dtype=np.float32).reshape(ROWS, SLOTS, WIDTH)
    found = jax.grad(lambda h: jnp.sum(pull * mean(h, slot, SLOTS)))(hidden)
    wanted = np.zeros_like(hidden)
    for row in range(ROWS):
        for token, text in enumerate(slot[row].tolist()):
            if text:
                wanted[row, token] = pull[row, text - 1] / (slot[row] == text).sum()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_row_of_padding_is_0_with_a_finite_gradient():
    hidden, slot = jnp.ones((1, TOKENS, WIDTH)), jnp.zeros((1, TOKENS), jnp.int32)
    for found in (mean(hidden, slot, SLOTS), cls(hidden, slot, slot, SLOTS)):
        np.testing.assert_array_equal(found, np.zeros((1, SLOTS, WIDTH)))
    grad = jax.grad(lambda h: jnp.sum(mean(h, slot, SLOTS) ** 2))(hidden)
    np.testing.assert_array_equal(grad, np.zeros_like(hidden))
