"""A preference drawn for each step, from the config to the request: what is refused, that it goes on, what it moves."""

import json
import re

import jax
import numpy as np
import pytest

import mobjrec
from mobjrec import evaluate, fronts, train
from mobjrec.config import dump, parse, parse_text
from mobjrec.defaults import parse as settled
from mobjrec.errors import Stopped, UserError
from mobjrec.inference import wished

CONDITIONED = {"use": "conditioned", "of": {"use": "dot"}, "hidden": 8, "rank": 2}
DRAWN = {"use": "dirichlet", "concentration": 1.0}
PREFERRED = {"use": "preferred"}
WISHES = np.stack([np.linspace(1, 0, 5), np.linspace(0, 1, 5)], 1)


def told(**changes):
    return {
        "steps": 8,
        "data": {"use": "synthetic", "users": 60, "items": 48, "topics": 4, "lists_per_user": 6, "list_size": 8,
                 "conflict": 1.0},
        "lists": {"split": {"use": "by_time", "valid": 0.2, "test": 0.2}, "history": {"of": "click", "last": 5}},
        "candidates": {"use": "as_logged"},
        "batch": {"lists": 16},
        "model": {"use": "ranker", "user": {"ids": ["user"]}, "item": {"ids": ["item"]}, "width": 16,
                  "id_dropout": 0.0, "scorer": CONDITIONED},
        "objectives": {
            "click": {"use": "single", "loss": "softmax", "label": "click", "needs_relevant": True},
            "satisfaction": {"use": "single", "loss": "huber", "label": "satisfaction", "standardise": True},
        },
        "weighting": PREFERRED,
        "preference": DRAWN,
        "optimizer": {"use": "adamw", "learning_rate": 1e-2},
        "save": {"every": {"steps": 3}},
        "parallel": {"devices": 1},
    } | changes  # fmt: skip


def plain_scorer():
    return told()["model"] | {"scorer": {"use": "dot"}}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"preference": None},
         "preference: the scorer reads a preference and none is drawn; give {use: dirichlet}, or take another scorer"),
        ({"weighting": {"use": "mgda"}},
         "preference: mgda reads no preference of a step, so the scorer learns nothing from it; take weighting: "
         "{use: preferred}"),
        ({"model": plain_scorer(), "weighting": {"use": "static", "weights": {"click": 1, "satisfaction": 1}}},
         "preference: static reads no preference of a step, and nor does the scorer; take weighting: {use: preferred}"),
        ({"preference": {"use": "dirichlet", "concentration": 0.0}},
         "preference.concentration: concentration is 0.0; it must be finite and above 0"),
        ({"preference": {"use": "dirichle"}}, "did you mean `dirichlet`"),
        ({"weighting": {"use": "preferred", "preference": {"click": 1}}},
         "no number for satisfaction; expected one for each objective (click, satisfaction)"),
        ({"objectives": {"click": told()["objectives"]["click"]}},
         "there is one objective, so no preference among several"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(changes, said):
    with pytest.raises(UserError) as error:
        settled(told(**changes))
    assert said in str(error.value)
    assert not re.search(r"preference.*\n.*preference:", str(error.value))


def test_what_reads_the_preference_is_enough():
    settled(told())
    # Random weights of a plain model, and a preference of its own: neither is a mistake.
    settled(told(model=plain_scorer()))
    config = settled(told(model=plain_scorer(), preference=None, weighting={"use": "preferred", "preference": {
        "click": 1, "satisfaction": 3}}))  # fmt: skip
    assert "preference: null" in dump(config)
    assert parse_text(dump(settled(told()))).preference.settings == {"concentration": 1.0}


def leaves(folder, cache):
    return jax.tree.leaves(mobjrec.load(folder, cache).params)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_cache):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train.run(parse(told()), folder, tiny_cache, quiet=True)
    return folder


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == "train"]


