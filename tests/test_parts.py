"""A config -> the values a run is made of: what is handed on, and what is refused before anything compiles."""

from pathlib import Path

import numpy as np
import pytest

from mobjrec.config import parse
from mobjrec.errors import UserError
from mobjrec.losses import squared
from mobjrec.objectives import single
from mobjrec.parts import assemble
from mobjrec.resolve import complete
from mobjrec.types import Objective, PerObjective

CONFIG = {
    "steps": 4,
    "data": {"use": "synthetic", "users": 12, "items": 16, "topics": 2, "lists_per_user": 4, "list_size": 4},
    "lists": {"split": {"use": "by_time", "valid": 0.2, "test": 0.2}, "history": {"of": "click", "last": 3}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 4},
    "model": {
        "use": "ranker",
        "user": {"ids": ["user"]},
        "item": {"ids": ["item"]},
        "width": 4,
        "scorer": {"use": "dot"},
    },
    "objectives": {
        "click": {"use": "single", "loss": "softmax", "label": "click"},
        "other": {"use": "single", "loss": "squared", "label": "satisfaction"},
    },
    "weighting": {"use": "equal"},
    "optimizer": {"use": "adamw"},
    "evaluate": {"metrics": ["auc"]},
}


def scaled(bounds: PerObjective) -> Objective:
    """An objective with a head as wide as there are objectives."""
    one = single(squared, "click", head="scaled")
    return one._replace(heads={"scaled": len(bounds)})


def parts_of(**changes):
    return assemble(complete(parse({**CONFIG, **changes})), Path("unused"))


def test_an_objective_may_ask_for_a_number_per_objective():
    asking = {"use": "test_parts:scaled", "bounds": {"asking": 3.0, "click": 1.0}}
    parts = parts_of(objectives={"click": CONFIG["objectives"]["click"], "asking": asking})
    assert parts.objectives["asking"].heads == {"scaled": 2}
    with pytest.raises(UserError, match=r"objectives\.asking\.bounds: no number for click"):
        parts_of(
            objectives={
                "click": CONFIG["objectives"]["click"],
                "asking": {"use": "test_parts:scaled", "bounds": {"asking": 3.0}},
            }
        )


def test_a_fitted_label_is_fitted_on_the_runs_training_split():
    quantile = {"use": "quantile", "of": "satisfaction", "within": "click", "groups": 1, "known": {"after": "click"}}
    parts = parts_of(labels={"rank": quantile})
    train, test = parts.dataset.train.labels, parts.dataset.test.labels
    fitted = np.sort(train["satisfaction"][np.isfinite(train["rank"])])
    asked = np.isfinite(test["rank"])
    for labels, here in ((train, np.isfinite(train["rank"])), (test, asked)):
        below, until = (np.searchsorted(fitted, labels["satisfaction"][here], side) for side in ("left", "right"))
        np.testing.assert_allclose(labels["rank"][here], (below + until) / (2 * len(fitted)), rtol=1e-6)
    assert 0 < asked.sum() < len(asked) and len(fitted) > 10


def test_what_a_label_lacks_is_the_users_mistake():
    with pytest.raises(UserError, match=r"labels\.long: no label, feedback, .* is called 'seen'"):
        parts_of(labels={"long": {"use": "at_least", "of": "seen", "value": 1}})


def test_context_that_no_scorer_would_read_is_refused_before_anything_is_built(tmp_path):
    rows = [f"u{n % 4},i{n % 5},{n},{n % 2},{'feed' if n % 3 else 'search'}" for n in range(40)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time,click,tab", *rows]))
    data = {"use": "table", "path": str(tmp_path), "columns": {"categories": ["tab"], "feedback": ["click"]}}
    given = {"data": data, "objectives": {"click": CONFIG["objectives"]["click"]}}
    with pytest.raises(UserError, match=r"model: the scorer dot reads user and item alone.*context columns tab; mlp"):
        parts_of(**given)
    reading = {**CONFIG["model"], "scorer": {"use": "mlp", "layers": [4]}}
    assert parts_of(**given, model=reading).spec.context.ids[0].name == "tab"


def test_a_bias_of_no_head_is_the_users_mistake():
    model = {**CONFIG["model"], "scorer": {"use": "dot", "bias": ["satisfied"]}}
    with pytest.raises(
        UserError, match=r"model: bias names 'satisfied', which is no head; heads are click, satisfaction"
    ):
        parts_of(model=model)
