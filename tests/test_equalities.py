"""One global batch on one device and on eight, dropout on: every scorer, shared candidates, weights drawn from the key."""

import importlib.util
from pathlib import Path

import pytest
from test_step import Bag

from mobjrec.types import Encoder

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[1] / "benchmarks" / "equalities.py"
SPEC = importlib.util.spec_from_file_location("equalities", FILE)
equalities = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(equalities)
WITHIN = {"losses": 1e-6, "gram": 1e-6, "weights": 1e-5, "gradients": 1e-5, "parameters": 1e-5, "adam": 1e-5}


def bag(dropout: float = 0.2) -> Encoder:
    return lambda vocabulary, positions, rngs: Bag(vocabulary, positions, dropout, rngs)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", equalities.CASES)
def test_eight_devices_are_one(name, cache):
    found = equalities.assembled(name, cache, "model.encoder={use: 'test_equalities:bag'}")
    one, eight = (equalities.ran(found, equalities.Layout(devices)) for devices in (1, 8))
    apart = equalities.apart(one, eight)
    assert {kind: value for kind, value in apart.items() if value > WITHIN[kind]} == {}
    # Weights that are drawn differ from step to step; a key of a device's own would make them differ between the two.
    assert len({row.tobytes() for row in one["sgd"]["weights"]}) == (1 if "static" in name else 10)
    assert (one["sgd"]["losses"][-1] != one["sgd"]["losses"][0]).all()


def test_other_keys_and_another_order_are_seen(cache):
    found = equalities.assembled("dot, static", cache, "model.encoder={use: 'test_equalities:bag'}")
    other = found._replace(config=found.config.model_copy(update={"seed": 1}))
    apart = equalities.apart(*(equalities.ran(parts, equalities.Layout(1), 1) for parts in (found, other)))
    assert apart["losses"] > 1e-3 and apart["gradients"] > 1e-2
