from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import item_sequences, user_sequences
from mobjrec.data.packing import Packing, cells, lay, pack
from mobjrec.data.sizes import Size, packed_width, plan
from mobjrec.parts import assemble, longest_texts
from mobjrec.resolve import complete

ROW = 16


@given(st.lists(st.integers(1, ROW), min_size=1, max_size=60))
def test_no_two_texts_overlap_and_none_is_lost(lengths):
    lengths = np.array(lengths)
    found = pack(lengths, ROW)
    taken = np.zeros((found.rows, ROW), int)
    for text, length in enumerate(lengths):
        taken[found.row[text], found.offset[text] : found.offset[text] + length] += 1
    assert taken.max() <= 1
    assert taken.sum() == lengths.sum()
    assert len({(r, s) for r, s in zip(found.row, found.slot, strict=True)}) == len(lengths)
    # No two rows could have been one.
    full = np.sort(taken.sum(1))
    assert len(full) < 2 or full[0] + full[1] > ROW


def one(packing: Packing, text: int) -> Packing:
    return packing._replace(**{name: getattr(packing, name)[text : text + 1] for name in ("row", "slot", "offset")})


@given(st.lists(st.integers(1, ROW), min_size=1, max_size=30))
def test_every_text_stands_in_its_slot_with_positions_from_0(lengths):
    lengths = np.array(lengths)
    tokens = np.arange(100, 100 + lengths.sum())
    found = pack(lengths, ROW)
    texts = lay(tokens, lengths, found, found.rows + 1, found.slots + 2, ROW)
    begin = 0
    for text, length in enumerate(lengths):
        row = found.row[text]
        mine = texts.slot[row] == found.slot[text] + 1
        assert texts.tokens[row][mine].tolist() == tokens[begin : begin + length].tolist()
        assert texts.position[row][mine].tolist() == list(range(length))
        assert texts.used[row, found.slot[text]]
        places = cells(np.array([begin]), lengths[text : text + 1], one(found, text), found.rows + 1, ROW)
        assert places[row][mine].tolist() == list(range(begin, begin + length)) and (places >= 0).sum() == length
        begin += length
    assert texts.used.sum() == len(lengths)
    assert (texts.slot > 0).sum() == lengths.sum()


def test_a_text_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="17 tokens does not fit a row of 16"):
        pack(np.array([3, 17]), ROW)


def test_rows_are_nearly_full_on_texts_of_many_lengths():
    lengths = np.random.default_rng(0).integers(4, 60, 800)
    assert lengths.sum() / (pack(lengths, 128).rows * 128) > 0.97


def test_planned_sizes_hold_every_draw_with_few_rows_to_spare():
    random = np.random.default_rng(0)
    needed = [
        Size(int(u), 3, int(i), 7)
        for u, i in zip(random.integers(10, 14, 99), random.integers(40, 50, 99), strict=True)
    ]
    needed.append(Size(2, 3, 9, 7))  # the short last batch of an epoch
    sizes = plan(needed, multiple=2)
    assert len(sizes) <= 3
    cells = wanted = 0
    for need in needed:
        size = next(s for s in sizes if all(n <= m for n, m in zip(need, s, strict=True)))
        cells += size.user_rows + size.item_rows
        wanted += need.user_rows + need.item_rows
    assert all(s.user_rows % 2 == 0 and s.item_rows % 2 == 0 for s in sizes)
    assert wanted / cells > 0.9


def test_an_epoch_meets_every_list_once_and_the_next_in_another_order():
    count, batch = 23, 5
    steps = order.steps_per_epoch(count, batch)
    epochs = [np.concatenate([order.rows(3, e * steps + s, count, batch) for s in range(steps)]) for e in range(2)]
    for rows in epochs:
        assert sorted(rows[rows >= 0].tolist()) == list(range(count))
        assert len(rows) == steps * batch
    assert epochs[0].tolist() != epochs[1].tolist()


def test_the_next_seed_is_not_the_next_epoch():
    assert order.permutation(0, 1, 50).tolist() != order.permutation(1, 0, 50).tolist()


@pytest.mark.parametrize(
    "row, longest, found", [(512, 40, 64), (512, 64, 64), (512, 65, 128), (512, 512, 512), (96, 10, 96), (24, 12, 24)]
)
def test_packed_rows_are_halved_while_the_longest_text_fits(row, longest, found):
    assert packed_width(row, longest) == found


def test_the_longest_text_is_the_longest_that_training_builds(tmp_path):
    config = load(Path(__file__).parents[1] / "tiny.yaml", ["batch.item_row=512", "batch.user_row=512"])
    parts = assemble(complete(config), tmp_path)
    items, users = longest_texts(parts.feed)
    lists = parts.dataset.train
    every = user_sequences(parts.feed, lists.user, lists.history)
    assert users == np.diff(every.start).max()
    assert items == np.diff(item_sequences(parts.feed, np.arange(len(parts.feed.item_tokens.start) - 1)).start).max()
