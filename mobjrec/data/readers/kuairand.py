"""KuaiRand: short videos that the app Kuaishou showed, with several signals each. Gao et al. 2022 (CIKM), CC BY-SA 4.0."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mobjrec.data import parse
from mobjrec.data.corpus import check, events_from, strings
from mobjrec.data.download import cache_folder
from mobjrec.data.files import File, opened
from mobjrec.data.parse import Place, Wish
from mobjrec.data.sides import Reading, SideColumns, joined, side_table
from mobjrec.errors import UserError
from mobjrec.types import Category, Corpus, Events, Table

SIZES = ("pure", "1k", "27k")
SIGNALS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "profile_enter": "is_profile_enter",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
}
WHOLE = ("date", "time_ms", "play_time_ms", "duration_ms")
LOG = ("user_id", "video_id", "tab", *WHOLE, *SIGNALS.values())
USERS = SideColumns(
    "user_id",
    text=(),
    categories=(
        *("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"),
        *("follow_user_num_range", "fans_user_num_range", "friend_user_num_range", "register_days_range"),
        *(f"onehot_feat{n}" for n in range(18)),
    ),
    numbers=("follow_user_num", "fans_user_num", "friend_user_num", "register_days"),
)
VIDEOS = SideColumns(
    "video_id",
    text=(),
    categories=("author_id", "video_type", "upload_dt", "upload_type", "visible_status", "music_id", "music_type"),
    numbers=("video_duration", "server_width", "server_height"),
    several=("tag",),
)
UNITS = {"play_time": "seconds", "play_share": "share of the length, 1 at most", "duration": "seconds"}
# What the publisher writes into a flag that is not known.
UNKNOWN = -124
BEIJING = 8 * 3600
# The first days of validation and of test.
VALID, TEST = 20220505, 20220507


class Files(NamedTuple):
    """One layout of the corpus: names of its tables in a folder."""

    folder: Path
    logs: list[str]
    users: str
    videos: str


def kuairand(path: Path | None = None) -> Corpus:
    """The corpus from the publisher's folder (KuaiRand-Pure, -1K or -27K, or its `data`), or from the compact folder
    (exposures.parquet, users.parquet, videos.parquet); None: from the cache folder.

    Of the publisher's logs all of the standard ones that are there are read, not those of random exposure. Feedback, 0 or
    1: click, long_view, like, profile_enter, follow, comment, forward, hate; play_time in seconds; play_share, play time
    over the video's length, 1 at most (replays are in play_time alone), NaN where the length is unknown. Context: tab,
    and hour in Beijing by the time. An exposure logged again, at the same millisecond, counts once, at its first date.
    The publisher names no split; ours is by date, from 5 May 2022 valid, from 7 May test. No impression has an id.

    Users: 22 categories, 18 of them encrypted, and four counts, -124 being none. Videos: categories author_id, video_type,
    upload_dt, upload_type, visible_status, music_id, music_type, tag (several); numbers duration (seconds), log_duration
    (log of 1 + seconds), server_width, server_height. All that the tables list are in, shown or not. Events are in the
    order of milliseconds. UserError names file, row and column of what cannot be read.
    """
    files = _files(cache_folder() / "kuairand" if path is None else path)
    users = _side(files, files.users, USERS)
    videos = _with_length(_side(files, files.videos, VIDEOS))
    read = _log(files)
    at = {"user": _rows(read["user"], users, files.users), "item": _rows(read["item"], videos, files.videos)}
    order = np.lexsort((read["date"], at["item"], at["user"], read["time_ms"]))
    again = np.ones(len(order) - 1, bool)
    for column in (at["user"], at["item"], read["time_ms"]):
        again &= np.diff(column[order]) == 0
    kept = order[np.concatenate([[True], ~again])]
    return check(Corpus(users, videos, _events(read, at, kept), UNITS), "kuairand")


def _files(folder: Path) -> Files:
    for place in (folder, folder / "data"):
        if (place / "exposures.parquet").is_file():
            return Files(place, ["exposures.parquet"], "users.parquet", "videos.parquet")
        for size in SIZES:
            logs = sorted(file.name for file in place.glob(f"log_standard_*_{size}*.csv"))
            if logs:
                return Files(place, logs, f"user_features_{size}.csv", f"video_features_basic_{size}.csv")
    raise UserError(
        f"{folder} holds neither log_standard_4_22_to_5_08_pure.csv (or _1k, _27k) nor exposures.parquet; get KuaiRand "
        "with `mobjrec data get kuairand --from FILE` or name its folder as `path`"
    )


def _side(files: Files, name: str, columns: SideColumns) -> Table:
    file = opened(name, files.folder)
    _complete(file, [columns.id, *columns.categories, *columns.numbers, *columns.several])
    table = side_table(file, columns, columns.id, Reading("ms", ",", "empty"))
    return table._replace(
        categories={name: known(column) for name, column in table.categories.items()},
        numbers={name: np.where(x == UNKNOWN, np.float32(np.nan), x) for name, x in table.numbers.items()},
    )


def _complete(file: File, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in file.schema.names]
    if missing:
        raise UserError(
            f"{file.name} has no column {', '.join(missing)}; it has {', '.join(file.schema.names)}; it is not KuaiRand as "
            "published, get it again"
        )


def known(category: Category) -> Category:
    """The category without the value of what is not known; 3.0 and 3 are one: a gap makes floats of a column."""
    names: dict[str, int] = {}
    new = [
        -1 if name == str(UNKNOWN) else names.setdefault(name, len(names))
        for name in (name.removesuffix(".0") for name in category.names.tolist())
    ]
    value = np.array(new, np.int32)[category.value]
    before = np.concatenate([[0], np.cumsum(value >= 0)])
    return Category(strings(names), before[category.start].astype(np.int64), value[value >= 0])


def _with_length(videos: Table) -> Table:
    numbers = dict(videos.numbers)
    seconds = numbers.pop("video_duration") / 1000
    return videos._replace(numbers={"duration": seconds, "log_duration": np.log1p(seconds), **numbers})


def _log(files: Files) -> dict:
    """The wished columns of all logs, one after the other."""
    wishes = {
        "user": Wish("user_id", parse.ids, parse.join_codes),
        "item": Wish("video_id", parse.ids, parse.join_codes),
        "tab": Wish("tab", parse.ids, parse.join_single),
        **{name: Wish(name, whole, joined) for name in WHOLE},
        **{name: Wish(column, signal, joined) for name, column in SIGNALS.items()},
    }
    # Parts are joined at the end: ids of two files share one list of names.
    apart = {role: wish._replace(join=list) for role, wish in wishes.items()}
    found: dict[str, list] = {role: [] for role in wishes}
    for name in files.logs:
        file = opened(name, files.folder)
        _complete(file, LOG)
        for role, parts in parse.columns(file, apart).items():
            found[role] += parts
    return {role: wish.join(found[role]) for role, wish in wishes.items()}


def whole(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
    """[N] int64 of a column of whole numbers."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return column.to_numpy(zero_copy_only=False).astype(np.int64)
    words = parse.text(column, place, problems)
    fits = pc.fill_null(pc.match_substring_regex(words, r"^-?[0-9]{1,18}(\.0)?$"), False)
    parse.flag(~fits.to_numpy(zero_copy_only=False), column, place, "a whole number", problems)
    digits = pc.replace_substring_regex(pc.if_else(fits, words, "0"), r"\.0$", "")
    return pc.cast(digits, pa.int64()).to_numpy(zero_copy_only=False)


