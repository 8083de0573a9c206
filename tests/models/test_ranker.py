"""The ranker: matrix factorisation as a special case, texts, which parameters train, and impossible settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mobjrec.models.dot import dot
from mobjrec.models.mlp import mlp
from mobjrec.models.ranker import ranker
from mobjrec.models.transformer import transformer
from mobjrec.types import Column, Input, SideSpec, Spec, Texts

KEY = jax.random.key(0)
B, L, H, WIDTH = 4, 5, 3, 8


class Bag(nnx.Module):
    """A text as the mean of its tokens' rows, times a kernel."""

    def __init__(self, vocabulary, positions, frozen, rngs):
        self.width, self.positions, self.frozen = 6, positions, frozen
        self.embeddings = nnx.Embed(vocabulary, 6, rngs=rngs)
        self.upper = nnx.Linear(6, 6, use_bias=False, rngs=rngs)

    def __call__(self, texts, keys):
        slots = jax.nn.one_hot(texts.slot - 1, texts.used.shape[1])
        total = jnp.einsum("rts,rtd->rsd", slots, self.embeddings(texts.tokens))
        mean = self.upper(total / jnp.maximum(slots.sum(1), 1)[..., None])
        if keys is not None:
            mean = mean * jax.vmap(lambda key: 2.0 * jax.random.bernoulli(key, 0.5))(keys)[:, None, None]
        return mean * texts.used[..., None]


def bag(*frozen):
    return lambda vocabulary, positions, rngs: Bag(vocabulary, positions, frozen, rngs)


def spec(user_text=False, item_text=False, history=0):
    return Spec(
        vocabulary=20,
        users=SideSpec(user_text, (Column("user", 7),), ("age",)),
        items=SideSpec(item_text, (Column("item", 9), Column("genre", 5, slots=2)), ("duration",)),
        context=SideSpec(),
        labels={},
        lists=B,
        catalogue=8,
        history=history,
        item_row=6,
        user_row=10,
    )


TEXTS = Texts(
    tokens=jnp.array([[3, 4, 5, 6, 0, 0], [7, 8, 9, 1, 2, 3]]),
    position=jnp.array([[0, 1, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5]]),
    slot=jnp.array([[1, 1, 2, 2, 0, 0], [1] * 6]),
    used=jnp.array([[True, True], [True, False]]),
)
DRAW = np.random.default_rng(0)
USER_IDS = jnp.array([[1], [2], [6], [0]])
ITEM_IDS = jnp.asarray(DRAW.integers(1, 5, size=(B, L, 3)), jnp.int32)
AGE, DURATION = jnp.ones((B, 1)), jnp.ones((B, L, 1))
NO_CONTEXT, NO_CONTEXT_IDS = jnp.zeros((B, L, 0)), jnp.zeros((B, L, 0), jnp.int32)
USER, ITEM = Input(ids=("user",)), Input(ids=("item",))
TEXT_ITEM = Input(text="{title}", ids=("item",))


def scores(model, params, item_text=None, history=None, where=None, keys=None):
    users = model.user(params, None, USER_IDS, AGE, history, where, keys)
    items = model.item(params, item_text, ITEM_IDS, DURATION, keys)
    return model.score(params, users, items, NO_CONTEXT, NO_CONTEXT_IDS, None, keys)


def test_ids_alone_and_one_head_are_matrix_factorisation():
    model = ranker(spec(), {"click": 1}, user=USER, item=ITEM, scorer=dot(), width=WIDTH)
    params = model.init(KEY)
    users, items = params["user"]["join"]["ids"]["user"]["rows"], params["item"]["join"]["ids"]["item"]["rows"]
    assert sorted(map(jnp.shape, jax.tree.leaves(params))) == [(7, WIDTH), (9, WIDTH)]
    wanted = np.einsum("bd,bld->bl", users[USER_IDS[:, 0]], items[ITEM_IDS[..., 0]])
    found = jax.jit(lambda p: scores(model, p))(params)["click"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found[3], np.zeros(L))
    keyed = scores(model, params, keys=jax.random.split(KEY, B))["click"]
    np.testing.assert_allclose(keyed, wanted, rtol=1e-5, atol=1e-7)


