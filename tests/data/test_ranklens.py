import csv
import gzip
import json

import numpy as np
import pytest

from mobjrec.data.readers import ranklens
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus

# Made-up movies and lists. Movie 9 is shown without metadata, movie 7 has metadata and is never shown.
MOVIES = {
    3: {
        "title": "Rainy Pier", "description": "Two sailors wait.", "genres": ["drama", "romance"],
        "tags": ["sea", "rain"],
        "actors": ["ann lee", "bo ray"], "director": "cy moss", "release_date": 819590400, "runtime": 101,
        "budget": 25000000, "popularity": 9.5, "vote_avg": 6.5, "vote_cnt": 269,
    },
    20: {
        "title": "Loud Engine", "description": "A race.", "genres": ["action"], "tags": [],
        "actors": ["bo ray", "bo ray"],
        "director": "di fox", "release_date": -86400, "runtime": 90, "budget": 0, "popularity": 1.0, "vote_avg": 5.0,
        "vote_cnt": 3,
    },
    7: {
        "title": "Unseen", "description": "Nobody.", "genres": [], "tags": [], "actors": [], "director": "cy moss",
        "release_date": 0, "runtime": 1, "budget": 1, "popularity": 0.1, "vote_avg": 1.0, "vote_cnt": 1,
    },
}  # fmt: skip
# user, time, shown, liked
LISTS = [
    (1, 1636993834, [20, 3, 9], [3]),
    (2, 1636993834, [3, 9], []),
    (1, 1636993840, [9, 20], [9, 20]),
]


def write_compact(folder, lists=LISTS):
    with gzip.open(folder / "rankings.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["list_id", "user_id", "ts", "shown", "liked"])
        for number, (user, time, shown, liked) in enumerate(lists, 1):
            rows.writerow([number, user, time, " ".join(map(str, shown)), " ".join(map(str, liked))])
    with gzip.open(folder / "items.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"item_id": number, **fields}) + "\n" for number, fields in MOVIES.items())


def events():
    """The same in Metarank's event format: hex users, milliseconds, lists of name and value."""
    for number, fields in MOVIES.items():
        values = [{"name": name, "value": value} for name, value in fields.items()]
        yield {"event": "item", "id": f"i{number}", "item": str(number), "timestamp": "1", "fields": values}
    for number, (user, time, shown, liked) in enumerate(LISTS):
        who = {"user": f"{user:032x}", "session": f"{user:032x}", "fields": []}
        items = [{"id": str(item)} for item in shown]
        yield {"event": "ranking", "id": f"r{number}", "timestamp": str(time * 1000 + 7), "items": items, **who}
        for item in liked:
            tick = {"event": "interaction", "id": f"c{number}{item}", "ranking": f"r{number}", "item": str(item)}
            yield {**tick, "type": "click", "timestamp": str(time * 1000 + 5007), **who}


def write_events(file, rows):
    with gzip.open(file, "wt") as target:
        target.writelines(json.dumps(row) + "\n" for row in rows)


def test_the_compact_folder_is_read(tmp_path):
    write_compact(tmp_path)
    corpus = ranklens(tmp_path)
    check_corpus(corpus, deep=False)
    events, items = corpus.events, corpus.items
    assert items.id.tolist() == ["3", "7", "9", "20"]
    assert corpus.users.id.tolist() == ["1", "2"]
    assert events.list.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert events.position.tolist() == [0, 1, 2, 0, 1, 0, 1]
    assert events.user.tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert items.id[events.item].tolist() == ["20", "3", "9", "3", "9", "9", "20"]
    assert events.feedback["like"].tolist() == [0, 1, 0, 0, 0, 1, 1]
    assert events.time.tolist() == [1636993834] * 5 + [1636993840] * 2
    assert items.text["title"].tolist() == ["Rainy Pier", "Unseen", "", "Loud Engine"]
    assert items.text["genres"].tolist() == ["drama, romance", "", "", "action"]
    assert items.categories["actors"].start.tolist() == [0, 2, 2, 2, 3]
    np.testing.assert_array_equal(items.numbers["budget"], [25000000, 1, np.nan, np.nan])
    np.testing.assert_array_equal(items.numbers["release_year"], [1995, 1970, np.nan, 1969])


def test_the_publishers_event_file_gives_the_same_corpus(tmp_path):
    write_compact(tmp_path)
    (tmp_path / "publisher").mkdir()
    write_events(tmp_path / "publisher" / "events.jsonl.gz", events())
    wanted = ranklens(tmp_path)
    for path in (tmp_path / "publisher", tmp_path / "publisher" / "events.jsonl.gz"):
        found = ranklens(path)
        for column in ("user", "item", "time", "list", "position", "split"):
            np.testing.assert_array_equal(getattr(found.events, column), getattr(wanted.events, column))
        np.testing.assert_array_equal(found.events.feedback["like"], wanted.events.feedback["like"])
        for column, text in wanted.items.text.items():
            assert found.items.text[column].tolist() == text.tolist()
        for column, values in wanted.items.numbers.items():
            np.testing.assert_array_equal(found.items.numbers[column], values)


def test_the_order_of_events_in_the_publishers_file_does_not_number_the_lists(tmp_path):
    write_events(tmp_path / "events.jsonl.gz", reversed(list(events())))
    found = ranklens(tmp_path)
    assert found.events.time.tolist() == sorted(found.events.time.tolist())
    assert found.events.feedback["like"].sum() == 3


def test_users_are_split_by_the_last_digit_of_their_number(tmp_path):
    write_compact(tmp_path, [(user, 1636993834 + user, [3], []) for user in range(1, 23)])
    corpus = ranklens(tmp_path)
    number = corpus.users.id[corpus.events.user].astype(np.int64)
    expected = [{8: 1, 9: 2}.get(n % 10, 0) for n in number]
    assert corpus.events.split.tolist() == expected
    assert expected.count(1) == expected.count(2) == 2


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"event": "interaction", "ranking": "r9", "item": "3"}, "line 10: movie 3 is ticked, but list 'r9' does not"),
        ({"event": "interaction", "ranking": "r0", "item": "7"}, "line 10: movie 7 is ticked, but list 'r0' does not"),
        (
            {"event": "ranking", "id": "r8", "items": [{"id": "x"}], "timestamp": "1", "user": "u"},
            "line 10: ValueError",
        ),
        ({"event": "ranking", "id": "r8", "timestamp": "1"}, "line 10: KeyError"),
        ({"nothing": 1}, "line 10: found .* expected an object with event"),
    ],
)
def test_an_event_that_does_not_fit_is_named_with_its_line(tmp_path, row, expected):
    write_events(tmp_path / "events.jsonl.gz", [*events(), row])
    with pytest.raises(UserError, match=expected):
        ranklens(tmp_path)


