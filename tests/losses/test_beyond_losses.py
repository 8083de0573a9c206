"""Similarity on top and the exposure gap: beside slow loops, at their limits, and where nothing can be said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses
from mobjrec.metrics.beyond import diversity

random = np.random.default_rng(0)
SCORES = random.normal(size=(4, 7)).astype(np.float32)
VECTORS = random.normal(size=(4, 7, 3)).astype(np.float32)
GROUP = random.integers(0, 2, (4, 7)).astype(np.float32)
MERIT = random.uniform(0, 3, (4, 7)).astype(np.float32)
WHERE = np.array([[1] * 7, [1, 1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0], [0] * 7], bool)


def slow_similarity(row, k, temperature):
    """Pair by pair in float64; the shares' threshold by bisection."""
    s, v = SCORES[row][WHERE[row]].astype(np.float64), VECTORS[row][WHERE[row]].astype(np.float64)
    low, high = s.min() - 50, s.max() + 50
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp((middle - s) / temperature))).sum() > k else (low, middle)
    share = 1 / (1 + np.exp((low - s) / temperature)) if len(s) > k else np.ones(len(s))
    above = below = 0.0
    for i in range(len(s)):
        for j in range(len(s)):
            if i != j:
                cosine = v[i] @ v[j] / np.linalg.norm(v[i]) / np.linalg.norm(v[j])
                above += share[i] * share[j] * (1 + cosine) / 2
                below += share[i] * share[j]
    return above / below if len(s) > 1 else 0.0


def slow_gap(row, merit, temperature):
    s, g, m = (x[row][WHERE[row]].astype(np.float64) for x in (SCORES, GROUP, merit))
    if not len(s):
        return 0.0
    exposure = [
        1 / np.log2(2 + sum(1 / (1 + np.exp((a - b) / temperature)) for b in np.delete(s, i))) for i, a in enumerate(s)
    ]
    return (np.dot(exposure, g) / np.sum(exposure) - m @ g / m.sum()) ** 2


@pytest.mark.slow
def test_similarity_is_that_of_a_slow_loop():
    for k, temperature in ((2, 0.5), (3, 1.0)):
        found = losses.similarity_on_top(SCORES, VECTORS, where=WHERE, k=k, temperature=temperature)
        wanted = [slow_similarity(row, k, temperature) for row in range(3)]
        np.testing.assert_allclose(found, [*wanted, 0.0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_sharp_cut_is_half_of_what_the_metric_lacks_to_full_diversity():
    where = np.ones_like(WHERE)
    found = losses.similarity_on_top(SCORES, VECTORS, where=where, k=3, temperature=1e-3)
    np.testing.assert_allclose(found, 1 - diversity(SCORES, VECTORS, where=where, k=3) / 2, rtol=1e-4)


def test_the_gap_is_that_of_a_slow_loop():
    ones = np.ones_like(MERIT)
    for merit, given in ((ones, None), (MERIT, MERIT)):
        found = losses.exposure_gap(SCORES, GROUP, where=WHERE, merit=given, temperature=0.7)
        np.testing.assert_allclose(found, [slow_gap(row, merit, 0.7) for row in range(4)], rtol=1e-4, atol=1e-7)


def test_the_gap_is_none_where_exposure_is_as_merit_and_the_same_for_all_others():
    place = np.arange(1, 8)
    merit = (1 / np.log2(1 + place))[None].astype(np.float32)
    scores, where = -place[None].astype(np.float32), np.ones((1, 7), bool)
    gap = losses.exposure_gap(scores, GROUP[:1], where=where, merit=merit, temperature=1e-2)
    other = losses.exposure_gap(scores, 1 - GROUP[:1], where=where, merit=MERIT[:1])
    np.testing.assert_allclose(gap, [0.0], atol=1e-8)
    np.testing.assert_allclose(other, losses.exposure_gap(scores, GROUP[:1], where=where, merit=MERIT[:1]), rtol=1e-4)
    assert losses.exposure_gap(scores, GROUP[:1], where=where, merit=0 * MERIT[:1]) == 0


@jax.jit
def all_of(scores, vectors, group, merit):
    def total(scores, vectors):
        both = (
            losses.similarity_on_top(scores, vectors, where=WHERE, k=2),
            losses.exposure_gap(scores, group, where=WHERE, merit=merit),
        )
        return sum(one.sum() for one in both), both

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(scores, vectors)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, -7.0])
def test_what_stands_under_the_mask_has_no_influence(rubbish):
    clean = all_of(SCORES, VECTORS, GROUP, MERIT)
    filled = [np.where(WHERE, one, np.float32(rubbish)) for one in (SCORES, GROUP, MERIT)]
    vectors = np.where(WHERE[..., None], VECTORS, np.float32(rubbish))
    found = all_of(filled[0], vectors, *filled[1:])
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    grad, moved = clean[1]
    assert not grad[~WHERE].any() and not moved[~WHERE].any() and np.abs(grad[:2]).max() > 1e-3


@pytest.mark.slow
def test_scores_of_any_size_and_vectors_of_nothing_are_finite():
    for far in (1e4 * np.sign(SCORES), 0 * SCORES + 1e4):
        for vectors in (VECTORS, 0 * VECTORS):
            value, grads = all_of(far.astype(np.float32), vectors, GROUP, MERIT)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, grads)))
    np.testing.assert_allclose(losses.similarity_on_top(SCORES[:1], 0 * VECTORS[:1], where=WHERE[:1]), [0.5])


@pytest.mark.slow
def test_descent_makes_the_top_diverse_and_evens_out_exposure():
    vectors = jnp.asarray(np.repeat(np.eye(3), [4, 2, 2], 0)[None])
    start, where = jnp.arange(8.0)[None][:, ::-1], jnp.ones((1, 8), bool)
    group = jnp.array([[1.0] * 4 + [0.0] * 4])

    def moved(loss, rate):
        step = jax.jit(lambda s: s - rate * jax.grad(lambda s: loss(s).sum())(s))
        s = start
        for _ in range(200):
            s = step(s)
        return loss(start)[0], loss(s)[0]

    first, last = moved(lambda s: losses.similarity_on_top(s, vectors, where=where, k=3), 2.0)
    assert first > 0.8 and last < 0.55
    first, last = moved(lambda s: losses.exposure_gap(s, group, where=where, temperature=1.0), 50.0)
    assert first > 0.01 and last < 0.1 * first


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda s: losses.similarity_on_top(s, VECTORS, where=WHERE, k=1), "k is 1; two items are the fewest"),
        (lambda s: losses.similarity_on_top(s, VECTORS, where=WHERE, temperature=0.0), r"temperature is 0\.0"),
        (lambda s: losses.exposure_gap(s, GROUP, where=WHERE, temperature=-1.0), r"temperature is -1\.0"),
        (
            lambda s: losses.similarity_on_top(s, VECTORS[:, :5], where=WHERE),
            r"vectors has shape \(4, 5, \d\); .* \(4, 7",
        ),
        (lambda s: losses.similarity_on_top(s[:1], VECTORS, where=WHERE[:1]), r"vectors has shape \(4, 7, "),
        (lambda s: losses.exposure_gap(s, GROUP[:2], where=WHERE), r"group has shape \(2, 7\)"),
        (lambda s: losses.exposure_gap(s, GROUP, where=WHERE, merit=MERIT[:2]), r"merit has shape \(2, 7\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_runs(call, says):
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(call, jnp.zeros((4, 7)))
