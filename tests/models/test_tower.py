"""Towers: what is joined, what an absent part means, and dropout that knows no layout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mobjrec.models.dropout import dropout
from mobjrec.models.functional import bind, init
from mobjrec.models.tower import Hidden, HistoryPool, ItemTower, Join, Table, UserTower, span
from mobjrec.types import Column, Input, SideSpec

KEY = jax.random.key(0)
SIDE = SideSpec(
    text=True, ids=(Column("item", 9), Column("genre", 6, slots=3), Column("author", 5)), numbers=("age", "length")
)
GIVEN = Input(text="{title}", ids=("item", "genre"), numbers=("length",))
DRAW = np.random.default_rng(0)
TEXT = DRAW.normal(size=(8, 4, 7)).astype(np.float32)
IDS = DRAW.integers(1, 5, size=(8, 4, 5)).astype(np.int32)
FEATURES = DRAW.normal(size=(8, 4, 2)).astype(np.float32)


def first(make):
    return jax.tree.map(np.asarray, jax.jit(init(make))(KEY))


def program(make):
    """(parameters, inputs) -> output of the module, compiled."""
    bound = bind(make)
    return jax.jit(lambda params, *given: bound(params)(*given))


def item_tower(given=GIVEN, text=7, layers=(), rate=0.0, id_dropout=0.0):
    return lambda rngs: ItemTower(SIDE, given, text, 6, layers, rate, id_dropout, rngs=rngs)


def user_tower(given, sequence=False, id_dropout=0.0):
    side = SideSpec(ids=(Column("user", 9),), numbers=("age",))
    return lambda rngs: UserTower(side, given, 0, 6, (), 0.0, id_dropout, sequence, rngs=rngs)


def test_a_column_with_slots_is_the_mean_over_those_that_are_filled():
    params = {"rows": jnp.arange(12.0).reshape(6, 2)}
    table = program(lambda rngs: Table(Column("genre", 6, slots=3), 2, rngs=rngs))
    found = table(params, jnp.array([[1, 3, 0], [0, 0, 0], [5, 0, 0]]))
    # rows 1 and 3 are (2, 3) and (6, 7); row 5 is (10, 11)
    np.testing.assert_allclose(found, [[4.0, 5.0], [0.0, 0.0], [10.0, 11.0]])


def test_row_zero_is_zero_whatever_stands_there_and_gets_no_gradient():
    bound = program(lambda rngs: Table(Column("genre", 6), 2, rngs=rngs))
    params = {"rows": jnp.full((6, 2), 3.0)}
    ids = jnp.array([[0], [2]])
    np.testing.assert_array_equal(bound(params, ids), [[0.0, 0.0], [3.0, 3.0]])
    grad = jax.jit(jax.grad(lambda p: bound(p, ids).sum()))(params)["rows"]
    np.testing.assert_array_equal(grad, np.zeros((6, 2)) + (np.arange(6) == 2)[:, None])


def test_a_new_table_has_a_zero_first_row():
    rows = init(lambda rngs: Table(Column("genre", 6), 2, rngs=rngs))(KEY)["rows"]
    np.testing.assert_array_equal(rows[0], [0.0, 0.0])
    assert (np.abs(rows[1:]) > 0).all()


def test_the_parts_are_summed_and_columns_that_are_not_asked_for_are_not_read():
    params = first(item_tower())["join"]
    assert sorted(params) == ["ids", "numbers", "text"] and sorted(params["ids"]) == ["genre", "item"]
    genres = params["ids"]["genre"]["rows"][IDS[..., 1:4]].mean(-2)
    wanted = TEXT @ params["text"]["kernel"] + params["ids"]["item"]["rows"][IDS[..., 0]] + genres
    wanted = wanted + FEATURES[..., 1:] * params["numbers"]["kernel"][0]
    found = program(item_tower())({"join": params, "hidden": {}}, TEXT, IDS, FEATURES, None)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_ids_alone_are_the_row_of_the_table():
    make = item_tower(Input(ids=("item",)), text=0)
    params = first(make)
    assert jax.tree.leaves(jax.tree.map(jnp.shape, params)) == [9, 6]
    found = program(make)(params, None, IDS, FEATURES, None)
    np.testing.assert_array_equal(found, params["join"]["ids"]["item"]["rows"][IDS[..., 0]])


def test_hidden_layers_end_in_a_linear_map_without_bias():
    def make(rngs):
        return Hidden(6, (5, 4), 0.0, rngs=rngs)

    params = first(make)
    x = TEXT[..., :6]
    wanted = jax.nn.gelu(x @ params["layers"]["0"]["kernel"] + 0.3)
    wanted = jax.nn.gelu(wanted @ params["layers"]["1"]["kernel"]) @ params["out"]["kernel"]
    params["layers"]["0"]["bias"] = np.full(5, 0.3, np.float32)
    np.testing.assert_allclose(program(make)(params, x, None), wanted, rtol=1e-4, atol=1e-6)
    assert "bias" not in params["out"]


def test_a_text_starts_at_a_size_that_makes_products_near_one():
    def make(rngs):
        return Join(SideSpec(text=True), (), (), 200, 64, rngs=rngs)

    x = jax.random.normal(jax.random.key(5), (2, 500, 200))
    vectors = program(make)(first(make), x, np.zeros((2, 500, 0), int), np.zeros((2, 500, 0), np.float32))
    assert 0.7 < float(np.std(np.sum(np.prod(vectors, 0), -1))) < 1.4


def test_an_unseen_id_leaves_the_text_alone():
    make = item_tower(Input(text="{title}", ids=("item",)))
    params = first(make)
    found = program(make)(params, TEXT, IDS * (np.arange(5) > 0), FEATURES, None)
    np.testing.assert_allclose(found, TEXT @ params["join"]["text"]["kernel"], rtol=1e-6)


def test_id_dropout_is_the_unseen_id_for_about_its_share_of_items():
    make = item_tower(Input(text="{title}", ids=("item",)), id_dropout=0.25)
    params, bound = first(make), program(make)
    text, ids = np.ones((64, 50, 7), np.float32), np.full((64, 50, 5), 3)
    features = np.zeros((64, 50, 2), np.float32)
    found = bound(params, text, ids, features, jax.random.split(KEY, 64))
    without = bound(params, text, ids * (np.arange(5) > 0), features, None)
    kept = bound(params, text, ids, features, None)
    dropped = np.isclose(found, without, atol=1e-6).all(-1)
    assert (dropped | np.isclose(found, kept, atol=1e-6).all(-1)).all()
    # 3,200 draws: the standard error of the share is 0.0077
    assert abs(dropped.mean() - 0.25) < 0.035


@pytest.mark.parametrize(
    ("given", "applies"),
    [
        (Input(ids=("item",)), False),
        (Input(ids=("item", "genre")), True),
        (Input(ids=("item",), numbers=("age",)), True),
        (Input(ids=("genre",), numbers=("age",)), False),
    ],
)
def test_id_dropout_is_only_where_something_else_is_known(given, applies):
    make = item_tower(given, text=0, id_dropout=0.9)
    params, bound = first(make), program(make)
    plain = bound(params, None, IDS, FEATURES, None)
    found = bound(params, None, IDS, FEATURES, jax.random.split(KEY, 8))
    assert (not np.array_equal(plain, found)) == applies


def test_masks_are_the_same_for_eight_lists_as_for_two_times_four():
    make = item_tower(layers=(12,), rate=0.5, id_dropout=0.5)
    params, keys = first(make), jax.random.split(jax.random.key(4), 8)
    tower = partial(program(make), params)
    whole = tower(TEXT, IDS, FEATURES, keys)
    for part in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(tower(TEXT[part], IDS[part], FEATURES[part], keys[part]), whole[part], atol=1e-6)
    assert not np.allclose(whole, tower(TEXT, IDS, FEATURES, None))


def test_a_shared_set_takes_one_key():
    make = item_tower(layers=(12,), rate=0.5, id_dropout=0.5)
    params, keys = first(make), jax.random.split(jax.random.key(4), 8)
    whole = program(make)(params, TEXT, IDS, FEATURES, keys)
    one = program(make)(params, TEXT[:1], IDS[:1], FEATURES[:1], keys[:1])
    np.testing.assert_allclose(one, whole[:1], atol=1e-6)


def test_dropout_keeps_the_mean_and_differs_by_place():
    x, keys = jnp.ones((4, 2000)), jax.random.split(KEY, 4)
    first, second = dropout(x, 0.2, keys, 0), dropout(x, 0.2, keys, 1)
    assert set(np.unique(first)) == {0.0, np.float32(1.25)}
    assert abs(float(first.mean()) - 1.0) < 0.03 and not np.array_equal(first, second)
    np.testing.assert_array_equal(dropout(x, 0.2, None), x)


HISTORY = DRAW.normal(size=(3, 4, 6)).astype(np.float32)
WHERE = np.array([[True, True, False, False], [False] * 4, [True] * 4])
USER_IDS, USER_FEATURES = np.array([[2], [5], [0]]), np.zeros((3, 1), np.float32)


def call(make, params, history=HISTORY, where=WHERE):
    return program(make)(params, None, USER_IDS, USER_FEATURES, history, where, None)


def test_history_is_pooled_by_attention_to_the_user():
    make = user_tower(Input(ids=("user",), history=True))
    params = first(make)
    user = np.asarray(params["join"]["ids"]["user"]["rows"][USER_IDS[:, 0]]) * (np.asarray(USER_IDS) > 0)
    asked = user @ np.asarray(params["pool"]["query"]["kernel"])
    wanted = user.copy()
    for b in range(3):
        there = np.asarray(HISTORY[b])[np.asarray(WHERE[b])]
        if len(there):
            weights = np.exp(there @ asked[b] / np.sqrt(6))
            wanted[b] += weights / weights.sum() @ there
    np.testing.assert_allclose(call(make, params)[:, 0], wanted, rtol=1e-5, atol=1e-6)


def test_an_empty_history_adds_nothing_and_what_is_masked_does_not_exist():
    make = user_tower(Input(ids=("user",), history=True))
    params = first(make)
    dirty = np.where(WHERE[..., None], HISTORY, np.float32(np.nan))
    np.testing.assert_array_equal(call(make, params, dirty), call(make, params))
    np.testing.assert_allclose(call(make, params)[1, 0], params["join"]["ids"]["user"]["rows"][5], rtol=1e-6)
    grad = np.asarray(jax.jit(jax.grad(lambda h: call(make, params, h).sum()))(dirty))
    np.testing.assert_array_equal(grad[~WHERE], 0.0)
    assert np.isfinite(grad).all() and (np.abs(grad[2]) > 0).any()


def test_a_user_known_by_history_alone_asks_with_a_learnt_query():
    make = user_tower(Input(history=True))
    params = first(make)
    assert sorted(params) == ["bias", "pool"] and params["pool"]["learnt"].shape == (6,)
    found = call(make, params)[:, 0]
    np.testing.assert_array_equal(found[1], np.zeros(6))
    weights = jax.nn.softmax(HISTORY[2] @ (params["pool"]["learnt"] @ params["pool"]["query"]["kernel"]) / np.sqrt(6))
    np.testing.assert_allclose(found[2], weights @ HISTORY[2], rtol=1e-5, atol=1e-6)


def test_a_sequence_is_the_user_first_and_then_the_history_with_zeros_for_what_is_absent():
    make = user_tower(Input(ids=("user",), history=True), sequence=True)
    params = first(make)
    assert "pool" not in params
    found = call(make, params)
    np.testing.assert_allclose(found[:2, 0], params["join"]["ids"]["user"]["rows"][np.array([2, 5])], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], np.where(WHERE[..., None], HISTORY, 0.0))


@pytest.mark.parametrize("given", [Input(ids=("user",), history=True), Input(history=True), Input(numbers=("age",))])
def test_every_parameter_of_a_user_gets_a_gradient(given):
    make = user_tower(given)
    features = np.float32([[0.5], [1.0], [-2.0]])

    def value(params):
        user = program(make)(params, None, USER_IDS, features, HISTORY, WHERE, None)
        return jnp.sum(jnp.sin(user + jnp.arange(6.0)))

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(value))(first(make))):
        assert float(np.abs(grad).max()) > 1e-5, path


def test_columns_take_their_slots_in_order():
    assert [span(SIDE, name) for name in ("item", "genre", "author")] == [(0, 1), (1, 4), (4, 5)]


def test_pooling_of_a_single_vector_is_that_vector():
    def make(rngs):
        return HistoryPool(6, learnt=False, rngs=rngs)

    found = program(make)(first(make), TEXT[:3, 0, :6], HISTORY[:, :1], jnp.ones((3, 1), bool))
    np.testing.assert_allclose(found, HISTORY[:, 0], rtol=1e-6)


def test_modules_hold_no_random_state():
    module = item_tower(layers=(4,), rate=0.5, id_dropout=0.1)(nnx.Rngs(0))
    assert {type(leaf).__name__ for _, leaf in nnx.to_flat_state(nnx.state(module))} == {"Param"}


def test_without_layers_dropout_is_of_the_vectors_themselves():
    keys = jax.random.split(KEY, 2)
    ids = np.tile(IDS[:1, :1], (2, 400, 1))
    features = np.tile(FEATURES[:1, :1], (2, 400, 1))
    made = {rate: item_tower(text=0, rate=rate) for rate in (0.0, 0.5)}
    params = first(made[0.0])
    plain = program(made[0.0])(params, None, ids, features, keys)
    np.testing.assert_array_equal(plain, program(made[0.5])(params, None, ids, features, None))
    dropped = np.asarray(program(made[0.5])(params, None, ids, features, keys))
    stays = dropped != 0
    assert abs(stays.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(dropped[stays], 2 * np.asarray(plain)[stays])
