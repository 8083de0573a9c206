"""Every loss on drawn lists: what stands under the mask changes no bit, nothing is infinite, nothing masked is pulled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses
from mobjrec.losses import facts_of

LISTS, ITEMS, DRAWS = 4, 9, 40
FILLS = (np.nan, np.inf, -np.inf, 3e38)


def drawn(random, width, share):
    """Scores of any scale and with ties, labels, weights, some of them 0, and a mask; the last list is empty."""
    shape = (LISTS, ITEMS, width) if width > 1 else (LISTS, ITEMS)
    scores = random.normal(size=shape) * 10.0 ** random.uniform(-1, 3)
    scores = np.round(scores) if random.random() < 0.3 else scores
    labels = random.integers(0, 2 if share else 4, (LISTS, ITEMS)) * (random.random((LISTS, ITEMS)) < random.random())
    weights = random.uniform(0, 2, (LISTS, ITEMS)) * (random.random((LISTS, ITEMS)) < 0.8)
    where = random.random((LISTS, ITEMS)) < random.random()
    where[-1] = False
    return *(one.astype(np.float32) for one in (scores, labels, weights)), where


@pytest.mark.slow
@pytest.mark.parametrize("name", losses.__all__)
def test_a_loss_on_any_list(name, width):
    loss = getattr(losses, name)
    settings = {"k": 2} if name == "lambda_loss" else {}
    wide = width(name)

    @jax.jit
    def both(scores, labels, weights, where):
        def total(scores):
            found = loss(scores, labels, where=where, weights=weights, **settings)
            return found.sum(), found

        (_, value), grad = jax.value_and_grad(total, has_aux=True)(scores)
        return value, grad

    random = np.random.default_rng(7)
    for _ in range(DRAWS):
        scores, labels, weights, where = drawn(random, wide, facts_of(loss).labels == "share")
        value, grad = map(np.asarray, both(scores, labels, weights, where))
        assert np.isfinite(value).all() and np.isfinite(grad).all()
        assert value[-1] == 0 and not grad[~where].any()
        assert not facts_of(loss).positive or (value >= 0).all(), value.min()
        fill = np.float32(FILLS[random.integers(len(FILLS))])
        filled = [
            np.where(where if one.ndim == 2 else where[..., None], one, fill) for one in (scores, labels, weights)
        ]
        for found, wanted in zip(both(*filled, where), (value, grad), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", losses.__all__)
def test_a_list_of_no_length_costs_nothing(name, width):
    if name == "neural_ndcg":
        pytest.skip("its [L, L] matrix has a largest entry")
    shape = (2, 0, width(name)) if width(name) > 1 else (2, 0)
    settings = {"k": 2} if name == "lambda_loss" else {}
    value = getattr(losses, name)(jnp.zeros(shape), jnp.zeros((2, 0)), where=jnp.zeros((2, 0), bool), **settings)
    np.testing.assert_array_equal(value, [0, 0])
