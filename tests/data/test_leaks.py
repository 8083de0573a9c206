"""What splits share: counted by hand on a few rows, and nothing where nothing is shared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.data.corpus import events_from, table_from
from mobjrec.data.leaks import leaks
from mobjrec.types import Corpus

TITLES = ["Red  Bus", "red bus ", "RED\tBUS", "a boat", "", ""]


def corpus(rows, titles=TITLES):
    """rows: (user, item, time)"""
    user, item, time = np.array(rows, np.int64).reshape(-1, 3).T
    users, items = table_from(["u", "v"]), table_from([f"i{n}" for n in range(6)], {"title": titles} if titles else {})
    return Corpus(users, items, events_from(user, item, time, {}), {})


def test_an_event_of_two_splits_is_counted_once_for_each_later_row():
    rows = [(0, 3, 10), (0, 3, 10), (0, 3, 10), (0, 3, 11), (1, 3, 10), (0, 3, 10)]
    (said,) = leaks(corpus(rows), np.array([2, 0, 1, 1, 2, 0]))
    assert said.startswith("events of the same user, item and time as one of an earlier split: 2; ")
    assert "user 'u', item 'i3' at 10 (validation, and training)" in said
    assert "user 'u', item 'i3' at 10 (test, and training)" in said


def test_an_item_under_a_second_id_is_found_by_its_text():
    rows = [(0, 1, 1), (0, 3, 2), (0, 0, 3), (0, 2, 4), (0, 4, 5), (0, 5, 6)]
    (said,) = leaks(corpus(rows), np.array([0, 0, 1, 2, 0, 2]))
    assert "earlier split has: 2; item 'i0' (validation) and 'i1' (training), item 'i2' (test) and 'i1'" in said


@pytest.mark.parametrize(
    "rows, split, titles",
    [
        ([], [], TITLES),
        ([(0, 0, 1), (0, 1, 2)], [0, 0], TITLES),  # twins, but in one split
        ([(0, 0, 1), (0, 1, 2), (1, 1, 3)], [0, 0, 2], TITLES),  # training has both ids
        ([(0, 4, 1), (0, 5, 2)], [0, 2], TITLES),  # no text is no twin
        ([(0, 0, 1), (0, 1, 2)], [0, 2], None),
        ([(0, 0, 1), (0, 0, 1), (1, 0, 1), (0, 3, 1)], [0, 0, 2, 2], TITLES),
    ],
)
def test_what_is_no_leak(rows, split, titles):
    assert leaks(corpus(rows, titles), np.array(split, np.int8)) == []


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=20))
def test_the_count_is_that_of_a_slow_search(rows):
    split = np.array([row[3] for row in rows], np.int8)
    slow = sum(any(a[:3] == b[:3] and b[3] < a[3] for b in rows) for a in rows)
    said = leaks(corpus([row[:3] for row in rows], None), split)
    assert said == [] if slow == 0 else f"split: {slow}; " in said[0]
    assert len(said) == min(slow, 1)


def test_examples_are_few():
    rows = [(0, 3, time) for time in range(50)] * 2
    (said,) = leaks(corpus(rows), np.repeat([0, 2], 50))
    assert "split: 50; " in said and said.count("user 'u'") == 3