def test_what_is_no_ranklens_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither rankings.csv.gz nor events.jsonl.gz.*mobjrec data get ranklens"):
        ranklens(tmp_path)
    (tmp_path / "events.jsonl.gz").write_bytes(gzip.compress(b'{"event": "item"')[:-9])
    with pytest.raises(UserError, match=r"cannot be read as gzipped JSON lines"):
        ranklens(tmp_path)
    write_compact(tmp_path, [(1, "soon", [3], [])])
    with pytest.raises(UserError, match=r"rankings.csv.gz, line 2: .*'soon'"):
        ranklens(tmp_path)
    write_compact(tmp_path, [(1, 1636993834, [3, 3], [])])
    with pytest.raises(UserError, match="rows 0 and 1 show one item in the same list"):
        ranklens(tmp_path)


@pytest.fixture(scope="module")
def real(shared):
    folder = shared / "data" / "ranklens"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return ranklens(folder)


def test_the_real_corpus_has_its_published_counts(real):
    events, like = real.events, real.events.feedback["like"]
    assert (len(like), int(like.sum()), len(real.users.id), len(real.items.id)) == (235_200, 46_125, 2_145, 2_520)
    assert np.sum(real.items.text["title"] == "") == 8
    assert np.isnan(real.items.numbers["budget"]).sum() == 8 + 321
    for split, users, lists, rate in ((0, 1717, 7853, 0.1972), (1, 214, 970, 0.1787), (2, 214, 977, 0.2047)):
        inside = events.split == split
        assert (len(np.unique(events.user[inside])), len(np.unique(events.list[inside]))) == (users, lists)
        assert like[inside].mean() == pytest.approx(rate, abs=5e-5)
    assert like[events.position == 0].mean() == pytest.approx(0.248, abs=5e-4)
    assert like[events.position == 23].mean() == pytest.approx(0.203, abs=5e-4)
    assert np.all(np.diff(events.time[events.position == 0]) >= 0)


@pytest.mark.parametrize("column, auc", [("vote_cnt", 0.697), ("popularity", 0.679), ("vote_avg", 0.545)])
def test_ranking_the_real_lists_by_a_number_has_its_published_auc(real, column, auc):
    score = np.nan_to_num(real.items.numbers[column])[real.events.item].reshape(-1, 24)
    like = real.events.feedback["like"].reshape(-1, 24) > 0
    pairs = like[:, :, None] & ~like[:, None, :]
    better = score[:, :, None] > score[:, None, :]
    equal = score[:, :, None] == score[:, None, :]
    usable = pairs.any((1, 2))
    right = (pairs & better).sum((1, 2)) + 0.5 * (pairs & equal).sum((1, 2))
    assert usable.sum() == 8_662
    assert (right[usable] / pairs[usable].sum((1, 2))).mean() == pytest.approx(auc, abs=5e-4)
