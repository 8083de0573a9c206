"""Values and gradients of the reference (shared/reference/losses.json): in float64, and in float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# Losses of several scores an item.
WIDE = {"coral": 4, "corn": 4, "ziln": 3}


@pytest.fixture(scope="session")
def width():
    """A loss's name -> how many scores it takes of an item."""
    return lambda name: WIDE.get(name, 1)


@pytest.fixture(scope="session")
def spread(width):
    """(a loss's name, scores [..., L]) -> the same, [..., L, W] where the loss takes several of an item."""

    def of(name, scores):
        return scores if width(name) == 1 else jnp.stack([scores + 0.3 * n for n in range(width(name))], -1)

    return of


@pytest.fixture(scope="session")
def reference(shared):
    """{id: entry} of the reference's losses."""
    entries = json.loads((shared / "reference" / "losses.json").read_text())["entries"]
    return {entry["id"]: entry for entry in entries}


@pytest.fixture(scope="session")
def agrees(reference):
    """(id, (inputs, params) -> the value, reduced as the entry's `reduction` says, of="scores") -> None, or it fails.

    of: the inputs whose gradients are compared, those that the entry has by default
    """

    def both(case, reduced, entry):
        wanted = {name: grad for name, grad in entry["grad"].items() if name in entry["inputs"]}
        inputs = {name: jnp.asarray(value) for name, value in entry["inputs"].items() if value is not None}

        @jax.jit
        @jax.value_and_grad
        def value_and_gradient(moved, rest):
            return reduced({**rest, **moved}, entry["params"])

        value, grads = value_and_gradient({name: inputs[name] for name in wanted}, inputs)
        return value, {name: (grads[name], np.array(wanted[name])) for name in wanted}

    def check(case, reduced):
        entry = reference[case]
        with jax.enable_x64(True):
            value, grads = both(case, reduced, entry)
            np.testing.assert_allclose(value, entry["value"], rtol=entry["tolerance"]["value_rel"])
            assert grads
            for name, (grad, wanted) in grads.items():
                np.testing.assert_allclose(grad, wanted, rtol=0, atol=entry["tolerance"]["grad_abs"], err_msg=name)
        value, grads = both(case, reduced, entry)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, entry["value"], rtol=1e-4)
        for name, (grad, wanted) in grads.items():
            np.testing.assert_allclose(grad, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)

    return check
