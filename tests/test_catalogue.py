"""The item matrix on disk, and the best items of many users at once."""

import jax
import numpy as np
import pytest

import mobjrec
from mobjrec import catalogue, inference, rank
from mobjrec.errors import UserError


def test_many_users_get_what_rank_gives_one_by_one(tiny_trained, monkeypatch):
    # Blocks smaller than the catalogue and the users, neither a multiple.
    run, users = tiny_trained, ["u3", "u0", "u7", "u3", "u11"]
    monkeypatch.setattr(catalogue, "USERS", 2)
    monkeypatch.setattr(catalogue, "ITEMS", 32)
    monkeypatch.setattr(catalogue.search, "GROUP", 16)
    prefer = {"click": 0.3, "satisfaction": 0.7}
    rows, values = run.top(users, 6, prefer=prefer)
    for user, found, value in zip(users, rows, values, strict=True):
        one = run.rank(user=user, top=6, prefer=prefer)
        assert run.items.id[found].tolist() == [row["item"] for row in one]
        np.testing.assert_allclose(value, [row["utility"] for row in one], rtol=1e-4, atol=1e-5)
    # A program that may take almost nothing scores one user at a time, and says the same.
    monkeypatch.setattr(catalogue, "LARGEST", 1)
    np.testing.assert_array_equal(run.top(users, 6, prefer=prefer)[0], rows)
    everything, values = run.top(["u3"], 60, again=True)
    assert sorted(everything[0, :48].tolist()) == list(range(48))
    assert (everything[0, 48:] == -1).all() and np.isneginf(values[0, 48:]).all()


def test_one_user_is_ranked_in_blocks_too(tiny_trained, monkeypatch):
    whole = tiny_trained.rank(user="u3", top=48)
    monkeypatch.setattr(rank, "ITEMS", 24)
    for one, part in zip(whole, tiny_trained.rank(user="u3", top=48), strict=True):
        assert one["item"] == part["item"] and one["utility"] == pytest.approx(part["utility"], rel=1e-4, abs=1e-5)


def test_what_is_known_as_liked_is_left_out_unless_asked_for(tiny_trained):
    run = tiny_trained
    begin, stop = run.parts.dataset.whole[run.rows["user"]["u3"] :][:2]
    liked = set(run.parts.dataset.history[begin:stop].tolist())
    rows, _ = run.top(["u3"], 48)
    assert liked and not liked & set(rows[0].tolist())
    assert set(rows[0].tolist()) == set(range(48)) - liked | {-1}


def test_no_users_no_rows_and_a_k_of_none_is_refused(tiny_trained):
    rows, values = tiny_trained.top([], 3)
    assert rows.shape == values.shape == (0, 3)
    with pytest.raises(UserError, match="k is 0; it must be a whole number of at least 1"):
        tiny_trained.top(["u3"], 0)
    with pytest.raises(UserError, match="no user 'nobody'"):
        tiny_trained.top(["u3", "nobody"], 3)


def test_a_second_load_reads_the_matrix_from_disk_and_other_weights_have_their_own(tiny_run, tmp_path, monkeypatch):
    first = mobjrec.load(tiny_run, tmp_path)
    (file,) = (tmp_path / "items").glob("*.npy")
    kept = np.load(file)
    np.testing.assert_array_equal(kept, first.items.matrix)

    def again(*given):
        raise AssertionError("encoded a second time")

    monkeypatch.setattr(catalogue, "item_matrix", again)
    np.testing.assert_array_equal(mobjrec.load(tiny_run, tmp_path).items.matrix, kept)
    monkeypatch.setattr(catalogue, "item_matrix", inference.item_matrix)
    moved = first.params | {"item": jax.tree.map(lambda leaf: leaf * 1.5, first.params["item"])}
    other = catalogue.matrix(first.parts, moved)
    assert np.abs(np.asarray(other) - kept).max() > 0 and len(list((tmp_path / "items").glob("*.npy"))) == 2
