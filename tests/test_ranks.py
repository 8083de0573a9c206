from functools import partial

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from mobjrec import ranks

WIDTH = 7
# Whole numbers, so that ties are common; -inf and both zeros are scores as well.
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.sampled_from([-np.inf, -3e38, -2, -1, -0.0, 0.0, 1, 2, 3e38]))
FINITE = hnp.arrays(np.float32, WIDTH, elements=st.floats(-5, 5, width=32))
WHERE = hnp.arrays(bool, WIDTH)
hard = jax.jit(ranks.ranks)
top_k = jax.jit(ranks.top_k, static_argnums=2)
soft = jax.jit(ranks.soft_ranks, static_argnums=2)


@partial(jax.jit, static_argnums=2)
def soft_and_pulled(scores, where, temperature, pull):
    value, back = jax.vjp(lambda s: ranks.soft_ranks(s, where, temperature), scores)
    return value, back(pull)[0]


def by_hand(scores, where):
    """Ranks of the real items: one more than those above and those equal but earlier."""
    s, there = scores.tolist(), np.flatnonzero(where)
    return np.array([1 + sum(s[j] > s[i] or (s[j] == s[i] and j < i) for j in there) for i in range(WIDTH)])


def soft_by_hand(scores, where, temperature):
    s = np.asarray(scores, np.float64)
    above = 1 / (1 + np.exp(-(s[None, :] - s[:, None]) / temperature))
    return 1 + np.sum(above * (np.asarray(where)[None, :] & ~np.eye(len(s), dtype=bool)), axis=1)


@given(SCORES, WHERE)
def test_ranks_count_who_stands_before_ties_by_appearance_and_masked_items_last(scores, where):
    found = np.asarray(hard(scores, where))
    np.testing.assert_array_equal(found[where], by_hand(scores, where)[where])
    np.testing.assert_array_equal(np.sort(found), np.arange(1, WIDTH + 1))


@given(SCORES, WHERE, st.sampled_from([np.nan, np.inf, -np.inf, 3e38]))
def test_what_stands_under_the_mask_has_no_rank_to_give(scores, where, fill):
    filled = np.where(where, scores, np.float32(fill))
    np.testing.assert_array_equal(np.asarray(hard(filled, where))[where], np.asarray(hard(scores, where))[where])
    np.testing.assert_array_equal(top_k(filled, where, 2), where & (by_hand(scores, where) <= 2))


def test_ranks_have_no_gradient_and_any_leading_axes():
    scores, where = jnp.array([[[3.0, 1.0, 2.0]], [[0.0, 5.0, 5.0]]]), jnp.ones((2, 1, 3), bool)
    np.testing.assert_array_equal(ranks.ranks(scores, where), [[[1, 3, 2]], [[3, 1, 2]]])
    grad = jax.grad(lambda s: (ranks.ranks(s, where) * s).sum())(scores)
    np.testing.assert_array_equal(grad, [[[1, 3, 2]], [[3, 1, 2]]])


@given(FINITE, WHERE, st.sampled_from([0.01, 0.1, 1.0, 10.0]))
def test_soft_ranks_are_the_formula_over_the_items_that_are_there(scores, where, temperature):
    found = np.asarray(soft(np.where(where, scores, np.nan), where, temperature))
    with np.errstate(over="ignore"):
        wanted = soft_by_hand(scores, where, temperature)
    np.testing.assert_allclose(found[where], wanted[where], atol=2e-4)


@given(FINITE, WHERE)
def test_soft_ranks_of_a_list_sum_up_as_hard_ones_do(scores, where):
    count = where.sum()
    np.testing.assert_allclose(np.asarray(soft(scores, where, 0.3))[where].sum(), count * (count + 1) / 2, rtol=1e-5)


def test_cold_soft_ranks_are_hard_ranks_and_tied_items_share_theirs():
    scores, where = jnp.array([1.0, 4.0, 4.0, 2.0]), jnp.ones(4, bool)
    np.testing.assert_allclose(soft(scores, where, 1e-3), [4.0, 1.5, 1.5, 3.0], atol=1e-6)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_soft_ranks_stay_finite_with_finite_gradient_over_a_masked_item(fill):
    scores, where = jnp.array([1e4, fill, -1e4, 0.0]), jnp.array([True, False, True, True])
    both = jax.jit(jax.value_and_grad(lambda s: (ranks.soft_ranks(s, where, 0.1) ** 2).sum(where=where)))
    value, grad = both(scores)
    np.testing.assert_allclose(value, 1 + 4 + 9)
    np.testing.assert_array_equal(grad, np.zeros(4))


def test_half_precision_scores_are_counted_in_float32():
    scores = jnp.linspace(-3, 3, 400).astype(jnp.bfloat16)
    where = jnp.ones(400, bool)
    found = soft(scores, where, 1.0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, soft_by_hand(scores.astype(jnp.float32), where, 1.0), rtol=1e-4)


