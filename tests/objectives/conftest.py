"""Batches and outputs by hand."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.testing.objectives import _batch
from mobjrec.types import Clock, Outputs


@pytest.fixture(scope="session")
def now():
    return lambda step=0: Clock(jnp.int32(step), jnp.int32(0))


@pytest.fixture(scope="session")
def batch_of():
    """({label: [B, L]}, {label: observed}, where, weights, position) -> Batch; all is real and observed by default."""

    def make(labels, observed=None, where=None, weights=None, position=None):
        labels = {name: np.array(label, np.float32) for name, label in labels.items()}
        shape = next(iter(labels.values())).shape
        where = np.ones(shape, bool) if where is None else np.array(where, bool)
        observed = {name: np.array((observed or {}).get(name, where), bool) for name in labels}
        weights = np.ones(shape, np.float32) if weights is None else np.array(weights, np.float32)
        position = None if position is None else np.array(position, np.int32)
        blank = _batch(objectives.single(losses.squared, "click"))
        return blank._replace(labels=labels, observed=observed, where=where, weights=weights, position=position)

    return make


@pytest.fixture(scope="session")
def scored():
    """Scores by head -> Outputs; items: [B, L, D]."""

    def make(items=None, **scores):
        return Outputs({name: jnp.asarray(score, jnp.float32) for name, score in scores.items()}, None, items)

    return make


@pytest.fixture(scope="session")
def reference_of(shared):
    """An entry of the losses' reference by its id."""
    entries = json.loads((shared / "reference" / "losses.json").read_text())["entries"]
    return {entry["id"]: entry for entry in entries}.__getitem__
