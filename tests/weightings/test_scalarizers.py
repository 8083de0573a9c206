"""Weightings of losses against published values in 64 bits, and what each does to them over steps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import weightings
from mobjrec.types import Signals

# A program for every method: proofs, run in CI by name.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "reference" / "scalarizers.json").read_text())["cases"]


def signals(losses, present=None, epoch=0, key=0, preference=None):
    """A step's signals, in the losses' own precision."""
    losses = np.asarray(losses)
    present = np.ones(len(losses), bool) if present is None else np.array(present)
    counter = np.int32(epoch)
    return Signals(losses, present, None, preference, counter, counter, jax.random.key(key))


def first(weighting, losses, **given):
    return weighting.update(signals(np.float64(losses), **given), weighting.init(len(losses)))[0]


def published(cases, method):
    found = [case for case in cases if case["method"] == method]
    assert found
    return found


STATELESS = {
    "GLS": lambda p: weightings.gls(),
    "Chebyshev": lambda p: weightings.chebyshev(tuple(p["preference"]), tuple(p["ideal"])),
    "AugmentedChebyshev": lambda p: weightings.chebyshev(tuple(p["preference"]), tuple(p["ideal"]), p["rho"]),
    "STCH": lambda p: weightings.smooth_chebyshev(tuple(p["preference"]), tuple(p["ideal"]), p["mu"]),
}


@pytest.mark.parametrize("method", STATELESS)
def test_published_weights(cases, method):
    with jax.enable_x64(True):
        for case in published(cases, method):
            weights = first(STATELESS[method](case["params"]), case["inputs"]["losses"])
            np.testing.assert_allclose(weights, case["outputs"]["weights"], rtol=case["tol"], atol=1e-300)


def test_published_imtl_l_and_its_slope(cases):
    rate = 0.1
    for case in published(cases, "IMTL_L"):
        s, out = np.array(case["params"]["s"]), case["outputs"]
        weighting = weightings.imtl_l(learning_rate=rate)
        state = weighting.init(len(s))._replace(log_variance=np.float32(-s))
        weights, after = weighting.update(signals(np.float32(case["inputs"]["losses"])), state)
        np.testing.assert_allclose(weights, out["weights"], rtol=1e-6)
        # Adam's first step is the rate against the slope's sign; the s that s_star names stays where it is.
        np.testing.assert_allclose(-after.log_variance - s, -rate * np.sign(out["dloss_ds"]), atol=1e-5)
        state = state._replace(log_variance=-np.float32(out["s_star"]))
        weights, _ = weighting.update(signals(np.float32(case["inputs"]["losses"])), state)
        np.testing.assert_allclose(weights * np.array(case["inputs"]["losses"]), 1.0, rtol=1e-5)


def test_published_epochs_of_dwa(cases):
    with jax.enable_x64(True):
        for case in published(cases, "DWA"):
            weighting = weightings.dwa(case["params"]["T"])
            means = np.array(case["inputs"]["epoch_average_losses"])
            state = weighting.init(means.shape[1])
            for epoch, (mean, wanted) in enumerate(zip(means, case["outputs"]["weights"], strict=True)):
                # Two steps an epoch: what counts is their mean, and the weights stay within the epoch.
                for losses in (1.5 * mean, 0.5 * mean):
                    weights, state = weighting.update(signals(losses, epoch=epoch), state)
                    np.testing.assert_allclose(weights, wanted, rtol=case["tol"])


def test_dwa_does_not_count_an_epoch_without_the_objective():
    weighting = weightings.dwa()
    state = weighting.init(2)
    for epoch, (loss, there) in enumerate([(4.0, True), (np.nan, False), (2.0, True), (9.0, True)]):
        weights, state = weighting.update(signals(np.float32([1.0, loss]), [True, there], epoch), state)
        assert weights[1] == (0 if not there else weights[1])
    # Ratios 1 / 1 and 2 / 4.
    np.testing.assert_allclose(weights, 2 * np.exp([0.5, 0.25]) / np.exp([0.5, 0.25]).sum(), rtol=1e-6)


def test_published_steps_of_famo(cases):
    with jax.enable_x64(True):
        for case in published(cases, "FAMO"):
            p, losses = case["params"], case["inputs"]["losses_before_after"]
            weighting = weightings.famo(p["lr"], p["weight_decay"], optimizer=p["optimizer"])
            state = weighting.init(len(losses[0]))
            for before, after, step in zip(losses[:-1], losses[1:], case["outputs"]["steps"], strict=True):
                weights, state = weighting.update(signals(np.float64(before)), state)
                np.testing.assert_allclose(weights, step["weights"], rtol=1e-9)
                state = weighting.observe(np.float64(after), state)
                np.testing.assert_allclose(state.logits, step["logits_after"], rtol=1e-6, atol=1e-10)


def test_famo_leaves_out_who_is_absent():
    weighting = weightings.famo()
    _, state = weighting.update(signals(np.float32([1.0, 2.0])), weighting.init(2))
    before = weighting.observe(np.float32([0.5, 1.9]), state)
    weights, after = weighting.update(signals(np.float32([1.0, np.nan]), [True, False]), before)
    after = weighting.observe(np.float32([0.5, 0.0]), after)
    assert weights.tolist() == [1.0, 0.0] and after.logits[1] == before.logits[1]
    for old, new in zip(jax.tree.leaves(before.moments), jax.tree.leaves(after.moments), strict=True):
        assert old[1] == new[1]


def drawn(weighting, count, draws):
    given = signals(np.ones(count, np.float32))
    keys = jax.random.split(jax.random.key(3), draws)
    return np.asarray(jax.vmap(lambda key: weighting.update(given._replace(key=key), ())[0])(keys), np.float64)


@pytest.mark.parametrize("distribution, method", [("normal", "RLW"), ("dirichlet", "RLW_dirichlet")])
def test_moments_of_random_weights_are_the_published_ones(cases, distribution, method):
    draws = 100_000
    weighting = weightings.rlw(distribution)
    for fact in published(cases, method)[0]["facts"]:
        weights = drawn(weighting, fact["K"], draws)
        np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
        assert (np.abs(weights.mean(0) - fact["mean"]) < 5 * np.sqrt(fact["var"] / draws)).all()
        np.testing.assert_allclose(np.cov(weights.T)[0, 1], fact["cov"], rtol=0.03)
        np.testing.assert_allclose(weights.var(0), fact["var"], rtol=0.03)


def test_smooth_chebyshev_lies_at_chebyshev_for_little_smoothing_and_reads_the_steps_preference():
    losses, wish = [1.0, 1.2, 0.3], np.array([1.0, 0.5, 2.0])
    sharp = first(weightings.smooth_chebyshev(smoothing=1e-3), losses, preference=wish)
    np.testing.assert_allclose(sharp, first(weightings.chebyshev(), losses, preference=wish), atol=1e-6)
    np.testing.assert_allclose(sharp, [1 / 3.5, 0, 0], atol=1e-6)
    even = first(weightings.smooth_chebyshev(smoothing=1e6), losses, preference=wish)
    np.testing.assert_allclose(even, wish / 3.5 / 3, rtol=1e-4)


def test_gls_is_finite_at_0_and_leaves_out_who_is_absent():
    weights = first(weightings.gls(), [0.0, 2.0, 8.0])
    assert np.isfinite(weights).all() and weights[0] > 1e3 * weights[1]
    np.testing.assert_allclose(first(weightings.gls(), [2.0, np.nan, 8.0], present=[True, False, True]), [1.0, 0, 0.25])
    np.testing.assert_allclose(first(weightings.gls(), [3.0]), [1.0])


def lagrangian(bound, slack=0.0, steps=3000):
    """Where x ends that minimises (x - 3)^2 with x^2 bounded, in plain descent under `constrained`."""
    weighting = weightings.constrained((bound, np.inf), slack, learning_rate=0.02, smoothing=0.5)

    def step(carry, _):
        x, state = carry
        weights, state = weighting.update(signals(jnp.stack([x**2, (x - 3) ** 2]), np.ones(2, bool)), state)
        return (x - 0.02 * (weights[0] * 2 * x + weights[1] * 2 * (x - 3)), state), None

    def signals(losses, present):
        return Signals(losses, present, None, None, jnp.int32(0), jnp.int32(0), None)

    return jax.lax.scan(step, (jnp.float32(0.1), weighting.init(2)), length=steps)[0]


def test_a_bound_holds_and_its_multiplier_is_the_slope_of_the_free_loss():
    x, state = lagrangian(1.0)
    np.testing.assert_allclose(x, 1.0, atol=1e-3)
    # d (x - 3)^2 = -m d x^2 at x = 1.
    np.testing.assert_allclose(state.multiplier, [2.0, 0.0], atol=1e-2)
    x, _ = lagrangian(1.0, slack=0.21)
    np.testing.assert_allclose(x, 1.1, atol=1e-3)


def test_a_bound_that_holds_by_itself_costs_nothing():
    x, state = lagrangian(16.0)
    np.testing.assert_allclose(x, 3.0, atol=1e-3)
    np.testing.assert_array_equal(state.multiplier, [0.0, 0.0])


@pytest.mark.parametrize("make, message", [
    (lambda: weightings.rlw("uniform"), "distribution is 'uniform'; it must be one of normal, dirichlet"),
    (lambda: weightings.dwa(0.0), "temperature is 0.0; it must be finite and above 0"),
    (lambda: weightings.chebyshev((1.0, -1.0)), r"preference is \(1.0, -1.0\); .* not negative, and not all 0"),
    (lambda: weightings.smooth_chebyshev((0.0, 0.0)), "not all 0"),
    (lambda: weightings.chebyshev(ideal=(np.nan, 0.0)), "ideal is .*; its entries must be finite"),
    (lambda: weightings.chebyshev((1.0, 1.0)).init(3), "preference has 2 entries for 3 objectives"),
    (lambda: weightings.smooth_chebyshev(ideal=(1.0,)).init(3), "ideal has 1 entries for 3 objectives"),
    (lambda: weightings.smooth_chebyshev(smoothing=0.0), "smoothing is 0.0"),
    (lambda: weightings.imtl_l(start=30.0), "start is 30.0"),
    (lambda: weightings.famo(decay=-1.0), "decay is -1.0; it must be finite and not negative"),
    (lambda: weightings.famo(optimizer="lion"), "optimizer is 'lion'; it must be one of adam, sgd"),
    (lambda: weightings.constrained((1.0, -2.0)), "bounds is .*losses above 0, infinity where there is none"),
    (lambda: weightings.constrained((1.0, 2.0)), "every one is bounded"),
    (lambda: weightings.constrained((np.inf, np.inf)), "none is bounded"),
    (lambda: weightings.constrained((1.0, np.inf), smoothing=1.0), "smoothing is 1.0; it must be from 0 to below 1"),
    (lambda: weightings.constrained((1.0, np.inf)).init(3), "bounds has 2 entries for 3 objectives"),
])  # fmt: skip
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
