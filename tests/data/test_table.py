import gzip
import json
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobjrec.data.pivot import Kinds
from mobjrec.data.readers.table import Columns, SideColumns, table
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus

EVENTS = """\
user,item,time,list,position,split,click,dwell
u1,007,1700000000,a,0,train,1,2.5
u1,8,1700000000,a,1,train,0,
u2,007,1700000060,b,,test,true,1e2
u3,9,1700000120,,,valid,0,0
"""
ITEMS = 'item,title,genres,year\n007,"A ""film""\nof two lines",drama| comedy,1999\n8,,,\n9,x,drama,2000\n'


def write(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def failure(folder, events, **settings):
    write(folder, "events.csv", events)
    with pytest.raises(UserError) as caught:
        table(folder, **settings)
    return str(caught.value)


def rows(*lines, header="user,item,time,click"):
    return "\n".join((header, *lines)) + "\n"


def test_a_table_is_read_as_it_stands(tmp_path):
    write(tmp_path, "events.csv", EVENTS)
    write(tmp_path, "items.csv", ITEMS)
    corpus = table(
        tmp_path, items="items.csv", item_columns=SideColumns(several=("genres",)), units={"dwell": "seconds"}
    )
    events = corpus.events
    assert corpus.users.id.tolist() == ["u1", "u2", "u3"]
    assert corpus.items.id.tolist() == ["007", "8", "9"]
    assert (events.user.tolist(), events.item.tolist()) == ([0, 0, 1, 2], [0, 1, 0, 2])
    assert events.time.tolist() == [1700000000, 1700000000, 1700000060, 1700000120]
    assert (events.list.tolist(), events.position.tolist()) == ([0, 0, 1, -1], [0, 1, -1, -1])
    assert events.split.tolist() == [0, 0, 2, 1]
    np.testing.assert_array_equal(events.feedback["click"], [1, 0, 1, 0])
    np.testing.assert_array_equal(events.feedback["dwell"], [2.5, np.nan, 100, 0])
    assert corpus.items.text["title"].tolist() == ['A "film"\nof two lines', "", "x"]
    genres = corpus.items.categories["genres"]
    assert (genres.names.tolist(), genres.start.tolist()) == (["drama", "comedy"], [0, 2, 2, 3])
    np.testing.assert_array_equal(corpus.items.numbers["year"], [1999, np.nan, 2000])
    assert corpus.units == {"dwell": "seconds"}
    check_corpus(corpus, deep=False)


def same(one, other):
    for a, b in zip(one.events, other.events, strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            np.testing.assert_array_equal(a, b)
    assert one.users.id.tolist() == other.users.id.tolist()
    assert one.items.id.tolist() == other.items.id.tolist()


@pytest.mark.parametrize(
    "suffix", ["csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "ndjson", "parquet", "frame", "arrow"]
)
def test_every_format_gives_the_same_corpus(tmp_path, suffix):
    write(tmp_path, "events.csv", EVENTS.replace("true", "1"))
    frame = pd.read_csv(tmp_path / "events.csv", dtype={"item": str})
    name = f"other.{suffix}"
    if suffix == "frame":
        name = frame
    elif suffix == "arrow":
        name = pa.Table.from_pandas(frame)
    elif suffix == "parquet":
        frame.to_parquet(tmp_path / name, row_group_size=2)
    elif suffix.startswith(("json", "nd")):
        content = "\n".join(json.dumps(row) for row in json.loads(frame.to_json(orient="records"))).encode()
        write(tmp_path, name, gzip.compress(content) if suffix.endswith("gz") else content)
    else:
        content = frame.to_csv(index=False, sep="\t" if "tsv" in suffix else ",").encode()
        write(tmp_path, name, gzip.compress(content) if suffix.endswith("gz") else content)
    same(table(tmp_path, events=name), table(tmp_path))


def test_columns_are_named_in_the_settings(tmp_path):
    write(tmp_path, "e.csv", "who,what,when,stars,tab,hour\na,x,1700000000,4,home,3\na,y,1700000001,,search|home,\n")
    columns = Columns(
        "who", "what", "when", feedback=("stars",), categories=("tab",), numbers=("hour",), several=("tab",)
    )
    events = table(tmp_path, events="e.csv", columns=columns).events
    assert list(events.feedback) == ["stars"]
    assert events.categories["tab"].names[events.categories["tab"].value].tolist() == ["home", "search", "home"]
    np.testing.assert_array_equal(events.numbers["hour"], [3, np.nan])


@pytest.mark.parametrize("ids", [[2**33 + 5, 2**33 + 6, 5], [2**63 - 1, -4, 0], ["2" * 40, "007", "7"]])
def test_ids_of_any_size_stay_what_they_are(tmp_path, ids):
    frame = pd.DataFrame({"user": ids, "item": ids, "time": 1700000000, "click": 1})
    frame.to_parquet(tmp_path / "e.parquet")
    frame.to_csv(tmp_path / "e.csv", index=False)
    for events in ("e.parquet", "e.csv", frame):
        assert table(tmp_path, events=events).items.id.tolist() == [str(x) for x in ids]


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("1700000000", 1700000000),
        ("1700000000.9", 1700000000),
        ("2023-11-14", 1699920000),
        ("2023-11-14T22:13:20", 1700000000),
        ("2023-11-14 22:13:20.123456", 1700000000),
        ("2023-11-14T22:13:20Z", 1700000000),
        ("2023-11-14T23:13:20+01:00", 1700000000),
        ("2023-11-14T22:13", 1699999980),
    ],
)
def test_times_are_unix_seconds_or_dates(tmp_path, text, seconds):
    # The second row keeps the column from being of one kind.
    write(tmp_path, "events.csv", rows(f"u,1,{text},0", "u,2,1500000000,1"))
    assert table(tmp_path).events.time.tolist() == [seconds, 1500000000]


def test_milliseconds_are_read_when_said_and_refused_with_a_hint_when_not(tmp_path):
    text = rows("u,1,1700000000999,0", "u,2,1700000001000,1")
    found = failure(tmp_path, text)
    assert "row 1, column time: found '1700000000999'" in found
    assert "looks like milliseconds" in found
    assert "time_unit: ms" in found
    assert table(tmp_path, time_unit="ms").events.time.tolist() == [1700000000, 1700000001]


def test_time_stamps_of_parquet_and_frames_are_read_in_any_unit(tmp_path):
    stamps = pd.to_datetime(["2023-11-14T22:13:20", "2024-01-01T00:00:00"])
    for column in (stamps, stamps.tz_localize("UTC").tz_convert("Asia/Tokyo"), stamps.astype("datetime64[ms]")):
        frame = pd.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": column, "click": [1, 0]})
        assert table(events=frame).events.time.tolist() == [1700000000, 1704067200]


def test_without_a_time_the_order_of_rows_stands_for_it(tmp_path):
    write(tmp_path, "events.csv", rows("u,1,5", "u,2,4", header="user,item,click"))
    assert table(tmp_path, columns=Columns(time="")).events.time.tolist() == [0, 1]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("u,2,yesterday,0", "row 2, column time: found 'yesterday'; expected Unix seconds or a date"),
        ("u,2,2023-13-45,0", "row 2, column time: found '2023-13-45'"),
        ("u,2,,0", "row 2, column time: found an empty cell"),
        ("u,2,-4,0", "row 2, column time: found '-4'; expected a time between 1970 and 2100: it lies before 1970"),
        ("u,2,4200000000,0", "it lies after the year 2100"),
        ("u,2,1e999,0", "row 2, column time: found '1e999'"),
        (",2,1700000000,0", "row 2, column user: found an empty cell; expected an id"),
        ("u,,1700000000,0", "row 2, column item: found an empty cell; expected an id"),
        ("u,2,1700000000,yes", "row 2, column click: found 'yes'; expected a finite number"),
        ("u,2,1700000000,nan", "row 2, column click: found 'nan'"),
        ("u,2,1700000000,-inf", "row 2, column click: found '-inf'"),
        ("u,2,1700000000,1e39", "row 2, column click: found '1e39'"),
        ("u,2,1700000000,0x1", "row 2, column click: found '0x1'"),
        ("u,2,1700000000", "line 3: found 3 cells"),
        ("u,2,1700000000,0,9", "line 3: found 5 cells"),
    ],
)
def test_a_wrong_cell_is_named_with_row_column_value_and_what_is_expected(tmp_path, line, expected):
    assert expected in failure(tmp_path, rows("u,1,1700000000,0", line, "u,3,1700000000,0", "u,4,1700000000,1"))


