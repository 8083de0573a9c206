"""Values of other people's code (shared/reference/metrics.json), in float64."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import metrics
from mobjrec.metrics import pooled

# Theirs -> ours. Relevant is label >= 1 there, so binary metrics get these labels; ours takes any label above 0.
BINARY = {
    "precision": metrics.precision,
    "recall": metrics.recall,
    "mrr": metrics.mrr,
    "map_cap": metrics.average_precision,
    "map_rel": functools.partial(metrics.average_precision, capped=False),
    "hit": metrics.hit,
    "recall_cap": functools.partial(metrics.recall, capped=True),
    **{f"f{beta:g}": functools.partial(metrics.f_beta, beta=beta) for beta in (0.5, 1.0, 2.0)},
    **{f"rbp{p}": functools.partial(metrics.rbp, persistence=p) for p in (0.5, 0.8, 0.95)},
}
GRADED = {
    "ndcg_exp": metrics.ndcg,
    "ndcg_lin": functools.partial(metrics.ndcg, gain="linear"),
    "dcg_exp": metrics.dcg,
    "dcg_lin": functools.partial(metrics.dcg, gain="linear"),
    "err": metrics.err,
}
# Not members: other divisors, and what is no ranking metric of the issue.
LEFT = {"precision_div_k", "map_hits"}
LISTS, ITEMS = 8, 200
CUTS = {"@1": 1, "@2": 2, "@3": 3, "@5": 5, "@8": 8, "@10": 10, "@20": 20, "@50": 50, "@100": 100, "full": None}


@pytest.fixture(scope="module")
def cases(shared):
    return json.loads((shared / "reference" / "metrics.json").read_text())["cases"]


def numbers(values):
    return np.array([np.nan if v is None else float(v) for v in np.ravel(np.array(values, object))]).reshape(
        np.shape(values)
    )


def agree(found, wanted, where, rtol=1e-9):
    np.testing.assert_allclose(found, numbers(wanted), rtol=rtol, atol=1e-12, err_msg=where)


def padded(case):
    """Scores, labels and mask in one shape for all cases, so that everything compiles once; NaN is what pads."""
    scores, labels, where = (numbers(case[name]) for name in ("scores", "labels", "where"))
    room = [(0, LISTS - where.shape[0]), (0, ITEMS - where.shape[1])]
    filled = [np.pad(a, room, constant_values=np.nan) for a in (scores, labels)]
    return [*map(jnp.asarray, filled), jnp.asarray(np.pad(where > 0, room))]


@jax.jit
def all_of(scores, labels, where):
    relevant = (labels >= 1).astype(float)
    some = (where & (labels >= 1)).any(-1)
    found = {"auc": metrics.auc(scores, relevant, where=where)}
    for cut, k in CUTS.items():
        for theirs, metric in BINARY.items():
            found[cut, theirs] = metric(scores, relevant, where=where, k=k)
        for theirs, metric in GRADED.items():
            # A list without a label of 1 or more is undefined there, here one without gain.
            found[cut, theirs] = jnp.where(some, metric(scores, labels, where=where, k=k), jnp.nan)
    return list(found.values())


@jax.jit
def over_ties(scores, labels, where):
    found, relevant = {}, (labels >= 1).astype(float)
    for cut in ("@1", "@3", "@5", "full"):
        for theirs, metric in (BINARY | GRADED).items():
            if theirs != "err":
                worth = relevant if theirs in BINARY else labels
                found[f"{theirs} {cut}"] = metric(scores, worth, where=where, k=CUTS[cut], ties="expected")
    return found


@pytest.mark.parametrize("wide, rtol", [(True, 1e-9), (False, 1e-4)])
def test_means_over_all_orders_of_ties_are_the_references(cases, wide, rtol):
    compared = 0
    for case in (c for c in cases if c["id"].startswith("ties")):
        with jax.enable_x64(wide):
            found = over_ties(*padded(case))
        for key, values in found.items():
            theirs, cut = key.split()
            if cut in case["values"]:
                wanted = case["values"][cut][theirs]["expected_over_ties"]
                agree(values[: len(case["scores"])], wanted, f"{case['id']} {key}", rtol)
                compared += 1
    assert compared > 200


@pytest.mark.parametrize("wide, rtol", [(True, 1e-9), (False, 1e-4)])
def test_every_list_of_every_ranking_case_has_the_references_value(cases, wide, rtol):
    keys = ["auc", *((cut, theirs) for cut in CUTS for theirs in (*BINARY, *GRADED))]
    compared = 0
    for case in (c for c in cases if c["kind"] == "ranking" and c["item_weights"] is None):
        if not wide and case["id"] in ("tiny_gaps", "overflow_f32"):
            continue  # Scores that float32 cannot tell apart, or hold.
        with jax.enable_x64(wide):
            found = dict(zip(keys, all_of(*padded(case)), strict=True))
        lists = len(case["scores"])
        agree(found.pop("auc")[:lists], case["auc"]["per_list"], f"{case['id']} auc", rtol)
        empty = np.isnan(found["@1", "recall"][:lists])
        for (cut, theirs), values in found.items():
            if cut in case["values"]:
                known = case["values"][cut][theirs]
                # The file's DCG of a list that is left out is the sum, 0, and not in its mean; ours is NaN like the rest.
                wanted = np.where(empty, np.nan, numbers(known["per_list"]))
                agree(values[:lists], wanted, f"{case['id']} {theirs} {cut}", rtol)
                assert known["n_excluded"] == empty.sum()
                compared += 1
            assert np.isnan(values[lists:]).all()
        theirs = {name for values in case["values"].values() for name in values}
        assert theirs == BINARY.keys() | GRADED.keys() | LEFT, case["id"]
    assert compared > 1300


def test_within_list_auc_weighted_by_items_is_the_references(cases):
    for case in (c for c in cases if c["kind"] == "ranking" and c["item_weights"] is None):
        metric, where = pooled.gauc(), np.array(case["where"])
        state = metric.update(metric.init(), numbers(case["scores"]), numbers(case["labels"]) >= 1, where)
        agree(metric.value(state), case["auc"]["gauc_impressions"], case["id"])


def test_grouped_auc_is_the_references(cases):
    for case in (c for c in cases if c["kind"] == "gauc"):
        groups, scores, labels = (np.array(case[name]) for name in ("groups", "scores", "labels"))
        grouped, overall = pooled.gauc(), pooled.auc()
        one, all_of_it = grouped.init(), overall.init()
        for group in np.unique(groups):
            part = scores[None, groups == group], labels[None, groups == group]
            one = grouped.update(one, *part, np.ones_like(part[0], bool))
            all_of_it = overall.update(all_of_it, *part, np.ones_like(part[0], bool))
        agree(grouped.value(one), case["values"]["gauc_impressions"], case["id"])
        agree(overall.value(all_of_it), case["values"]["auc_global"], case["id"])


@pytest.mark.parametrize(
    "theirs, metric",
    [
        ("auc", pooled.auc),
        ("pr_auc", pooled.pr_auc),
        ("logloss", pooled.log_loss),
        ("rmse", pooled.rmse),
        ("ece_l1_bins10", pooled.ece),
        ("ece_l1_bins15", functools.partial(pooled.ece, bins=15)),
    ],
)
def test_pooled_metrics_are_the_references(cases, theirs, metric):
    compared = 0
    for case in (c for c in cases if c["kind"] == "pointwise" and c["weights"] is None):
        probabilities, labels = numbers(case["probs"]), numbers(case["labels"])
        made = metric()
        found = made.value(made.update(made.init(), probabilities, labels, np.ones(labels.shape, bool)))
        wanted = case["values"].get(theirs, {"value": None})["value"]
        agree(found, wanted, f"{case['id']} {theirs}")
        compared += wanted is not None
    assert compared >= 5
