"""A config -> the values a run is made of: what is handed on, and what is refused before anything compiles."""

from pathlib import Path

import numpy as np
import pytest

from mobjrec.config import parse
from mobjrec.data.corpus import events_from, table_from
from mobjrec.errors import UserError
from mobjrec.losses import squared
from mobjrec.objectives import single
from mobjrec.parts import assemble
from mobjrec.resolve import complete
from mobjrec.types import Corpus, Objective, PerObjective

BERT = Path(__file__).parent / "fixtures" / "bert-tiny"

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


def mine(title: str = "a song", item: int = 0, late: int = 0, nothing: bool = False) -> Corpus:
    """Six users and six items, an event each, the last two for testing; what is asked for is wrong with it.

    title: of the last item   item: of the second event   late: the split of the first event's repetition
    """
    if nothing:
        return None
    titles = ["a red bus", "a boat", "a soup", "the red bus", "a film", title]
    user = [0, 1, 2, 3, 4, 5, *([0] if late else [])]
    events = events_from(
        user=user,
        item=[0, item or 1, *user[2:]],
        time=[100 + n for n in user],
        feedback={"click": [n % 2 for n in user]},
        split=[0, 0, 0, 0, 2, 2, *([late] if late else [])],
    )
    users = table_from([f"u{n}" for n in range(6)])
    return Corpus(users, table_from([f"i{n}" for n in range(6)], {"title": titles}), events, {})


def parts_of(cache: Path = Path("unused"), **changes):
    return assemble(complete(parse({**CONFIG, **changes})), cache)


def mine_with(strict: bool = False, **wrong) -> dict:
    return {
        "data": {"use": "test_parts:mine", **wrong},
        "lists": {"split": {"use": "published"}, "history": {"of": "click", "last": 3}, "strict": strict},
        "objectives": {"click": CONFIG["objectives"]["click"]},
    }


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
        UserError, match=r"model\.scorer\.bias: .*'satisfied', which is no head; heads are click, satisfaction"
    ):
        parts_of(model=model)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (
            {"late": 2},
            "events of the same user, item and time as one of an earlier split: 1; user 'u0', item 'i0' at 100",
        ),
        (
            {"title": "A  Boat"},
            "with the text of one that an earlier split has: 1; item 'i5' (test) and 'i1' (training)",
        ),
    ],
)
def test_a_leak_between_splits_is_noted_and_an_error_where_it_must_not_be(wrong, said):
    assert parts_of(**mine_with(strict=True)).notes == ()
    (note,) = parts_of(**mine_with(**wrong)).notes
    assert said in note
    with pytest.raises(UserError, match=r"^lists\.strict: ") as error:
        parts_of(**mine_with(strict=True, **wrong))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"item": 6}, r"events: item 6 in row 1 is outside its table of 6"),
        ({"item": -1}, r"events: item -1 in row 1 is outside its table of 6"),
        ({"nothing": True}, r"data: test_parts:mine made a NoneType; expected a Corpus"),
        ({"item": 2**33}, r"data: item 8589934592 is not a row of a table; number the ids from 0"),
    ],
)
def test_a_corpus_of_ones_own_is_checked_before_anything_indexes_with_it(wrong, said):
    with pytest.raises(UserError, match=said):
        parts_of(**mine_with(**wrong))


def test_a_label_that_is_no_probability_is_named_with_its_event():
    stars = {"use": "single", "loss": "sigmoid_cross_entropy", "label": "satisfaction", "link": "sigmoid"}
    with pytest.raises(
        UserError, match=r"objectives\.stars: label satisfaction is \S+ for user 'u\d+' and item 'i\d+' \("
    ):
        parts_of(objectives={"stars": stars})
    liked = {"use": "at_least", "of": "satisfaction", "value": 3}
    found = parts_of(objectives={"stars": {**stars, "label": "liked"}}, labels={"liked": liked})
    assert set(np.unique(found.dataset.train.labels["liked"][np.isfinite(found.dataset.train.labels["liked"])])) == {
        0,
        1,
    }


def reading(encoder: dict, tokenizer: dict, item_row: int) -> dict:
    """A config that reads the titles of `mine`."""
    text = {"user": {"text": "{history.title}"}, "item": {"text": "{title}"}}
    model = {"use": "ranker", "scorer": {"use": "dot"}, "encoder": {"use": "bert", **encoder}, "width": 4, **text}
    batch = {"lists": 4, "item_row": item_row, "user_row": 8}
    return {**mine_with(), "model": model, "tokenizer": tokenizer, "batch": batch}


def test_what_rows_have_no_room_for_and_what_is_unknown_is_noted(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    tokenizer = {"use": "pretrained", "weights": str(tmp_path)}
    parts = parts_of(tmp_path, **reading({"layers": 1, "width": 8, "heads": 2}, tokenizer, item_row=4))
    # Rows of 4 have room for 2 tokens between [CLS] and [SEP]; two of six titles have 3. "a" alone is known: 5 of 12.
    assert np.diff(parts.feed.item_tokens.start).tolist() == [2] * 6
    cut, unknown, named = parts.notes
    assert cut == "item texts: 33.3% are longer than batch.item_row and are cut there"
    assert unknown.startswith("item texts: 58.3% of the tokens are unknown to the tokeniser")
    assert named.startswith("items as histories name them: 64.3% of the tokens are unknown")


def test_a_vocabulary_larger_than_the_embedding_is_refused_before_anything_compiles(tmp_path):
    words = (BERT / "vocab.txt").read_text(encoding="utf-8").rstrip("\n")
    (tmp_path / "vocab.txt").write_text(words + "\nonemore\n", encoding="utf-8")
    tokenizer = {"use": "pretrained", "weights": str(tmp_path)}
    with pytest.raises(UserError, match=r"embeddings for 401 tokens, the tokeniser has 402"):
        parts_of(tmp_path / "cache", **reading({"weights": str(BERT)}, tokenizer, item_row=8))
