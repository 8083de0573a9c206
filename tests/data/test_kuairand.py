import csv
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mobjrec.data import download
from mobjrec.data.readers import kuairand
from mobjrec.errors import UserError
from mobjrec.testing.corpora import check_corpus

SHARED = Path(__file__).resolve().parents[2] / "../shared/data/kuairand"
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
    "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
).split(",")
USER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,follow_user_num_range,"
    "fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,register_days_range"
).split(",") + [f"onehot_feat{n}" for n in range(18)]
VIDEO = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,music_id,"
    "music_type,tag"
).split(",")
START = 1_650_812_400_000  # 25 April 2022, 23:00 in Beijing


def shown(user, video, date, time, click=0, play=0, length=10_000, tab=1, **more):
    row = dict.fromkeys(LOG, 0) | {"user_id": user, "video_id": video, "date": date, "time_ms": START + time}
    return row | {"is_click": click, "play_time_ms": play, "duration_ms": length, "tab": tab} | more


# Of user 7: a replay, the same row again, the same event at the next date, an unknown length.
EARLY = [shown(7, 30, 20220425, 500, click=1, play=25_000, is_like=1), shown(9, 31, 20220425, 3_600_999, play=4_000)]
LATE = [
    shown(7, 30, 20220426, 500, click=1, play=25_000, is_like=1),
    shown(7, 30, 20220425, 500, click=1, play=25_000, is_like=1),
    shown(7, 32, 20220504, 9_000, play=5_000, length=0, tab=4),
    shown(9, 30, 20220505, 8_000, long_view=1, click=1, play=10_000),
    shown(9, 32, 20220507, 7_000, is_profile_enter=1),
]
USERS = [
    dict.fromkeys(USER, 1) | {"user_id": 7, "is_live_streamer": -124, "onehot_feat4": 3.0, "follow_user_num": 5},
    dict.fromkeys(USER, 1) | {"user_id": 8, "onehot_feat4": "", "follow_user_num": -124},
    dict.fromkeys(USER, 1) | {"user_id": 9, "onehot_feat4": 3.0},
]
VIDEOS = [
    dict.fromkeys(VIDEO, 2) | {"video_id": video, "video_duration": length, "tag": tag}
    for video, length, tag in ((30, 10_000.0, "3,5"), (31, 10_000.0, "5"), (32, "", ""))
]