def test_all_problems_of_all_files_stand_in_one_report(tmp_path):
    write(tmp_path, "items.csv", "item,price\n1,cheap\n2,3\n2,4\n3,5\n")
    found = failure(
        tmp_path, rows("u,1,x,0", "u,2,-1,0", "u,3,1700000000,maybe", "u,2,1700000000,1"), items="items.csv"
    )
    for part in ("'x'", "'-1'", "'maybe'", "items.csv, row 1, column price: found 'cheap'"):
        assert part in found


def test_a_thousand_wrong_cells_make_a_short_report(tmp_path):
    found = failure(tmp_path, rows(*("u,1,1700000000,x" for _ in range(1000))), columns=Columns(feedback=("click",)))
    assert found.startswith(f"{tmp_path / 'events.csv'}, rows 1 to 1000: 1000 problems\n")
    assert found.count("column click: found 'x'") == 20 and found.endswith("... and 980 more")
    assert "row 1," in found and "row 20," in found and len(found) < 20 * (150 + len(str(tmp_path)))


def test_wrong_cells_of_several_kinds_are_all_named_and_counted(tmp_path):
    cells, columns = ["yes", "nan", "inf", "1e999", "0", "1"], Columns(feedback=("click",))
    found = failure(tmp_path, rows(*(f"u,{n},1700000000,{cell}" for n, cell in enumerate(cells))), columns=columns)
    assert [f"row {n}, column click: found '{cell}'" in found for n, cell in enumerate(cells, 1)] == [True] * 4 + [
        False
    ] * 2
    times = ["-5", "1700000000", "1700000000000", "5000000000", "x"]
    found = failure(tmp_path, rows(*(f"u,{n},{time},1" for n, time in enumerate(times))))
    said = {1: "before 1970", 3: "time_unit: ms", 4: "after the year 2100", 5: "Unix seconds or a date"}
    for row, words in said.items():
        (line,) = (one for one in found.splitlines() if f"row {row}, column time" in one)
        assert words in line
    assert "4 problems" in found
    # Two columns share the report: what is not told is counted.
    found = failure(tmp_path, rows(*(f"u,{n},x,{'no' if n < 15 else 1}" for n in range(30))), columns=columns)
    assert "45 problems" in found and found.endswith("... and 25 more")


