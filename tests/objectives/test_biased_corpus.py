"""Debiased objectives beside plain ones, on clicks from lists that a house always orders the same way."""

import json

import numpy as np
import pytest

import mobjrec
from mobjrec import train
from mobjrec.config import parse
from mobjrec.data.readers import synthetic
from mobjrec.objectives import propensities_of
from mobjrec.types import Corpus

SLOTS, BIAS, SEED = 8, 1.0, 0
PROPENSITIES = [float(rank**-BIAS) for rank in range(1, SLOTS + 1)]
POINTWISE = {"use": "single", "loss": "sigmoid_cross_entropy", "label": "click", "link": "sigmoid"}
LISTWISE = {"use": "single", "loss": "softmax", "label": "click", "needs_relevant": True}
OBJECTIVES = {
    "pointwise": POINTWISE,
    "listwise": LISTWISE,
    "inverse_propensity": {**LISTWISE, "use": "inverse_propensity", "propensities": PROPENSITIES, "clip": 20.0},
    "position_tower": {**POINTWISE, "use": "position_tower"},
    "position_tower of a list": {**LISTWISE, "use": "position_tower"},
    "regression_em": {"use": "regression_em"},
}

DEBIASED = {
    "inverse_propensity": "listwise",
    "position_tower": "pointwise",
    "position_tower of a list": "listwise",
    "regression_em": "pointwise",
}


def ordered_by_the_house() -> Corpus:
    """A synthetic corpus in which some items always stand on top, whoever looks, and a slot is looked at 1 / rank often.

    Which ones has nothing to do with who likes them. The newest fifth of the lists, the test split, is looked at as a
    whole: its clicks are what everybody would click.
    """
    corpus = synthetic(users=100, items=48, topics=4, lists_per_user=100, list_size=SLOTS, seed=SEED)
    events, random = corpus.events, np.random.default_rng(SEED)
    lists = len(events.item) // SLOTS
    favour = random.normal(size=48)[events.item.reshape(lists, SLOTS)]
    position = np.argsort(np.argsort(-(favour + 0.3 * random.normal(size=favour.shape)), 1), 1)
    seen = random.random(position.shape) < np.array(PROPENSITIES)[position]
    seen[int(0.8 * lists) :] = True
    click = events.feedback["click"] * seen.reshape(-1)
    feedback = {"click": click.astype(np.float32)}
    return corpus._replace(events=events._replace(position=position.reshape(-1).astype(np.int32), feedback=feedback))


CONFIG = {
    "seed": SEED,
    "steps": 500,
    "data": {"use": "test_biased_corpus:ordered_by_the_house"},
    "lists": {"split": {"use": "by_time", "valid": 0.05, "test": 0.2}, "history": {"of": "click"}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 128},
    "model": {"use": "ranker", "user": {"ids": ["user"]}, "item": {"ids": ["item"]}, "width": 6, "scorer": "dot"},
    "weighting": {"use": "equal"},
    "optimizer": {"use": "adamw", "learning_rate": 1e-2, "weight_decay": 0.0},
    "evaluate": {"metrics": ["ndcg@5", "auc"]},
    "parallel": {"devices": 1},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_cache):
    """{objective: (its NDCG@5 on what everybody would click, the standard error, the run)}."""
    runs = {}
    for name, objective in OBJECTIVES.items():
        folder = tmp_path_factory.mktemp("runs") / "run"
        train.run(parse({**CONFIG, "objectives": {"click": objective}}), folder, tiny_cache, quiet=True)
        row = json.loads((folder / "result.json").read_text())["table"]["click/ndcg@5"]
        runs[name] = row["after"], row["error"], mobjrec.load(folder, tiny_cache)
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("name", DEBIASED)
def test_what_is_freed_of_slots_ranks_better_than_what_is_not(found, name):
    value, error, _ = found[name]
    plain, other, _ = found[DEBIASED[name]]
    assert value - plain > 3 * np.hypot(error, other)


@pytest.mark.slow
def test_the_propensities_are_those_of_the_corpus(found):
    em = np.array(propensities_of(found["regression_em"][2].memory["click"]))
    np.testing.assert_allclose(em, PROPENSITIES, atol=0.1)
    # The softmax knows exposure by its ratio alone: the biases are logarithms of the propensities.
    bias = found["position_tower of a list"][2].params["objectives"]["click"]["bias"]
    np.testing.assert_allclose(np.exp(bias - bias[0]), PROPENSITIES, atol=0.1)
