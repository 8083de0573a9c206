import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from mobjrec import losses
from mobjrec.losses import recall_at_k
from mobjrec.metrics import recall

WIDTH = 7
SCORES = hnp.arrays(np.float32, WIDTH, elements=st.floats(-5, 5, width=32))
LABELS = hnp.arrays(np.int32, WIDTH, elements=st.integers(0, 2))
WEIGHTS = hnp.arrays(np.float32, WIDTH, elements=st.floats(0, 4, width=32))
WHERE = hnp.arrays(bool, WIDTH)
SETTINGS = ("k", "offset", "temperature_rank", "temperature_cut")
compiled = jax.jit(recall_at_k, static_argnames=SETTINGS)
slope = jax.jit(
    jax.grad(lambda s, y, where, **settings: recall_at_k(s, y, where=where, **settings).sum()), static_argnames=SETTINGS
)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def reference(scores, labels, where, weights, k, temperature):
    s, there = scores.astype(np.float64), np.flatnonzero(where)
    relevant = [i for i in there if labels[i] > 0]
    rank = {i: 1 + sum(sigmoid((s[j] - s[i]) / temperature) for j in there if j != i) for i in relevant}
    inside = sum(weights[i] * sigmoid((k + 0.5 - rank[i]) / (k / 2)) for i in relevant)
    return weights[relevant].mean() - inside / min(k, len(relevant)) if relevant else 0.0


@given(SCORES, LABELS, WHERE, WEIGHTS)
def test_recall_is_the_formula_on_the_items_that_are_there(scores, labels, where, weights):
    found = compiled(np.where(where, scores, np.nan), labels, where=where, weights=weights, k=2, temperature_rank=0.5)
    np.testing.assert_allclose(found, reference(scores, labels, where, weights, 2, 0.5), rtol=1e-4, atol=1e-4)


def test_with_cold_temperatures_the_loss_is_one_minus_the_metric():
    random = np.random.default_rng(0)
    scores = random.permuted(np.tile(np.arange(30.0, dtype=np.float32), (8, 1)), axis=1)
    labels, where = random.random((8, 30)) < 0.1, random.random((8, 30)) < 0.9
    loss = compiled(scores, labels, where=where, k=10, temperature_rank=0.01, temperature_cut=0.01)
    metric = np.asarray(jax.jit(recall, static_argnames="k")(scores, labels, where=where, k=10))
    np.testing.assert_allclose(loss, np.nan_to_num(1 - metric, nan=0.0), atol=1e-6)
    assert 0 < loss.mean() < 1


def test_the_divisor_is_the_most_that_fits_into_k():
    scores, where = np.float32([4, 3, 2, 1]), np.ones(4, bool)
    cold = {"where": where, "temperature_rank": 0.01, "temperature_cut": 0.01}
    np.testing.assert_allclose(compiled(scores, jnp.array([1, 1, 1, 1]), k=2, **cold), 0, atol=1e-6)
    np.testing.assert_allclose(compiled(scores, jnp.array([1, 0, 1, 1]), k=2, **cold), 1 / 2, atol=1e-6)
    np.testing.assert_allclose(compiled(scores, jnp.array([0, 0, 0, 1]), k=2, **cold), 1, atol=1e-6)


def test_the_offset_decides_how_much_an_item_exactly_at_k_counts():
    scores, labels, where = np.float32([9, 5, 1]), np.array([0, 1, 0]), np.ones(3, bool)
    cold = {"where": where, "k": 2, "temperature_rank": 0.01, "temperature_cut": 0.01}
    np.testing.assert_allclose(compiled(scores, labels, offset=0.0, **cold), 0.5, atol=1e-6)
    np.testing.assert_allclose(compiled(scores, labels, **cold), 0.0, atol=1e-6)


def test_by_default_the_cut_is_half_of_k_wide():
    scores, labels, where = -np.arange(40.0, dtype=np.float32), np.arange(40) == 29, np.ones(40, bool)
    value = compiled(scores, labels, where=where)
    # Rank 30 against the cut at 20.5, 10 wide; neighbours 1 apart at temperature 0.1 add sigmoid(-10), no more.
    np.testing.assert_allclose(value, 1 - sigmoid((20.5 - 30) / 10), atol=1e-4)


