"""Where plain descent under each weighting ends on problems with known fronts, and what rescaling a loss does to it.

In 64 bits; steps are one scan, starts and preferences one vmap.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from descent import circle, descend, signals_of
from descent import ranking as ranking_of

from mobjrec import weightings

# A program for every method: proofs, run in CI by name.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_64_bit():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def fronts(shared):
    return json.loads((shared / "reference" / "toy_fronts.json").read_text())


# Three problems of at most three quadratics 1/2 (x - c)^T A (x - c), as one: two equal ones, two of unequal shape, and a
# triangle of equal ones.
TWICE, NOTHING, EDGE = 2 * np.eye(2), np.zeros((2, 2)), np.sqrt(3) / 2
SHAPES = np.array([[TWICE, TWICE, NOTHING], [[[1, 0], [0, 10]], [[5, 2], [2, 1.5]], NOTHING], [TWICE] * 3])
CENTRES = np.array([[[1, 0], [-1, 0], [0, 0]], [[1, 0.5], [-1, -0.3], [0, 0]], [[0, 1], [-EDGE, -0.5], [EDGE, -0.5]]])
THERE = np.array([[True, True, False], [True, True, False], [True, True, True]])
STARTS = np.array([[2, 1.5], [2, 2], [2, 1.0]])


def quadratics(weighting, rate=0.02, steps=600):
    def one(shapes, centres, present, start):
        def losses(x):
            return 0.5 * jnp.einsum("ki,kij,kj->k", x - centres, shapes, x - centres)

        return descend(losses, weighting, start, None, present, rate=rate, steps=steps)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(SHAPES, CENTRES, THERE, STARTS))


CENTRE = [[0, 0], [-0.8923, 0.3769], [0, 0]]


@pytest.mark.parametrize("name, ends, descends", [
    ("equal", CENTRE, False),
    ("cagrad", CENTRE, False),
    ("mgda", [[1, 0], [1, 0.5], [0.5, 0.1340]], True),
    ("upgrad", [[0.4899, 0], [0.3959, 0.4720], [0.4536, 0.2093]], True),
    ("dualproj", [[0.3919, 0], [0.3913, 0.4718], [0.4423, 0.2197]], True),
    # Three gradients in two dimensions depend on each other: nothing is published of them.
    ("imtl_g", [[0.7713, 0], [0.9837, 0.4993], [None, None]], False),
    ("config", [[0.7605, 0], [0.5653, 0.4801], [0, 0]], False),
    ("aligned_mtl", [[0.8, 0], [0.7397, 0.4882], [0, 0]], False),
])  # fmt: skip
def test_plain_descent_on_quadratics_ends_where_published_and_projections_never_conflict(name, ends, descends):
    theta, _, worst = quadratics(getattr(weightings, name)(), steps=2400 if name == "cagrad" else 600)
    ends = np.array(ends, float)
    np.testing.assert_allclose(np.where(np.isnan(ends), np.nan, theta), ends, atol=0.02)
    if descends:
        assert (worst >= -1e-9).all()


def test_the_log_product_gives_up_all_but_one_quadratic():
    _, values, _ = quadratics(weightings.gls(), rate=0.002, steps=12_000)
    assert (np.where(THERE, values, np.inf).min(axis=1) < 1e-2).all()


@pytest.mark.parametrize("wishes", [
    [[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]],
    [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]],
])  # fmt: skip
def test_chebyshev_reaches_the_inside_of_a_concave_front(wishes):
    wishes = np.array(wishes)
    start = jnp.full(wishes.shape[1], 0.5)
    weighting = weightings.smooth_chebyshev(smoothing=2e-4)

    def one(wish):
        return descend(circle, weighting, start, wish, rate=3e-3, steps=20_000)[1]

    wanted = 1 / wishes / np.linalg.norm(1 / wishes, axis=1, keepdims=True)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(wishes), wanted, atol=1e-3)


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.3, 0.7)])
def test_fixed_weights_end_at_an_end_of_a_concave_front_from_everywhere(weights):
    starts = np.array([[-1.0, 0.5], [-0.1, 0.2], [0.1, 1.0], [1.0, -0.5]])
    solve = jax.jit(jax.vmap(lambda z: descend(circle, weightings.static(weights), z, rate=0.5, steps=8000)[1]))
    ends = np.asarray(solve(starts))
    assert (ends.min(axis=1) < 1e-2).all() and (np.abs(ends.max(axis=1) - 1) < 1e-2).all()


def test_exact_preferences_end_on_their_rays():
    wishes = np.array([[0.3, 0.7], [0.5, 0.5], [0.7, 0.3]])

    def losses(x):
        return jnp.sum(jnp.square(x - CENTRES[0][:2]), axis=1)

    def one(wish):
        return descend(losses, weightings.epo(tolerance=1e-6), jnp.array([0.9, 0.8]), wish, rate=0.005, steps=1500)[1]

    root = np.sqrt(wishes)
    share = root[:, [1, 0]] / root.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(wishes), 4 * share**2, rtol=2e-2)


def ranking(fronts):
    return fronts["ranking_linear"], ranking_of(fronts["ranking_linear"])


@pytest.mark.parametrize("make", [
    weightings.gls,
    lambda: weightings.normalised(weightings.equal(), by="log"),
    lambda: weightings.uncertainty(learning_rate=0.01),
    lambda: weightings.imtl_l(learning_rate=0.01),
])  # fmt: skip
def test_scale_free_sums_end_at_the_log_products_minimum(fronts, make):
    told, losses = ranking(fronts)
    start = jnp.array(told["thetas"][50])
    end = jax.jit(lambda theta: descend(losses, make(), theta, rate=0.1, steps=20_000)[1])(start)
    np.testing.assert_allclose(end, told["limits"]["log_product_local_minima"][0]["f"], atol=1e-4)


@pytest.mark.parametrize("name", ["equal", "cagrad"])
def test_the_mean_and_what_stays_near_it_end_at_the_means_minimum(fronts, name):
    told, losses = ranking(fronts)
    solve = jax.jit(lambda theta: descend(losses, getattr(weightings, name)(), theta, rate=0.2, steps=6000)[1])
    np.testing.assert_allclose(solve(jnp.array(told["thetas"][20])), told["limits"]["mean"]["f"], atol=1e-3)


@pytest.mark.parametrize("place", range(3))
def test_smooth_chebyshev_ends_where_published(fronts, place):
    told, losses = ranking(fronts)
    limit = told["limits"]["stch"][place]
    weighting = weightings.smooth_chebyshev(tuple(limit["preference"]), tuple(limit["ideal"]), limit["mu"])
    rate = min(0.4, 4 * limit["mu"])
    end = jax.jit(lambda theta: descend(losses, weighting, theta, rate=rate, steps=20_000)[1])(jnp.zeros(6))
    np.testing.assert_allclose(end, limit["f"], atol=1e-4)


def matrices():
    """60 matrices of three gradients of unequal length, each pair of which conflicts, and two sets of factors."""
    random = np.random.default_rng(4)
    drawn = random.normal(size=(2000, 3, 5)) * random.lognormal(size=(2000, 3, 1))
    grams = np.einsum("nkp,nlp->nkl", drawn, drawn)
    drawn = drawn[(grams[:, [0, 0, 1], [1, 2, 2]] < 0).all(axis=1)][:60]
    return drawn, random.lognormal(0, 1.5, (60, 3, 1)), random.lognormal(0, 1.5, (60, 3, 1))


# As published, of other matrices of this kind: name: (weighting, the largest angle between the directions before and after
# factors on losses, p in d(c J) = c^p d(J), the share of matrices with an objective that is hurt, is it linear under the
# scaling of rows), None where nothing is said.
REACTIONS = {
    "mean": (weightings.equal, 137, 1, 0.83, True),
    "mgda": (weightings.mgda, 53, 1, 0, False),
    "mgda, norm": (lambda: weightings.mgda("norm"), 156, 1, 0.92, True),
    "normalised mgda": (lambda: weightings.normalised(weightings.mgda()), 0, 0, 0, False),
    "upgrad": (weightings.upgrad, 34, 1, 0, True),
    "dualproj": (weightings.dualproj, 41, 1, 0, False),
    "cagrad": (weightings.cagrad, 123, 1, 0.53, False),
    "nash_mtl": (lambda: weightings.nash_mtl(None), 0, 0, 0, False),
    "fairgrad 2": (weightings.fairgrad, 24, -1 / 3, 0, False),
    "fairgrad 0.5": (lambda: weightings.fairgrad(0.5), 26, 1 / 3, 0, False),
    "imtl_g": (weightings.imtl_g, 0, 1, None, False),
    "aligned_mtl": (weightings.aligned_mtl, 46, 1, 0.27, False),
    "config": (weightings.config, 0, 1, 0, True),
    # Published is the mean over orders.
    "pcgrad": (weightings.pcgrad, None, 1, None, None),
    "sdmgrad": (weightings.sdmgrad, 85, 1, None, False),
}


@pytest.mark.parametrize("name", REACTIONS)
def test_the_reaction_to_rescaled_losses_is_the_published_one(name):
    make, turn, power, share, linear = REACTIONS[name]
    weighting = make()
    rows, one, two = matrices()
    stacks = np.concatenate([rows, one * rows, 10.0 * rows, two * rows, (one + two) * rows])
    values = np.linalg.norm(stacks, axis=2)

    def direction(rows, values):
        weights = weighting.update(signals_of(values, rows, jnp.ones(3, bool)), weighting.init(3))[0]
        return weights @ rows

    plain, scaled, tenfold, other, both = np.split(np.asarray(jax.jit(jax.vmap(direction))(stacks, values)), 5)
    cosine = np.sum(plain * scaled, axis=1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(scaled, axis=1)
    # Weights of IMTL-G have the sum 1, so that where it changes sign the direction does.
    angle = np.degrees(np.arccos(np.clip(np.abs(cosine) if name == "imtl_g" else cosine, -1, 1))).max()
    if turn is not None:
        assert angle < 1e-4 if turn == 0 else abs(angle - turn) < 30
    if name == "nash_mtl":
        np.testing.assert_allclose(scaled, plain, atol=1e-8)
    np.testing.assert_allclose(tenfold, 10.0**power * plain, rtol=1e-6, atol=1e-9)
    gains = np.einsum("nkp,np->nk", rows, plain)
    if share is not None:
        assert gains.min() >= -1e-9 if share == 0 else abs((gains < -1e-9).any(axis=1).mean() - share) < 0.15
    if linear is not None:
        assert np.allclose(scaled + other, both, rtol=1e-6, atol=1e-8) == linear


def test_two_gradients_conflict_no_more_after_surgery():
    rows = np.random.default_rng(5).normal(size=(200, 2, 3))
    weighting = weightings.pcgrad()
    solve = jax.jit(jax.vmap(lambda r: weighting.update(signals_of(jnp.ones(2), r, jnp.ones(2, bool)), ())[0]))
    gains = np.einsum("nkp,nl,nlp->nk", rows, np.asarray(solve(rows)), rows)
    assert gains.min() >= -1e-9 and (np.einsum("np,np->n", rows[:, 0], rows[:, 1]) < 0).any()