def write(path, names, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


def published(folder, size="pure", parts=("",)):
    folder.mkdir(parents=True)
    write(folder / f"log_standard_4_08_to_4_21_{size}{parts[0]}.csv", LOG, EARLY)
    write(folder / f"log_standard_4_22_to_5_08_{size}{parts[0]}.csv", LOG, LATE[:2] if len(parts) > 1 else LATE)
    for part in parts[1:]:
        write(folder / f"log_standard_4_22_to_5_08_{size}{part}.csv", LOG, LATE[2:])
    write(folder / f"log_random_4_22_to_5_08_{size}.csv", LOG, [shown(8, 31, 20220430, 0, is_rand=1)])
    write(folder / f"user_features_{size}.csv", USER, USERS)
    write(folder / f"video_features_basic_{size}.csv", VIDEO, VIDEOS)
    return folder


def compact(folder):
    folder.mkdir()
    for name, columns, rows in (
        ("exposures", [x for x in LOG if x != "is_rand"], EARLY + LATE),
        ("users", USER, USERS),
        ("videos", VIDEO, VIDEOS),
    ):
        cells = {column: [row[column] if row[column] != "" else None for row in rows] for column in columns}
        pa.parquet.write_table(pa.table(cells), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize(
    "size, parts", [("pure", ("",)), ("1k", ("",)), ("27k", ("_part1", "_part2")), ("compact", None)]
)
def test_every_layout_says_the_same(tmp_path, size, parts):
    if size == "compact":
        corpus = kuairand(compact(tmp_path / "compact"))
    else:
        published(tmp_path / f"KuaiRand-{size}/data", size, parts)
        corpus = kuairand(tmp_path / f"KuaiRand-{size}")
    check_corpus(corpus, deep=False)
    events = corpus.events
    # By milliseconds; what was logged twice more counts once, at its first date; random exposure is left out.
    assert corpus.users.id[events.user].tolist() == ["7", "9", "9", "7", "9"]
    assert corpus.items.id[events.item].tolist() == ["30", "32", "30", "32", "31"]
    assert (events.time - START // 1000).tolist() == [0, 7, 8, 9, 3600]
    assert events.split.tolist() == [0, 2, 1, 0, 0]
    assert (events.list == -1).all()
    feedback = {name: column.tolist() for name, column in events.feedback.items()}
    assert feedback["click"] == [1, 0, 1, 0, 0]
    assert feedback["like"] == [1, 0, 0, 0, 0]
    assert feedback["long_view"] == [0, 0, 1, 0, 0]
    assert feedback["profile_enter"] == [0, 1, 0, 0, 0]
    assert feedback["play_time"] == [25, 0, 10, 5, 4]
    np.testing.assert_allclose(feedback["play_share"], [1, 0, 1, np.nan, 0.4], rtol=1e-6)
    tab, hour = events.categories["tab"], events.categories["hour"]
    assert tab.names[tab.value].tolist() == ["1", "1", "1", "4", "1"]
    assert hour.names[hour.value].tolist() == ["23", "23", "23", "23", "0"]


def test_features_that_are_not_known_are_none(tmp_path):
    corpus = kuairand(published(tmp_path / "data"))
    users, items = corpus.users, corpus.items
    assert users.id.tolist() == ["7", "8", "9"] and items.id.tolist() == ["30", "31", "32"]
    assert np.diff(users.categories["is_live_streamer"].start).tolist() == [0, 1, 1]
    assert users.categories["onehot_feat4"].names.tolist() == ["3"]
    np.testing.assert_equal(users.numbers["follow_user_num"], np.float32([5, np.nan, 1]))
    np.testing.assert_allclose(items.numbers["log_duration"], [np.log(11), np.log(11), np.nan], rtol=1e-6)
    tags = items.categories["tag"]
    assert tags.names[tags.value].tolist() == ["3", "5", "5"] and tags.start.tolist() == [0, 2, 3, 3]
    assert corpus.units["play_time"] == "seconds"


@pytest.mark.parametrize(
    "file, old, new, why",
    [
        ("log_standard_4_08_to_4_21_pure.csv", "is_hate", "hated", "has no column is_hate; it has user_id"),
        ("log_standard_4_08_to_4_21_pure.csv", "1650812400500", "soon", r"row 1, column time_ms: found 'soon'; expected"),
        ("log_standard_4_22_to_5_08_pure.csv", "20220504,0,1650812409000,0", "20220504,0,1650812409000,2",
         r"row 3, column is_click: found '2'; expected 0 or 1"),
        ("log_standard_4_08_to_4_21_pure.csv", "9,31,", "9,99,", "1 ids that video_features_basic_pure.csv does not list"),
        ("user_features_pure.csv", "onehot_feat17", "feat17", "has no column onehot_feat17"),
        ("user_features_pure.csv", "\n8,", "\n7,", "rows 1 and 2 have the same id '7'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named(tmp_path, file, old, new, why):
    folder = published(tmp_path / "data")
    text = (folder / file).read_bytes().decode()
    assert old in text
    (folder / file).write_bytes(text.replace(old, new, 1).encode())
    with pytest.raises(UserError, match=why):
        kuairand(folder)


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds neither log_standard.*mobjrec data get kuairand"):
        kuairand(tmp_path)
    folder = published(tmp_path / "data")
    (folder / "user_features_pure.csv").unlink()
    with pytest.raises(UserError, match=r"user_features_pure\.csv is not a file"):
        kuairand(tmp_path)


def test_get_holds_the_archive_to_the_publishers_md5(tmp_path, monkeypatch, capsys):
    folder = published(tmp_path / "made/KuaiRand-Pure/data")
    archive = tmp_path / "KuaiRand-Pure.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made/KuaiRand-Pure", "KuaiRand-Pure")
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"has md5 .*, expected 0820331067a3784d9691136f772b35a7"):
        download.get("kuairand", archive)
    recipe = download.RECIPES["kuairand"]
    few = {name: lines and len(USERS) + 1 for name, lines in recipe.layouts[0].items()}
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(download.RECIPES, "kuairand", recipe._replace(layouts=(few,), archive=md5))
    download.get("kuairand", archive)
    assert "CC BY-SA 4.0" in capsys.readouterr().out
    assert len(kuairand().events.user) == 5
    # An unpacked folder does as well.
    assert download.get("kuairand", folder, tmp_path / "other") == tmp_path / "other"
    assert len(kuairand(tmp_path / "other").events.user) == 5


def test_the_compact_folder_has_the_published_counts():
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}")
    corpus = kuairand(SHARED)
    check_corpus(corpus, deep=False)
    events = corpus.events
    # 222,869 exposures, of which 425 share user, video and millisecond with another.
    assert len(events.user) == 222_869 - 425
    assert len(np.unique(events.user)) == 25_156 and len(np.unique(events.item)) == 6_361
    assert len(corpus.users.id) == 27_285 and len(corpus.items.id) == 7_583
    share = np.bincount(events.split) / [167_281, 26_683, 28_905]
    assert (share > 0.995).all() and (share <= 1).all()
    rates = {"click": 0.4490, "long_view": 0.3164, "profile_enter": 0.01886, "like": 0.01738, "hate": 0.00084}
    for name, rate in rates.items():
        assert np.mean(events.feedback[name]) == pytest.approx(rate, rel=2e-3)
    assert np.isnan(events.feedback["play_share"]).sum() == 3_568
    assert np.mean(events.feedback["play_time"], dtype=np.float64) == pytest.approx(21.9, abs=0.05)
    assert np.median(events.feedback["play_time"]) == pytest.approx(4.8, abs=0.05)
    assert len(corpus.items.categories["author_id"].names) >= 5_641