@pytest.mark.parametrize("cell", ["2", "-1", "1.5", "x"])
def test_position_and_split_take_their_own_values_only(tmp_path, cell):
    header = "user,item,time,click,split"
    found = failure(tmp_path, rows("u,1,1,0,train", f"u,1,1,0,{cell}9", header=header))
    assert "expected train, valid or test" in found
    if cell != "2":
        header = "user,item,time,click,position"
        assert "a slot in the list" in failure(tmp_path, rows("u,1,1,0,0", f"u,1,1,0,{cell}", header=header))


@pytest.mark.parametrize(
    "content, expected",
    [
        ("", "is empty"),
        ("user,item,time,click\n", "has columns (user, item, time, click) but no rows"),
        (
            "user;item\n1;2\n",
            "';' parts its header, 'user;item'; expected commas in a .csv, tabs in a .tsv",
        ),
        ("user\titem\n1\t2,5\n", "'\\t' parts its header, 'user\\titem'; expected commas"),
        ("u,i,1700000000,1\n", "; 1700000000 stands in its header: is that its first row? Write a header above it"),
        ("u,i,1700000000,0,0\n", "names columns twice: 0; rename one of each; 1700000000 stands in its header"),
        ("user,item,time\nu,1,1\n", "no feedback"),
        ("user,item,time,click,click\nu,1,1,0,1\n", "names columns twice: click"),
    ],
)
def test_a_table_without_what_it_needs_is_refused_in_a_sentence(tmp_path, content, expected):
    assert expected in failure(tmp_path, content)


