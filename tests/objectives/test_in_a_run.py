"""Objectives in a run of their own: named in a config, trained for some steps, sealed, loaded and ranked by."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import mobjrec
from mobjrec import train
from mobjrec.config import load, parse, plain
from mobjrec.errors import UserError
from mobjrec.objectives import propensities_of
from mobjrec.parts import assemble
from mobjrec.types import LabelSpec, SideSpec, Spec

TINY = Path(__file__).parents[1] / "tiny.yaml"
PLAIN = ["model.encoder=null", "tokenizer=null", "model.user={ids: [user]}", "model.item={ids: [item]}", "steps=6"]
LABELS = {
    "satisfied": {"use": "at_least", "of": "satisfaction", "value": 3, "known": {"after": "click"}},
    "time": {"use": "index", "of": {"click": 2.5}},
    "grade": {"use": "index", "of": {"click": 2}},
    "share": {"use": "quantile", "of": "satisfaction", "within": "satisfaction", "groups": 2},
}
CLICK = {"use": "single", "loss": "sigmoid_cross_entropy", "label": "click", "link": "sigmoid"}
OF_LIST = {"loss": "softmax", "label": "click"}
SEEDED = (jax.random.key(0), Spec(0, SideSpec(), SideSpec(), SideSpec(), {"grade": LabelSpec()}, 1, 1, positions=8))
GROUPS = {
    "grades and times": {
        "coral": {"use": "coral", "label": "grade", "classes": 3},
        "corn": {"use": "corn", "label": "grade", "classes": 3, "head": "conditional"},
        "watch_time": {"use": "watch_time", "label": "time"},
        "tweedie": {"use": "tweedie", "label": "time", "head": "amount"},
        "ziln": {"use": "ziln", "label": "time", "head": "three"},
        "d2q": {"use": "d2q", "label": "share"},
        "index": {"use": "index", "signals": ["click"], "explicit": "satisfaction"},
        "quantile": {
            "use": "single",
            "loss": {"use": "quantile", "tau": 0.9},
            "label": "satisfaction",
            "head": "upper",
        },
    },
    "after a click": {
        "click": CLICK,
        "satisfied_click": {"use": "satisfied_click"},
        "escm2_ips": {"use": "escm2_ips"},
        "dcmt": {"use": "dcmt"},
    },
    "slots and beyond": {
        "click": CLICK,
        "inverse": {"use": "inverse_propensity", **OF_LIST, "head": "a", "propensities": [1.0, *[0.5] * 7]},
        "tower": {"use": "position_tower", **OF_LIST, "head": "b"},
        "em": {"use": "regression_em", "head": "c"},
        "diversity": {"use": "diversity", "head": "click", "k": 3},
        "exposure": {"use": "exposure", "group": "satisfied", "head": "click"},
    },
}


def config_of(objectives, *changes):
    whole = plain(load(TINY, [*PLAIN, *changes])) | {"objectives": objectives, "labels": LABELS}
    whole["weighting"] = {"use": "equal"}
    whole["evaluate"] = {"metrics": ["ndcg@5"]}
    return parse(whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_cache):
    """(objectives, changes) -> the run loaded, and its losses [steps, K]."""

    def trained(objectives, *changes):
        folder = tmp_path_factory.mktemp("runs") / "run"
        train.run(config_of(objectives, *changes), folder, tiny_cache, quiet=True)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [[row[f"loss/{name}"] for name in objectives] for row in rows if row["kind"] == "train"]
        return mobjrec.load(folder, tiny_cache), np.array(losses)

    return trained


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_run_learns_seals_and_ranks_by_each(group, run):
    objectives = GROUPS[group]
    model, losses = run(objectives)
    assert np.isfinite(losses).all() and losses.shape == (6, len(objectives)) and (losses != 0).any(0).all()
    ranked = model.rank(user="u3", top=12)
    for name in objectives:
        numbers = np.array([row[name] for row in ranked])
        assert np.isfinite(numbers).all() and np.ptp(numbers) > 0
        start, _ = model.parts.objectives[name].init(*SEEDED) if name in ("coral", "tower") else ((), ())
        own = model.params["objectives"][name]
        assert all((a != b).any() for a, b in zip(jax.tree.leaves(own), jax.tree.leaves(start), strict=True))


@pytest.mark.slow
def test_two_devices_estimate_the_same_propensities_as_one(run):
    objectives = {"em": {"use": "regression_em"}, "index": GROUPS["grades and times"]["index"]}
    (one, losses), (two, other) = (run(objectives, f"parallel.devices={count}") for count in (1, 2))
    np.testing.assert_allclose(losses, other, rtol=1e-4)
    for left, right in zip(jax.tree.leaves(one.memory), jax.tree.leaves(two.memory), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)
    found = propensities_of(one.memory["em"])
    assert found.shape == (8,) and found[0] == 1 and ((found > 0) & (found <= 1)).all()
    # 6 steps of 16 lists, the later weighing more.
    np.testing.assert_allclose(one.memory["em"]["shown"], 1 + 16 * np.arange(1, 7).sum(), rtol=1e-5)


def test_a_table_without_slots_is_told_before_training(tiny_cache):
    config = config_of({"em": {"use": "regression_em"}})
    parts = assemble(config, tiny_cache)
    blank = parts._replace(spec=parts.spec._replace(positions=0))
    with pytest.raises(UserError, match="in which slot"):
        jax.eval_shape(blank.first_state)
