"""Acts joined to events: nothing is known before its time, neither in histories nor across the cut of a split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.data import lists, splits
from mobjrec.data.pivot import Kinds
from mobjrec.data.readers.table import table
from mobjrec.errors import UserError
from mobjrec.types import Labels

KINDS = Kinds("kind", names=("view", "like"))


def acts(*rows):
    """(user, item, time, kind, list or None) each."""
    names = ("user", "item", "time", "kind", "list")
    return [dict(zip(names, (*row, None)[:5], strict=True)) for row in rows]


def read(*rows, **settings):
    return table(events=acts(*rows), kinds=KINDS._replace(**settings))


def built(corpus, split, of="like", **settings):
    labels = {name: Labels(column) for name, column in corpus.events.feedback.items()}
    return lists.build(corpus, labels, split, history=of, **settings)


def told(dataset, part):
    """{item: (list's time, items remembered, like)} of lists of one item."""
    rows = getattr(dataset, part)
    names = dataset.items.id
    return {
        str(names[rows.item[n]]): (
            int(rows.time[n]),
            names[dataset.history[slice(*rows.history[n])]].tolist(),
            float(rows.labels["like"][n]),
        )
        for n in range(len(rows.user))
    }


CRITIC = (("u1", "i1", 100, "view"), ("u1", "i2", 500, "view"), ("u1", "i1", 1000, "like"), ("u1", "i3", 1500, "view"))


def test_a_like_is_in_no_history_and_no_label_before_it_happened():
    found = told(built(read(*CRITIC), splits.last_share(valid=0.0, test=0.0)), "train")
    assert found == {"i2": (500, [], 0.0), "i1": (1000, [], 1.0), "i3": (1500, ["i1"], 0.0)}


def test_a_like_after_the_cut_is_no_label_of_training():
    late = [("u1", f"j{n}", 10 * n, "view") for n in range(8)]
    dataset = built(read(*CRITIC[:3], *late), splits.by_time(valid=0.1, test=0.1))
    assert "i1" in told(dataset, "test")
    assert told(dataset, "test")["i1"] == (1000, [], 1.0)
    assert all(like == 0 for part in ("train", "valid") for _, _, like in told(dataset, part).values())


def test_a_list_that_is_clicked_after_the_cut_is_of_the_later_split():
    shown = [("u1", f"i{n}", 100 + n // 2, "view", f"l{n // 2}") for n in range(20)]
    shown.append(("u1", "i19", 109, "like", "l9"))
    late = ("u1", "i3", 108, "like", "l1")
    train = built(read(*shown), splits.by_time(valid=0.0, test=0.2)).train
    assert 3 in train.item.tolist() and len(train.user) == 8
    dataset = built(read(*shown, late), splits.by_time(valid=0.0, test=0.2))
    assert 3 not in dataset.train.item.tolist()
    # Both rows of the list went, at the time it was shown, and the later lists remember it after the click alone.
    assert sorted(dataset.test.item.tolist()) == [2, 3, 16, 17, 18, 19]
    assert dataset.test.time.tolist() == [101, 108, 109]
    assert [dataset.history[slice(*span)].tolist() for span in dataset.test.history] == [[], [], [3]]


@pytest.mark.parametrize("split", [splits.last_out(valid=0, test=1), splits.last_share(valid=0.0, test=0.3)])
def test_what_a_user_clicked_last_is_held_out_not_what_was_shown_last(split):
    rows = [("u1", f"i{n}", 100 * n, "view", f"l{n}") for n in range(3)]
    dataset = built(read(*rows, ("u1", "i1", 900, "like", "l1")), split)
    assert told(dataset, "test") == {"i1": (900, [], 1.0)}
    assert told(dataset, "train") == {"i0": (0, [], 0.0), "i2": (200, [], 0.0)}


def test_the_published_split_is_that_of_the_last_act():
    rows = [dict(row, split=split) for row, split in zip(acts(*CRITIC), (0, 0, 2, 1), strict=True)]
    assert table(events=rows, kinds=KINDS).events.split.tolist() == [2, 0, 1]


def test_a_value_is_that_of_the_latest_act_whatever_the_order_of_rows():
    rows = acts(("u", "i", 30, "buy"), ("u", "i", 10, "buy"), ("u", "i", 10, "view"))
    for row, amount in zip(rows, (3.0, 7.0, None), strict=True):
        row["amount"] = amount
    events = table(events=rows, kinds=Kinds("kind", names=("buy",), value="amount")).events
    assert (events.feedback["buy"].tolist(), events.time.tolist()) == ([3.0], [30])


def test_acts_long_after_the_first_are_an_event_of_their_own():
    rows = [("u", "i", t, "view") for t in (0, 4, 10, 11, 21)] + [("u", "i", 11, "like"), ("u", "k", 5, "view")]
    events = read(*rows, within=10).events
    # 0, 4 and 10; then 11 and 21, which lies ten after 11, with the like; the other item apart.
    assert events.time.tolist() == [10, 21, 5]
    assert events.feedback["like"].tolist() == [0, 1, 0]
    assert read(*rows).events.time.tolist() == [21, 5]
    assert read(*rows, within=10**15).events.time.tolist() == [21, 5]
    assert read(*rows, within=0).events.time.tolist() == [0, 4, 10, 11, 21, 5]


def test_acts_of_one_list_are_one_event_however_long_it_takes():
    rows = [("u", "i", 0, "view", "a"), ("u", "i", 900, "like", "a"), ("u", "i", 10, "view"), ("u", "i", 90, "like")]
    events = read(*rows, within=10).events
    assert events.time.tolist() == [900, 10, 90]
    assert (events.list.tolist(), events.feedback["like"].tolist()) == ([0, -1, -1], [1, 0, 1])


def test_a_window_below_0_is_refused():
    with pytest.raises(UserError, match=r"kinds\.within is -1; expected seconds, 0 or more, or null"):
        read(("u", "i", 0, "view"), ("u", "i", 0, "like"), within=-1)


@given(
    st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("ij"), st.integers(0, 40)), min_size=1, max_size=20),
    st.integers(0, 12),
)
def test_no_event_lasts_longer_than_its_window_and_none_begins_within_another(rows, within):
    events = table(events=acts(*((*row, "view") for row in rows)), kinds=Kinds("kind", within=within)).events
    expected = []
    for pair in dict.fromkeys(row[:2] for row in rows):
        begin = None
        for time in sorted(row[2] for row in rows if row[:2] == pair):
            if begin is None or time > begin + within:
                begin = time
                expected.append([*pair, time])
            expected[-1][2] = time
    users, items = (list(dict.fromkeys(row[n] for row in rows)) for n in (0, 1))
    found = zip(events.user.tolist(), events.item.tolist(), events.time.tolist(), strict=True)
    assert sorted((users[u], items[i], t) for u, i, t in found) == sorted(map(tuple, expected))
    assert np.isin(events.time, [row[2] for row in rows]).all()
