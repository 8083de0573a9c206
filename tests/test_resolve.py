import copy
import importlib
import inspect
import math
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from pydantic import Field

from mobjrec.config import dump, load, parse, parse_text, plain
from mobjrec.errors import UserError
from mobjrec.lookup import ROOMS, lookup, names
from mobjrec.resolve import SUPPLIED, bind, complete
from mobjrec.types import Array, Corpus, Encoder, Input, Loss, Model, PerObjective, Scorer, Spec, Weighting

__all__ = [
    "NotAFunction", "adamw", "approx", "as_logged", "at_least", "bert", "bert_tiny", "built", "by_time", "chebyshev",
    "dot", "everything", "leaf", "list_loss", "many", "mixture", "nan", "picky", "ranker", "single", "softmax",
    "static", "table", "wordpiece",
]  # fmt: skip


class NotAFunction:
    pass


class Last(NamedTuple):
    last: int


class Known(NamedTuple):
    after: str = ""
    within: tuple[float, float] | None = None


def softmax(scores: Array, labels: Array, *, where: Array, weights: Array | None = None) -> Array:
    return jnp.sum(jnp.where(where, labels * scores, 0.0), -1)


def approx(
    scores: Array, labels: Array, *, where: Array, weights: Array | None = None, temperature: float = 1.0, top: int = 0
) -> Array:
    return temperature * softmax(scores, labels, where=where) + top


KNOWN, INPUT, NAMED, LISTED = Known(), Input(), {"a": Known("b", (0.0, 1.0))}, [1]
COLD = partial(approx, temperature=0.1)


def list_loss(scores: Array, labels: Array) -> Array:
    return scores


def table(path: Path, events: str, kinds: dict[str, Path] | None = None, known: Known = KNOWN) -> Corpus:
    return ("corpus", path, events, kinds, known)


def at_least(of: str, value: float, known: Literal["logged", "everywhere"] | Known = "logged"):
    return ("label", of, value, known)


def by_time(valid: float = 0.1, test: float = 0.1):
    return ("split", valid, test)


def as_logged(size: int | None = None):
    return ("candidates", size)


def wordpiece(size: int = 8000):
    return ("tokenizer", size)


def single(loss: Loss, label: str, head: str = "", link: Literal["identity", "sigmoid"] = "identity"):
    return ("objective", loss, label, head, link)


def static(weights: PerObjective) -> Weighting:
    if min(weights) < 0:
        raise ValueError(f"weights are {weights}; none may be negative")
    return ("weighting", weights)


def chebyshev(preference: PerObjective = (), floors: PerObjective | None = None, order: tuple[float, ...] = (1,)):
    return ("weighting", preference, floors, order)


def mixture(first: Weighting, second: Weighting | None = None, share: float = 0.5) -> Weighting:
    return ("mixture", first, second, share)


def bert(layers: int = 4, train: Literal["all", "none"] | Last = "all", weights: str = "") -> Encoder:
    if layers < 1:
        raise ValueError(f"layers is {layers}; it must be at least 1")
    return ("encoder", layers, train, weights)


def bert_tiny(layers: int = 1) -> Encoder:
    return ("encoder", layers)


def dot(bias: bool = False) -> Scorer:
    return ("scorer", bias)


def ranker(
    spec: Spec,
    heads: dict[str, int],
    *,
    encoder: Encoder | None = None,
    user: Input = INPUT,
    item: Input,
    scorer: Scorer,
    layers: tuple[int, ...] = (),
) -> Model:
    return ("model", spec, heads, encoder, user, item, scorer, layers)


def adamw(steps: int, learning_rate: float = 3e-4, clip: float | None = None):
    return ("optimizer", steps, learning_rate, clip)


def everything(
    whole: int = 1,
    number: float = 2,
    endless: float = math.inf,
    flag: bool = True,
    text: str = "a: b",
    path: Path = Path("x/y"),
    pair: tuple[int, str] = (1, "one"),
    listed: list[float] = LISTED,
    named: dict[str, Known] = NAMED,
    either: int | str | None = None,
    bounded: Annotated[int, Field(ge=1)] = 3,
    loss: Loss = COLD,
    plain_loss: Loss | None = softmax,
    free: Any = None,
    level: Literal[1, 2] = 1,
):
    return locals()


def picky(key: Array | None = None, *rest: int, other: int = 1, **more: int):
    return ("objective", key, other)


def built(scorer: Scorer = lambda width, heads, spec, rngs: None):
    return scorer


def nan(value: float = math.nan):
    return value


