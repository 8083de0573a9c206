"""What a config takes from its data: all that does not fit is told at once, and what is doubtful is told too."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mobjrec import cli
from mobjrec.config import parse
from mobjrec.data.corpus import events_from, table_from
from mobjrec.defaults import load, settled
from mobjrec.describe import described, joined, named
from mobjrec.errors import UserError
from mobjrec.reading import data_of, objectives_of, warn_of
from mobjrec.types import Corpus
from mobjrec.yaml_writer import written

CONFIG = {
    "steps": 1,
    "data": {"use": "test_reading:mine"},
    "tokenizer": {"use": "trained", "size": 200},
    "lists": {"split": {"use": "published"}, "history": {"of": "click", "last": 3}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 4},
    "model": {
        "use": "ranker",
        "encoder": {"use": "bert", "layers": 1, "width": 8, "heads": 2},
        "user": {"text": "{city} {history.title}", "ids": ["user"]},
        "item": {"text": "{title}", "ids": ["item"], "numbers": ["price"]},
        "scorer": {"use": "dot"},
        "width": 4,
    },
    "objectives": {"dwell": {"use": "single", "loss": "huber", "label": "dwell"}},
    "weighting": {"use": "equal"},
    "optimizer": {"use": "adamw"},
    "evaluate": {"metrics": ["ndcg@5"]},
}
CLICK = {"use": "single", "loss": "softmax", "label": "click"}


def mine(click: float | None = 1.0, dwell: float = 30.0, alone: bool = False, split: bool = True) -> Corpus:
    """Six users with a list of two items each, the last two for testing. click, dwell: of the fourth event"""
    place = np.arange(12)
    return Corpus(
        table_from([f"u{n}" for n in range(6)], {"city": ["Rome"] * 6}),
        table_from(
            [f"i{n}" for n in range(12)], {"title": [f"thing {n}" for n in range(12)]}, numbers={"price": place}
        ),
        events_from(
            user=place // 2,
            item=place,
            time=100 + place // 2,
            list=None if alone else place // 2,
            feedback={
                "click": np.where(place == 3, np.nan if click is None else click, place % 2),
                "dwell": np.where(place == 3, dwell, 200.0),
            },
            split=np.where(place < 8, 0, 2) if split else None,
        ),
        {"dwell": "seconds"},
    )


def config(data: dict | None = None, **changes):
    given = {**CONFIG, **changes}
    given["data"] = {**given["data"], **(data or {})}
    return settled(parse(given))


def found(data: dict | None = None, **changes):
    one = config(data, **changes)
    return data_of(one, objectives_of(one))


def failure(data: dict | None = None, **changes) -> str:
    with pytest.raises(UserError) as caught:
        found(data, **changes)
    return str(caught.value)


def test_what_fits_is_handed_on():
    corpus, dataset, leaks = found()
    assert len(corpus.events.user) == 12 and leaks == []
    assert (len(dataset.train.user), len(dataset.valid.user), len(dataset.test.user)) == (4, 0, 2)


def test_all_that_does_not_fit_is_in_one_report():
    said = failure(
        {"split": False},
        labels={
            "long": {"use": "at_least", "of": "dwel", "value": 9},
            "later": {"use": "at_least", "of": "long", "value": 1},
        },
        lists={"split": {"use": "published"}, "history": {"of": "clik"}},
        objectives={"dwell": CONFIG["objectives"]["dwell"], "saved": {**CLICK, "label": "saved"}},
        model={
            **CONFIG["model"],
            "user": {"text": "{town} {history.titel}", "ids": ["user", "gender"], "numbers": ["age"]},
            "item": {"text": "{title} {plot} {cast}", "ids": ["item", "brand"], "numbers": ["prize"]},
        },
    )
    expected = [
        "lists.split: published, but this corpus has no published split",
        "labels.long: no label, feedback, event number or item number is called 'dwel'",
        "objectives.saved: label saved is not there; labels are click, dwell, long, later",
        "model.user.text: no column town; there are city",
        "model.user.text: no column titel; there are title, price; did you mean title?",
        "model.user.ids: no column gender",
        "model.user.numbers: no column age",
        "model.item.text: no column plot",
        "model.item.text: no column cast",
        "model.item.ids: no column brand",
        "model.item.numbers: no column prize; this corpus has price; did you mean price?",
        "lists.history.of: no label clik; labels are click, dwell, long, later",
    ]
    lines = said.splitlines()
    assert lines[0] == f"config and data differ in {len(expected)} points:"
    for line, start in zip(lines[1:], expected, strict=True):
        assert line.strip().startswith(start), line


def test_what_does_not_fit_is_told_with_its_line_before_anything_is_tokenised(tmp_path):
    rows = [f"u{n % 4},i{n % 5},{n},{n % 2},{'feed' if n % 3 else 'search'}" for n in range(40)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time,click,tab", *rows]))
    given = {**CONFIG, "data": {"use": "table", "path": str(tmp_path), "columns": {"categories": ["tab"]}}}
    given |= {"objectives": {"click": {**CLICK, "label": "clik"}}, "lists": {"split": {"use": "by_time"}}}
    (tmp_path / "a.yaml").write_text(written(given))
    one = load(tmp_path / "a.yaml")
    with pytest.raises(UserError) as caught:
        data_of(one, objectives_of(one))
    lines = (tmp_path / "a.yaml").read_text().splitlines()
    for key, text in (
        ("model", "model: the scorer dot reads user and item alone"),
        ("  click", "objectives.click: label clik is not there"),
        ("    numbers", "model.item.numbers: no column price"),
    ):
        number = next(n for n, line in enumerate(lines, start=1) if line.startswith(f"{key}:"))
        assert f"a.yaml:{number}: {text}" in str(caught.value)


def test_one_problem_stands_alone():
    assert failure(lists={**CONFIG["lists"], "history": {"of": "clik"}}) == (
        "lists.history.of: no label clik; labels are click, dwell"
    )


SIGMOID = {"use": "single", "loss": "sigmoid_cross_entropy", "label": "click"}


@pytest.mark.parametrize(
    "objective, value, metrics, takes",
    [
        ({**SIGMOID, "link": "sigmoid"}, 7.0, ["auc"], "a probability is learnt from 0 to 1"),
        ({**SIGMOID, "link": "sigmoid"}, -0.5, ["auc"], "a probability"),
        (SIGMOID, 1.5, ["auc"], "a probability"),
        ({"use": "satisfied_click", "click": "click", "after": "ok"}, 7.0, ["auc"], "a probability"),
        (CLICK, -1.0, ["auc"], "gains are 0 or more"),
        ({"use": "recall", "label": "click", "k": 1}, -1.0, ["auc"], "gains are 0 or more"),
        ({**CLICK, "loss": "pairwise_logistic"}, -1.0, ["ndcg@5"], "gains are 0 or more"),
    ],
)
def test_a_label_outside_of_what_its_objective_takes_is_named_with_its_event(objective, value, metrics, takes):
    labels = {"ok": {"use": "at_least", "of": "dwell", "value": 60}}
    said = failure({"click": value}, objectives={"mine": objective}, evaluate={"metrics": metrics}, labels=labels)
    start = f"objectives.mine: label click is {value:g} for user 'u1' and item 'i3' (event 3; 1 such events); {takes}"
    assert said.startswith(start)


@pytest.mark.parametrize(
    "objective, of, said",
    [
        (CLICK, np.nan, "observed"),
        ({**CLICK, "loss": "huber"}, np.nan, "observed"),
        ({"use": "satisfied_click", "click": "click", "after": "ok"}, np.nan, "observed"),
        (CLICK, 0.0, "above 0"),
        ({"use": "recall", "label": "click", "k": 1}, 0.0, "above 0"),
        ({**SIGMOID, "needs_relevant": True}, 0.0, "above 0"),
        (SIGMOID, 0.0, ""),
        ({**CLICK, "loss": "huber"}, 0.0, ""),
    ],
)
def test_an_objective_without_anything_to_learn_from_is_named(objective, of, said, monkeypatch):
    def silent(data: Corpus) -> Corpus:
        # The test lists know it.
        click = np.where(np.arange(12) < 8, of, 1.0).astype(np.float32)
        return data._replace(events=data.events._replace(feedback={**data.events.feedback, "click": click}))

    made = mine
    monkeypatch.setattr("test_reading.mine", lambda: silent(made()))
    labels = {"ok": {"use": "at_least", "of": "dwell", "value": 60}}
    both = {"objectives": {"mine": objective, "dwell": CONFIG["objectives"]["dwell"]}, "labels": labels}
    if not said:
        found(**both)
        return
    assert failure(**both) == (
        f"objectives.mine: label click is {said} in none of the 4 training lists, so there is nothing to learn; mend its "
        "column or rule, or drop the objective"
    )


IN_BATCH = {"use": "in_batch"}
EVERYWHERE = {"click": {"use": "copy", "of": "click", "known": "everywhere"}}
AFTER = {"kept": {"use": "at_least", "of": "dwell", "value": 9, "known": {"after": "click"}}}


@pytest.mark.parametrize(
    "objective, drawn, labels, alone, fix",
    [
        (CLICK, IN_BATCH, {}, True, "`labels: {click: {use: copy, of: click, known: everywhere}}`"),
        (CLICK, {"use": "uniform", "negatives": 3}, {}, True, "`labels: {click: {use: copy, "),
        (CLICK, {"use": "popularity", "negatives": 3}, {}, True, "`labels: {click: {use: copy, "),
        ({**CLICK, "loss": "pairwise_logistic"}, {"use": "catalogue"}, {}, True, "`labels: {click: {use: copy, "),
        ({"use": "recall", "label": "click", "k": 1}, IN_BATCH, {}, True, "`labels: {click: {use: copy, "),
        ({**CLICK, "label": "kept"}, IN_BATCH, AFTER, False, "`labels: {kept: {..., known: everywhere}}` in place of"),
        (CLICK, IN_BATCH, EVERYWHERE, True, ""),
        (CLICK, IN_BATCH, {}, False, ""),  # both in a list
        (CLICK, {"use": "as_logged"}, {}, True, ""),  # a warning
        (SIGMOID, IN_BATCH, {}, True, ""),
        ({**CLICK, "loss": "test_reading:whole"}, IN_BATCH, {}, True, ""),
    ],
)
def test_drawn_items_that_are_no_negatives_of_a_label_leave_no_order_to_learn(objective, drawn, labels, alone, fix):
    given = {"objectives": {"mine": objective}, "candidates": drawn, "labels": labels}
    if not fix:
        found({"alone": alone}, **given)
        return
    said = failure({"alone": alone}, **given)
    lists, label = 8 if alone else 4, objective["label"]
    assert said.startswith(
        f"objectives.mine: label {label} has no two values in any of the {lists} training lists, and "
    )
    assert f"items that {drawn['use']} draws are no observed negatives of it (known: logged)" in said
    assert fix in said


def whole(scores, labels, *, where, weights=None):
    """A loss of one's own."""
    return (scores * where).sum(-1)