def test_a_byte_that_is_not_utf8_is_named_with_line_and_offset_and_read_in_its_encoding(tmp_path):
    text = rows("zoë,1,1700000000,0", "zoé,2,1700000000,1").encode("latin-1")
    found = failure(tmp_path, text)
    assert f"line 2, byte offset {len(rows('zo')) - 1}: found byte 0xeb, which is not utf-8" in found
    assert table(tmp_path, encoding="latin-1").users.id.tolist() == ["zoë", "zoé"]
    with pytest.warns(UserWarning, match="2 characters were not utf-8"):
        assert table(tmp_path, encoding_errors="replace").users.id.tolist() == ["zo\ufffd"]
    write(tmp_path, "items.csv", ITEMS)
    with pytest.raises(UserError, match="encoding is 'klingon'") as caught:
        table(tmp_path, items="items.csv", encoding="klingon")
    assert str(caught.value).count("klingon") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_what_a_spreadsheet_calls_unicode_text_is_named_with_the_setting_that_reads_it(tmp_path, encoding):
    text = rows("zoë,1,1700000000,0", "zoé,2,1700000000,1").encode(encoding)
    found = failure(tmp_path, text)
    assert (
        f"events.csv, line 1, byte offset 0: found byte 0xff, which is not utf-8; set `encoding: {encoding}`" in found
    )
    assert table(tmp_path, encoding=encoding).users.id.tolist() == ["zoë", "zoé"]
    # Cut within a character, and without the mark at its start.
    assert f"which is not {encoding}" in failure(tmp_path, text[:-1], encoding=encoding)
    assert f"is not {encoding}" in failure(tmp_path, text[2:-1], encoding=encoding)


def test_bytes_that_are_no_text_are_one_sentence_and_nothing_beside_it(tmp_path, capfd):
    for name, content in (
        ("e.csv", bytes(range(256)) * 20),
        ("e.csv", b"a,b\n1,2,\xff\n"),
        ("e.jsonl", b'{"\xff": 1}\n'),
    ):
        write(tmp_path, name, content)
        with pytest.raises(UserError, match=rf"{name}, line \d, byte offset \d+: found byte 0x[89f]"):
            table(tmp_path, events=name)
    assert capfd.readouterr().err == ""


def test_a_byte_that_is_not_utf8_is_found_beyond_the_first_block(tmp_path):
    text = rows(*(f"u{n},{n},1700000000,1" for n in range(100_000)))
    broken = text.encode() + b"\xc3,1,1700000000,0\n"
    assert f"line 100002, byte offset {len(text)}" in failure(tmp_path, broken)


def test_text_of_a_frame_or_parquet_file_that_is_not_unicode_is_named(tmp_path):
    frame = pd.DataFrame({"user": ["a", "b\ud800"], "item": ["x", "y"], "time": [1, 2], "click": [0, 1]}, dtype=object)
    with pytest.raises(UserError, match=r"row 2, column user: found 'b\\ud800'"):
        table(events=frame)
    bad = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(np.int32([0, 1, 2])), pa.py_buffer(b"a\xff")])
    broken = pa.table({"user": bad, "item": ["x", "y"], "time": [1, 2], "click": [0, 1]})
    pyarrow.parquet.write_table(broken, tmp_path / "e.parquet")
    for source in (broken, "e.parquet"):
        with pytest.raises(UserError, match="row 2, column user: text is not UTF-8 at its byte 0"):
            table(tmp_path, events=source)


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, start, end):
    write(tmp_path, "events.csv", start + rows("u,1,1700000000,0", "v,2,1700000000,1").replace("\n", end).encode())
    corpus = table(tmp_path)
    assert corpus.users.id.tolist() == ["u", "v"]
    assert corpus.events.feedback["click"].tolist() == [0, 1]


def test_strange_text_goes_through_unchanged(tmp_path):
    strange = ["", "   ", "emoji \U0001f600", "שלום", "a\x00b", "word " * 100_000, "x" * 1_000_000]
    frame = pd.DataFrame({"item": [f"i{n}" for n in range(len(strange))], "title": strange})
    events = pd.DataFrame({"user": "u", "item": frame["item"], "time": 1700000000, "click": 1})
    found = table(events=events, items=frame).items.text["title"]
    assert found.tolist() == strange
    frame.to_parquet(tmp_path / "items.parquet")
    assert table(tmp_path, events=events, items="items.parquet").items.text["title"].tolist() == strange


