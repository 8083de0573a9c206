from pathlib import Path

import jax
import numpy as np
import pytest

from mobjrec import frozen, mesh
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.frozen import filled, with_store, without_store
from mobjrec.inference import item_texts, users_of
from mobjrec.parts import assemble, sizes_of
from mobjrec.resolve import complete
from mobjrec.train import gram_at, mapped_step

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Parts whose encoder trains its upper layer alone: plain, with its lower layer's states stored, and parameters."""
    config = complete(load(TINY, ["model.encoder.layers=2", "model.encoder.train={last: 1}", "weighting={use: equal}"]))
    parts = assemble(config, tmp_path_factory.mktemp("cache"))
    params = parts.first_state().params
    return parts, with_store(parts, params), params


def batch_of(parts):
    lists, sizes = parts.dataset.train, sizes_of(parts, 1)
    rows = order.rows(0, 0, len(lists.user), parts.config.batch.lists)
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(0, 0))
    return build(parts.feed, lists, rows, drawn, sizes, 1)[0]


def test_stored_lower_layers_stand_where_a_batch_has_tokens(both):
    plain, stored, params = both
    assert (filled(plain, params, "item"), filled(plain, params, "user")) == ("hidden", "hidden")
    texts = batch_of(stored).item_texts
    assert texts.hidden.shape == (*texts.tokens.shape, stored.feed.lower_items.states.shape[1])
    assert not texts.hidden[texts.slot == 0].any() and texts.hidden[texts.slot > 0].any(-1).all()
    found = jax.jit(plain.model.freeze)(params["encoder"], texts._replace(hidden=None)).hidden
    np.testing.assert_allclose(np.where(texts.slot[..., None] > 0, found, 0), texts.hidden, atol=1e-5)


@pytest.mark.slow
def test_a_step_from_stored_lower_layers_is_the_plain_step(both):
    plain, stored, _ = both
    devices = mesh.make(1)
    losses, grown = [], []
    for parts in (plain, stored):
        _, logs = mapped_step(parts, devices)(mesh.place(parts.first_state(), devices), batch_of(parts))
        losses.append(np.asarray(logs["losses"]))
        grown.append(float(logs["gradient_norm"]))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(grown[1], grown[0], rtol=1e-4)


def test_texts_are_encoded_alike_from_stored_lower_layers(both):
    plain, stored, params = both
    rows = np.array([3, 0, 3, -1])
    found = [
        (
            item_texts(parts.functions, params, parts.feed),
            users_of(parts.functions, params, parts.feed, parts.dataset.test, rows).text[:3],
        )
        for parts in (plain, stored)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_the_store_outlives_what_trains_and_not_what_does_not(both):
    plain, stored, params = both
    moved = jax.tree.map(lambda leaf, trains: leaf + 1 if trains else leaf, params, plain.model.trainable(params))
    kept = with_store(plain, moved).feed.lower_items.states
    assert kept.filename == stored.feed.lower_items.states.filename
    changed = with_store(plain, jax.tree.map(lambda leaf: leaf + 0.1, params)).feed.lower_items.states
    assert changed.filename != kept.filename


def test_states_too_large_to_store_are_left_to_each_step(both, monkeypatch):
    plain, _, params = both
    monkeypatch.setattr(frozen, "LARGEST", 1000)
    feed = with_store(plain, params).feed
    assert feed.lower_items is None and feed.lower_users is None


def test_gradients_are_compared_at_embeddings_while_a_layer_trains(both):
    assert gram_at(both[0]) == "embeddings"


def test_zeros_stand_for_the_store_in_a_trace(both):
    plain, stored, params = both
    traced = batch_of(without_store(plain, params))
    assert jax.tree.map(np.shape, traced) == jax.tree.map(np.shape, batch_of(stored))
