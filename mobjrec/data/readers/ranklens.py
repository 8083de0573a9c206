"""RankLens: 9,800 lists of 24 movies shown to 2,145 people, who ticked those they like. Metarank 2021, CC BY-SA 4.0.

A list's items that were shown and not ticked are true negatives. Time orders the lists of a user and says nothing more.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobjrec.data.corpus import check, events_from, report, several, single, table_from
from mobjrec.data.download import cache_folder
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Events, Table

TEXT = ("title", "description", "genres", "tags", "actors", "director")
NUMBERS = ("vote_cnt", "vote_avg", "popularity", "budget", "runtime")


class _Shown(NamedTuple):
    """One list: numbered user from 1, Unix seconds, movie ids in display order, those ticked."""

    user: int
    time: int
    items: list[int]
    liked: set[int]


# A movie's fields as the publisher gives them: text, numbers, lists of text.
Movie = dict[str, Any]


def ranklens(path: Path | None = None) -> Corpus:
    """The corpus from the compact folder (rankings.csv.gz, items.jsonl.gz), from the publisher's events.jsonl.gz or the
    folder that holds it; None: from the cache folder.

    Feedback: like, 0 or 1, for every movie shown; lists are numbered in time order from 0, with positions. Split by
    user as published: number % 10 in 0..7 train, 8 valid, 9 test, users being numbered from 1 by their first list.
    Items: text title, description, genres, tags, actors, director ("" for eight movies without metadata); categories
    genres, tags, actors, director; numbers vote_cnt, vote_avg, popularity, budget, runtime, release_year (NaN where
    unknown). Events are ordered by (list, position). UserError names file and line of what cannot be read.
    """
    where = cache_folder() / "ranklens" if path is None else path
    events = where if where.is_file() else where / "events.jsonl.gz"
    if (where / "rankings.csv.gz").is_file():
        lists, movies = _compact(where)
    elif events.is_file():
        lists, movies = _published(events)
    else:
        raise UserError(
            f"{where} holds neither rankings.csv.gz nor events.jsonl.gz; get RankLens with "
            "`mobjrec data get ranklens --from FILE` or name its folder as `path`"
        )
    if not lists:
        raise UserError(f"{where} shows no lists")
    ids = sorted(movies.keys() | {item for shown in lists for item in shown.items})
    users = max(shown.user for shown in lists)
    people = table_from(ids=[str(number) for number in range(1, users + 1)])
    units = {"like": "0 or 1", "runtime": "minutes", "budget": "US dollars"}
    corpus = Corpus(people, _items(ids, movies), _events(lists, ids), units)
    return check(corpus, "ranklens")


def _compact(folder: Path) -> tuple[list[_Shown], dict[int, Movie]]:
    name = folder / "rankings.csv.gz"
    lists, problems = [], []
    with gzip.open(name, "rt", encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            try:
                items = [int(item) for item in row["shown"].split()]
                shown = _Shown(int(row["user_id"]), int(row["ts"]), items, {int(x) for x in row["liked"].split()})
                lists.append((int(row["list_id"]), shown))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"{name}, line {line}: {error!r}; expected list_id, user_id, ts, shown, liked")
    if problems:
        raise UserError(report(str(name), problems))
    movies = {movie["item_id"]: movie for _, movie in _objects(folder / "items.jsonl.gz", ("item_id", "title"))}
    return [shown for _, shown in sorted(lists, key=lambda pair: pair[0])], movies


def _published(name: Path) -> tuple[list[_Shown], dict[int, Movie]]:
    """Metarank's event format: item, ranking and interaction events, one JSON object a line."""
    movies, rankings, ticks = {}, {}, []
    for line, event in _objects(name, ("event",)):
        try:
            if event["event"] == "item":
                movies[int(event["item"])] = {field["name"]: field["value"] for field in event["fields"]}
            elif event["event"] == "ranking":
                items = [int(item["id"]) for item in event["items"]]
                rankings[event["id"]] = (int(event["timestamp"]) // 1000, event["user"], items)
            elif event["event"] == "interaction":
                ticks.append((line, event["ranking"], int(event["item"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{name}, line {line}: {error!r} in the {event['event']} event {str(event)[:80]}"
            ) from error
    liked: dict[str, set[int]] = {key: set() for key in rankings}
    for line, ranking, item in ticks:
        if ranking not in rankings or item not in rankings[ranking][2]:
            raise UserError(f"{name}, line {line}: movie {item} is ticked, but list {ranking!r} does not show it")
        liked[ranking].add(item)
    users: dict[str, int] = {}
    lists = []
    for key, (time, user, items) in sorted(rankings.items(), key=lambda entry: entry[1][0]):
        lists.append(_Shown(users.setdefault(user, len(users) + 1), time, items, liked[key]))
    return lists, movies


def _objects(name: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, Movie]]:
    """(line, object) of a gzipped file of JSON lines."""
    if not name.is_file():
        raise UserError(f"{name} is missing")
    try:
        with gzip.open(name, "rt", encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                value = json.loads(text)
                if not isinstance(value, dict) or any(key not in value for key in needed):
                    raise UserError(
                        f"{name}, line {line}: found {text[:60]!r}; expected an object with {', '.join(needed)}"
                    )
                yield line, value
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{name} cannot be read as gzipped JSON lines: {error}") from error


def _items(ids: list[int], movies: dict[int, Movie]) -> Table:
    rows = [movies.get(item, {}) for item in ids]
    lists = {name: [row.get(name, []) for row in rows] for name in ("genres", "tags", "actors")}
    text = {name: [_words(row.get(name, "")) for row in rows] for name in TEXT}
    numbers = {name: [_number(row.get(name)) for row in rows] for name in NUMBERS}
    # The publisher writes 0 for a budget that is not known.
    numbers["budget"] = [value or float("nan") for value in numbers["budget"]]
    numbers["release_year"] = [_year(row.get("release_date")) for row in rows]
    categories = {name: several(column) for name, column in lists.items()} | {"director": single(text["director"])}
    return table_from([str(item) for item in ids], text, categories, numbers)


def _words(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _year(seconds: float | None) -> float:
    return float("nan") if seconds is None else float(datetime.fromtimestamp(seconds, UTC).year)


def _events(lists: list[_Shown], ids: list[int]) -> Events:
    lengths = np.array([len(shown.items) for shown in lists])
    number = np.repeat([shown.user for shown in lists], lengths)
    fold = number % 10
    return events_from(
        user=number - 1,
        item=np.searchsorted(ids, [item for shown in lists for item in shown.items]),
        time=np.repeat([shown.time for shown in lists], lengths),
        feedback={"like": np.array([item in shown.liked for shown in lists for item in shown.items], np.float32)},
        list=np.repeat(np.arange(len(lists)), lengths),
        position=np.concatenate([np.arange(length) for length in lengths]),
        split=np.where(fold == 8, 1, np.where(fold == 9, 2, 0)),
    )
