"""Content hashes, and the store of vectors: written once, whole or not at all, made anew where it is damaged."""

import numpy as np
import pytest

from mobjrec.data.store import key_of, stored
from mobjrec.errors import UserError


def filling(vectors: np.ndarray):
    """What fills a store with these vectors in two parts, and how often it was asked."""
    asked = []

    def fill():
        asked.append(1)
        for rows in np.array_split(np.arange(len(vectors)), 2):
            yield rows, vectors[rows]

    return fill, asked


VECTORS = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_a_second_call_reads_what_the_first_wrote(tmp_path):
    fill, asked = filling(VECTORS)
    for _ in range(2):
        np.testing.assert_array_equal(stored(tmp_path / "vectors", "key", 6, 2, fill), VECTORS)
    assert len(asked) == 1 and [path.name for path in (tmp_path / "vectors").iterdir()] == ["key.npy"]


def objects(path):
    np.save(path, np.array([print, len], object), allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        objects,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(90)),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: np.save(path, VECTORS[:5]),
        lambda path: np.save(path, VECTORS.astype(np.float64)),
    ],
    ids=["objects", "empty", "zip", "cut", "rows", "dtype"],
)
def test_what_is_not_the_store_is_not_opened_but_made_anew(tmp_path, damage):
    fill, asked = filling(VECTORS)
    stored(tmp_path, "key", 6, 2, fill)
    damage(tmp_path / "key.npy")
    np.testing.assert_array_equal(stored(tmp_path, "key", 6, 2, fill), VECTORS)
    assert len(asked) == 2


def test_a_run_that_dies_while_it_fills_leaves_nothing(tmp_path):
    def dies():
        yield np.arange(3), VECTORS[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, "key", 6, 2, dies)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/vectors"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file.* cannot be written: .*; name another cache folder with MOBJREC_CACHE"):
        stored(tmp_path / place, "key", 6, 2, filling(VECTORS)[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_key_tells_contents_and_their_boundaries_apart():
    kinds = [
        (VECTORS,),
        (VECTORS[:3], VECTORS[3:]),
        (VECTORS.astype(np.float64),),
        (VECTORS + 1,),
        ("ab", "c"),
        ("a", "bc"),
        (np.zeros((0, 2), np.float32),),
        (np.array([True, False]),),
        (),
    ]
    assert len({key_of(*parts) for parts in kinds}) == len(kinds)
    # A view of every other row is hashed by what it shows.
    assert key_of(VECTORS[::2]) == key_of(VECTORS[::2].copy())


def test_text_has_no_bytes_of_its_own_to_hash():
    with pytest.raises(TypeError):
        key_of(np.array(["a", "b"], np.dtypes.StringDType()))
