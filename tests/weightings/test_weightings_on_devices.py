"""Every weighting on eight devices, each with an eighth of the batch, ends where it does on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from mobjrec import weightings
from mobjrec.types import Signals

INFINITY = float("inf")
BUILT = {
    "static": lambda: weightings.static((1.0, 2.0, 0.5)),
    "pe_ltr": lambda: weightings.pe_ltr((0.2, 0.1, 0.0)),
    "constrained": lambda: weightings.constrained((INFINITY, 0.5, 0.2)),
    "smoothed": lambda: weightings.smoothed(weightings.upgrad()),
    "every": lambda: weightings.every(weightings.nash_mtl(), steps=2),
    "normalised": lambda: weightings.normalised(weightings.cagrad()),
}


def descended(weighting, devices, inputs, targets):
    """Parameters after four steps of three regressions that share them; only sums over rows cross devices."""

    def steps(inputs, targets):
        def losses(theta):
            return jnp.sum(jnp.square(jnp.tanh(inputs @ theta)[:, None] - targets), axis=0) / 64

        def step(carry, number):
            theta, state = carry
            values, rows = jax.lax.psum((losses(theta), jax.jacrev(losses)(theta)), "data")
            key = jax.random.fold_in(jax.random.key(1), number)
            signals = Signals(values, jnp.ones(3, bool), rows @ rows.T, None, number, number, key)
            weights, state = weighting.update(signals, state)
            theta = theta - 0.1 * weights @ rows / jnp.sum(jnp.abs(weights))
            if weighting.observe is not None:
                state = weighting.observe(jax.lax.psum(losses(theta), "data"), state)
            return (theta, state), None

        start = (jnp.full(5, 0.1), weighting.init(3))
        return jax.lax.scan(step, start, jnp.arange(4))[0][0]

    mesh, split = Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data")
    mapped = jax.shard_map(steps, mesh=mesh, in_specs=(split, split), out_specs=PartitionSpec(), check_vma=False)
    return np.asarray(jax.jit(mapped)(inputs, targets))


@pytest.mark.slow
@pytest.mark.parametrize("name", weightings.__all__)
def test_eight_devices_are_one(name):
    random = np.random.default_rng(0)
    inputs, targets = (random.normal(size=(64, width)).astype(np.float32) for width in (5, 3))
    weighting = BUILT.get(name, getattr(weightings, name))()
    one, eight = (descended(weighting, devices, inputs, targets) for devices in (1, 8))
    assert np.abs(one - 0.1).max() > 1e-3
    np.testing.assert_allclose(eight, one, atol=1e-5)
