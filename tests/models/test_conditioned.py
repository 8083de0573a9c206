import jax
import numpy as np
import pytest

from mobjrec.models import conditioned, cosine, dot, mlp, transformer
from mobjrec.models.functional import bind, init
from mobjrec.testing.scorers import check_scorer
from mobjrec.types import SideSpec, Spec

NONE = SideSpec()
SPEC = Spec(0, NONE, NONE, NONE, {}, lists=1, catalogue=1, objectives=3)
B, L, D = 3, 4, 8
DRAW = np.random.default_rng(0)
USERS, ITEMS = DRAW.normal(size=(B, 3, D)).astype(np.float32), DRAW.normal(size=(1, L, D)).astype(np.float32)
HEADS = {"click": 1, "stars": 2}
WISH = np.float32([0.6, 0.3, 0.1])


def gelu(x):
    return np.asarray(jax.nn.gelu(x))


@pytest.mark.parametrize(
    "scorer",
    [conditioned(dot()), pytest.param(conditioned(transformer(1, 2)), marks=pytest.mark.slow),
     pytest.param(conditioned(mlp((12,), dropout=0.3), rank=0), marks=pytest.mark.slow)],
    ids=["dot", "transformer", "mlp"],
)  # fmt: skip
def test_the_promises_of_scorers(scorer):
    check_scorer(scorer)


def test_it_is_the_inner_scorer_of_what_the_preference_makes_of_user_and_items():
    seen = {}

    def inner(width, heads, spec, rngs):
        module = transformer(1, 2)(width, heads, spec, rngs)
        assert module.sequence
        return module

    def make(rngs):
        return conditioned(inner, hidden=5, rank=2)(D, HEADS, SPEC, rngs)

    params = init(make)(jax.random.key(0))
    params = jax.tree.map(lambda a: np.asarray(a) + DRAW.normal(size=a.shape, scale=0.3).astype(np.float32), params)
    module = bind(make)(params)
    module.inner = lambda users, items, *rest: seen.update(users=users, items=items, rest=rest)
    module(USERS, ITEMS, None, None, WISH, None)

    kernel = lambda name: params[name]["kernel"]
    wish = gelu(3 * WISH @ kernel("wish") + params["wish"]["bias"])
    scale, shift, of_items = np.split(wish @ kernel("film") + params["film"]["bias"], 3)
    core = wish @ kernel("core") + params["core"]["bias"]
    own = USERS[:, 0]
    told = (1 + scale) * own + shift + (core * (own @ kernel("down"))) @ kernel("up")
    np.testing.assert_allclose(seen["users"][:, 0], told, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(seen["users"][:, 1:], USERS[:, 1:])
    np.testing.assert_allclose(seen["items"], (1 + of_items) * ITEMS, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(seen["rest"][2], WISH)
    assert module.conditioned and module.sequence


def test_first_parameters_leave_it_near_the_inner_scorer_for_every_preference():
    params = init(lambda rngs: conditioned(cosine())(D, HEADS, SPEC, rngs))(jax.random.key(1))
    module = bind(lambda rngs: conditioned(cosine())(D, HEADS, SPEC, rngs))(params)
    plain = module.inner(USERS, ITEMS, None, None, None, None)
    for wish in np.eye(3, dtype=np.float32):
        found = module(USERS, ITEMS, None, None, wish, None)
        for name in HEADS:
            assert 0 < np.abs(found[name] - plain[name]).max() < 0.4 * np.abs(plain[name]).max()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: conditioned(dot(), hidden=0), "hidden is 0; it must be at least 1"),
        (lambda: conditioned(dot(), rank=-1), "rank is -1; it must not be negative"),
        (lambda: conditioned(dot())(D, HEADS, SPEC._replace(objectives=1), None),
         "there is one objective, so no preference among several; take what `of` names alone"),
    ],
)  # fmt: skip
def test_what_is_refused(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == said