@pytest.mark.slow
def test_a_run_that_was_stopped_draws_the_same_preferences_and_ends_at_the_same_bits(
    whole, tiny_cache, tmp_path, monkeypatch
):
    written = train.written

    def stop(log, view, saver, parts, skipped, number, *rest):
        if number == 5 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise Stopped(15)
        return written(log, view, saver, parts, skipped, number, *rest)

    monkeypatch.setattr(train, "written", stop)
    with pytest.raises(Stopped):
        train.run(parse(told()), tmp_path / "run", tiny_cache, quiet=True)
    train.run(parse(told()), tmp_path / "run", tiny_cache, quiet=True)
    for one, other in zip(leaves(tmp_path / "run", tiny_cache), leaves(whole, tiny_cache), strict=True):
        np.testing.assert_array_equal(one, other)
    drawn = [
        [row["weight/click"] for row in {r["step"]: r for r in rows(f)}.values()] for f in (whole, tmp_path / "run")
    ]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 8


@pytest.mark.slow
def test_eight_devices_draw_what_one_draws(whole, tiny_cache, tmp_path):
    train.run(parse(told(parallel={"devices": 8})), tmp_path / "run", tiny_cache, quiet=True)
    for one, other in zip(leaves(tmp_path / "run", tiny_cache), leaves(whole, tiny_cache), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_cache):
    folder = tmp_path_factory.mktemp("runs") / "long"
    train.run(parse(told(steps=300, save={"every": {"steps": 300}})), folder, tiny_cache, quiet=True)
    return mobjrec.load(folder, tiny_cache)


@pytest.mark.slow
def test_the_request_s_preference_reaches_scorer_and_mixture(trained):
    rows = trained.rank(user="u3", top=5, prefer={"click": 3, "satisfaction": 1})
    items = [row["item"] for row in rows]
    alone = trained.score(["u3"] * 5, items, {"click": 0.75, "satisfaction": 0.25})
    for name, values in alone.items():
        np.testing.assert_allclose([row[name] for row in rows], values, atol=1e-5)
    mixed = sum(
        share * (alone[name] - trained.scale[name][0]) / trained.scale[name][1]
        for name, share in {"click": 3, "satisfaction": 1}.items()
    )
    np.testing.assert_allclose([row["utility"] for row in rows], mixed, atol=1e-4)
    equal = trained.score(["u3"] * 5, items)
    np.testing.assert_array_equal(
        equal["click"], trained.score(["u3"] * 5, items, {"click": 2, "satisfaction": 2})["click"]
    )
    assert np.abs(equal["click"] - alone["click"]).max() > 1e-3


def test_an_evaluation_is_of_the_preference_that_it_is_asked_for(trained):
    parts = trained.parts
    ends = [
        evaluate.run(parts, trained.params, trained.memory, "test", preference=wish).measured
        for wish in ({"click": 1.0, "satisfaction": 0.0}, {"click": 0.0, "satisfaction": 1.0})
    ]
    assert ends[0]["utility:click/ndcg@10"].value == pytest.approx(ends[0]["click/ndcg@10"].value)
    assert ends[0]["click/ndcg@10"].value != ends[1]["click/ndcg@10"].value
    scale = evaluate.scale_of(parts, trained.params, trained.memory)
    np.testing.assert_allclose([*trained.scale.values()], [*scale.values()], rtol=1e-5)


def test_the_preference_walks_along_the_front(trained):
    parts = trained.parts
    points = fronts.orderings(parts, trained.params, trained.memory, "train", WISHES)
    assert (np.diff(points[:, 0]) < 0.005).all() and (np.diff(points[:, 1]) > -0.005).all()
    assert points[0, 0] > points[-1, 0] + 0.05 and points[-1, 1] > points[0, 1] + 0.02


def test_a_plain_model_is_told_nothing(trained):
    model = trained.parts.model
    assert wished(model._replace(conditioned=False), ("click",), {"click": 3.0}) is None
    np.testing.assert_allclose(wished(model, ("a", "b"), None), 0.5)
    np.testing.assert_allclose(wished(model, ("a", "b"), {"b": 3.0, "a": 1.0}), [0.25, 0.75])
    with pytest.raises(ValueError, match="one number at least must be above 0"):
        wished(model, ("a", "b"), {"a": 0.0})