@pytest.mark.parametrize(
    "objective, click, dwell, metrics",
    [
        ({**CLICK, "label": "dwell"}, 1.0, 3600.0, ["ndcg@5"]),  # seconds as gains
        ({**CLICK, "loss": "huber", "label": "dwell"}, 1.0, -3.0, ["ndcg@5"]),  # degrees, euros: below 0 too
        ({**CLICK, "loss": "pairwise_logistic", "label": "dwell"}, 1.0, -3.0, ["auc"]),  # grades
        ({**SIGMOID, "link": "sigmoid"}, 0.3, 1.0, ["ndcg@5"]),  # a share
        ({**SIGMOID, "link": "sigmoid"}, None, 1.0, ["ndcg@5"]),  # unknown
    ],
)
def test_what_natural_units_allow_is_allowed(objective, click, dwell, metrics):
    found({"click": click, "dwell": dwell}, objectives={"mine": objective}, evaluate={"metrics": metrics})


def test_a_label_of_a_table_is_named_with_file_and_row(tmp_path, monkeypatch):
    rows = [f"u{n},i{n},{n},{4 if n == 5 else n % 2}" for n in range(12)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,time,click", *rows]) + "\n")
    data = {"use": "table", "path": str(tmp_path)}
    ids = {**CONFIG["model"], "user": {"ids": ["user"]}, "item": {"ids": ["item"]}, "encoder": None}
    lists = {"split": {"use": "by_time", "valid": 0.1, "test": 0.1}, "history": {"of": "click"}}
    objective = {"mine": {**SIGMOID, "link": "sigmoid"}}
    said = failure(data, objectives=objective, model=ids, lists=lists, tokenizer=None)
    assert f"for user 'u5' and item 'i5' ({tmp_path / 'events.csv'}, row 6; 1 such events)" in said
    monkeypatch.chdir(tmp_path.parent)
    said = failure(data, objectives=objective, model=ids, lists=lists, tokenizer=None)
    assert f"({tmp_path.name}/events.csv, row 6; 1 such events)" in said


@pytest.mark.parametrize(
    "changes, told",
    [
        ({}, "most lists of training and evaluation hold one item"),
        ({"evaluate": {"candidates": {"use": "catalogue"}}}, "most lists of training hold one item"),
        ({"candidates": {"use": "in_batch"}, "evaluate": {"candidates": {"use": "as_logged"}}}, "lists of evaluation"),
        ({"candidates": {"use": "in_batch"}}, ""),
        ({"lists": {**CONFIG["lists"], "window": 2}}, ""),
    ],
)
def test_lists_of_one_that_are_ranked_as_logged_are_told(changes, told, recwarn):
    one = config({"alone": True}, **changes)
    warn_of(one, objectives_of(one), data_of(one, objectives_of(one)).dataset)
    said = [str(one.message) for one in recwarn.list]
    assert len(said) == bool(told)
    if told:
        assert told in said[0]
        assert all(word in said[0] for word in ("catalogue", "in_batch", "lists.window"))
    warn_of(config(**changes), objectives_of(config(**changes)), found(**changes).dataset)
    assert len(recwarn.list) == len(said)


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_label_of_one_value_is_told(everywhere, recwarn, monkeypatch):
    data = mine()
    liked = data.events.feedback["click"] * 0 + 1
    there = data._replace(events=data.events._replace(feedback={**data.events.feedback, "click": liked}))
    monkeypatch.setattr("test_reading.mine", lambda: there)
    one = config(objectives={"mine": SIGMOID}, labels=EVERYWHERE if everywhere else {}, candidates=IN_BATCH)
    objectives = objectives_of(one)
    warn_of(one, objectives, data_of(one, objectives).dataset)
    said = [str(one.message) for one in recwarn.list]
    if everywhere:
        assert not said
    else:
        assert said[0].startswith("objectives.mine: label click is 1 wherever training knows it")


def printed(group) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(group)
    return captured.get()


@pytest.mark.parametrize("loss, told", [("approx_ndcg", True), ("softmax", False)])
def test_a_label_on_a_long_scale_is_told_where_its_gain_is_two_to_it(loss, told, recwarn):
    one = config(objectives={"dwell": {"use": "single", "loss": loss, "label": "dwell"}})
    objectives = objectives_of(one)
    warn_of(one, objectives, data_of(one, objectives).dataset)
    said = [str(one.message) for one in recwarn.list if "2^y - 1" in str(one.message)]
    assert len(said) == told
    assert all("objectives.dwell: label dwell goes up to 200" in one and "loss softmax" in one for one in said)


def test_a_corpus_is_shown_by_its_name_alone():
    text = printed(named("synthetic", ["data.users=5", "data.lists_per_user=2"]))
    for line in ("rows: 5", "rows: 120", "lists: 10", "click: observed 1", "title: empty 0", "first: 2023-11-14"):
        assert line in text
    assert named("nothing", []) is None
    with pytest.raises(UserError, match="users is not a key of a config"):
        named("synthetic", ["users=5"])


def test_the_example_shows_what_the_model_reads(tmp_path):
    model = {**CONFIG["model"], "user": {"text": "{city} {history.title}", "ids": ["user"], "numbers": []}}
    text = printed(described(config(batch={"lists": 4, "item_row": 3, "user_row": 4}, model=model), tmp_path))
    # Item 4 is the first of the middle list; of its title one token has room, of the user's text two.
    assert "item i4 (click 0, dwell 200) [price 4]: thing ..." in text
    assert "user text: Rome" in text and "user columns" not in text
    whole = printed(described(config(batch={"lists": 4}, model=model), tmp_path))
    assert "[price 4]: thing 4\n" in "\n".join(line.rstrip() for line in whole.splitlines()) + "\n"


def test_data_are_shown_where_the_weights_of_the_tokenizer_are_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path))
    text = printed(described(config(tokenizer={"use": "pretrained", "weights": "minilm"}), tmp_path))
    assert "no token lengths: weights: minilm is not here yet; run `mobjrec data get minilm`" in text
    assert "one training list: user u2" in text
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    "asked, code, words",
    [
        (["synthetic", "data.users=5"], 0, ("rows: 5", "satisfaction: observed")),
        (["synthetic", "data.user=5"], 2, ("data.user: synthetic has no such setting; did you mean `users`?",)),
        (["nope"], 2, ("no config file nope", "shipped are: article", "a corpus' name alone does as well")),
    ],
)
def test_the_command_shows_a_corpus_or_says_what_there_is(asked, code, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mobjrec", "data", "show", *asked])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code or 0) == code
    said = "".join(capsys.readouterr())
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    "texts, shown",
    [
        (["Liked: ", "Ran", "Ugetsu"], "Liked: Ran Ugetsu"),
        (["", "Ran. ", "Ugetsu. "], "Ran. Ugetsu. "),
        (["From Rome", ", Ran", "", "\nUgetsu"], "From Rome , Ran\nUgetsu"),
        (["Rome"], "Rome"),
        ([""], ""),
    ],
)
def test_history_texts_stand_apart_as_their_tokens_do(texts, shown):
    assert joined(texts) == shown