def leaf(a, b: int = 1):
    return a


def many(losses: tuple[Loss, ...]):
    return losses


@pytest.fixture(autouse=True)
def rooms(monkeypatch):
    """Every seam looks its names up here; what a test puts on the path is taken off again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for seam in ROOMS:
        monkeypatch.setitem(ROOMS, seam, __name__)


def bound(seam, block, objectives=("click", "satisfied")):
    return bind(seam, block, where=seam, objectives=objectives)


def fault(seam, block, objectives=("click", "satisfied")):
    with pytest.raises(UserError) as caught:
        bound(seam, block, objectives)
    return str(caught.value)


def test_a_factory_gets_its_settings_and_defaults():
    reader = bound("data", {"use": "table", "path": "shop", "events": "e.csv", "known": {"within": [1, 2]}})
    assert reader.call() == ("corpus", Path("shop"), "e.csv", None, Known("", (1.0, 2.0)))
    assert reader.arguments == {"path": Path("shop"), "events": "e.csv", "kinds": None, "known": Known("", (1.0, 2.0))}
    known = {"after": "", "within": [1.0, 2.0]}
    assert plain(reader.block) == {"use": "table", "path": "shop", "events": "e.csv", "kinds": None, "known": known}


def test_a_loss_is_the_function_itself_with_its_keywords_bound():
    assert bound("Loss", "softmax").call is softmax
    loss = bound("Loss", {"use": "approx", "temperature": 2}).call
    scores, labels, where = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 1.0]]), jnp.array([[True, False]])
    assert float(loss(scores, labels, where=where)[0]) == 2.0
    objective = bound("objective", {"use": "single", "loss": {"use": "approx", "top": 3}, "label": "click"}).call()
    assert float(objective[1](scores, labels, where=where)[0]) == 4.0
    assert bound("objective", {"use": "single", "loss": "softmax", "label": "click"}).call()[1] is softmax


def test_nested_blocks_are_built_and_the_caller_supplies_spec_and_heads():
    block = {
        "use": "ranker",
        "item": {"ids": ["item"]},
        "scorer": "dot",
        "encoder": {"use": "bert", "train": {"last": 2}},
    }
    call = bound("model", block).call
    kind, spec, heads, encoder, user, item, scorer, layers = call("spec", {"click": 1})
    assert (kind, spec, heads) == ("model", "spec", {"click": 1})
    assert encoder == ("encoder", 4, Last(2), "") and scorer == ("scorer", False)
    assert (user, item, layers) == (Input(), Input(ids=("item",)), ())
    assert bound("optimizer", {"use": "adamw", "clip": 1}).call(100) == ("optimizer", 100, 3e-4, 1.0)
    losses = bound("objective", {"use": "many", "losses": ["softmax", {"use": "approx", "top": 1}]}).call()
    assert losses[0] is softmax and losses[1].keywords == {"temperature": 1.0, "top": 1}


def test_a_number_per_objective_is_written_by_name_and_given_in_order():
    weights = {"satisfied": 2, "click": 1}
    assert bound("weighting", {"use": "static", "weights": weights}).call() == ("weighting", (1.0, 2.0))
    nested = {"use": "mixture", "first": {"use": "static", "weights": weights}}
    assert bound("weighting", nested).call() == ("mixture", ("weighting", (1.0, 2.0)), None, 0.5)
    block = {"use": "chebyshev", "floors": weights, "order": [3, 4]}
    assert bound("weighting", block).call() == ("weighting", (), (1.0, 2.0), (3.0, 4.0))
    assert bound("weighting", {"use": "chebyshev", "preference": {}}).call()[1] == ()


def test_the_alias_per_objective_is_told_by_identity_and_optional_keeps_it():
    parameters = inspect.signature(chebyshev).parameters
    assert parameters["preference"].annotation is PerObjective
    assert parameters["floors"].annotation.__args__[0] is PerObjective
    assert parameters["order"].annotation == PerObjective and parameters["order"].annotation is not PerObjective
    assert "found the keys click, satisfied; expected a list" in fault(
        "weighting", {"use": "chebyshev", "order": {"click": 1, "satisfied": 2}}
    )


def test_hyphens_in_a_name_are_underscores():
    assert bound("Encoder", "bert-tiny").call() == ("encoder", 1)


@pytest.mark.parametrize(
    "seam, block, words",
    [
        ("data", {"use": "tabel"}, "data.use: there is no data 'tabel'; did you mean `table`?"),
        ("weighting", {"use": "zzz"}, "weighting.use: there is no weighting 'zzz'; names are adamw, approx"),
        ("data", {"use": "NotAFunction"}, "data.use: there is no data 'NotAFunction'"),
        ("data", {"use": "Known"}, "there is no data 'Known'"),
        ("data", {"path": "x"}, "data: found the keys path; expected a function and its settings"),
        ("data", 3, "data: found 3; expected a function and its settings"),
        (
            "data", {"use": "table", "path": "x", "evens": "e"},
            "data.evens: table has no such setting; did you mean `events`?",
        ),
        ("data", {"use": "table", "path": "x", "evens": "e"}, "data.events: the key is missing; table needs it: text"),
        ("data", {"use": "table", "path": "", "events": "e"}, 'data.path: found text ""; expected a path'),
        ("data", {"use": "table", "path": "x", "events": 3}, "data.events: found 3; expected text"),
        (
            "data", {"use": "table", "path": "x", "events": "e", "kinds": {"a": 3}},
            "data.kinds.a: found 3; expected a path",
        ),
        (
            "data", {"use": "table", "path": "x", "events": "e", "known": {"aftr": ""}},
            "data.known.aftr: this is not a key here; did you mean `after`?",
        ),
        (
            "data", {"use": "table", "path": "x", "events": "e", "known": {"within": [1]}},
            "data.known.within: found a list of 1; expected a list [a number, a number]",
        ),
        ("label", {"use": "at_least", "of": "x", "value": "0.8"}, 'label.value: found text "0.8"; expected a number'),
        ("label", {"use": "at_least", "of": "x", "value": True}, "label.value: found true; expected a number"),
        ("label", {"use": "at_least", "of": "x", "value": 1, "known": "loged"}, 'did you mean `logged`?'),
        (
            "label", {"use": "at_least", "of": "x", "value": 1, "known": {"after": 3}},
            "label.known.after: found 3; expected text",
        ),
        (
            "candidates", {"use": "as_logged", "size": 1.5},
            "candidates.size: found 1.5; expected a whole number or null",
        ),
        ("split", {"use": "by_time", "valid": None}, "split.valid: found null; expected a number"),
        (
            "model", {"use": "ranker", "item": {}, "scorer": "dot", "spec": 1},
            "model.spec: spec of ranker is supplied by the run",
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": "bert"},
            "model.scorer.use: bert makes `Encoder`, but `Scorer` belongs here",
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": {"use": "dot", "bais": True}},
            "model.scorer.bais: dot has no such setting; did you mean `bias`?",
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": 3},
            "model.scorer: found 3; expected a function and its settings",
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": "dot", "encoder": {"use": "bert", "layers": 0}},
            "model.encoder.layers: layers is 0; it must be at least 1",
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": "dot", "encoder": {"use": "bert", "train": {"last": "x"}}},
            'model.encoder.train.last: found text "x"; expected a whole number',
        ),
        (
            "model", {"use": "ranker", "item": {}, "scorer": "dot", "encoder": {"use": "bert", "train": {}}},
            "model.encoder.train.last: the key is missing: a whole number",
        ),
        (
            "Loss", {"use": "approx", "where": 1},
            "Loss.where: where of approx is supplied by the run; a config cannot set it",
        ),
        ("Loss", "list_loss", "Loss.use: list_loss has no argument where and weights, which the run supplies"),
        (
            "weighting", {"use": "static"},
            "weighting.weights: the key is missing; static needs it: a number per objective",
        ),
        ("weighting", {"use": "static", "weights": {"click": 1}}, "weighting.weights: no number for satisfied"),
        (
            "weighting", {"use": "static", "weights": {"click": 1, "satisfied": 1, "clik": 1}},
            "weighting.weights.clik: there is no objective clik; did you mean `click`?",
        ),
        (
            "weighting", {"use": "static", "weights": [1, 2]},
            "weighting.weights: found a list of 2; expected a number per objective",
        ),
        (
            "weighting", {"use": "static", "weights": {"click": 1, "satisfied": "2"}},
            'weighting.weights.satisfied: found text "2"; expected a number',
        ),
        ("weighting", {"use": "static", "weights": {}}, "weighting.weights: no number for click, satisfied"),
        (
            "objective", {"use": "everything", "bounded": 0},
            "objective.bounded: found 0; should be greater than or equal to 1",
        ),
        (
            "objective", {"use": "everything", "either": [1]},
            "objective.either: found a list of 1; expected a whole number or text or null",
        ),
        (
            "objective", {"use": "everything", "listed": [1, "x"]},
            'objective.listed.1: found text "x"; expected a number',
        ),
        ("objective", {"use": "everything", "level": True}, "objective.level: found true; expected 1 or 2"),
        ("weighting", {"use": "mixture", "first": "static"}, "weighting.first.weights: the key is missing; static"),
        ("objective", {"use": "picky", "key": 3}, "objective.key: found 3; expected"),
        ("objective", {"use": "picky", "more": 3}, "objective.more: picky has no such setting"),
        ("objective", {"use": "built"}, "the default of scorer in built cannot be written to a config"),
        ("objective", {"use": "nan"}, "the default of value in nan cannot be written to a config (NaN is no setting)"),
        (
            "objective", {"use": "leaf", "a": 1},
            "the argument a of leaf has no annotation, so a setting cannot be checked; wrap leaf",
        ),
        ("data", {"use": "my ideas:x"}, "found 'my ideas:x'; expected a short name or \"module:name\""),
        ("data", {"use": "json:_default_encoder"}, "_default_encoder of json is not public"),
        ("data", {"use": "json:dumbs"}, "has no function dumbs; did you mean `dumps`?"),
        ("data", {"use": "json:JSONEncoder"}, "json:JSONEncoder is not a function"),
        ("data", {"use": "json:dumps"}, "the argument obj of json:dumps has no annotation"),
        ("data", {"use": "no_such_module_here:x"}, "there is no module no_such_module_here, here or installed"),
        ("data", {"use": "builtins:print"}, "has no annotation"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(seam, block, words):
    assert words in fault(seam, block)


def test_all_problems_of_a_block_are_reported_at_once():
    lines = fault(
        "model", {"use": "ranker", "item": {"txt": ""}, "scorer": {"use": "dott"}, "layers": ["a"], "x": 1}
    ).split("\n")
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        "model.x",
        "model.item.txt",
        "model.scorer.use",
        "model.layers.0",
    ]


def test_what_settings_say_of_others_is_written_down_and_what_contradicts_is_refused(tmp_path, monkeypatch):
    text = (
        "from mobjrec.types import Weighting\n"
        "def sized(width: int = 4, inner: int | None = None, kept: int = 1) -> Weighting:\n"
        "    return (width, inner, kept)\n"
        "def sized_settled(settings, given):\n"
        "    if settings['width'] < 0:\n"
        "        raise ValueError('width is below 0')\n"
        "    return {'inner': 2 * settings['width'], 'kept': 5 if 'kept' in given else None}\n"
    )
    write(tmp_path, monkeypatch, "sizes_of_mine", text)
    bound = bind("weighting", {"use": "sizes_of_mine:sized", "width": 3}, where="weighting")
    assert bound.block.settings == {"width": 3, "inner": 6} and bound.call() == (3, 6, 1)
    assert bind("weighting", {"use": "sizes_of_mine:sized", "kept": 2}, where="weighting").call() == (4, 8, 5)
    with pytest.raises(UserError, match=r"^weighting\.width: width is below 0"):
        bind("weighting", {"use": "sizes_of_mine:sized", "width": -1}, where="weighting")


def test_a_functions_own_complaint_carries_the_blocks_path():
    call = bind("weighting", {"use": "static", "weights": {"click": -1}}, where="weighting", objectives=("click",)).call
    with pytest.raises(UserError, match=r"^weighting: weights are \(-1\.0,\); none may be negative$"):
        call()


def write(folder, monkeypatch, name, text):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_function_of_the_users_own_is_found_in_the_current_folder(tmp_path, monkeypatch):
    text = "from __future__ import annotations\nfrom mobjrec.types import PerObjective\n"
    write(
        tmp_path,
        monkeypatch,
        "my_ideas",
        text + "def mine(weights: PerObjective, power: float = 2) -> tuple:\n    return weights, power\n",
    )
    assert bound("weighting", {"use": "my_ideas:mine", "weights": {"click": 1, "satisfied": 3}}).call() == (
        (1.0, 3.0),
        2.0,
    )
    assert sys.path[-1] == str(tmp_path)
    assert "did you mean `mine`?" in fault("weighting", "my_ideas:mines")
    assert "there is no module my_idea, here or installed; did you mean `my_ideas`?" in fault(
        "weighting", "my_idea:mine"
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("x = 1\nraise RuntimeError('no luck')\n", "bad_ideas.py:2: RuntimeError: no luck"),
        ("def f(:\n", "bad_ideas.py:1 is not Python"),
        ("import no_such_library\n", "bad_ideas.py:1: ModuleNotFoundError: No module named 'no_such_library'"),
        ("import sys\nsys.exit(3)\n", "bad_ideas.py:2: SystemExit: 3"),
        ("def f(a: Missing): ...\n", "NameError"),
        ("f = 3\n", "bad_ideas:f is not a function"),
        ("from __future__ import annotations\ndef f(a: Missing): ...\n", "the signature of bad_ideas:f cannot be read"),
        ("from mobjrec.types import Encoder\ndef f() -> Encoder: ...\n", "bad_ideas:f makes `Encoder`, but `data`"),
    ],
)  # fmt: skip
def test_a_file_of_the_users_own_that_fails_is_named(tmp_path, monkeypatch, text, words):
    write(tmp_path, monkeypatch, "bad_ideas", text)
    assert words in fault("data", "bad_ideas:f")


def test_a_jitted_loss_keeps_its_signature(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "approx", jax.jit(approx, static_argnames="top"))
    assert plain(bound("Loss", "approx").block) == {"use": "approx", "temperature": 1.0, "top": 0}


MAPPING = {
    "epochs": 1,
    "data": {"use": "table", "path": "shop", "events": "e.csv"},
    "labels": {"satisfied": {"use": "at_least", "of": "x", "value": 1, "known": {"after": "click"}}},
    "tokenizer": {"use": "wordpiece"},
    "lists": {"split": {"use": "by_time", "test": 0}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 4},
    "model": {"use": "ranker", "encoder": "bert-tiny", "item": {"text": "{title}"}, "scorer": {"use": "dot"}},
    "objectives": {
        "click": {"use": "single", "loss": "softmax", "label": "click"},
        "satisfied": {"use": "everything", "path": "a//b"},
    },
    "weighting": {
        "use": "mixture",
        "first": {"use": "static", "weights": {"satisfied": 2, "click": 1}},
        "second": "chebyshev",
    },
    "optimizer": {"use": "adamw", "learning_rate": 1},
    "evaluate": {"candidates": {"use": "as_logged", "size": 9}},
}


def test_a_complete_config_has_every_default_and_completes_to_itself(tmp_path):
    whole = complete(parse(MAPPING))
    data = plain(whole)
    assert data["data"] == MAPPING["data"] | {"kinds": None, "known": {"after": "", "within": None}}
    assert data["labels"]["satisfied"]["known"] == {"after": "click", "within": None}
    assert data["lists"]["split"] == {"use": "by_time", "valid": 0.1, "test": 0.0}
    assert data["model"]["encoder"] == {"use": "bert-tiny", "layers": 1}
    assert data["model"]["user"] == {"text": "", "ids": [], "numbers": [], "history": False}
    assert data["objectives"]["click"] == {
        "use": "single", "loss": {"use": "softmax"}, "label": "click", "head": "", "link": "identity",
    }  # fmt: skip
    assert data["objectives"]["satisfied"] == {
        "use": "everything", "whole": 1, "number": 2.0, "endless": math.inf, "flag": True, "text": "a: b",
        "path": "a//b", "pair": [1, "one"], "listed": [1.0], "named": {"a": {"after": "b", "within": [0.0, 1.0]}},
        "either": None,
        "bounded": 3, "loss": {"use": "approx", "temperature": 0.1, "top": 0}, "plain_loss": {"use": "softmax"},
        "free": None, "level": 1,
    }  # fmt: skip
    assert data["weighting"]["first"]["weights"] == {"click": 1.0, "satisfied": 2.0}
    assert list(data["weighting"]["first"]["weights"]) == ["click", "satisfied"]
    assert data["weighting"]["second"] == {"use": "chebyshev", "preference": {}, "floors": None, "order": [1.0]}
    assert data["optimizer"] == {"use": "adamw", "learning_rate": 1.0, "clip": None}
    assert data["evaluate"]["candidates"] == {"use": "as_logged", "size": 9}
    assert complete(whole) == whole and dump(complete(whole)) == dump(whole)
    path = tmp_path / "config.yaml"
    path.write_text(dump(whole))
    assert load(path) == whole and dump(complete(load(path))) == dump(whole)


def test_a_complete_block_binds_to_the_same_arguments():
    whole = complete(parse(MAPPING))
    for name in ("click", "satisfied"):
        first = bound("objective", plain(parse(MAPPING).objectives[name])).arguments
        again = bound("objective", whole.objectives[name]).arguments
        assert str(first) == str(again) and first.keys() == again.keys()


def test_completing_a_config_builds_nothing(monkeypatch):
    def never(layers: int = 1) -> Encoder:
        raise AssertionError("built")

    monkeypatch.setattr(sys.modules[__name__], "bert_tiny", never)
    assert plain(complete(parse(MAPPING)))["model"]["encoder"] == {"use": "bert-tiny", "layers": 1}


def test_problems_of_all_blocks_come_at_once_with_their_lines(tmp_path):
    path = tmp_path / "a.yaml"
    text = dump(parse(MAPPING)).replace("path: shop", "pth: shop").replace("size: 9", "size: x")
    text = text.replace("use: wordpiece", "use: wordpeace")
    path.write_text(text)
    word, line = (text.split(words)[0].count("\n") + 1 for words in ("use: wordpeace", "size: x"))
    with pytest.raises(UserError) as caught:
        complete(load(path, ["optimizer.clip=off"]))
    lines = str(caught.value).replace(str(tmp_path), "").split("\n  ")
    assert lines == [
        "the config has 5 problems:",
        "/a.yaml:3: data.path: the key is missing; table needs it: a path",
        "/a.yaml:5: data.pth: table has no such setting; did you mean `path`?",
        f"/a.yaml:{word}: tokenizer.use: there is no tokenizer 'wordpeace'; did you mean `wordpiece`?"
        ' ("module:name" is one of your own)',
        f'/a.yaml:{line}: evaluate.candidates.size: found text "x"; expected a whole number or null',
        'override `optimizer.clip=off`: optimizer.clip: found text "off"; expected a number or null',
    ]


def places_of(value, path=()):
    children = value.items() if isinstance(value, dict) else ()
    return [path, *(place for key, child in children for place in places_of(child, (*path, key)))]


WHOLE = plain(parse(MAPPING))
INSIDE = [
    place
    for place in places_of(WHOLE)
    if place[:1] in (("data",), ("model",), ("weighting",), ("optimizer",), ("candidates",), ("tokenizer",))
    or (place[:1] in (("labels",), ("objectives",)) and len(place) > 2)
    if len(place) > 1
]
ODD = st.sampled_from(
    [None, True, 0, -1, 1.5, math.inf, "", "x", "softmax", "table", "bert", "a:b", "json:dumps", [], [1], {},
     {"use": "dot"}, {"use": "static", "weights": {}}, {"click": 1.5}, {"last": 1.5}, {"click": 1},
     {"click": 1, "satisfied": 2}, {"last": 1}, [[{}]]]
)  # fmt: skip
KEYS = st.sampled_from(["use", "loss", "weights", "spec", "steps", "layers", "after", "x y", "where", "self", "copy"])


@settings(max_examples=200)
@seed(0)
@given(st.lists(st.tuples(st.sampled_from(INSIDE), st.sampled_from("sar"), ODD, KEYS), min_size=1, max_size=3))
def test_a_mutated_config_completes_or_gives_one_user_error(mutations):
    mapping = copy.deepcopy(WHOLE)
    for (*above, last), kind, value, key in mutations:
        room = mapping
        for step in above:
            room = room[step] if isinstance(room, dict) and step in room else {}
        if isinstance(room, dict):
            room[{"s": last, "a": key, "r": key}[kind]] = room.pop(last, value) if kind == "r" else copy.deepcopy(value)
    try:
        whole = complete(parse(mapping))
    except UserError as error:
        assert str(error)
    else:
        assert complete(whole) == whole


REAL = dict(ROOMS)


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_completes_to_what_loads_and_completes_to_itself(path, monkeypatch):
    for seam in REAL:
        monkeypatch.setitem(ROOMS, seam, REAL[seam])
    whole = complete(load(path))
    again = parse_text(dump(whole))
    assert again == whole and complete(again) == whole


@pytest.mark.parametrize("seam", REAL)
def test_every_public_function_of_a_room_has_a_signature_that_a_config_can_use(seam, monkeypatch):
    for other in REAL:
        monkeypatch.setitem(ROOMS, other, REAL[other])
    try:
        importlib.import_module(REAL[seam])
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}")
    for name in names(seam):
        try:
            bind(seam, {"use": name}, where=seam, objectives=("click", "satisfied"))
        except UserError as error:
            faults = str(error).split("\n")
            assert all("the key is missing" in line or "problems:" in line for line in faults), faults
        function = lookup(seam, name)
        assert set(SUPPLIED.get(seam, ())) <= set(inspect.signature(function).parameters)
