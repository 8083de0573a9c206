"""What a model reads of a table's columns: row 0 for what training has not met, numbers on training's scale."""

import numpy as np
import pytest

from mobjrec.data.columns import outside, readings, side
from mobjrec.data.corpus import several, table_from
from mobjrec.errors import UserError
from mobjrec.types import Column, Input

TAGS = several([["x", "y"], ["z"], [], ["y", "z"]])
TABLE = table_from("abcd", categories={"tag": TAGS}, numbers={"price": [1.0, 3.0, np.nan, 9.0]})
MET = np.array([True, True, True, False])
WANTED = Input(ids=("item", "tag"), numbers=("price",))


def test_what_training_has_not_met_gets_row_0_whose_id_and_values_it_does_not_know():
    ids, features, spec = side(TABLE, WANTED, "item", MET)
    # Item d is not met; of its tags y and z are known from others.
    assert ids.tolist() == [[1, 1, 2], [2, 3, 0], [3, 0, 0], [0, 2, 3]]
    assert spec.ids == (Column("item", 5), Column("tag", 4, 2))
    # Mean 2 and deviation 1 of the known prices that training met.
    assert features.tolist() == [[-1.0], [1.0], [0.0], [7.0]]
    ids, _, _ = side(TABLE, WANTED, "item", np.array([True, False, False, False]))
    assert ids.tolist() == [[1, 1, 2], [0, 0, 0], [0, 0, 0], [0, 2, 0]]


def test_rows_from_outside_are_unseen_but_for_values_that_training_met():
    new = table_from(
        ["b", "e"], categories={"tag": several([["z", "new", "x"], ["new"]])}, numbers={"price": [2.0, np.nan]}
    )
    ids, features = outside(new, TABLE, WANTED, "item", np.array([True, False, True, True]))
    assert ids.tolist() == [[0, 3, 1], [0, 0, 0]]
    # Mean 5 and deviation 4.
    assert features.tolist() == [[-0.75], [0.0]]


def test_readings_say_in_plain_data_how_columns_become_numbers():
    ids, numbers = readings(TABLE, WANTED, "item", MET)
    assert ids["item"] == {"slots": 1, "values": {"a": 1, "b": 2, "c": 3}}
    assert ids["tag"] == {"slots": 2, "values": {"x": 1, "y": 2, "z": 3}}
    assert numbers == {"price": {"mean": 2.0, "deviation": 1.0}}


def test_numbers_are_scaled_in_64_bits():
    # In 32 bits the mean, between two numbers of float32, would be rounded to one of them.
    prices = np.array([16_777_216.0, 16_777_218.0, 16_777_218.0], np.float32)
    table = table_from(["a", "b", "c"], numbers={"price": prices})
    _, features, _ = side(table, Input(numbers=("price",)), "item", np.array([True, True, True]))
    known = prices.astype(np.float64)
    np.testing.assert_array_equal(features[:, 0], ((known - known.mean()) / known.std()).astype(np.float32))


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_none_or_one_has_columns_of_that_length_and_no_nan(rows):
    table = table_from("a" * rows, categories={"tag": several([["x"]] * rows)}, numbers={"price": [3.0] * rows})
    for met in (np.ones(rows, bool), np.zeros(rows, bool)):
        ids, features, _ = side(table, WANTED, "item", met)
        assert ids.shape == (rows, 2) and features.shape == (rows, 1) and np.isfinite(features).all()


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"model\.item\.ids: no column tags; this corpus has tag; did you mean tag\?"):
        side(TABLE, Input(ids=("tags",)), "item", MET)
    with pytest.raises(UserError, match=r"model\.item\.numbers: no column cost; this corpus has price"):
        side(TABLE, Input(numbers=("cost",)), "item", MET)
