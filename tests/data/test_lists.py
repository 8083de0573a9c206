from collections.abc import Callable

import numpy as np
import pytest

from mobjrec.data import splits
from mobjrec.data.lists import build
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Dataset, Events, Labels, Table

STRINGS = np.dtypes.StringDType()


def corpus(rows: list[tuple], users: int = 4, items: int = 12, split: list[int] | None = None) -> Corpus:
    """rows: (user, item, time, list, click)."""
    user, item, time, impression, click = (np.array(column) for column in zip(*rows, strict=True))
    empty = {"text": {}, "categories": {}, "numbers": {}}
    events = Events(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        time=time.astype(np.int64),
        list=impression.astype(np.int64),
        position=np.full(len(user), -1, np.int32),
        split=None if split is None else np.array(split, np.int8),
        feedback={"click": click.astype(np.float32)},
        categories={},
        numbers={},
    )
    names = [Table(np.array([str(n) for n in range(count)], STRINGS), **empty) for count in (users, items)]
    return Corpus(*names, events, {})


def built(made: Corpus, split: Callable = splits.published, **settings) -> Dataset:
    label = Labels(made.events.feedback["click"])
    return build(made, {"click": label}, split(), **{"history": "click", **settings})


def remembered(dataset: Dataset, lists, row: int) -> list[int]:
    begin, stop = lists.history[row]
    return dataset.history[begin:stop].tolist()


def test_history_is_what_was_clicked_strictly_before_the_list_newest_last():
    rows = [(0, 1, 10, 0, 1), (0, 2, 20, 1, 1), (0, 3, 20, 1, 0), (0, 4, 30, 2, 1), (1, 5, 5, 3, 1)]
    dataset = built(corpus(rows, split=[0] * 5))
    found = {int(t): remembered(dataset, dataset.train, n) for n, t in enumerate(dataset.train.time)}
    assert found == {10: [], 20: [1], 30: [1, 2], 5: []}


def test_events_at_the_same_time_as_the_list_are_not_its_history():
    rows = [(0, 1, 10, 0, 1), (0, 2, 10, 1, 1), (0, 3, 10, 2, 1)]
    dataset = built(corpus(rows, split=[0, 0, 0]))
    assert [remembered(dataset, dataset.train, n) for n in range(3)] == [[], [], []]


