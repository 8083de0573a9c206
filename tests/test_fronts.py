"""Orderings, the random ranker and the units of a front, on one small run."""

import numpy as np
import pytest

from mobjrec import evaluate, fronts
from mobjrec.errors import UserError

METRICS = {"click": "ndcg@5", "recall": "recall@3", "satisfaction": "mean_label@3"}
WISHES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])


def orderings(trained, preferences=WISHES, **more):
    settings = {"metrics": METRICS, "scale": trained.scale} | more
    return fronts.orderings(trained.parts, trained.params, trained.memory, "test", preferences, **settings)


@pytest.fixture(scope="module")
def points(tiny_trained):
    return orderings(tiny_trained)


def test_each_column_is_its_own_metric_on_the_one_order_of_the_utility(tiny_trained, points):
    names = list(tiny_trained.parts.objectives)
    for wish, point in zip(WISHES, points, strict=True):
        found = evaluate.run(
            tiny_trained.parts, tiny_trained.params, tiny_trained.memory, "test",
            scale=tiny_trained.scale, names=tuple(METRICS.values()), preference=dict(zip(names, wish, strict=True)),
        ).measured  # fmt: skip
        labels = {"click": "click", "recall": "click", "satisfaction": "satisfaction"}
        expected = [found[f"utility:{labels[name]}/{metric}"].value for name, metric in METRICS.items()]
        np.testing.assert_allclose(point, expected, rtol=0, atol=1e-12)
    assert len(np.unique(points, axis=0)) == len(WISHES)


def test_a_model_that_reads_the_preference_is_asked_for_each(tiny_trained, points):
    parts, told = tiny_trained.parts, []
    predict = lambda *given: told.append(given[-1]) or parts.functions.predict(*given[:-1], None)
    model, functions = parts.model._replace(conditioned=True), parts.functions._replace(predict=predict)
    reading = tiny_trained._replace(parts=parts._replace(model=model, functions=functions))
    np.testing.assert_array_equal(orderings(reading), points)
    np.testing.assert_allclose(told[: len(WISHES)], WISHES / WISHES.sum(1, keepdims=True), rtol=1e-6)


def test_a_random_ranker_is_the_mean_over_orders(tiny_trained):
    parts = tiny_trained.parts
    exact = fronts.random_point(parts, "test", metrics=METRICS)
    random, lists = np.random.default_rng(0), parts.dataset.test

    def shuffled():
        for rows, drawn in evaluate.drawn_blocks(parts, lists, parts.eval_candidates):
            block = evaluate.Block(rows, drawn, {}, *fronts.labels_of(parts.dataset, lists, drawn))
            yield block, random.random((400, *drawn.where.shape), np.float32)

    drawn = fronts.measured(parts, lists, shuffled(), METRICS)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(exact - drawn.mean(axis=0)) < 4 * error).all() and (error > 0).all()
    # AUC is a half by definition; ERR is averaged over drawn orders.
    auc, err = fronts.random_point(parts, "test", metrics={**METRICS, "click": "auc", "recall": "err1@5"})[:2]
    assert auc == pytest.approx(0.5, abs=1e-6) and 0 < err < 1


def test_units_put_random_at_0_and_the_own_run_at_1():
    random, best = np.array([0.25, 2.0]), np.array([0.75, 4.0])
    points = np.array([random, best, [0.5, 4.0], [0.25, 5.0]])
    assert fronts.units(points, random, best).tolist() == [[0, 0], [1, 1], [0.5, 1], [0, 1.5]]
    # [0.5, 1] and [1, 0.5] in units: two boxes of 1/2 that share 1/4.
    assert fronts.reached([[0.5, 4.0], [0.75, 3.0]], random, best) == 0.75
    with pytest.raises(ValueError, match=r"column 1 reaches 2, no more than the random ranker's 2"):
        fronts.units(points, random, [0.75, 2.0])


def test_columns_are_the_objectives_that_a_label_measures(tiny_trained):
    parts = tiny_trained.parts
    assert fronts.axes(parts) == dict.fromkeys(parts.objectives, "ndcg@5")
    unmeasured = parts._replace(objectives={**parts.objectives, "click": parts.objectives["click"]._replace(label="")})
    assert list(fronts.axes(unmeasured)) == ["recall", "satisfaction"]
    with pytest.raises(UserError, match="no label measures clicks; did you mean `click`"):
        fronts.axes(parts, {"clicks": "auc"})
    with pytest.raises(UserError, match="metrics: click: no metric ndgc"):
        fronts.axes(parts, {"click": "ndgc@5"})


def test_a_split_that_says_nothing_is_refused(tiny_trained):
    parts = tiny_trained.parts
    test = parts.dataset.test
    silent = test._replace(labels={name: np.zeros_like(label) for name, label in test.labels.items()})
    with pytest.raises(UserError, match="click/ndcg@5 is defined on no list of the test split"):
        fronts.random_point(parts._replace(dataset=parts.dataset._replace(test=silent)), "test", metrics=METRICS)
    empty = test._replace(user=test.user[:0])
    with pytest.raises(UserError, match="the test split has no lists"):
        fronts.random_point(parts._replace(dataset=parts.dataset._replace(test=empty)), "test", metrics=METRICS)
