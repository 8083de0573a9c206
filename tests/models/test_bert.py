"""The encoder against torch's hidden states, over packings, and what trains of it."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mobjrec.data.packing import lay, pack
from mobjrec.models.bert import Last, bert, run
from mobjrec.models.functional import bind, init
from mobjrec.testing import check_encoder
from mobjrec.types import Texts

TINY = Path(__file__).resolve().parents[1] / "fixtures" / "bert-tiny"
EXPECTED = json.loads((TINY / "expected.json").read_text())
CLS, SEP, ROW = 2, 3, 24
SEQUENCES = [np.array([CLS, *ids, SEP]) for ids in EXPECTED["ids"]]
HIDDEN = [np.array(states, np.float32) for states in EXPECTED["hidden"]]
SMALL = {"layers": 3, "width": 16, "heads": 2}


def packed(sequences, row=ROW, rows=None, slots=None):
    """The texts in shared rows, and a function that finds them there."""
    lengths = np.array([len(s) for s in sequences])
    packing = pack(lengths, row)
    texts = lay(np.concatenate(sequences), lengths, packing, rows or packing.rows, slots or packing.slots, row)
    return texts, packing


def made(vocabulary=401, positions=ROW, **settings):
    """(params, encode) of an encoder."""

    def make(rngs):
        return bert(**settings)(vocabulary, positions, rngs)

    bound = bind(make)
    return init(make)(jax.random.key(0)), jax.jit(lambda params, texts, keys=None: bound(params)(texts, keys))


def means(normalise=False):
    found = np.stack([states.mean(0) for states in HIDDEN])
    return found / np.linalg.norm(found, axis=1, keepdims=True) if normalise else found


def by_text(embeddings, packing):
    return np.asarray(embeddings)[packing.row, packing.slot]


def test_last_hidden_states_are_those_of_torch_in_shared_rows():
    texts, packing = packed(SEQUENCES)
    assert packing.slots > 1
    module = bert(weights=str(TINY))(401, ROW, nnx.Rngs(0))
    states = np.asarray(jax.jit(lambda: run(module.upper, module.frozen_part(texts, None), texts.slot, None, 0))())
    for number, wanted in enumerate(HIDDEN):
        begin = packing.offset[number]
        found = states[packing.row[number], begin : begin + len(wanted)]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_text_is_the_mean_of_its_tokens(normalise):
    texts, packing = packed(SEQUENCES)
    params, encode = made(weights=str(TINY), normalise=normalise)
    np.testing.assert_allclose(by_text(encode(params, texts), packing), means(normalise), atol=1e-5)


@pytest.mark.parametrize("train, shape", [("all", (0, 3)), (Last(1), (2, 1)), (Last(3), (0, 3)), ("none", (3, 0))])
def test_what_is_frozen_lies_apart_and_changes_no_output(train, shape):
    texts, packing = packed(SEQUENCES)
    params, encode = made(weights=str(TINY), train=train)
    lengths = tuple(len(params[s]["query"]["kernel"]) if s in params else 0 for s in ("lower", "upper"))
    assert lengths == shape
    np.testing.assert_allclose(by_text(encode(params, texts), packing), means(), atol=1e-5)


@pytest.mark.parametrize("train, trained", [("all", {"embeddings", "upper"}), (Last(1), {"upper"}), ("none", set())])
def test_a_gradient_reaches_what_trains_and_nothing_else(train, trained):
    texts, _ = packed(SEQUENCES)
    params, encode = made(weights=str(TINY), train=train)
    pull = np.random.default_rng(1).normal(size=(*texts.used.shape, 24)).astype(np.float32)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(pull * encode(p, texts))))(params)
    reached = {name for name, part in grads.items() if any(np.any(leaf) for leaf in jax.tree.leaves(part))}
    assert reached == trained
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("train", ["all", Last(1)])
def test_gradients_are_those_of_finite_differences(train):
    texts, _ = packed(SEQUENCES[:4])
    params, encode = made(weights=str(TINY), train=train)
    pull = np.random.default_rng(1).normal(size=(*texts.used.shape, 24)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def both(upper):
        return jnp.sum(pull * encode({**params, "upper": upper}, texts))

    start = jax.tree.map(np.asarray, params["upper"])
    grads = jax.tree.map(np.asarray, both(start)[1])
    # Along the gradient itself a step of 1e-3 changes the value by about 1e-3 times its length.
    length = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads)))
    up, down = (
        float(both(jax.tree.map(lambda p, g, s=s: (p + s * g / length).astype(p.dtype), start, grads))[0])
        for s in (1e-3, -1e-3)
    )
    np.testing.assert_allclose((up - down) / 2e-3, length, rtol=5e-3)


def test_frozen_layers_from_a_store_are_the_whole():
    texts, _ = packed(SEQUENCES)
    make = bert(weights=str(TINY), train=Last(1), dropout=0.5)
    module = make(401, ROW, nnx.Rngs(0))
    stored = texts._replace(hidden=module.frozen_part(texts, None), tokens=None, position=texts.position)
    keys = jax.random.split(jax.random.key(0), len(texts.used))
    encode = jax.jit(lambda texts, keys: module(texts, keys))
    for given in (None, keys):
        np.testing.assert_allclose(encode(stored, given), encode(texts, given), atol=1e-6)


def test_a_stored_vector_is_the_answer():
    vector = jnp.arange(48.0).reshape(2, 1, 24)
    module = bert(weights=str(TINY), train="none")(401, ROW, nnx.Rngs(0))
    np.testing.assert_array_equal(module(Texts(None, None, None, jnp.ones((2, 1), bool), None, vector), None), vector)


@pytest.mark.parametrize("settings", [{}, {"pooling": "cls"}, {"normalise": True, "train": Last(1)}, {"train": "none"}])
def test_it_keeps_the_promises_of_an_encoder(settings):
    check_encoder(bert(layers=2, width=8, heads=2, **settings))


@pytest.mark.parametrize("row", [12, 24, 64])
def test_embeddings_are_those_of_one_text_a_row(row):
    draw = np.random.default_rng(row)
    sequences = [draw.integers(5, 401, size=n) for n in draw.integers(1, 13, size=9)]
    params, encode = made(weights=str(TINY))
    alone = [packed([sequence], row=12)[0] for sequence in sequences]
    wanted = np.asarray(encode(params, jax.tree.map(lambda *rows: np.concatenate(rows), *alone)))[:, 0]
    texts, place = packed(sequences, row=row)
    np.testing.assert_allclose(by_text(encode(params, texts), place), wanted, rtol=1e-5, atol=1e-6)


def test_the_order_of_texts_is_irrelevant():
    params, encode = made(weights=str(TINY))
    order = np.random.default_rng(0).permutation(len(SEQUENCES))
    texts, place = packed(SEQUENCES)
    other, other_place = packed([SEQUENCES[n] for n in order])
    found = by_text(encode(params, other), other_place)
    np.testing.assert_allclose(found, by_text(encode(params, texts), place)[order], atol=1e-6)


def test_dropout_is_off_without_keys_and_zeroes_its_share_with_them():
    texts, place = packed(SEQUENCES)
    quiet, loud = (made(weights=str(TINY), dropout=rate) for rate in (0.0, 0.3))
    keys = jax.random.split(jax.random.key(0), len(texts.used))
    np.testing.assert_array_equal(loud[1](loud[0], texts), quiet[1](quiet[0], texts))
    np.testing.assert_array_equal(quiet[1](quiet[0], texts, keys), quiet[1](quiet[0], texts))
    first, again = loud[1](loud[0], texts, keys), loud[1](loud[0], texts, keys[::-1])
    assert np.abs(by_text(first - loud[1](loud[0], texts), place)).max() > 0.1
    assert np.abs(by_text(first - again, place)).max() > 0.1


def test_every_layer_and_place_draws_a_mask_of_its_own(monkeypatch):
    places = []

    def seen(x, rate, keys, place=0):
        if keys is not None:
            jax.debug.callback(lambda found: places.append(int(found)), jnp.asarray(place))
        return x

    monkeypatch.setitem(bert.__globals__, "dropped", seen)
    module = bert(**SMALL)(20, 8, nnx.Rngs(0))
    texts, _ = packed([np.arange(4)], row=8)
    jax.jit(lambda keys: module(texts, keys))(jax.random.split(jax.random.key(0), 1))
    jax.effects_barrier()
    assert sorted(places) == list(range(1 + 2 * SMALL["layers"]))


def test_a_first_encoder_has_small_random_weights_and_no_key_bias():
    params, _ = made(20, 8, **SMALL, feed_forward=40)
    layer = params["upper"]
    assert layer["wide"]["kernel"].shape == (3, 16, 40) and params["embeddings"]["position"].shape == (8, 16)
    assert "bias" not in layer["key"] and layer["query"]["bias"].shape == (3, 16)
    kernels = np.asarray(layer["query"]["kernel"])
    np.testing.assert_allclose(kernels.std((1, 2)), 0.02, rtol=0.2)
    assert not np.allclose(kernels[0], kernels[1])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_half_precision_is_near_and_keeps_parameters_and_output_whole():
    texts, place = packed(SEQUENCES)
    params, encode = made(weights=str(TINY), compute="bfloat16")
    found = encode(params, texts)
    assert found.dtype == jnp.float32 and params["upper"]["query"]["kernel"].dtype == jnp.float32
    error = np.abs(by_text(found, place) - means())
    assert 1e-4 < error.max() < 0.15


@pytest.mark.slow
def test_layers_computed_again_have_the_same_gradients_in_less_memory():
    texts, _ = packed(SEQUENCES, rows=16)
    keys = jax.random.split(jax.random.key(0), len(texts.used))
    params, _ = made(**SMALL, train=Last(2), dropout=0.2)

    def compiled(remat):
        bound = bind(lambda rngs: bert(**SMALL, train=Last(2), dropout=0.2, remat=remat)(401, ROW, rngs))
        return jax.jit(jax.grad(lambda p: jnp.sum(bound(p)(texts, keys) ** 2))).lower(params).compile()

    kept, again = compiled(False), compiled(True)
    for found, wanted in zip(jax.tree.leaves(again(params)), jax.tree.leaves(kept(params)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(initial=1e-30))
    assert np.abs(kept(params)["upper"]["query"]["kernel"]).max() > 0
    memory = [one.memory_analysis().temp_size_in_bytes for one in (kept, again)]
    assert memory[1] < 0.7 * memory[0], memory


def test_more_layers_make_no_longer_program():
    texts, _ = packed(SEQUENCES)

    def equations(layers):
        def make(rngs):
            return bert(layers=layers, width=8, heads=2)(401, ROW, rngs)

        params = jax.eval_shape(init(make), jax.random.key(0))
        return str(jax.make_jaxpr(lambda params: bind(make)(params)(texts, None))(params)).count("\n")

    assert equations(2) == equations(7)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"width": 10, "heads": 4}, "width is 10; it must be divisible by the encoder's heads, of which it has 4"),
        ({"layers": 2, "train": Last(3)}, r"train is {last: 3}, but the encoder has 2 layers"),
        ({"train": Last(0)}, r"train is {last: 0}"),
        ({"train": "most"}, r"train is 'most'; it may be all, none or {last: N}"),
        ({"dropout": 1.0}, r"dropout is 1.0"),
        ({"layers": 0}, "layers is 0"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"compute": "float16"}, "compute is 'float16'"),
    ],
)
def test_impossible_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        bert(**settings)