def test_shuffled_rows_give_the_same_lists():
    random = np.random.default_rng(0)
    # Ties in time, but no user meets an item twice in a second: nothing would tell such rows apart.
    rows = [(n % 4, n // 4 % 12, int(t), -1, int(c)) for n, (t, c) in enumerate(random.integers(0, [9, 2], (48, 2)))]
    one = built(corpus(rows), splits.last_share, window=3)
    other = built(corpus([rows[n] for n in random.permutation(48)]), splits.last_share, window=3)
    for name in ("user", "time", "history", "start", "item"):
        np.testing.assert_array_equal(getattr(one.train, name), getattr(other.train, name))
    np.testing.assert_array_equal(one.train.labels["click"], other.train.labels["click"])
    np.testing.assert_array_equal(one.history, other.history)


def test_no_history_event_is_later_than_its_list_or_of_a_later_split():
    random = np.random.default_rng(1)
    rows = [(int(u), int(i), int(t), -1, 1) for u, i, t in random.integers(0, [4, 12, 50], (200, 3))]
    made = corpus(rows)
    dataset = built(made, lambda: splits.random(0.2, 0.2), window=2, last=100)
    part = {}
    for lists in (dataset.train, dataset.valid, dataset.test):
        for event in lists.event:
            part[int(event)] = lists.split
    for lists in (dataset.train, dataset.valid, dataset.test):
        for row in range(len(lists.user)):
            allowed = [
                int(made.events.item[e])
                for e in range(200)
                if made.events.user[e] == lists.user[row]
                and made.events.time[e] < lists.time[row]
                and part[e] <= lists.split
            ]
            assert sorted(remembered(dataset, lists, row)) == sorted(allowed)


def test_the_newest_events_are_kept_when_a_history_is_cut():
    rows = [(0, n, 10 * n, -1, 1) for n in range(6)]
    dataset = built(corpus(rows, split=[0] * 6), last=2)
    assert remembered(dataset, dataset.train, 5) == [3, 4]


def test_a_window_joins_following_events_of_a_user_within_a_split():
    rows = [(0, n, n, -1, 1) for n in range(5)] + [(1, n, n, -1, 1) for n in range(3)]
    dataset = built(corpus(rows, split=[0, 0, 0, 0, 2, 0, 0, 0]), window=3)
    assert [
        dataset.train.item[a:b].tolist() for a, b in zip(dataset.train.start, dataset.train.start[1:], strict=False)
    ] == [
        [0, 1, 2],
        [3],
        [0, 1, 2],
    ]
    assert dataset.test.item.tolist() == [4]
    whole = built(corpus(rows, split=[0, 0, 0, 0, 2, 0, 0, 0]), window=1, eval_window=0)
    assert len(whole.train.user) == 7
    assert len(whole.test.user) == 1


def test_impressions_that_share_a_second_stay_apart():
    rows = [(0, 1, 10, 7, 1), (0, 2, 10, 8, 0), (0, 3, 10, 7, 0), (0, 4, 10, 8, 1)]
    dataset = built(corpus(rows, split=[0] * 4))
    found = {
        tuple(sorted(dataset.train.item[a:b].tolist()))
        for a, b in zip(dataset.train.start, dataset.train.start[1:], strict=False)
    }
    assert found == {(1, 3), (2, 4)}


def test_every_event_is_in_exactly_one_list():
    random = np.random.default_rng(2)
    rows = [(int(u), int(i), int(t), -1, 1) for u, i, t in random.integers(0, [4, 12, 50], (90, 3))]
    for split in (splits.by_time, splits.last_out, splits.last_share, splits.random, splits.by_user):
        dataset = built(corpus(rows), split, window=4)
        events = np.concatenate([lists.event for lists in (dataset.train, dataset.valid, dataset.test)])
        assert sorted(events.tolist()) == list(range(90)), split


def test_seen_holds_the_earliest_split_of_each_item():
    rows = [(0, 1, 1, -1, 1), (0, 2, 2, -1, 0), (0, 1, 3, -1, 1), (2, 5, 1, -1, 1)]
    dataset = built(corpus(rows, split=[0, 1, 2, 2]))
    start, item, split = dataset.seen
    assert start.tolist() == [0, 2, 2, 3, 3]
    assert item.tolist() == [1, 2, 5]
    assert split.tolist() == [0, 1, 2]


def test_the_whole_history_spans_all_splits():
    rows = [(0, 1, 1, -1, 1), (0, 2, 2, -1, 1), (2, 5, 1, -1, 1), (0, 3, 3, -1, 0)]
    dataset = built(corpus(rows, split=[0, 2, 2, 0]))
    spans = [dataset.history[dataset.whole[u] : dataset.whole[u + 1]].tolist() for u in range(4)]
    assert spans == [[1, 2], [], [5], []]


@pytest.mark.parametrize(
    ("settings", "says"), [({"history": "liked"}, "no label liked"), ({"split": lambda: splits.last_out(9, 9)}, None)]
)
def test_what_cannot_be_built_is_said(settings, says):
    rows = [(0, n, n, -1, 1) for n in range(5)]
    if says is None:
        assert len(built(corpus(rows), **settings).train.user) == 5  # too few units: all stay in training
    else:
        with pytest.raises(UserError, match=says):
            built(corpus(rows), splits.last_out, **settings)


def test_a_split_that_leaves_nothing_for_training_is_told_with_its_counts():
    said = r"lists.split makes 2 events 0 training, 0 validation, 2 test; give more events, hold a smaller share out"
    with pytest.raises(UserError, match=said):
        built(corpus([(0, 1, 1, -1, 1), (0, 2, 1, -1, 1)]), splits.by_time)


def test_published_without_a_published_split_is_refused():
    with pytest.raises(UserError, match="no published split"):
        built(corpus([(0, 1, 1, -1, 1)]))


def test_last_share_is_the_floor_of_each_users_events():
    user, time = np.repeat([0, 1], [10, 7]), np.arange(17)
    found = splits.last_share(valid=0.1, test=0.2)(user, time, None)
    assert found[:10].tolist() == [0] * 7 + [1] + [2] * 2  # floor(.8 * 10) = 8, floor(.9 * 8) = 7
    assert found[10:].tolist() == [0] * 4 + [1] + [2] * 2  # floor(.8 * 7) = 5, floor(.9 * 5) = 4
    # .7 * 90 is 62.99999999999999 in floats.
    many = splits.last_share(valid=0.0, test=0.3)(np.zeros(90, int), np.arange(90), None)
    assert many.tolist() == [0] * 63 + [2] * 27


def test_by_time_keeps_equal_times_together():
    time = np.array([1, 2, 3, 4, 5, 5, 5, 5, 5, 9])
    found = splits.by_time(valid=0.2, test=0.2)(np.zeros(10, int), time, None)
    assert len(set(found[4:9].tolist())) == 1
    assert found[-1] == 2
    assert found[0] == 0


def test_a_list_knows_the_slots_that_its_items_were_shown_in():
    rows = [(0, 7, 12, 0, 1), (0, 5, 11, 0, 0), (1, 6, 30, 1, 1)]
    made = corpus(rows, split=[0, 0, 1])
    assert built(made).train.position is None
    shown = built(made._replace(events=made.events._replace(position=np.array([1, 0, -1], np.int32))))
    # In the order of the list, which is that of time where an impression's events have their own.
    assert shown.train.item.tolist() == [5, 7] and shown.train.position.tolist() == [0, 1]
    assert shown.valid.position.tolist() == [-1]
