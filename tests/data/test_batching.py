"""What a host builds is its part of the batch, and reads nothing of the others'."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build, item_lengths, item_sequences, user_lengths, user_sequences
from mobjrec.data.store import States
from mobjrec.parts import assemble, sizes_of
from mobjrec.resolve import complete

PARTS = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = load(Path(__file__).parents[1] / "tiny.yaml")
    return assemble(complete(config), tmp_path_factory.mktemp("cache"))


def stored(feed, kind):
    """The feed as it is where encoders are frozen: numbers of our own in the place of what they make of texts."""
    lists, random = feed.dataset.train, np.random.default_rng(0)
    users = np.arange(len(lists.user))
    if kind == "vectors":
        vectors = random.normal(size=(len(feed.item_tokens.start) - 1, 3)).astype(np.float32)
        return feed._replace(
            stored_items=vectors, stored_users={0: random.normal(size=(len(users), 3)).astype(np.float32)}
        )
    if kind == "lower":
        texts = item_sequences(feed, np.arange(len(feed.item_tokens.start) - 1))
        told = user_sequences(feed, lists.user, lists.history)
        states = [States(s.start[:-1], random.normal(size=(len(s.token), 2)).astype(np.float32)) for s in (texts, told)]
        return feed._replace(lower_items=states[0], lower_users={0: states[1]})
    return feed


def arguments(parts, step=0, shared=False):
    lists = parts.dataset.train
    rows = order.rows(0, step, len(lists.user), 16)
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(0, step))
    if shared:
        drawn = drawn._replace(item=drawn.item[:1], log_q=drawn.log_q[:1])
    return lists, rows, drawn, sizes_of(parts, 2 * PARTS), 2 * PARTS


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", ["tokens", "vectors", "lower"])
def test_the_parts_put_together_are_the_batch(tiny, kind, shared):
    parts = tiny._replace(feed=stored(tiny.feed, kind)._replace(history=3))
    given = arguments(parts, shared=shared)
    whole, numbers = build(parts.feed, *given)
    found = [build(parts.feed, *given, part=(n, PARTS)) for n in range(PARTS)]
    assert all(one == numbers for _, one in found)
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole):
        leaves = [dict(jax.tree_util.tree_leaves_with_path(batch))[path] for batch, _ in found]
        together = leaves[0] if len(leaf) == 1 else np.concatenate(leaves)
        np.testing.assert_array_equal(together, leaf, err_msg=jax.tree_util.keystr(path))
    assert len(whole.item_texts.used) // PARTS == len(found[0][0].item_texts.used)
    assert (len(found[0][0].items.ids) == 1) == shared


def test_a_part_reads_the_tokens_of_its_own_texts_alone(tiny):
    given = arguments(tiny)
    first = build(tiny.feed, *given, part=(0, 2))[0]
    tokens, texts = tiny.feed.item_tokens, tiny.feed.item_text
    read = np.zeros(len(tokens.token), bool)
    whole = build(tiny.feed, *given)[0]
    half = whole.item_texts.used.size // 2
    for item, place in zip(given[2].item.ravel(), whole.items.text.ravel(), strict=True):
        if item >= 0 and place < half:
            read[tokens.start[texts[item]] : tokens.start[texts[item] + 1]] = True
    assert read.any() and not read.all() and first.items.text.max() >= half
    damaged = tiny.feed._replace(item_tokens=tokens._replace(token=np.where(read, tokens.token, -7).astype(np.int32)))
    again = build(damaged, *given, part=(0, 2))[0]
    jax.tree.map(np.testing.assert_array_equal, again, first)
    other = build(damaged, *given, part=(1, 2))[0]
    assert (other.item_texts.tokens == -7).any()


def test_lengths_are_those_of_the_sequences(tiny):
    for feed in (tiny.feed, tiny.feed._replace(profile_tokens=tiny.feed.item_tokens, user_row=12, item_row=9)):
        lists = feed.dataset.train
        texts = np.arange(len(feed.item_tokens.start) - 1)
        np.testing.assert_array_equal(item_lengths(feed, texts), np.diff(item_sequences(feed, texts).start))
        who = np.where(np.arange(len(lists.user)) % 3, lists.user, -1)
        told = user_sequences(feed, who, lists.history)
        np.testing.assert_array_equal(user_lengths(feed, who, lists.history), np.diff(told.start))


def test_a_batch_has_the_slots_that_items_were_shown_in(tiny):
    lists, rows, drawn, *rest = arguments(tiny)
    # The synthetic corpus shows its lists in order, and as_logged draws them so.
    batch, _ = build(tiny.feed, lists, rows, drawn, *rest)
    shown = np.where(drawn.row >= 0, tiny.corpus.events.position[lists.event[drawn.row]], -1)
    np.testing.assert_array_equal(batch.position, shown)
    assert (shown == -1).any() == (drawn.row < 0).any() and shown.max() + 1 == tiny.spec.positions
    none, _ = build(tiny.feed, lists._replace(position=None), rows, drawn, *rest)
    assert none.position is None
