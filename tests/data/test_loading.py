"""Batches of an epoch: every list and every event exactly once, whatever the batch; texts always [CLS] to [SEP]."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mobjrec import evaluate
from mobjrec.config import parse
from mobjrec.data import order
from mobjrec.data.batching import item_sequences, user_sequences
from mobjrec.data.loading import batches
from mobjrec.errors import PeerError, UserError
from mobjrec.parts import Parts, assemble, sizes_of
from mobjrec.resolve import complete

CONFIG = {
    "epochs": 2,
    "data": {
        "use": "synthetic",
        "users": 6,
        "items": 16,
        "topics": 2,
        "lists_per_user": 5,
        "list_size": 3,
        "missing": 0.3,
    },
    "lists": {"split": {"use": "by_time", "valid": 0.2, "test": 0.2}, "history": {"of": "click", "last": 3}},
    "candidates": {"use": "as_logged"},
    "batch": {"lists": 4},
    "model": {"use": "ranker", "user": {"ids": ["user"]}, "item": {"ids": ["item"]}, "scorer": {"use": "dot"}},
    "objectives": {"click": {"use": "single", "loss": "softmax", "label": "click"}},
    "weighting": {"use": "equal"},
    "optimizer": {"use": "adamw"},
}


@pytest.fixture(scope="module")
def parts() -> Parts:
    return assemble(complete(parse(CONFIG)), Path("unused"))


def epoch(parts: Parts, batch: int, number: int = 0, multiple: int = 1):
    lists = parts.dataset.train
    steps = -(-len(lists.user) // batch)
    parts = parts._replace(config=complete(parse({**CONFIG, "batch": {"lists": batch}})), steps_per_epoch=steps)
    made = batches(
        parts.feed, lists, parts.train_candidates, sizes_of(parts, multiple),
        seed=3, batch=batch, start=number * steps, stop=(number + 1) * steps, multiple=multiple,
    )  # fmt: skip
    return list(made)


@pytest.mark.parametrize("multiple", [1, 3])
@pytest.mark.parametrize("batch", [1, 4, 17, 18, 19, 50])
def test_every_list_and_event_is_met_exactly_once_an_epoch(parts, batch, multiple):
    lists = parts.dataset.train
    assert len(lists.user) == 18
    for number in range(2):
        loaded = epoch(parts, batch, number, multiple)
        rows = np.concatenate([one.batch.row for one in loaded])
        assert sorted(rows[rows >= 0].tolist()) == list(range(18)) and len(rows) == -(-18 // batch) * batch
        met = []
        for one in loaded:
            # A padding list counts nowhere: no item, no label, no weight.
            empty = one.batch.row < 0
            assert not one.batch.where[empty].any() and not one.batch.weights[empty].any()
            assert not any(known[empty].any() for known in one.batch.observed.values())
            for row, where, items in zip(one.batch.row, one.batch.where, one.batch.items.ids[..., 0], strict=True):
                # Ids count from 1, 0 is for what training has not met.
                met += [(int(lists.user[row]), int(row), int(item) - 1) for item in items[where]]
        wanted = [
            (int(lists.user[row]), row, int(item))
            for row in range(18)
            for item in lists.item[lists.start[row] : lists.start[row + 1]]
        ]
        assert sorted(met) == sorted(wanted)


@pytest.mark.parametrize("batch", [4, 50])
def test_every_observed_label_is_met_exactly_once_an_epoch(parts, batch):
    column = parts.dataset.train.labels["click"]
    loaded = epoch(parts, batch)
    known = np.concatenate([one.batch.labels["click"][one.batch.observed["click"]] for one in loaded])
    assert 0 < len(known) == np.isfinite(column).sum() < len(column)
    assert known.sum() == np.nansum(column)


@pytest.mark.parametrize("limit", [None, 3, 100])
def test_an_evaluation_meets_every_list_once_whatever_the_block(parts, limit, monkeypatch):
    lists = parts.dataset.test
    for size in (1, 4, len(lists.user), 128):
        monkeypatch.setattr(evaluate, "BLOCK", size)
        found = list(evaluate.drawn_blocks(parts, lists, parts.eval_candidates, limit))
        rows = np.concatenate([rows for rows, _ in found])
        assert rows[rows >= 0].tolist() == list(range(min(limit or 100, len(lists.user))))
        assert all(not drawn.where[rows < 0].any() for rows, drawn in found)


def fed(parts: Parts, candidates, **other):
    lists = parts.dataset.train
    return batches(parts.feed, lists, candidates, sizes_of(parts, 1), seed=3, batch=4, start=0, stop=5, **other)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_what_fails_while_a_batch_is_built_is_raised_where_it_is_taken_and_leaves_no_thread(parts):
    def candidates(*given):
        if given[2][0] == order.rows(3, 2, 18, 4)[0]:
            raise UserError("no candidates for this list")
        return parts.train_candidates(*given)

    taken = []
    with pytest.raises(UserError, match="no candidates for this list"):
        for one in fed(parts, candidates):
            taken.append(one.number)
    assert taken == [0, 1] and not workers()


def test_a_batch_that_does_not_come_is_an_error_in_time_that_names_its_step(parts):
    hangs = threading.Event()

    def candidates(*given):
        if given[2][0] == order.rows(3, 1, 18, 4)[0]:
            hangs.wait(60)
        return parts.train_candidates(*given)

    began, taken = time.monotonic(), []
    with pytest.raises(
        PeerError, match=r"process 0 of 1: .* not made that of step 2 in 0.5 seconds; .* last sealed"
    ) as error:
        for one in fed(parts, candidates, patience=0.5):
            taken.append(one.number)
    assert taken == [0] and error.value.code == 5 and time.monotonic() - began < 10
    # It does not keep the process from ending.
    assert all(thread.daemon for thread in workers())
    hangs.set()


def test_a_run_that_leaves_early_leaves_no_thread(parts):
    loaded = fed(parts, parts.train_candidates)
    assert next(loaded).number == 0 and len(workers()) == 1
    loaded.close()
    assert not workers()


def test_texts_of_nothing_are_still_cls_and_sep(tmp_path):
    changes = {
        "data": {"use": "test_loading:silent"},
        "tokenizer": {"use": "trained", "size": 64},
        "batch": {"lists": 4, "item_row": 8, "user_row": 8},
        "model": {
            "use": "ranker",
            "encoder": {"use": "bert", "layers": 1, "width": 4, "heads": 1},
            "user": {"text": "{history.title}"},
            "item": {"text": "{title}"},
            "scorer": {"use": "dot"},
        },
    }
    feed = assemble(complete(parse({**CONFIG, **changes})), tmp_path).feed
    items = item_sequences(feed, np.arange(len(feed.item_tokens.start) - 1))
    alone = [items.token[a:b].tolist() for a, b in zip(items.start[:-1], items.start[1:], strict=True)]
    assert [feed.cls, feed.sep] in alone and all(t[0] == feed.cls and t[-1] == feed.sep for t in alone)
    # Nobody has a history before the first event: only the specials are left.
    users = user_sequences(feed, np.array([0, -1]), np.zeros((2, 2), np.int64))
    assert users.token.tolist() == [feed.cls, feed.sep] * 2


def silent():
    """Items without text, with spaces alone, an emoji, text from right to left, a NUL."""
    from mobjrec.data.corpus import events_from, table_from
    from mobjrec.types import Corpus

    titles = ["", "   ", "\U0001f600", "\u05e9\u05dc\u05d5\u05dd", "\0", "\u200b"]
    rows = np.arange(12)
    events = events_from(rows % 2, rows % 6, rows, {"click": rows % 2})
    return Corpus(table_from("uv"), table_from("abcdef", {"title": titles}), events, {})