@pytest.mark.parametrize("length", [ranks.BLOCK, ranks.BLOCK + 1, 2 * ranks.BLOCK, 2 * ranks.BLOCK + 37])
def test_blocks_of_long_lists_give_the_same_ranks_and_gradients(length):
    random = np.random.default_rng(length)
    scores, where = random.normal(size=(2, length)).astype(np.float32), random.random((2, length)) < 0.9
    pull = random.normal(size=(2, length)) * where
    found = soft_and_pulled(np.where(where, scores, np.nan), where, 0.5, pull.astype(np.float32))
    value, grad = (np.asarray(part) for part in found)
    for row in range(2):
        inside = where[row]
        np.testing.assert_allclose(value[row][inside], soft_by_hand(scores[row], inside, 0.5)[inside], rtol=1e-5)
        s = scores[row].astype(np.float64)
        slope = 1 / (1 + np.exp(-(s[None, :] - s[:, None]) / 0.5))
        slope = slope * (1 - slope) / 0.5 * (inside[None, :] & ~np.eye(length, dtype=bool))
        wanted = pull[row] @ slope - pull[row] * slope.sum(1)
        np.testing.assert_allclose(grad[row], wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_block_is_all_that_a_long_list_keeps():
    length = 4096
    scores, where = jnp.zeros((1, length)), jnp.ones((1, length), bool)
    grad = jax.jit(jax.grad(lambda s: ranks.soft_ranks(s, where, 1.0)[..., 0].sum()))
    memory = grad.lower(scores).compile().memory_analysis().temp_size_in_bytes
    assert memory < 4 * length * ranks.BLOCK * 4, f"{memory} bytes of scratch; [L, L] alone is {4 * length**2}"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.zeros((2, 4))}, r"labels has shape \(2, 4\); expected that of scores, \(2, 3\)"),
        ({"where": np.ones(3, bool)}, r"where has shape \(3,\); expected that of scores, \(2, 3\)"),
        ({"weights": np.zeros((1, 3))}, r"weights has shape \(1, 3\); expected that of scores, \(2, 3\)"),
        ({"where": np.ones((2, 3))}, r"where is float\d+; expected bool, True for a real item"),
        ({"k": 0}, "k is 0; it must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_while_tracing(change, message):
    given = {"labels": np.zeros((2, 3)), "where": np.ones((2, 3), bool), "weights": None, "k": None} | change

    def traced(scores):
        ranks.check_lists(scores, given["labels"], given["where"], given["weights"], given["k"])
        return scores

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(traced, jnp.zeros((2, 3)))


WIDE = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
THERE = np.array([[1] * 9, [1] * 9, [0, 1, 1, 0, 1, 1, 1, 1, 0], [1, 0, 0, 1, 0, 0, 0, 0, 1], [0] * 9, [1] * 9], bool)


def test_a_soft_top_k_solves_its_problem():
    """m is the maximum of s'm + t H(m) on sum k: its logits are the scores over t but for one number a list."""
    for k, temperature in ((3, 0.3), (2, 2.0)):
        shares = np.asarray(ranks.soft_top_k(WIDE, THERE, k, temperature), np.float64)
        counts = THERE.sum(-1)
        np.testing.assert_allclose(shares.sum(-1), np.minimum(k, counts), atol=1e-5)
        assert (shares[~THERE] == 0).all() and (shares[counts <= k][THERE[counts <= k]] == 1).all()
        for row in np.flatnonzero(counts > k):
            share, score = shares[row][THERE[row]], WIDE[row][THERE[row]]
            assert np.ptp(np.log(share / (1 - share)) - score / temperature) < 1e-3


def test_a_cold_soft_top_k_is_the_top_k_and_a_hot_one_even():
    cold = ranks.soft_top_k(WIDE, THERE, 3, 1e-3)
    np.testing.assert_allclose(cold, ranks.top_k(WIDE, THERE, 3), atol=1e-4)
    np.testing.assert_allclose(ranks.soft_top_k(WIDE[:2], THERE[:2], 3, 1e5), 1 / 3, atol=1e-4)
    far = np.sign(WIDE) * np.float32(1e4)
    assert np.isfinite(ranks.soft_top_k(far, THERE, 3, 0.1)).all()


def test_the_gradient_of_a_soft_top_k_is_that_of_finite_differences():
    with jax.enable_x64(True):
        scores, along = WIDE.astype(np.float64), np.cos(np.arange(9.0))
        total = jax.jit(lambda s: (ranks.soft_top_k(s, THERE, 3, 0.4) * along).sum(-1))
        moves = 1e-5 * np.eye(9)
        found = [(total(scores + move) - total(scores - move)) / 2e-5 for move in moves]
        grad = jax.grad(lambda s: total(s).sum())(scores)
        np.testing.assert_allclose(np.transpose(found), grad, atol=1e-7)
        assert np.abs(grad).max() > 0.1 and not grad[~THERE].any()


def test_soft_shares_of_scores_far_from_zero_sum_to_k():
    scores = jnp.asarray([[1e4 + 0.1 * n for n in range(7)], [-1e4 + 0.1 * n for n in range(7)]], jnp.float32)
    shares = ranks.soft_top_k(scores, jnp.ones(scores.shape, bool), 2, 0.1)
    np.testing.assert_allclose(jnp.sum(shares, -1), 2.0, atol=1e-4)


@pytest.mark.parametrize(
    "shape, masked, k, said",
    [
        ((3,), True, 2.5, "k is 2.5; it must be a whole number"),
        ((3,), True, True, "k is True; it must be a whole number"),
        ((3,), True, 0, "k is 0; it must be at least 1"),
        ((3,), False, 1, "where is None; expected a bool array of scores' shape"),
        ((), True, 1, "scores is a single number"),
    ],
)
def test_arguments_that_are_no_lists_are_refused(shape, masked, k, said):
    scores = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=said):
        ranks.check_lists(scores, scores, np.ones(shape, bool) if masked else None, None, k)


def test_a_soft_top_k_of_scores_as_far_apart_as_floats_go_is_a_choice():
    scores, where = jnp.array([3e38, -3e38, 0.0]), jnp.ones(3, bool)
    np.testing.assert_array_equal(ranks.soft_top_k(scores, where, 1, 0.1), [1, 0, 0])
    assert np.isfinite(jax.grad(lambda s: ranks.soft_top_k(s, where, 1, 0.1)[0])(scores)).all()
