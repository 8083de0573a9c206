import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import preferences, weightings
from mobjrec.types import Signals
from mobjrec.weightings import cosmos, preferred

ONES = np.ones(3, bool)


def weights(weighting, losses, preference=None, present=ONES):
    zero = np.int32(0)
    signals = Signals(np.float32(losses), present, None, preference, zero, zero, jax.random.key(0))
    return np.asarray(weighting.update(signals, weighting.init(len(losses)))[0])


def test_the_set_preference_counts_before_the_step_s_and_all_are_alike_where_there_is_none():
    step = np.float32([0.2, 0.3, 0.5])
    np.testing.assert_allclose(weights(preferred((1.0, 1.0, 2.0)), [1, 2, 3], step), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(weights(preferred(), [1, 2, 3], step), step, rtol=1e-6)
    np.testing.assert_allclose(weights(preferred(), [1, 2, 3]), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights(preferred(), [1, 2, np.nan], step, ONES), [0.4, 0.6, 0.0], rtol=1e-6)


def test_cosmos_weights_are_the_slope_of_its_sum():
    wish, losses = jnp.array([0.2, 0.3, 0.5]), jnp.array([1.0, -0.5, 3.0])

    def total(losses):
        return wish @ losses - 0.7 * (wish @ losses) / (jnp.linalg.norm(wish) * jnp.linalg.norm(losses))

    np.testing.assert_allclose(weights(cosmos(0.7), losses, wish), jax.grad(total)(losses), rtol=1e-5)
    np.testing.assert_allclose(weights(cosmos(0.7), 1e30 * losses, wish), wish, rtol=1e-5)
    np.testing.assert_array_equal(weights(cosmos(), [0, 0, 0], np.float32(wish)), np.float32(wish))


@pytest.mark.slow
def test_published_cosmos(shared):
    import json

    cases = json.loads((shared / "reference" / "scalarizers.json").read_text())["cases"]
    cases = [case for case in cases if case["method"] == "COSMOS"]
    assert cases
    with jax.enable_x64(True):
        for case in cases:
            given, losses = case["params"], np.array(case["inputs"]["losses"])
            signals = Signals(losses, losses > 0, None, None, np.int32(0), np.int32(0), jax.random.key(0))
            found = cosmos(given["lambda"], tuple(given["preference"])).update(signals, ())[0]
            np.testing.assert_allclose(found, case["outputs"]["weights"], rtol=1e-8)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: preferred((1.0, -1.0)), "preference is (1.0, -1.0); its entries must be finite, not negative, and not all 0"),
        (lambda: preferred((1.0, 1.0)).init(3), "preference has 2 entries for 3 objectives"),
        (lambda: cosmos(-1.0), "penalty is -1.0; it must be finite and not negative"),
        (lambda: preferences.dirichlet(0.0), "concentration is 0.0; it must be finite and above 0"),
    ],
)  # fmt: skip
def test_what_is_refused(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == said


def test_drawn_preferences_are_shares_as_wide_as_asked():
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = {c: np.asarray(jax.vmap(lambda key, c=c: preferences.dirichlet(c)(key, 3))(keys)) for c in (0.2, 1.0, 8.0)}
    for concentration, shares in drawn.items():
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(shares.mean(0), 1 / 3, atol=0.02)
        # The Dirichlet distribution's own: (1/3)(2/3) / (3 c + 1).
        np.testing.assert_allclose(shares.var(0), 2 / 9 / (3 * concentration + 1), rtol=0.1)


READING = {"preferred": True, "cosmos": True, "chebyshev": True, "smooth_chebyshev": True, "epo": True, "upgrad": True}
READING |= {"equal": False, "mgda": False, "famo": False, "rlw": False}


def test_a_weighting_is_known_to_read_the_preference_by_its_program():
    for name, wanted in READING.items():
        assert preferences.reads(getattr(weightings, name)(), 3) == wanted, name
    assert not preferences.reads(weightings.static((1.0, 2.0)), 2)
    assert not preferences.reads(weightings.chebyshev((1.0, 2.0)), 2)
    assert preferences.reads(weightings.normalised(preferred()), 2)
