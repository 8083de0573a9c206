"""Contrastive losses beside the reference and slow forms; the adversaries' gradients; what lists of thousands cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def lists_mean(loss, names, **fixed):
    """The mean over lists with a relevant item, the entry's params under our names."""

    def reduced(inputs, params):
        labels = inputs["labels"] >= 1
        rest = {name: inputs[name] for name in ("g", "beta") if name in inputs}
        settings = {ours: params[theirs] for ours, theirs in names.items()}
        values = loss(inputs["scores"], labels, where=inputs["where"], **rest, **settings, **fixed)
        return values.mean(where=(labels & inputs["where"]).any(-1))

    return reduced


def per_positive_bsl(inputs, params):
    # t1 only rescales: what public code calls BSL is SL of temperature t2.
    return lists_mean(losses.sl, {"temperature": "t2"})(inputs, params) * params["t2"] / params["t1"]


SL_AT_K = lists_mean(losses.sl_at_k, {"k": "k", "temperature": "t_d", "temperature_weight": "t_w"})
PSL = lists_mean(losses.psl, {"temperature": "t", "activation": "act"})
AUXILIARY = ("a", "b", "g", "s_p", "s_n")
LLPAUC = {name: name for name in (*AUXILIARY, "alpha", "beta", "kappa")}
CASES = {
    "sl_neg": lists_mean(losses.sl, {"temperature": "t"}),
    "sl_all": lists_mean(losses.sl, {"temperature": "t"}, over="all"),
    "sl_at_k": SL_AT_K,
    "sl_at_k_sharp": SL_AT_K,
    "psl_tanh": PSL,
    "psl_relu": PSL,
    "psl_atan": PSL,
    "bsl_pairwise_form": per_positive_bsl,
    "bsl_set_form": lists_mean(losses.bsl, {"temperature_positive": "t1", "temperature_negative": "t2"}),
    "advinfonce": lists_mean(losses.adv_infonce, {"temperature": "t", "negatives": "K"}),
    "llpauc_paper": lists_mean(losses.llpauc, LLPAUC | {"regularisation": "w"}),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


def test_without_a_beta_the_kth_largest_score_is_taken(agrees):
    agrees("sl_at_k", lambda inputs, params: SL_AT_K({**inputs, "beta": None}, params))


def test_the_gradients_to_the_auxiliaries_of_llpauc_are_those_of_the_reference(reference):
    entry = reference["llpauc_paper"]
    inputs = {name: jnp.asarray(value) for name, value in entry["inputs"].items()}
    with jax.enable_x64(True):
        inputs["scores"] = jnp.asarray(entry["inputs"]["scores"], jnp.float64)
        given = {name: jnp.float64(entry["params"][name]) for name in AUXILIARY}
        grads = jax.jit(jax.grad(lambda moved: CASES["llpauc_paper"](inputs, entry["params"] | moved)))(given)
    for name in AUXILIARY:
        np.testing.assert_allclose(grads[name], entry["grad"][name], atol=entry["tolerance"]["grad_abs"], err_msg=name)


RANDOM = np.random.default_rng(0)
SCORES = RANDOM.uniform(-1, 1, (12, 7))
LABELS = RANDOM.random((12, 7)) < 0.4
WHERE = RANDOM.random((12, 7)) < 0.7
WEIGHTS = RANDOM.uniform(0.5, 2.0, (12, 7))
LOG_Q = np.log(RANDOM.uniform(0.01, 0.9, (12, 7)))
G = RANDOM.normal(size=(12, 7))


def sampled(s, y, w, log_q, g):
    z = s / 0.5 - log_q
    return np.mean(
        [
            weight * np.log(1 + sum(np.exp(other - own) for other in z[~y]))
            for weight, own in zip(w[y], z[y], strict=True)
        ]
    )


def adversarial(s, y, w, log_q, g):
    delta = np.exp(g[~y]) / np.exp(g[~y]).sum() * (~y).sum()
    low = [np.log1p(3 * sum(delta * np.exp((s[~y] - own) / 0.5))) for own in s[y]]
    return np.mean(w[y] * low)


def bilateral(s, y, w, log_q, g):
    attained = np.log((w[y] * np.exp(s[y] / 0.4)).sum() / w[y].sum())
    return w[y].mean() * (0.5 * np.log(np.exp(s[~y] / 0.5).mean()) - 0.4 * attained)


def pairs(s, y, w, log_q, g):
    return np.mean(w[y] * [np.log(sum((1 + np.tanh((s - own) / 2)) ** 2)) for own in s[y]])


SLOW = {
    "sampled_softmax": (sampled, {"temperature": 0.5, "log_q": LOG_Q}),
    "adv_infonce": (adversarial, {"temperature": 0.5, "negatives": 3.0, "g": G}),
    "bsl": (bilateral, {"temperature_positive": 0.4, "temperature_negative": 0.5}),
    "psl": (pairs, {"temperature": 0.5, "over": "all"}),
}


@pytest.mark.parametrize("name", SLOW)
def test_gappy_and_weighted_lists_are_the_formula(name):
    slow, settings = SLOW[name]
    settings = {key: np.where(WHERE, value, np.nan) if np.ndim(value) else value for key, value in settings.items()}
    found = jax.jit(lambda s: getattr(losses, name)(s, LABELS, where=WHERE, weights=WEIGHTS, **settings))(SCORES)
    wanted = []
    for s, y, w, q, g, there in zip(SCORES, LABELS, WEIGHTS, LOG_Q, G, WHERE, strict=True):
        y, spoken = y[there], y[there].any() and (settings.get("over") == "all" or not y[there].all())
        wanted.append(slow(s[there], y, w[there], q[there], g[there]) if spoken else 0.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(wanted) > 6


def test_a_correction_alike_for_all_candidates_changes_nothing():
    loss = functools.partial(losses.sampled_softmax, labels=LABELS, where=WHERE)
    np.testing.assert_allclose(loss(SCORES, log_q=np.full_like(G, -3.0)), loss(SCORES), rtol=1e-5)


def test_a_drawn_candidate_stands_for_those_that_were_not():
    # Of 8 negatives alike 2 are drawn, each expected 2/8 times: the loss is that over all 8.
    scores, labels = np.float32([1.0] + [0.5] * 8), np.arange(9) == 0
    few = np.arange(9) < 3
    whole = losses.sampled_softmax(scores, labels, where=np.ones(9, bool))
    log_q = np.where(labels, 0.0, np.log(2 / 8))
    np.testing.assert_allclose(losses.sampled_softmax(scores, labels, where=few, log_q=log_q), whole, rtol=1e-6)


@pytest.mark.slow
def test_uniform_hardness_is_none_and_the_adversarys_ascent_lifts_hard_negatives():
    loss = functools.partial(losses.adv_infonce, labels=LABELS, where=WHERE)
    np.testing.assert_allclose(loss(SCORES, g=np.full_like(G, 5.0)), loss(SCORES), rtol=1e-5)
    scores, labels, where = np.float32([0.0, 1.0, -1.0]), np.array([1, 0, 0]), np.ones(3, bool)
    climb = jax.grad(lambda g: losses.adv_infonce(scores, labels, where=where, g=g))(jnp.zeros(3))
    assert climb[1] > 0 > climb[2] and climb[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu", "atan"])
def test_scores_far_beyond_cosines_leave_psl_finite(activation):
    scores, labels, where = np.float32([30, -30, 2, 0]), np.array([1, 0, 0, 1]), np.ones(4, bool)
    loss = functools.partial(losses.psl, labels=labels, where=where, activation=activation)
    value, grad = jax.value_and_grad(lambda s: loss(s))(jnp.asarray(scores))
    assert np.isfinite(value) and np.isfinite(grad).all() and np.abs(grad).max() > 0


@pytest.mark.slow
def test_long_lists_are_taken_block_by_block_to_the_same():
    random = np.random.default_rng(1)
    scores, labels = random.uniform(-1, 1, 1300).astype(np.float32), np.arange(1300) % 100 == 7
    where = random.random(1300) < 0.9
    value, grad = jax.jit(jax.value_and_grad(lambda s: losses.psl(s, labels, where=where)))(scores)
    own, others = scores[labels & where].astype(float), scores[~labels & where].astype(float)
    logits = np.log1p(np.tanh((others - own[:, None]) / 2)) / 0.1
    np.testing.assert_allclose(value, np.logaddexp.reduce(logits, -1).mean(), rtol=1e-5)
    # d/ds of log(1 + tanh(d / 2)) is sigmoid(-d) for the negative.
    share = np.exp(logits - np.logaddexp.reduce(logits, -1)[:, None])
    pull = share / (1 + np.exp(others - own[:, None])) / 0.1 / len(own)
    np.testing.assert_allclose(grad[~labels & where], pull.sum(0), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(grad[labels & where], -pull.sum(1), rtol=1e-3)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("sampled_softmax", {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ("sampled_softmax", {"log_q": jnp.zeros(2)}, r"log_q has shape \(2,\); expected \(3,\)"),
        ("sl", {"over": "positives"}, "over is 'positives'; it may be negatives or all"),
        ("sl_at_k", {"k": 0}, "k is 0; it must be at least 1"),
        ("sl_at_k", {"beta": jnp.zeros(3)}, r"beta has shape \(3,\); expected \(\)"),
        ("psl", {"activation": "exp"}, "activation is 'exp'; it may be tanh, relu or atan"),
        ("bsl", {"temperature_negative": -1.0}, "temperature_negative is -1.0; it must be above 0"),
        ("adv_infonce", {"negatives": 0}, "negatives is 0; it must be above 0"),
        ("adv_infonce", {"g": jnp.zeros(4)}, r"g has shape \(4,\); expected \(3,\)"),
        ("llpauc", {"kappa": 0.0}, "kappa is 0.0; it must be above 0"),
        ("llpauc", {"alpha": 1.5}, "alpha is 1.5; it must be above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(jnp.zeros(3), jnp.zeros(3), where=jnp.ones(3, bool), **settings)