def test_shared_items_are_one_product_with_every_user():
    model = ranker(spec(), {"click": 1}, user=USER, item=ITEM, scorer=dot(), width=WIDTH)
    params = model.init(KEY)
    users = model.user(params, None, USER_IDS, AGE, None, None, None)
    items = model.item(params, None, ITEM_IDS[:1], DURATION[:1], None)
    assert users.shape == (B, 1, WIDTH) and items.shape == (1, L, WIDTH)
    found = model.score(params, users, items, NO_CONTEXT, NO_CONTEXT_IDS, None, None)["click"]
    np.testing.assert_allclose(found, users[:, 0] @ items[0].T, rtol=1e-5, atol=1e-7)


def test_one_encoder_serves_both_sides_with_the_same_weights():
    model = ranker(
        spec(True, True),
        {"click": 1},
        encoder=bag(),
        user=Input(text="{history.title}"),
        item=TEXT_ITEM,
        scorer=dot(),
        width=WIDTH,
    )
    params = model.init(KEY)
    assert sorted(params) == ["encoder", "item", "scorer", "user"] and sorted(params["encoder"]) == ["both"]
    of_users = model.encode_users(params["encoder"], TEXTS, None)
    np.testing.assert_array_equal(of_users, model.encode_items(params["encoder"], TEXTS, None))
    table, kernel = params["encoder"]["both"]["embeddings"]["embedding"], params["encoder"]["both"]["upper"]["kernel"]
    np.testing.assert_allclose(of_users[0, 1], (table[5] + table[6]) / 2 @ kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(of_users[1, 1], np.zeros(6))


def test_two_encoders_have_their_own_weights_and_lengths():
    rows = []

    def noting(vocabulary, positions, rngs):
        rows.append(positions)
        return Bag(vocabulary, positions, (), rngs)

    model = ranker(
        spec(True, True),
        {"click": 1},
        user_encoder=noting,
        item_encoder=noting,
        user=Input(text="{history.title}"),
        item=TEXT_ITEM,
        scorer=dot(),
    )
    params = model.init(KEY)
    assert sorted(params["encoder"]) == ["item", "user"] and set(rows) == {6, 10}
    users, items = (f(params["encoder"], TEXTS, None) for f in (model.encode_users, model.encode_items))
    assert not np.allclose(users, items)
    assert model.freeze is None


def test_an_unseen_item_is_ranked_by_its_text_alone():
    model = ranker(
        spec(item_text=True), {"click": 1}, encoder=bag(), user=USER, item=TEXT_ITEM, scorer=dot(), width=WIDTH
    )
    params = model.init(KEY)
    embeddings = model.encode_items(params["encoder"], TEXTS, None).reshape(-1, 6)[jnp.array([0, 1, 2, 0, 1])]
    found = model.item(params, embeddings, jnp.zeros((5, 3), jnp.int32), jnp.zeros((5, 1)), None)
    np.testing.assert_allclose(found, embeddings @ params["item"]["join"]["text"]["kernel"], rtol=1e-6)


@pytest.mark.slow
def test_dropout_is_the_same_for_four_lists_as_for_two_times_two():
    given = Input(ids=("user",), history=True)
    model = ranker(
        spec(item_text=True, history=H),
        {"click": 1},
        encoder=bag(),
        user=given,
        item=TEXT_ITEM,
        scorer=transformer(1, 2),
        width=WIDTH,
        layers=(6,),
        dropout=0.3,
        id_dropout=0.5,
    )
    params, keys = model.init(KEY), jax.random.split(jax.random.key(1), B)
    text = jax.random.normal(KEY, (B, L, 6))
    where = jnp.array([[True] * 3, [True, False, False], [False] * 3, [True, True, False]])

    @jax.jit
    def run(text, user_ids, item_ids, where, keys):
        count = len(text)
        history = model.item(params, text[:, :H], item_ids[:, :H], DURATION[:count, :H], keys)
        users = model.user(params, None, user_ids, AGE[:count], history, where, keys)
        items = model.item(params, text, item_ids, DURATION[:count], keys)
        return model.score(params, users, items, NO_CONTEXT[:count], NO_CONTEXT_IDS[:count], None, keys)["click"]

    inputs = (text, USER_IDS, ITEM_IDS, where, keys)
    halves = [run(*(a[at] for a in inputs)) for at in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(jnp.concatenate(halves), run(*inputs), rtol=1e-5, atol=1e-6)


def test_every_parameter_of_a_text_model_gets_a_gradient_from_a_softmax():
    given = Input(text="{history.title}", ids=("user",), numbers=("age",), history=True)
    item = Input(text="{title}", ids=("item", "genre"), numbers=("duration",))
    heads = {"click": 1, "stars": 3}
    model = ranker(
        spec(True, True, H), heads, encoder=bag(), user=given, item=item, scorer=mlp((8,)), width=WIDTH, layers=(6,)
    )
    duration = jax.random.normal(KEY, (B, L, 1))

    def loss(params):
        users, items = (f(params["encoder"], TEXTS, None) for f in (model.encode_users, model.encode_items))
        names = jnp.array([[0, 1, 2, 0, 1]] * B)
        vectors = model.item(params, items.reshape(-1, 6)[names], ITEM_IDS, duration, None)
        user = model.user(
            params, users.reshape(-1, 6)[names[:, 0]], USER_IDS, AGE, vectors[:, :H], jnp.ones((B, H), bool), None
        )
        found = model.score(params, user, vectors, NO_CONTEXT, NO_CONTEXT_IDS, None, None)
        return -sum(jax.nn.log_softmax(s, axis=1)[:, 0].sum() for s in found.values())

    params = model.init(KEY)
    leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    largest = max(float(jnp.abs(grad).max()) for _, grad in leaves)
    for path, grad in leaves:
        assert float(jnp.abs(grad).max()) > 1e-5 * largest, jax.tree_util.keystr(path)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_what_is_frozen_does_not_train_and_heads_and_objectives_are_not_shared():
    model = ranker(
        spec(item_text=True),
        {"a": 1, "b": 1},
        encoder=bag("embeddings"),
        user=USER,
        item=TEXT_ITEM,
        scorer=mlp((8,)),
        width=WIDTH,
    )
    params = {**model.init(KEY), "objectives": {"a": (jnp.ones(2),), "b": {}}}
    trainable, shared = model.trainable(params), model.shared(params)
    assert jax.tree.structure(trainable) == jax.tree.structure(shared) == jax.tree.structure(params)
    assert trainable["encoder"]["both"] == {"embeddings": {"embedding": False}, "upper": {"kernel": True}}
    assert jax.tree.leaves({**trainable, "encoder": {}}) == [True] * len(jax.tree.leaves({**params, "encoder": {}}))
    assert shared["encoder"]["both"] == trainable["encoder"]["both"]
    assert shared["objectives"] == {"a": (False,), "b": {}}
    assert shared["scorer"]["heads"] == {"a": {"kernel": False}, "b": {"kernel": False}}
    assert all(jax.tree.leaves((shared["user"], shared["item"], shared["scorer"]["first"])))
    assert model.freeze is None


def test_a_wholly_frozen_encoder_gives_vectors_that_stand_for_its_texts():
    model = ranker(
        spec(item_text=True), {"click": 1}, encoder=bag("embeddings", "upper"), user=USER, item=TEXT_ITEM, scorer=dot()
    )
    params = model.init(KEY)["encoder"]
    frozen = model.freeze(params, TEXTS)
    assert frozen.tokens is None and frozen.position is None and frozen.slot is None
    plain = model.encode_items(params, TEXTS, None)
    np.testing.assert_array_equal(model.encode_items(params, frozen, None), plain)
    # A frozen encoder draws no dropout: its stored vectors could not.
    np.testing.assert_array_equal(model.encode_items(params, TEXTS, jax.random.split(KEY, 2)), plain)


def test_two_frozen_encoders_are_frozen_one_by_one():
    still = bag("embeddings", "upper")
    given = {"user": Input(text="{name}"), "item": TEXT_ITEM, "scorer": dot()}
    model = ranker(spec(True, True), {"click": 1}, user_encoder=still, item_encoder=still, **given)
    params = model.init(KEY)["encoder"]
    frozen = model.freeze({"user": params["user"]}, TEXTS)
    np.testing.assert_array_equal(frozen.vector, model.encode_users(params, TEXTS, None))
    with pytest.raises(ValueError, match="freeze got the encoders user, item"):
        model.freeze(params, TEXTS)
    half = ranker(spec(True, True), {"click": 1}, user_encoder=still, item_encoder=bag(), **given)
    params = half.init(KEY)["encoder"]
    assert half.freeze({"item": params["item"]}, TEXTS) is TEXTS
    assert half.freeze({"user": params["user"]}, TEXTS).vector is not None


def test_an_encoder_that_trains_draws_dropout_from_the_rows_keys():
    model = ranker(spec(item_text=True), {"click": 1}, encoder=bag(), user=USER, item=TEXT_ITEM, scorer=dot())
    params = model.init(KEY)["encoder"]
    plain, keyed = (np.asarray(model.encode_items(params, TEXTS, keys)) for keys in (None, jax.random.split(KEY, 2)))
    assert not np.allclose(plain, keyed)
    with pytest.raises(ValueError, match="reads no text of the user"):
        ranker(
            spec(item_text=True), {"click": 1}, item_encoder=bag(), user=USER, item=TEXT_ITEM, scorer=dot()
        ).encode_users(params, TEXTS, None)


def test_a_scorer_of_sequences_gets_the_history_behind_the_user():
    given = Input(ids=("user",), history=True)
    model = ranker(spec(history=H), {"click": 1}, user=given, item=ITEM, scorer=transformer(1, 2), width=WIDTH)
    params = model.init(KEY)
    history = jax.random.normal(KEY, (B, H, WIDTH))
    where = jnp.array([[True, False, False]] * B)
    users = model.user(params, None, USER_IDS, AGE, history, where, None)
    np.testing.assert_array_equal(users[:, 1:], history * where[..., None])
    found = scores(model, params, history=history, where=where)["click"]
    short = scores(model, params, history=history[:, :1], where=where[:, :1])["click"]
    np.testing.assert_allclose(found, short, rtol=1e-5, atol=1e-6)


TEXT = Input(text="{title}")
MISTAKES = [
    ({"user": USER, "item": TEXT}, {"item_text": True}, r"item\.text is '\{title\}' but nothing reads it"),
    ({"user": USER, "item": ITEM, "encoder": bag()}, {}, "neither user.text nor item.text"),
    ({"user": USER, "item": ITEM, "item_encoder": bag()}, {}, r"item_encoder is given but item\.text is empty"),
    ({"user": USER, "item": TEXT, "encoder": bag(), "item_encoder": bag()}, {"item_text": True}, "drop one of the two"),
    ({"user": USER, "item": TEXT, "encoder": bag()}, {}, "was read without text"),
    ({"user": USER, "item": Input(ids=("gender",))}, {}, r"item\.ids names 'gender'.*did you mean genre"),
    ({"user": Input(numbers=("ages",)), "item": ITEM}, {}, r"user\.numbers names 'ages'.*did you mean age"),
    ({"user": Input(), "item": ITEM}, {}, "user has nothing to read"),
    ({"user": Input(history=True), "item": ITEM}, {}, "gives no history as items"),
    ({"user": USER, "item": Input(ids=("item",), history=True)}, {}, r"item\.history is set"),
    ({"user": USER, "item": ITEM, "scorer": transformer(heads=3)}, {}, r"scorer\.heads is 3; it must divide"),
    ({"user": USER, "item": ITEM, "id_dropout": 1.0}, {}, r"id_dropout is 1\.0"),
]


@pytest.mark.parametrize(("settings", "data", "message"), MISTAKES, ids=[message[:24] for *_, message in MISTAKES])
def test_an_impossible_setting_is_an_error_before_anything_is_built(settings, data, message):
    with pytest.raises(ValueError, match=message):
        ranker(spec(**data), {"click": 1}, **{"scorer": dot(), **settings})