def test_missing_text_is_empty_or_an_error_as_asked(tmp_path):
    write(tmp_path, "events.csv", rows("u,1,1,0", "u,2,1,0"))
    write(tmp_path, "items.csv", "item,title\n1,a\n2,\n")
    assert table(tmp_path, items="items.csv").items.text["title"].tolist() == ["a", ""]
    with pytest.raises(UserError, match=r"items.csv, row 2, column title: found an empty cell; expected text"):
        table(tmp_path, items="items.csv", missing_text="error")


def test_an_item_twice_in_a_list_is_an_error_or_its_last_row(tmp_path):
    header = "user,item,time,click,list"
    text = rows("u,1,1,0,a", "u,2,2,1,a", "u,1,3,1,a", "v,1,4,0,b", "u,1,5,0,", "u,1,6,0,", header=header)
    assert "rows 1 and 3 show one item in the same list" in failure(tmp_path, text)
    events = table(tmp_path, duplicates="last").events
    assert events.time.tolist() == [2, 3, 4, 5, 6]
    assert events.feedback["click"].tolist() == [1, 1, 0, 0, 0]
    found = failure(tmp_path, rows(*(f"u,{n // 2},{n},1,a" for n in range(60)), header=header))
    assert "30 problems" in found and "rows 39 and 40 show" in found and found.endswith("... and 10 more")


def test_a_list_of_two_users_is_refused_with_its_rows(tmp_path):
    text = rows("u,1,1,0,a", "u,2,2,1,a", "v,3,3,1,a", header="user,item,time,click,list")
    assert "rows 2 and 3 have one list but two users" in failure(tmp_path, text)


def test_a_folder_may_be_text(tmp_path):
    write(tmp_path, "events.csv", EVENTS)
    assert table(str(tmp_path)).users.id.tolist() == ["u1", "u2", "u3"]


def test_ids_that_the_item_table_does_not_know_are_named_with_their_rows(tmp_path):
    write(tmp_path, "items.csv", "item,title\n1,a\n")
    found = failure(tmp_path, rows("u,1,1,0", "u,9,1,0", "u,8,1,0", "u,9,1,0"), items="items.csv")
    assert f"2 ids are not in {tmp_path / 'items.csv'}, the first: '9' (row 2), '8' (row 3)" in found


def test_two_rows_of_one_item_are_refused_naming_both(tmp_path):
    write(tmp_path, "items.csv", "item,title\n1,a\n2,b\n1,c\n")
    found = failure(tmp_path, rows("u,1,1,0"), items="items.csv")
    assert "column item: rows 1 and 3 have the same id '1'" in found


def test_items_that_no_event_names_stay_in_the_table(tmp_path):
    write(tmp_path, "events.csv", rows("u,2,1,0"))
    write(tmp_path, "items.csv", "item,title\n1,a\n2,b\n")
    corpus = table(tmp_path, items="items.csv")
    assert corpus.items.id.tolist() == ["1", "2"]
    assert corpus.events.item.tolist() == [1]


def test_columns_without_a_use_are_said_once(tmp_path):
    write(tmp_path, "events.csv", rows("u,2,1,0,a b,z", header="user,item,time,click,note,mood"))
    with pytest.warns(UserWarning, match="columns note, mood are not used") as said:
        table(tmp_path)
    assert len(said) == 1


def test_a_missing_column_of_the_settings_is_an_error(tmp_path):
    found = failure(tmp_path, rows("u,2,1,0"), columns=Columns(feedback=("like",), categories=("tab",)))
    assert "has no column like, tab; it has user, item, time, click" in found


