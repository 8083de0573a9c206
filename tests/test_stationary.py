"""Gradients on held-out lists against plain `jax.grad` of the mean losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import stationary
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.errors import UserError
from mobjrec.pareto import stationarity
from mobjrec.state import divide
from mobjrec.step import encode, forward, per_list
from mobjrec.types import Clock


@pytest.fixture(scope="module")
def found(tiny_trained):
    return stationary.held_out(tiny_trained.parts, tiny_trained.params, tiny_trained.memory)


def mean_losses(parts, params, memory, batch):
    """[K] mean losses of a whole batch without dropout."""

    def one(batch):
        texts = ((parts.model.encode_users, batch.user_texts), (parts.model.encode_items, batch.item_texts))
        embeddings = tuple(encode(function, params["encoder"], text, None, None) for function, text in texts)
        outputs = forward(parts.model, params, embeddings, batch, None, None)
        clock = Clock(jnp.int32(parts.steps), jnp.int32(parts.steps // parts.steps_per_epoch))
        values, speaks, _ = per_list(parts.objectives, outputs, batch, params["objectives"], memory, clock)
        return jnp.mean(values, axis=1, where=speaks)

    return jax.vmap(one, axis_name="data")(jax.tree.map(lambda leaf: leaf[None], batch))[0]


@pytest.mark.slow
def test_the_gram_matrix_is_that_of_the_mean_losses_over_all_lists(tiny_trained, found):
    parts, lists = tiny_trained.parts, tiny_trained.parts.dataset.valid
    rows = np.arange(len(lists.user))
    assert len(rows) > parts.config.batch.lists
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(0, 0))
    batch, _ = build(parts.feed, lists, rows, drawn, ())
    jacobian = jax.jit(jax.jacrev(lambda params: mean_losses(parts, params, tiny_trained.memory, batch)))(
        tiny_trained.params
    )
    for shared in (True, False):
        held = found if shared else stationary.held_out(
            parts, tiny_trained.params, tiny_trained.memory, shared=False
        )  # fmt: skip
        mask = (parts.model.shared if shared else parts.model.trainable)(tiny_trained.params)
        leaves = [np.asarray(leaf, float).reshape(3, -1) for leaf in jax.tree.leaves(divide(jacobian, mask)[0])]
        products = sum(leaf @ leaf.T for leaf in leaves)
        np.testing.assert_allclose(held.gram, products, rtol=1e-3, atol=1e-5 * products.max())
        assert held.value == pytest.approx(stationarity(products), abs=1e-3) and 0 < held.value < 1
    assert held.objectives == tuple(parts.objectives) and (held.lists <= len(rows)).all() and (held.lists > 0).all()


def test_an_objective_that_no_list_speaks_of_is_left_out(tiny_trained, found):
    parts = tiny_trained.parts
    valid = parts.dataset.valid
    silent = {**valid.labels, "satisfaction": np.full_like(valid.labels["satisfaction"], np.nan)}
    less = parts._replace(dataset=parts.dataset._replace(valid=valid._replace(labels=silent)))
    held = stationary.held_out(less, tiny_trained.params, tiny_trained.memory)
    assert held.objectives == ("click", "recall")
    np.testing.assert_allclose(held.gram, found.gram[:2, :2], rtol=1e-4)
    empty = parts._replace(dataset=parts.dataset._replace(valid=valid._replace(user=valid.user[:0])))
    with pytest.raises(UserError, match="the valid split has no lists"):
        stationary.held_out(empty, tiny_trained.params, tiny_trained.memory)