def signal(column: pa.Array, place: Place, problems: list[str]) -> np.ndarray:
    """[N] float32 of 0 and 1."""
    value = parse.numbers(column, place, [])
    parse.flag(~np.isin(value, (0, 1)), column, place, "0 or 1", problems)
    return value


def _rows(ids: tuple[np.ndarray, pa.Array], table: Table, name: str) -> np.ndarray:
    codes, names = ids
    at = pc.index_in(names, value_set=pa.array(table.id.tolist(), pa.string())).fill_null(-1).to_numpy(False)
    if (at < 0).any():
        first = ", ".join(repr(word) for word in names.filter(pa.array(at < 0)).to_pylist()[:3])
        raise UserError(
            f"the log shows {np.sum(at < 0)} ids that {name} does not list, the first: {first}; get it again"
        )
    return at[codes]


def _events(read: dict, at: dict[str, np.ndarray], kept: np.ndarray) -> Events:
    play, length, time = (read[name][kept] for name in ("play_time_ms", "duration_ms", "time_ms"))
    share = np.full(len(kept), np.nan)
    np.divide(play, length, out=share, where=length > 0)
    date = read["date"][kept]
    tab = read["tab"]
    hours = strings(map(str, range(24)))
    each = np.arange(len(kept) + 1, dtype=np.int64)
    return events_from(
        at["user"][kept],
        at["item"][kept],
        time // 1000,
        feedback={name: read[name][kept] for name in SIGNALS}
        | {"play_time": play / 1000, "play_share": np.minimum(share, 1.0)},
        split=np.where(date >= TEST, 2, np.where(date >= VALID, 1, 0)),
        categories={
            "tab": Category(tab.names, each, tab.value[kept]),
            "hour": Category(hours, each, ((time // 1000 + BEIJING) // 3600 % 24).astype(np.int32)),
        },
    )