def test_acts_of_several_kinds_become_one_row_an_item(tmp_path):
    acts = rows(
        "u,1,10,view,", "u,2,10,view,", "u,1,12,click,", "v,1,9,view,", "u,1,20,buy,3.5", "u,1,30,buy,4",
        "v,2,5,click,",
        header="user,item,time,kind,amount",
    )  # fmt: skip
    write(tmp_path, "events.csv", acts)
    events = table(tmp_path, kinds=Kinds("kind", names=("click", "buy"), value="amount")).events
    assert list(zip(events.user.tolist(), events.item.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert events.time.tolist() == [30, 10, 9, 5]
    assert events.feedback["click"].tolist() == [1, 0, 0, 1]
    assert events.feedback["buy"].tolist() == [4, 0, 0, 0]
    absent = table(tmp_path, kinds=Kinds("kind", value="amount", absent="missing")).events.feedback
    np.testing.assert_array_equal(absent["buy"], [4, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(absent["view"], [1, 1, 1, np.nan])


def test_acts_are_joined_within_their_list(tmp_path):
    acts = rows(
        "u,1,10,view,p", "u,1,11,click,p", "u,1,20,view,q", "u,1,21,like,", header="user,item,time,kind,list"
    )  # fmt: skip
    write(tmp_path, "events.csv", acts)
    events = table(tmp_path, kinds=Kinds("kind", names=("click", "like"))).events
    assert events.list.tolist() == [0, 1, -1]
    assert events.feedback["click"].tolist() == [1, 0, 0]
    assert events.feedback["like"].tolist() == [0, 0, 1]


def test_a_kind_that_never_occurs_is_an_error(tmp_path):
    text = rows("u,1,10,view", header="user,item,time,kind")
    assert "kinds.names has clik; column kind holds view" in failure(
        tmp_path, text, kinds=Kinds("kind", names=("clik",))
    )


def test_numbers_as_text_are_categories_where_they_are_named(tmp_path):
    write(tmp_path, "events.csv", rows("u,2,1,0", "u,1,1,0"))
    write(tmp_path, "items.csv", "item,shelf,price\n1,07,2\n2,7,3\n")
    items = table(tmp_path, items="items.csv", item_columns=SideColumns(categories=("shelf",))).items
    assert items.categories["shelf"].names.tolist() == ["07", "7"]
    assert list(items.numbers) == ["price"]


def test_lists_in_json_are_several_values_and_one_text(tmp_path):
    write(tmp_path, "events.csv", rows("u,1,1,0", "u,2,1,0"))
    write(tmp_path, "items.jsonl", '{"item": 1, "tags": ["a", "b", "a"], "n": 3}\n{"item": 2, "tags": []}\n')
    items = table(tmp_path, items="items.jsonl").items
    assert items.text["tags"].tolist() == ["a, b, a", ""]
    assert (items.categories["tags"].names.tolist(), items.categories["tags"].start.tolist()) == (["a", "b"], [0, 2, 2])
    np.testing.assert_array_equal(items.numbers["n"], [3, np.nan])


@pytest.mark.parametrize(
    "content, expected",
    [
        ('{"user": 1}\nxx\n', "line 2: found 'xx', which is not JSON"),
        ('{"user": 1}\n[1]\n', "line 2: found '[1]'; expected an object"),
        ('{"user": 1}\n{"user": "a"}\n', "line 2, column user: found a str ('a') but a number in line 1"),
        ('{"user": "u", "item": "i", "time": 1, "click": NaN}\n', "row 1, column click: found nan"),
        (
            '{"user": 18446744073709551617, "item": "i", "time": 1, "click": 1}\n',
            "expected text or whole numbers as ids",
        ),
        ('{"user": "\\ud800"}\n', "cannot be read as JSON lines"),
    ],
)
def test_what_is_wrong_in_json_lines_is_named_with_its_line(tmp_path, content, expected):
    write(tmp_path, "e.jsonl", content)
    with pytest.raises(UserError) as caught:
        table(tmp_path, events="e.jsonl")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "content", ["null", "\ufeffnull\n", "\n null\n{}", '{"user": "u"}\nnull\n', '{"user": "u"}null']
)
def test_a_row_of_json_that_is_null_is_told_of_by_its_line(content, tmp_path):
    write(tmp_path, "e.jsonl", content)
    with pytest.raises(UserError, match=r"e.jsonl, line [12]: found .*null"):
        table(tmp_path, events="e.jsonl")


def test_a_text_that_looks_like_a_row_of_null_is_read(tmp_path):
    write(tmp_path, "e.jsonl", '{"user": "a } null", "item": "i", "time": 1, "click": 1}\n')
    assert table(tmp_path, events="e.jsonl").users.id.tolist() == ["a } null"]


@pytest.mark.parametrize("name", ["e.parquet", "e.csv.gz", "e.jsonl.gz"])
def test_a_truncated_file_is_one_sentence(tmp_path, name):
    write(tmp_path, "events.csv", EVENTS)
    if name == "e.parquet":
        pd.read_csv(tmp_path / "events.csv").to_parquet(tmp_path / name)
        content = (tmp_path / name).read_bytes()
    else:
        content = gzip.compress(EVENTS.encode() * 50)
    write(tmp_path, name, content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{name} cannot be"):
        table(tmp_path, events=name)


def test_what_is_no_table_is_refused(tmp_path):
    write(tmp_path, "e.pkl", "x")
    with pytest.raises(UserError, match=r"ends in '.pkl'; expected \.csv"):
        table(tmp_path, events="e.pkl")
    with pytest.raises(UserError, match=r"nothing.csv is not a file; .* holds: e.pkl"):
        table(tmp_path, events="nothing.csv")
    with pytest.raises(UserError, match="the builtins dict is not a table"):
        table(events={"user": [1]})


def test_a_frame_with_missing_ids_is_refused_since_its_ids_became_floats():
    frame = pd.DataFrame({"user": [1, None], "item": [1, 2], "time": [1, 2], "click": [0, 1]})
    with pytest.raises(UserError, match=r"row 1, column user: found 1.0; expected text or whole numbers as ids"):
        table(events=frame)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=5),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(0, 2**32 - 300_000_000),
            st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_written_is_what_is_read(tmp_path, drawn):
    frame = pd.DataFrame(drawn, columns=["user", "item", "time", "value"])
    frame["value"] = frame["value"].astype("float64")
    frame.to_csv(tmp_path / "e.csv", index=False, quoting=1)
    frame.to_parquet(tmp_path / "e.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for source in ("e.csv", "e.parquet", frame):
            corpus = table(tmp_path, events=source, columns=Columns(feedback=("value",)))
            events = corpus.events
            assert corpus.users.id[events.user].tolist() == frame["user"].tolist()
            assert corpus.items.id[events.item].tolist() == [str(x) for x in frame["item"]]
            assert events.time.tolist() == frame["time"].tolist()
            np.testing.assert_array_equal(events.feedback["value"], frame["value"].to_numpy(np.float32))


def test_a_missing_column_hides_no_wrong_cell_and_is_not_taken_for_feedback(tmp_path):
    lines = rows("7,2,1700000000,1", "8,2,soon,1", header="user_id,item,time,click")
    found = failure(tmp_path, lines)
    assert "events.csv has no column user; it has user_id, item, time, click" in found
    assert "row 2, column time: found 'soon'" in found
    assert found.startswith(f"{tmp_path / 'events.csv'}: 2 problems")
    assert "user_id:" not in found
    write(tmp_path, "items.csv", "item,year\n2,new\n")
    columns = SideColumns(text=("name",), numbers=("year",))
    found = failure(tmp_path, lines, items="items.csv", item_columns=columns)
    assert all(x in found for x in ("no column user", "'soon'", "items.csv has no column name", "found 'new'"))


def test_an_index_of_pandas_is_no_feedback(tmp_path):
    frame = pd.DataFrame({"user": ["u", "v", "u"], "item": ["1", "2", "2"], "time": 1700000000, "click": [1, 0, 1]})
    kept = frame[frame.item == "2"]
    kept.to_parquet(tmp_path / "kept.parquet")
    kept.to_csv(tmp_path / "kept.csv")
    pd.read_csv(tmp_path / "kept.csv").to_csv(tmp_path / "again.csv", index=False)
    frame.set_index(pd.Index([3, 1, 2], name="row")).to_parquet(tmp_path / "named.parquet")
    for events in ("kept.parquet", "kept.csv", "again.csv", kept):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert list(table(tmp_path, events=events).events.feedback) == ["click"]
    with pytest.warns(UserWarning, match="columns row are not used"):
        assert list(table(tmp_path, events="named.parquet").events.feedback) == ["click"]
    named = table(tmp_path, events=frame.set_index("user"))
    assert (list(named.events.feedback), named.users.id.tolist()) == (["click"], ["u", "v"])


def test_rows_of_one_id_are_one_problem(tmp_path):
    write(tmp_path, "events.csv", rows("u,1,1700000000,1"))
    write(tmp_path, "items.csv", "item,title\n" + "1,x\n" * 5 + "2,y\n3,z\n2,y\n")
    found = failure(tmp_path, rows("u,1,1700000000,1"), items="items.csv")
    assert "rows 1, 2, 3 and 2 more have the same id '1'; drop all but one" in found
    assert "rows 6 and 8 have the same id '2'; drop one" in found
    assert "2 problems" in found
