"""What a config may say wrong of a weighting is told before anything trains, with its key."""

from pathlib import Path

import pytest

from mobjrec import weightings
from mobjrec.defaults import load
from mobjrec.errors import UserError

TINY = Path(__file__).resolve().parents[1] / "tiny.yaml"
REST = "recall: 1, satisfaction: 1"
ONE = "objectives={click: {use: single, loss: softmax, label: click, needs_relevant: true}}"
# Settings of those that cannot do without, for one objective.
SETTINGS = {"static": "weights: {click: 2}", "pe_ltr": "lower: {click: 0.5}"}
AROUND = ("smoothed", "every", "normalised")


@pytest.mark.parametrize("weighting, told", [
    (f"{{use: chebyshev, preference: {{click: -1, {REST}}}}}", r"weighting\.preference: .*must be finite, not negative"),
    ("{use: upgrad, preference: {click: 0, recall: 0, satisfaction: 0}}", r"weighting\.preference: .*not all 0"),
    ("{use: epo, preference: {click: 1}}", r"weighting\.preference: no number for recall, satisfaction; expected one for"),
    ("{use: epo, preference: [1, 2]}", r"weighting\.preference: found a list of 2; expected a number per objective"),
    (f"{{use: static, weights: {{click: 1, {REST}, dwell: 1}}}}", r"weighting\.weights\.dwell: there is no objective dwell"),
    (f"{{use: constrained, bounds: {{clik: 1, click: .inf, {REST}}}}}", r"bounds\.clik: there is no objective clik.*`click`"),
    (f"{{use: constrained, bounds: {{click: -1, {REST}}}}}", r"weighting\.bounds: .*must be losses above 0"),
    ("{use: pe_ltr, lower: {click: 0.8, recall: 0.5, satisfaction: 0}}", r"weighting\.lower: .*sums to 1\.3; lower bounds"),
    (f"{{use: smoothed, of: {{use: epo, preference: {{click: -1, {REST}}}}}}}", r"weighting\.of\.preference: .*not negative"),
])  # fmt: skip
def test_what_does_not_fit_the_objectives_is_told_with_its_key(weighting, told):
    with pytest.raises(UserError, match=told):
        load(TINY, [f"weighting={weighting}"])


@pytest.mark.parametrize("name", [n for n in weightings.__all__ if n not in (*AROUND, "constrained")])
def test_one_objective_is_taken_by_every_weighting(name):
    settings = SETTINGS.get(name)
    load(TINY, [ONE, f"weighting={{use: {name}{f', {settings}' if settings else ''}}}"])


def test_one_objective_is_not_both_free_and_bounded():
    with pytest.raises(UserError, match=r"weighting\.bounds: .*some must be and some must be free"):
        load(TINY, [ONE, "weighting={use: constrained, bounds: {click: .inf}}"])