def test_an_item_far_below_the_cut_still_has_a_gradient():
    random = np.random.default_rng(0)
    scores = np.sort(random.normal(size=200))[::-1].astype(np.float32)
    labels, where = np.arange(200) == 70, np.ones(200, bool)
    wide, narrow = (abs(slope(scores, labels, where, temperature_cut=t)[70].item()) for t in (None, 0.5))
    assert wide > 1e-3 > 1e-12 > narrow


@pytest.mark.parametrize("grade", [0.5, 1, 4])
def test_whatever_its_grade_a_label_above_zero_is_relevant(grade):
    scores, where = np.float32([1, 0, 2]), np.ones(3, bool)
    found = compiled(scores, np.array([grade, 0, 0]), where=where, k=1)
    np.testing.assert_array_equal(found, compiled(scores, np.float32([1, 0, 0]), where=where, k=1))
    assert found > 0.5


def test_a_list_without_relevant_items_gives_zero_without_gradient():
    scores, labels = np.float32([[1, 2, np.inf], [1, 2, 3]]), np.float32([[0, 0, 1], [0, -1, 0]])
    where = np.array([[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(compiled(scores, labels, where=where, k=1), [0, 0])
    np.testing.assert_array_equal(slope(scores, labels, where, k=1), np.zeros((2, 3)))


def test_a_catalogue_of_thousands_pulls_its_relevant_item_up_and_all_others_down():
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(2, 3000)).astype(np.float32), np.tile(np.arange(3000) == 300, (2, 1))
    where = np.ones((2, 3000), bool)
    loss = lambda s: float(compiled(s.astype(np.float32), labels, where=where, k=1000).sum())
    grad = np.asarray(slope(scores, labels, where, k=1000))
    assert np.isfinite(grad).all() and (grad[~labels] >= 0).all() and (grad[labels] < -0.01).all()
    np.testing.assert_allclose(grad.sum(-1), [0, 0], atol=1e-4)
    step = 0.02 * labels
    np.testing.assert_allclose((loss(scores + step) - loss(scores - step)) / 0.04, grad[labels].sum(), rtol=0.02)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"k": 0}, "k is 0; it must be at least 1"),
        ({"temperature_rank": 0.0}, "temperature_rank is 0.0; it must be above 0"),
        ({"temperature_cut": -1.0}, "temperature_cut is -1.0; it must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recall_at_k(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)


def soft(loss, names):
    def reduced(inputs, params):
        labels = inputs["labels"] >= 1
        settings = {ours: params[theirs] for ours, theirs in names.items()}
        values = loss(inputs["scores"], labels, where=inputs["where"], **settings)
        return values.mean(where=(labels & inputs["where"]).any(-1))

    return reduced


CUT = {"k": "k", "offset": "offset", "temperature_rank": "t_rank", "temperature_cut": "t_cut"}
COUNTS = {"beta": "beta", "temperature": "t"}
CASES = {
    "soft_precision_at_k": soft(losses.precision_at_k, CUT),
    "soft_fbeta_at_k": soft(losses.f_beta_at_k, CUT | {"beta": "beta"}),
    "soft_fbeta_0.5": soft(losses.f_beta, COUNTS),
    "soft_fbeta_1": soft(losses.f_beta, COUNTS),
    "soft_fbeta_2": soft(losses.f_beta, COUNTS),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


RANDOM = np.random.default_rng(0)
DRAWN = RANDOM.permuted(np.tile(np.arange(12.0, dtype=np.float32), (30, 1)), axis=1)
GIVEN = {"labels": RANDOM.random(DRAWN.shape) < 0.3, "where": RANDOM.random(DRAWN.shape) < 0.8}
HEAVY = RANDOM.uniform(0.5, 2.0, DRAWN.shape).astype(np.float32)


def counted(metric):
    """`metric` of (weights, whether relevant, in the top 4) of each list's real items, 0 where nothing is relevant."""
    values = []
    for s, y, w, there in zip(DRAWN, GIVEN["labels"], HEAVY, GIVEN["where"], strict=True):
        top = np.argsort(np.argsort(-s[there])) < 4
        values.append(metric(w[there].astype(float), y[there], top) if y[there].any() else 0.0)
    return np.array(values)


def f(weights, relevant, top):
    hit, wanted, found = weights[relevant & top].sum(), weights[relevant].sum(), weights[top].sum()
    return weights[relevant].mean() * (1 - 5 * hit / (4 * wanted + found))


HARD = {
    "precision_at_k": lambda w, y, top: w[y].mean() - w[y & top].sum() / min(4, len(w)),
    "f_beta_at_k": f,
    "top_k_recall": lambda w, y, top: w[y].max() - w[y & top].sum() / min(4, y.sum()),
    "top_k_precision": lambda w, y, top: w[y].max() - w[y & top].sum() / min(4, len(w)),
}


@pytest.mark.parametrize("name", HARD)
def test_with_cold_temperatures_each_is_one_minus_the_weighted_count(name):
    cold = {"temperature": 0.02} if "top_k" in name else {"temperature_rank": 0.02, "temperature_cut": 0.02}
    cold |= {"beta": 2.0} if "beta" in name else {}
    loss = getattr(losses, name)
    found = jax.jit(lambda s: loss(s, weights=HEAVY, k=4, **GIVEN, **cold))(DRAWN)
    np.testing.assert_allclose(found, counted(HARD[name]), atol=1e-5)


def test_soft_counts_of_f_beta_begin_at_a_score_of_zero():
    scores, where = np.float32([[9, 9, -9, -9], [9, -9, 9, -9]]), np.ones((2, 4), bool)
    labels = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
    found = losses.f_beta(scores, labels, where=where, temperature=0.5)
    np.testing.assert_allclose(found, [0.0, 0.5], atol=1e-6)
    assert losses.f_beta(scores - 20, labels, where=where, temperature=0.5)[0] > 0.99


def test_with_a_wide_beta_recall_counts_and_with_a_narrow_one_precision():
    scores, labels, where = np.float32([4, 3, 2, 1]), np.array([1, 1, 1, 0]), np.ones(4, bool)
    at = lambda beta: losses.f_beta_at_k(
        scores, labels, where=where, k=1, beta=beta, temperature_rank=0.02, temperature_cut=0.02
    )
    # One of three found, and it is right.
    np.testing.assert_allclose([at(100.0), at(0.01)], [2 / 3, 0.0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["top_k_recall", "top_k_precision"])
def test_a_hundred_thousand_items_pull_the_relevant_ones_up_and_no_value_is_below_zero(name):
    random = np.random.default_rng(0)
    scores, where = random.normal(size=100_000).astype(np.float32), np.ones(100_000, bool)
    labels = random.random(100_000) < 0.001
    loss = jax.jit(jax.value_and_grad(lambda s: getattr(losses, name)(s, labels, where=where, k=200)))
    value, grad = loss(scores)
    assert 0.9 < value < 1 and (grad[labels] < 0).all() and (grad[~labels] > 0).all()
    np.testing.assert_allclose(grad.sum(), 0, atol=1e-6)
    assert 0 <= loss(np.where(labels, 40, scores).astype(np.float32))[0] < (0.6 if name == "top_k_precision" else 1e-3)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("precision_at_k", {"k": 0}, "k is 0; it must be at least 1"),
        ("f_beta_at_k", {"beta": 0.0}, "beta is 0.0; it must be above 0"),
        ("f_beta", {"temperature": -1.0}, "temperature is -1.0; it must be above 0"),
        ("top_k_recall", {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ("top_k_precision", {"k": -1}, "k is -1; it must be at least 1"),
    ],
)
def test_what_is_out_of_range_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)


@pytest.mark.parametrize("loss", [losses.precision_at_k, losses.top_k_precision])
def test_precision_in_a_list_shorter_than_k_is_over_its_items(loss):
    cold = (
        {"temperature_rank": 0.01, "temperature_cut": 0.01} if loss is losses.precision_at_k else {"temperature": 0.01}
    )
    where = np.array([True, True, False, False])
    found = loss(jnp.array([4.0, 3.0, 2.0, 1.0]), jnp.array([1, 0, 1, 1]), where=where, k=3, **cold)
    np.testing.assert_allclose(found, 1 / 2, atol=1e-6)


def test_a_solved_soft_top_k_is_not_below_zero_by_rounding():
    labels = np.tile(np.arange(30) % 7 > 0, (200, 1))
    scores = np.random.default_rng(0).normal(size=(200, 30)) * 1000 + np.where(labels, 8000.0, 0.0)
    for loss, k in ((losses.top_k_recall, 20), (losses.top_k_precision, 5)):
        value = loss(jnp.asarray(scores, jnp.float32), jnp.asarray(labels), where=jnp.ones(labels.shape, bool), k=k)
        assert value.min() == 0 and value.max() < 1e-3
