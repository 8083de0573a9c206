import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.data.corpus import category_at, check, events_at, events_from, several, single, table_from
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus
from mobjrec.types import Category, Corpus, Events, Table

DAY = 86_400


def corpus(**changes) -> Corpus:
    columns = {
        "user": [0, 0, 1, 1],
        "item": [0, 1, 0, 2],
        "time": [10 * DAY, 10 * DAY, 11 * DAY, 12 * DAY],
        "feedback": {"click": [1, 0, np.nan, 1]},
        "list": [0, 0, 1, -1],
        "position": [0, 1, 0, -1],
    }
    users = table_from(["u", "v"], text={"city": ["Rome", ""]})
    tags = several([["x", "y"], [], ["y"]])
    items = table_from(["a", "b", "c"], categories={"tag": tags}, numbers={"n": [1, 2, np.nan]})
    return Corpus(users, items, events_from(**(columns | changes)), units={})


def problems(broken: Corpus) -> str:
    with pytest.raises(UserError) as caught:
        check(broken, "mine")
    return str(caught.value)


def test_a_sound_corpus_is_returned_as_it_is_and_keeps_every_promise():
    sound = corpus()
    assert check(sound) is sound
    check_corpus(sound, deep=False)


def test_categories_hold_distinct_values_a_row_in_the_order_they_came():
    found = several([["b", "a", "b"], [], ["a"]])
    assert found.names.tolist() == ["b", "a"]
    assert found.start.tolist() == [0, 2, 2, 3]
    assert found.value.tolist() == [0, 1, 1]
    assert single(["", "z", "z"]).start.tolist() == [0, 0, 1, 2]


@given(st.lists(st.lists(st.sampled_from("abcde")), max_size=8), st.data())
def test_taking_rows_of_a_category_takes_their_values(rows, data):
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)) if rows else []
    category = category_at(several(rows), np.array(picked, np.int64))
    values = [category.names[v] for v in category.value]
    found = [values[a:b] for a, b in zip(category.start[:-1], category.start[1:], strict=True)]
    assert found == [list(dict.fromkeys(rows[row])) for row in picked]


def test_events_at_rows_keep_all_columns_together():
    events = corpus(
        split=[0, 1, 2, 0], numbers={"hour": [1, 2, 3, 4]}, categories={"tab": single(["p", "", "q", "p"])}
    ).events
    found = events_at(events, np.array([2, 0]))
    assert (found.user.tolist(), found.item.tolist(), found.split.tolist()) == ([1, 0], [0, 0], [2, 0])
    assert found.numbers["hour"].tolist() == [3, 1]
    assert found.categories["tab"].names[found.categories["tab"].value].tolist() == ["q", "p"]
    np.testing.assert_array_equal(found.feedback["click"], [np.nan, 1])


def test_a_column_of_another_length_is_refused_when_it_is_built():
    with pytest.raises(ValueError, match="city has 1 rows for 2 ids"):
        table_from(["u", "v"], text={"city": ["Rome"]})
    with pytest.raises(ValueError, match="tag has 1 rows for 2 expected"):
        table_from(["u", "v"], categories={"tag": single(["x"])})


@pytest.mark.parametrize("column", ["user", "item", "position"])
@pytest.mark.parametrize("wrong", [2**33 + 1, -(2**31) - 1, 1.5, "7", float("nan")])
def test_an_id_that_is_no_row_is_refused_not_folded_into_another(column, wrong):
    with pytest.raises(ValueError, match=f"{column} .* is not a row of a table; number the ids from 0"):
        corpus(**{column: [0, 1, 0, wrong]})


