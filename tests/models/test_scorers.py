"""Scorers: the promises of all, and each one's formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mobjrec.models.dot import cosine, dot, unit
from mobjrec.models.functional import bind, init
from mobjrec.models.mlp import mlp
from mobjrec.models.transformer import transformer
from mobjrec.testing.scorers import check_scorer
from mobjrec.types import Column, SideSpec, Spec

KEY = jax.random.key(0)
B, L, D = 3, 4, 8
NONE = SideSpec()
SPEC = Spec(vocabulary=0, users=NONE, items=NONE, context=NONE, labels={}, lists=1, catalogue=1)
WITH_CONTEXT = SPEC._replace(context=SideSpec(ids=(Column("tab", 4),), numbers=("hour",)))
DRAW = np.random.default_rng(0)
USERS = DRAW.normal(size=(B, 1, D)).astype(np.float32)
ITEMS = DRAW.normal(size=(B, L, D)).astype(np.float32)
HOUR = DRAW.normal(size=(B, L, 1)).astype(np.float32)
TAB = DRAW.integers(0, 4, size=(B, L, 1)).astype(np.int32)


def built(scorer, heads, spec=SPEC):
    def make(rngs):
        return scorer(D, heads, spec, rngs)

    bound = bind(make)

    @jax.jit
    def score(params, users=USERS, items=ITEMS, keys=None):
        return bound(params)(users, items, HOUR, TAB, None, keys)

    return jax.tree.map(np.asarray, jax.jit(init(make))(KEY)), score


def moved(params):
    """Parameters away from ones and zeros."""
    draw = np.random.default_rng(9)
    return jax.tree.map(lambda a: a + draw.normal(size=a.shape, scale=0.3).astype(np.float32), params)


def gelu(x):
    return np.asarray(jax.nn.gelu(x))


@pytest.mark.parametrize(
    "scorer",
    [dot(), cosine(), mlp((12,), dropout=0.3), pytest.param(transformer(2, 2), marks=pytest.mark.slow)],
    ids=["dot", "cosine", "mlp", "transformer"],
)
def test_every_scorer_keeps_the_promises_of_scorers(scorer):
    check_scorer(scorer)


@pytest.mark.parametrize("scorer", [dot(), cosine()], ids=["dot", "cosine"])
def test_context_that_would_not_be_read_is_refused_by_name(scorer):
    with pytest.raises(ValueError, match=r"the context columns tab, hour; mlp and transformer read context"):
        scorer(D, {"click": 1}, WITH_CONTEXT, nnx.Rngs(0))


def test_a_head_bias_is_only_there_when_asked_for_and_the_suite_sees_that_softmax_cannot_train_it():
    with pytest.raises(AssertionError, match=r"no gradient reaches \['heads'\]\['stars'\]\['bias'\]"):
        check_scorer(cosine(bias=("stars",)))
    check_scorer(dot(bias=True), shift_invariant=False)


class Broken(nnx.Module):
    """A product with one promise broken."""

    def __init__(self, fault, heads, rngs):
        self.fault, self.widths = fault, tuple(heads.items())
        self.conditioned = fault == "deaf"
        self.scale = nnx.Param(jnp.ones(16))
        self.idle = nnx.Param(jnp.ones(2)) if fault == "idle" else None

    def __call__(self, users, items, context, context_ids, preference, keys):
        score = jnp.einsum(
            "bd,bld->bl", users[:, 0] * self.scale[...], jnp.broadcast_to(items, (len(users), *items.shape[1:]))
        )
        if self.fault != "context":
            score = score + context.sum(-1) + context_ids.sum(-1)
        if self.fault == "softmax":
            score = jax.nn.softmax(score)
        if self.fault == "place":
            score = score + jnp.arange(score.shape[1])
        if self.fault == "shared" and len(items) == 1:
            score = 2 * score
        if self.fault == "secret" and preference is not None:
            score = score * (0.5 + preference[0])
        if self.fault == "dropout" and keys is not None:
            score = score * jax.random.bernoulli(keys[0], 0.5, score.shape)
        widths = dict(self.widths) if self.fault != "width" else {name: 1 for name, _ in self.widths}
        return {name: score if width == 1 else jnp.stack([score] * width, -1) for name, width in widths.items()}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("softmax", "depends on the other items"),
        ("place", "permuting the items"),
        ("context", "the context's numbers are neither read nor refused"),
        ("shared", "shared item set"),
        ("dropout", "dropout depends on which lists"),
        ("width", "declared were"),
        ("deaf", "reads no preference"),
        ("secret", "a preference changes scores"),
        ("idle", "no gradient reaches"),
    ],
)
def test_the_suite_finds_a_broken_promise(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_scorer(lambda width, heads, spec, rngs: Broken(fault, heads, rngs))


def test_the_suite_passes_where_no_promise_is_broken():
    check_scorer(lambda width, heads, spec, rngs: Broken("none", heads, rngs))


def test_one_score_is_the_plain_product_and_has_no_parameters():
    params, score = built(dot(), {"click": 1})
    assert params == {}
    np.testing.assert_allclose(score({})["click"], np.einsum("bd,bld->bl", USERS[:, 0], ITEMS), rtol=1e-5, atol=1e-5)


def test_heads_scale_the_user_starting_at_one():
    params, score = built(dot(), {"click": 1, "stars": 2})
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(params))
    params = moved(params)
    scale = params["heads"]["stars"]["scale"]
    wanted = np.einsum("kd,bd,bld->blk", scale, USERS[:, 0], ITEMS)
    np.testing.assert_allclose(score(params)["stars"], wanted, rtol=1e-4, atol=1e-5)
    wanted = np.einsum("d,bd,bld->bl", params["heads"]["click"]["scale"][0], USERS[:, 0], ITEMS)
    np.testing.assert_allclose(score(params)["click"], wanted, rtol=1e-4, atol=1e-5)


def test_a_biased_head_adds_a_constant_and_read_outs_of_user_and_item():
    params, score = built(dot(bias=("stars",)), {"click": 1, "stars": 2})
    assert set(params["heads"]["click"]) == {"scale"}
    assert all(not params["heads"]["stars"][name].any() for name in ("scale", "bias", "user", "item"))
    assert (params["heads"]["click"]["scale"] == 1).all()
    params = moved(params)
    u, v, p = USERS[:, 0], ITEMS, params["heads"]["stars"]
    wanted = np.einsum("kd,bd,bld->blk", p["scale"], u, v) + np.einsum("kd,bld->blk", p["item"], v)
    wanted += (p["bias"] + u @ p["user"].T)[:, None]
    np.testing.assert_allclose(score(params)["stars"], wanted, rtol=1e-4, atol=1e-5)
    alone = {"heads": {name: {"scale": params["heads"][name]["scale"]} for name in ("click", "stars")}}
    np.testing.assert_array_equal(score(params)["click"], built(dot(), {"click": 1, "stars": 2})[1](alone)["click"])


def test_a_biased_cosine_reads_directions_alone():
    params, score = built(cosine(0.5, bias=True), {"click": 1})
    params = moved(params)
    u, v, p = *map(np.asarray, (unit(USERS[:, 0]), unit(ITEMS))), params["heads"]["click"]
    wanted = np.einsum("bd,bld->bl", u, v) / 0.5 + v @ p["item"][0] + (u @ p["user"][0] + p["bias"])[:, None]
    np.testing.assert_allclose(score(params)["click"], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(score(params, USERS * 7, ITEMS * 0.1)["click"], wanted, rtol=1e-4, atol=1e-5)


def test_offsets_of_user_and_item_are_learnt_where_a_product_alone_misses_them():
    of_users, of_items = np.linspace(-1, 1, 6), np.linspace(-1, 1, 5)
    ratings = 3 + of_users[:, None] + of_items
    # The nearest product of two numbers is off by what the second singular value holds.
    least = np.linalg.svd(ratings, compute_uv=False)[1] ** 2 / ratings.size
    first = np.random.default_rng(0).normal(size=11).astype(np.float32)

    def rest(bias):
        start, score = built(dot(bias=bias), {"r": 1})

        def loss(tree):
            users, items = (tree[name][:, None] * jnp.eye(1, D) for name in ("users", "items"))
            return jnp.mean((score(tree["scorer"], users[:, None], items[None])["r"] - ratings) ** 2)

        move = jax.jit(jax.value_and_grad(loss))
        tree = {"users": 0.1 * first[:6], "items": 0.1 * first[6:], "scorer": start}
        for _ in range(1500):
            value, grads = move(tree)
            tree = jax.tree.map(lambda a, g: a - 0.1 * g, tree, grads)
        return float(value)

    assert rest(True) < 0.5 * least < 0.99 * least < rest(False)


def test_a_bias_of_no_head_is_refused():
    for scorer in (
        dot(("stars",)),
        cosine(bias=("stars",)),
        mlp(bias=("stars",)),
        transformer(heads=2, bias=("stars",)),
    ):
        with pytest.raises(
            ValueError, match=r"bias names 'stars', which is no head; heads are star; did you mean star\?"
        ):
            scorer(D, {"star": 1}, SPEC, nnx.Rngs(0))


def test_hidden_layers_have_a_constant_for_the_heads_that_are_named():
    for scorer in (mlp((16,), bias=("stars",)), transformer(1, 2, bias=("stars",))):
        params, _ = built(scorer, {"click": 1, "stars": 3})
        assert set(params["heads"]["click"]) == {"kernel"} and set(params["heads"]["stars"]) == {"kernel", "bias"}


def test_a_shared_set_is_one_matrix_product_and_never_gathered_for_every_list():
    params, score = built(dot(), {"click": 1, "like": 1})
    text = str(jax.make_jaxpr(lambda p, v: score(p, USERS, v))(params, ITEMS[:1]))
    assert text.count("dot_general") == 1
    assert f"f32[{B},{L},{D}]" not in text


def test_cosine_is_the_cosine_over_the_temperature():
    params, score = built(cosine(0.5), {"click": 1})
    u, v = np.asarray(USERS[:, 0]), np.asarray(ITEMS)
    wanted = np.einsum("bd,bld->bl", u, v) / np.linalg.norm(u, axis=-1)[:, None] / np.linalg.norm(v, axis=-1) / 0.5
    np.testing.assert_allclose(score(params)["click"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(score(params, USERS * 7, ITEMS * 0.1)["click"], wanted, rtol=1e-5, atol=1e-6)


def test_a_zero_vector_has_cosine_zero_and_a_finite_gradient():
    np.testing.assert_array_equal(unit(jnp.zeros((2, 3))), np.zeros((2, 3)))
    np.testing.assert_array_equal(jax.grad(lambda x: unit(x).sum())(jnp.zeros(3)), np.ones(3))


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"temperature is 0\.0; it must be above 0"):
        cosine(0.0)


@pytest.mark.parametrize("shared", [False, True])
def test_the_first_layer_in_parts_is_the_layer_over_the_concatenation(shared):
    params, score = built(mlp((16, 8), product=False), {"click": 1, "stars": 3})
    params = moved(params)
    u = np.broadcast_to(USERS, ITEMS.shape)
    v = np.broadcast_to(ITEMS[:1], ITEMS.shape) if shared else ITEMS
    kernel = np.concatenate([params["first"][name] for name in ("user", "item", "product", "distance")])
    x = gelu(np.concatenate([u, v, u * v, np.abs(u - v)], -1) @ kernel + params["first"]["bias"])
    x = gelu(x @ params["layers"]["0"]["kernel"] + params["layers"]["0"]["bias"])
    found = score(params, USERS, ITEMS[:1] if shared else ITEMS)
    scale = float(np.abs(x @ params["heads"]["stars"]["kernel"]).max())
    assert float(np.abs(found["stars"] - x @ params["heads"]["stars"]["kernel"]).max()) < 1e-6 * max(scale, 1.0)
    assert float(np.abs(found["click"] - (x @ params["heads"]["click"]["kernel"])[..., 0]).max()) < 1e-6 * max(
        scale, 1.0
    )


def test_the_product_is_added_to_every_score():
    params, score = built(mlp((16,)), {"click": 1, "stars": 3})
    bare, alone = built(mlp((16,), product=False), {"click": 1, "stars": 3})
    both, rest = score(params), alone({name: params[name] for name in bare})
    product = np.einsum("bd,bld->bl", USERS[:, 0], ITEMS)  # its scales start at 1
    np.testing.assert_allclose(both["click"] - rest["click"], product, atol=1e-5)
    np.testing.assert_allclose(both["stars"] - rest["stars"], product[..., None].repeat(3, -1), atol=1e-5)


def test_context_enters_the_first_layer():
    params, score = built(mlp((16,), product=False), {"click": 1}, WITH_CONTEXT)
    params = moved(params)
    u = np.broadcast_to(USERS, ITEMS.shape)
    kernel = np.concatenate([params["first"][name] for name in ("user", "item", "product", "distance")])
    x = np.concatenate([u, ITEMS, u * ITEMS, np.abs(u - ITEMS)], -1) @ kernel + params["first"]["bias"]
    tab = np.where(TAB > 0, params["context"]["ids"]["tab"]["rows"][TAB[..., 0]], 0.0)
    x = x + HOUR @ params["context"]["numbers"]["kernel"] + tab
    wanted = (gelu(x) @ params["heads"]["click"]["kernel"])[..., 0]
    np.testing.assert_allclose(score(params)["click"], wanted, rtol=1e-5, atol=1e-5)


def test_a_mlp_without_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="at least one hidden layer"):
        mlp(())


def layer_reference(x, real, p, heads):
    """One post-norm layer over [N, D] tokens, `real` [N, N] saying who reads whom, in float64."""

    def norm(x, scale, bias=0.0):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias

    def linear(x, p):
        return x @ p["kernel"] + p.get("bias", 0.0)

    q, k, v = (linear(x, p[name]) for name in ("query", "key", "value"))
    read, size = np.zeros_like(x), x.shape[1] // heads
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        weights = np.exp(q[:, at] @ k[:, at].T / np.sqrt(size)) * real
        read[:, at] = weights / weights.sum(-1, keepdims=True) @ v[:, at]
    x = norm(x + linear(read, p["out"]), p["norm"]["scale"], p["norm"]["bias"])
    inner = gelu(linear(x, p["wide"])).astype(np.float64)
    return norm(x + linear(inner, p["narrow"]), p["last"]["scale"])


def test_the_transformer_is_masked_attention_over_one_sequence():
    params, score = built(transformer(layers=2, heads=2), {"click": 1})
    params = moved(params)
    users = np.concatenate([USERS, ITEMS[:, :3] * np.float32(0.7)], axis=1)
    users[1, 2:] = 0.0
    found = score(params, users)["click"]
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    for b in range(B):
        history = 1 if b == 1 else 3
        tokens = np.concatenate([users[b, : 1 + history], ITEMS[b]]).astype(np.float64)
        x = tokens + p["kind"][[0] + [1] * history + [2] * L]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        x = x * p["norm"]["scale"] + p["norm"]["bias"]
        real = np.eye(len(x), dtype=bool) | (np.arange(len(x)) <= history)[None]
        for number in range(2):
            x = layer_reference(x, real, jax.tree.map(lambda a, n=number: a[n], p["layers"]), heads=2)
        np.testing.assert_allclose(
            found[b], x[1 + history :] @ p["heads"]["click"]["kernel"][:, 0], rtol=1e-3, atol=1e-4
        )


def test_the_user_itself_is_read_even_where_nothing_is_known_of_it():
    params, score = built(transformer(layers=1, heads=2), {"click": 1})
    found = score(params, np.zeros((B, 4, D), np.float32))["click"]
    np.testing.assert_allclose(found, score(params, np.zeros((B, 1, D), np.float32))["click"], rtol=1e-5, atol=1e-6)
    assert np.isfinite(found).all()


def test_a_width_that_the_attention_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="heads is 3; it must divide the model's width, which is 8"):
        built(transformer(heads=3), {"click": 1})
    with pytest.raises(ValueError, match="layers is 0"):
        transformer(layers=0)


@pytest.mark.parametrize("scorer", [mlp((16,), dropout=0.5), transformer(2, 2, 0.5)], ids=["mlp", "transformer"])
def test_dropout_is_off_without_keys_and_on_with_them(scorer):
    params, score = built(scorer, {"click": 1})
    keys = jax.random.split(KEY, B)
    assert not np.allclose(score(params)["click"], score(params, keys=keys)["click"])
    np.testing.assert_array_equal(score(params)["click"], score(params)["click"])
