import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobjrec.data import order
from mobjrec.data.batching import Size, plan
from mobjrec.data.packing import lay, pack

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
    # First fit decreasing never takes more than 11/9 of the best, plus one.
    assert found.rows <= int(np.ceil(lengths.sum() / ROW)) * 11 / 9 + 1


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