def test_an_id_of_64_bits_in_events_of_ones_own_is_outside_its_table():
    events = corpus().events
    wide = events._replace(user=np.array([0, 0, 2**33 + 1, 1]))
    assert "user 8589934593 in row 2 is outside its table of 2" in problems(corpus()._replace(events=wide))


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"user": [0, 0, 1, 2]}, "user 2 in row 3 is outside its table of 2"),
        ({"item": [0, -1, 0, 2]}, "item -1 in row 1 is outside its table of 3"),
        ({"time": [DAY, -5, DAY, DAY]}, "time -5 in row 1: it lies before 1970"),
        ({"time": [DAY, DAY, 1_700_000_000_000, DAY]}, "row 2: it looks like milliseconds"),
        ({"time": [DAY, DAY, 5_000_000_000, DAY]}, "row 2: it lies after the year 2100"),
        ({"feedback": {"click": [0, 1, np.inf, 0]}}, "click is inf in row 2; expected a finite number"),
        ({"numbers": {"hour": [0, -np.inf, 1, 0]}}, "hour is -inf in row 1"),
        ({"split": [0, 1, 3, 0]}, "split 3 in row 2 is outside its table of 3"),
        ({"list": [0, 0, 0, -1]}, "rows 1 and 2 have one list but two users"),
        ({"item": [1, 1, 0, 2]}, "rows 0 and 1 show one item in the same list"),
        ({"feedback": {"click": [0, 1]}}, "click has 2 rows for 4 users"),
    ],
)
def test_what_is_wrong_with_events_is_named_with_its_row(change, expected):
    assert expected in problems(corpus(**change))


def test_ids_must_be_distinct_and_not_empty():
    found = problems(corpus()._replace(users=table_from(["u", "u", ""])))
    assert "rows 0 and 1 have the same id 'u'" in found
    assert "row 2 has an empty id" in found


def test_a_category_must_point_at_its_names():
    broken = Category(single(["x", "y", "z"]).names, np.array([0, 1, 2, 3]), np.array([0, 1, 3], np.int32))
    items = table_from(["a", "b", "c"])._replace(categories={"tag": broken})
    assert "items: tag has value 3 for 3 names" in problems(corpus()._replace(items=items))


def test_all_problems_stand_in_one_report():
    broken = corpus(time=[-1, DAY, DAY, DAY], feedback={"click": [np.inf, 0, 0, 0]})._replace(
        users=table_from(["u", "u"])
    )
    found = problems(broken)
    assert found.startswith("mine: 3 problems")
    assert all(part in found for part in ("same id 'u'", "before 1970", "click is inf"))


def test_a_table_of_infinite_numbers_is_refused():
    assert "items: n is inf in row 1" in problems(
        corpus()._replace(items=table_from("abc", numbers={"n": [1, np.inf, 2]}))
    )


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda c: c._replace(events=c.events._replace(time=c.events.time.astype(np.int32))), "time is int32"),
        (lambda c: c._replace(events=c.events._replace(feedback={})), "no feedback"),
        (
            lambda c: c._replace(events=c.events._replace(feedback={"x": np.full(4, np.nan, np.float32)})),
            "never observed",
        ),
        (lambda c: c._replace(events=c.events._replace(position=np.zeros(4, np.int32))), "position occurs twice"),
        (lambda c: c._replace(users=c.users._replace(id=np.array(["u", "v"]))), "not StringDType"),
        (lambda c: c._replace(units={"nothing": "metres"}), "nothing"),
    ],
)
def test_the_public_check_finds_a_broken_promise(change, expected):
    with pytest.raises(AssertionError, match=expected):
        check_corpus(change(corpus()), deep=False)


def test_the_public_check_finds_a_value_named_twice_in_a_row():
    twice = Category(single(["x"]).names, np.array([0, 2, 2, 2]), np.array([0, 0], np.int32))
    items = corpus().items._replace(categories={"tag": twice})
    with pytest.raises(AssertionError, match="names one value twice"):
        check_corpus(corpus()._replace(items=items), deep=False)


def test_the_seam_has_no_field_that_events_at_forgets():
    assert set(Events._fields) == {
        "user", "item", "time", "list", "position", "split", "feedback", "categories", "numbers"
    }  # fmt: skip
    assert set(Table._fields) == {"id", "text", "categories", "numbers"}


def test_rows_of_one_id_are_one_problem():
    twice = corpus()._replace(items=table_from(["i", "k", "i", "i", "k", "i"]))
    found = problems(twice)
    assert "items: rows 0, 2, 3 and 1 more have the same id 'i'; ids must be distinct" in found
    assert "items: rows 1 and 4 have the same id 'k'" in found
    assert found.count("the same id") == 2
