"""Mutated configs, tables, archives, weights and run folders through the command line, in process.

Whatever is wrong is one message and exit code 2, 3 or 4: never a traceback, never a hang, never a write elsewhere, and a
sealed step that was whole stays whole. MOBJREC_FUZZ is how many cases there are in all: 500, or 20,000 to be sure. With a
number in MOBJREC_FUZZ_PART they are others than those of any other number, so that 20,000 may run as ten parts of 2,000.
"""

import csv
import gzip
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from mobjrec import checkpoint, cli, dry
from mobjrec.config import load, plain
from mobjrec.data.example import example

pytestmark = pytest.mark.slow

CASES, PART = int(os.environ.get("MOBJREC_FUZZ", "500")), os.environ.get("MOBJREC_FUZZ_PART")
SECONDS = 60  # on a machine that does much else; the dearest command takes three
TINY = Path(__file__).parent / "tiny.yaml"
WEIGHTS = Path(__file__).parent / "fixtures" / "bert-tiny"
# Ids alone, which compile in a tenth of the time.
SMALL = [
    "tokenizer=null",
    "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}",
    "weighting={use: equal}",
    "save={every: {steps: 1}, keep: 3}",
    "evaluate={metrics: [auc], every: {steps: 1}, select: click/auc}",
    "steps=3",
]


def cases(percent: int) -> Callable[[Callable], Callable]:
    """Gives a test this share of all cases, the same ones each time."""
    setting = settings(
        max_examples=max(1, CASES * percent // 100),
        derandomize=PART is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return setting if PART is None else lambda test: seed(int(PART))(setting(test))


class World(NamedTuple):
    """A folder to watch: the command runs in `here`; home, cache and temporary files lie beside it."""

    root: Path
    here: Path


class Ended(NamedTuple):
    code: int
    out: str
    error: str


class Hung(BaseException):
    """No Exception, which a command might take for a fault of its own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        for name, variable in (("home", "HOME"), ("cache", "MOBJREC_CACHE"), ("tmp", "TMPDIR")):
            (root / name).mkdir()
            patch.setenv(variable, str(root / name))
        (root / "here").mkdir()
        (root / "mine.txt").write_text("mine")
        patch.chdir(root / "here")
        yield World(root, root / "here")


def called(*arguments: object) -> Ended:
    """A command in this process, stopped after SECONDS."""

    def late(*_):
        raise Hung(f"{arguments} took more than {SECONDS} s")

    out, error, code = io.StringIO(), io.StringIO(), 0
    before, argv = signal.signal(signal.SIGALRM, late), sys.argv
    sys.argv = ["mobjrec", *map(str, arguments)]
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(error):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.argv = argv
    return Ended(code, out.getvalue(), error.getvalue())


def seen(folder: Path, *but: Path) -> dict[str, tuple]:
    """What lies in a folder, except for `but`: size and time of each file."""
    found = {}
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if here / name not in but]
        for path in (here / name for name in (*folders, *files) if here / name not in but):
            stat = path.lstat()
            found[str(path)] = (stat.st_mode, () if path.is_dir() else (stat.st_size, stat.st_mtime_ns))
    return found


def fine(world: World, *arguments: object, writes: tuple[Path, ...] = ()) -> Ended:
    """The command's end, as it has to be whatever it was given. writes: what it may write, the cache besides."""
    but = (*writes, world.root / "cache")
    before = seen(world.root, *but)
    ended = called(*arguments)
    assert ended.code in (0, 2, 3, 4), ended
    assert "Traceback" not in ended.error + ended.out, ended
    assert ended.code == 0 or "mobjrec: " in ended.error, ended
    assert seen(world.root, *but) == before
    return ended


PLACE = st.integers(0, 10**6)
ODD = [
    *(None, True, False, 0, -1, 1, 2, 3.5, 1e-300, 1e308, 2**31, 2**53, 2**63, -(2**70), float("inf"), float("nan")),
    *("", " ", "\0", "\ud800", "{title}", "a" * 300, [], {}, [None], [[]], [1, "a"], {"": 1}, {"a": {"b": {}}}),
    *"x 0 1e-3 no ../x / é \U0001f600 { * @5 click/auc user title click mgda adamw bert softmax mlp dot recall table".split(),
    *({"use": name} for name in ("no_such", 3, "json:nothing", "a:b:c", "single", "index", "by_time", "adamw")),
]  # fmt: skip


def one_of(choices: dict[str, st.SearchStrategy], place: st.SearchStrategy) -> st.SearchStrategy:
    """(kind, place, value of that kind)."""
    return st.one_of(*(st.tuples(st.just(kind), place, value) for kind, value in choices.items()))


NONE = st.none()
BYTES = one_of(
    {
        "set": st.integers(0, 255),
        "cut": NONE,
        "delete": st.integers(1, 60),
        "insert": st.binary(min_size=1, max_size=6) | st.sampled_from([b"\n", b'"', b"\xff\xfe"]),
        "line": NONE,
        "all": st.sampled_from([b"", b"\n", b"{}", b"[]", b"null", b"\xef\xbb\xbf", b"\0" * 99]),
    },
    PLACE,
)


def damaged(content: bytes, change: tuple) -> bytes:
    kind, place, value = change
    place %= len(content) + 1
    if kind == "all":
        return value
    if kind == "cut":
        return content[:place]
    if kind == "line":
        lines = content.splitlines(keepends=True) or [b""]
        at = place % len(lines)
        return b"".join([*lines[:at], lines[at], *lines[at:]])
    new = {"set": lambda: bytes([value]), "delete": lambda: b"", "insert": lambda: value}[kind]()
    return content[:place] + new + content[place + {"set": 1, "delete": value, "insert": 0}[kind] :]


TREE = one_of(
    {
        "value": st.sampled_from(ODD),
        "drop": NONE,
        "name": st.sampled_from(["usse", "", "x" * 300, "learning_rate", "use", "weights", "é\0", "of"]),
        "nest": st.sampled_from([1, 2, 60, 400]),
        "copy": PLACE,
        "more": st.sampled_from(ODD),
    },
    PLACE,
)


def places(tree, path=()):
    """The paths of all that stands in plain data."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def bent(tree, change: tuple):
    """Plain data with one of its entries changed."""
    tree, (kind, place, value) = json.loads(json.dumps(tree)), change
    paths = list(places(tree))
    if not paths:
        return value if kind == "value" else tree
    *over, key = paths[place % len(paths)]
    holder = at(tree, over)
    if kind == "value":
        holder[key] = value
    elif kind == "drop":
        del holder[key]
    elif kind == "name" and isinstance(holder, dict):
        holder[value] = holder.pop(key)
    elif kind == "more" and isinstance(holder, dict):
        holder["more"] = value
    elif kind == "copy":
        holder[key] = json.loads(json.dumps(at(tree, paths[value % len(paths)])))
    elif kind == "nest":
        for _ in range(value):
            holder[key] = [holder[key]] if value % 2 else {"use": holder[key]}
    return tree


CHANGES = st.one_of(
    st.tuples(st.lists(TREE, min_size=1, max_size=3), st.just([])),
    st.tuples(st.just([]), st.lists(BYTES, min_size=1, max_size=3)),
)


def changed(content: bytes, changes: tuple[list, list]) -> bytes:
    """What the content means, changed and as JSON; or its bytes."""
    tree, raw = changes
    if tree:
        data = json.loads(content)
        for change in tree:
            data = bent(data, change)
        content = json.dumps(data).encode()
    for change in raw:
        content = damaged(content, change)
    return content


@pytest.fixture(scope="module")
def shop(world) -> dict[str, bytes]:
    """The example of one's own tables, with events of a few lists."""
    example(world.here / "shop")
    files = {path.name: path.read_bytes() for path in (world.here / "shop").iterdir()}
    shutil.rmtree(world.here / "shop")
    return files | {"events.csv": b"\n".join(files["events.csv"].splitlines()[:200]) + b"\n"}


def written(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


@cases(32)
@given(own=st.booleans(), changes=CHANGES, check=st.booleans())
def test_a_config_of_any_kind_is_read_or_refused(world, shop, own, changes, check):
    folder = world.here / "configs"
    source = shop["own-table.yaml"] if own else TINY.read_bytes()
    if changes[0]:
        written(folder, {**shop, "one.yaml": source})
        source = json.dumps(plain(load(folder / "one.yaml"))).encode()
    written(folder, {**shop, "one.yaml": changed(source, changes)})
    ended = fine(world, "config", folder / "one.yaml")
    if ended.code == 0:
        (folder / "two.yaml").write_text(ended.out)
        again = fine(world, "config", folder / "two.yaml")
        assert (again.code, again.out) == (0, ended.out)
    # The synthetic corpus may be asked to be as large as memory.
    if check and own:
        fine(world, "data", "check", folder / "one.yaml")


CELLS = [
    *("", " ", "9" * 400, ",", "\n", "\r", "\0", "\ufeff", "\u05e9\u05dc", "\U0001f600" * 50, "x" * 100_000),
    *"u1 i32 0 -1 1 2 nan NaN inf -inf 1e999 1e308 true yes None null ../../x \" ' a|b||c |".split(),
    *"1704067200 1704067200000 -5 99999999999999999999 2024-05-31 2024-13-45T99:00:00Z".split(),
]
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-7", "cp037")
ROWS = one_of(
    {
        "cell": st.sampled_from(CELLS),
        "head": st.sampled_from(["", "user_id", "item_id", "x", "time", "click", "Click ", "title"]),
        "again": PLACE,
        **dict.fromkeys(("gone", "column", "short"), NONE),
    },
    PLACE,
) | st.tuples(st.just("few"), st.integers(0, 4), NONE)


def edited(rows: list[list[str]], change: tuple) -> list[list[str]]:
    rows, (kind, place, value) = [list(row) for row in rows], change
    column, line = place % max(1, len(rows[0])), 1 + place // 7 % max(1, len(rows) - 1)
    if kind == "few":
        return rows[: 1 + place]
    if kind == "head" and rows[0]:
        rows[0][column] = value
    elif kind == "column":
        return [row[:column] + row[column + 1 :] for row in rows]
    elif line < len(rows):
        if kind == "cell" and column < len(rows[line]):
            rows[line][column] = value
        elif kind == "again":
            rows.insert(1 + value % len(rows), rows[line])
        elif kind == "gone":
            del rows[line]
        elif kind == "short":
            rows[line] = rows[line][:column]
    return rows


def in_format(rows: list[list[str]], format: str, encoding: str) -> bytes:
    if format in ("csv", "tsv"):
        buffer = io.StringIO()
        csv.writer(buffer, delimiter="," if format == "csv" else "\t").writerows(rows)
        return buffer.getvalue().encode(encoding, "replace")
    dicts = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]
    if format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dicts).encode(encoding, "replace")
    buffer = io.BytesIO()
    names = list(dict.fromkeys(rows[0]))
    pyarrow.parquet.write_table(pa.table({n: pa.array([d.get(n) for d in dicts], pa.string()) for n in names}), buffer)
    return buffer.getvalue()


@cases(28)
@given(
    name=st.sampled_from(["events", "events", "items", "users"]),
    format=st.sampled_from(["csv", "csv", "tsv", "jsonl", "parquet"]),
    zipped=st.booleans(),
    encoding=st.tuples(*[st.sampled_from(ENCODINGS)] * 2),
    rows=st.lists(ROWS, max_size=3),
    raw=st.lists(BYTES, max_size=2),
    command=st.sampled_from(["check", "check", "check", "show"]),
)
def test_a_table_of_any_kind_is_read_or_refused(world, shop, name, format, zipped, encoding, rows, raw, command):
    table = list(csv.reader(io.StringIO(shop[f"{name}.csv"].decode())))
    for change in rows:
        table = edited(table, change)
    content = in_format(table, format, encoding[0])
    zipped = zipped and format != "parquet"
    content = gzip.compress(content, 1) if zipped else content
    for change in raw:
        content = damaged(content, change)
    file = f"{name}.{format}" + ".gz" * zipped
    written(world.here / "shop", {**shop, file: content})
    change = [f"data.{name}={file}", f"data.encoding={encoding[1]}"]
    fine(world, "data", command, world.here / "shop" / "own-table.yaml", *change)


FILES = {
    "ml-100k/u.data": b"1\t2\t3\t4\n" * 100_000,
    "ml-100k/u.item": b"1|a\n" * 1_682,
    "ml-100k/u.user": b"1|a\n" * 943,
    "ml-100k/u.genre": b"a|1\n" * 19,
    "ml-100k/README": b"read me\n",
}
NAMES = "../x /abs a/../../u.data u.data ml-100k/u.data C:\\u.data a\\..\\..\\u.data . u.item\0".split(" ")
MEMBERS = one_of(
    {
        "name": st.sampled_from(["", *NAMES]),
        "content": st.sampled_from([b"", b"x", b"\0" * (3 << 20), b"\n" * 100_000]),
        "link": st.sampled_from(["/etc/passwd", "../../mine.txt", "u.item"]),
        **dict.fromkeys(("gone", "again", "folder", "device"), NONE),
    },
    PLACE,
)


def packed(members: list[tuple[str, bytes, str]], format: str) -> bytes:
    """members: (name, content, kind: file, folder, device, or what a link points to)."""
    buffer = io.BytesIO()
    if format == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content, kind in members:
                entry = zipfile.ZipInfo(name + "/" * (kind == "folder"))
                mode = {"file": 0o100644, "folder": 0o040755, "device": 0o020644}.get(kind, 0o120777)
                entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
                archive.writestr(entry, b"" if kind == "folder" else content if kind == "file" else kind.encode())
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w" if format == "tar" else "w:gz") as archive:
        for name, content, kind in members:
            entry = tarfile.TarInfo(name)
            types = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "device": tarfile.CHRTYPE}
            entry.type = types.get(kind, tarfile.SYMTYPE)
            entry.linkname = "" if kind in types else kind
            entry.size = len(content) if kind == "file" else 0
            archive.addfile(entry, io.BytesIO(content) if kind == "file" else None)
    return buffer.getvalue()


@cases(16)
@given(
    name=st.sampled_from(["ml-100k", "ml-100k", "ml-100k", "ranklens", "minilm"]),
    format=st.sampled_from(["zip", "zip", "tar", "tgz"]),
    suffix=st.sampled_from(["archive", "u.data", "x.zip", "x.tar.gz", "model.safetensors"]),
    members=st.lists(MEMBERS, max_size=2),
    raw=st.lists(BYTES, max_size=2),
)
def test_an_archive_of_any_kind_is_placed_whole_or_refused(world, name, format, suffix, members, raw):
    entries = [(path, content, "file") for path, content in FILES.items()]
    for kind, place, value in members:
        n = place % max(1, len(entries))
        for path, content, was in entries[n : n + 1]:
            made = {
                "gone": [],
                "again": [(path, content, was)] * 2,
                "name": [(value, content, was)],
                "content": [(path, value, was)],
                "link": [(path, content, value)],
            }
            entries[n : n + 1] = made.get(kind, [(path, content, kind)])
    content = packed(entries, format)
    for change in raw:
        content = damaged(content, change)
    written(world.here / "archives", {suffix: content})
    place = world.here / "placed"
    shutil.rmtree(place, ignore_errors=True)
    ended = fine(
        world, "data", "get", name, "--from", world.here / "archives" / suffix, "--folder", place, writes=(place,)
    )
    assert place.exists() == (ended.code == 0)
    if place.exists():
        assert {path.name for path in place.iterdir()} == {Path(path).name for path in FILES if "README" not in path}


@cases(10)
@given(file=st.sampled_from(["config.json", "tokenizer_config.json", "vocab.txt"]), changes=CHANGES)
def test_weights_whose_settings_are_of_any_kind_are_read_or_refused(world, file, changes):
    folder = world.here / "weights"
    files = {path.name: path.read_bytes() for path in WEIGHTS.iterdir()}
    written(folder, {**files, file: changed(files[file], changes if file.endswith("json") else ([], changes[1]))})
    model = [f"tokenizer={{use: pretrained, weights: {folder}}}", f"model.encoder={{use: bert, weights: {folder}}}"]
    for command in (["config"], ["data", "show"]):
        fine(world, *command, TINY, *model)


@cases(4)
@given(header=st.booleans(), changes=CHANGES)
def test_weights_whose_numbers_are_of_any_kind_are_read_or_refused(world, header, changes):
    folder = world.here / "weights"
    files = {path.name: path.read_bytes() for path in WEIGHTS.iterdir()}
    whole = files["model.safetensors"]
    size = int.from_bytes(whole[:8], "little")
    if changes[0] or header:
        new = changed(whole[8 : 8 + size], changes)
        whole = len(new).to_bytes(8, "little") + new + whole[8 + size :]
    else:
        whole = changed(whole, changes)
    written(folder, {**files, "model.safetensors": whole})
    model = [f"tokenizer={{use: pretrained, weights: {folder}}}", f"model.encoder={{use: bert, weights: {folder}}}"]
    small = [
        "weighting={use: equal}",
        "model.user={ids: [user]}",
        "model.item={text: '{title}'}",
        "model.scorer={use: dot}",
    ]
    with pytest.MonkeyPatch.context() as patch:
        # The step is of the config's shapes, whatever the numbers: to trace and compile it would be most of the time.
        patch.setattr(dry, "mapped_step", lambda *_: lambda state, batch: state)
        fine(world, "train", TINY, *model, *small, "--dry-run")


@pytest.fixture(scope="module")
def run(world) -> Path:
    """A run of three sealed steps that is over."""
    folder = world.root / "run"
    assert called("train", TINY, *SMALL, "--run", folder).code == 0
    return folder


def whole_steps(folder: Path) -> list[int]:
    """The sealed steps that verify."""
    root = folder.resolve() / checkpoint.RECENT
    return (
        [step for step in checkpoint.steps(folder) if not checkpoint._examined(root, step)[1]] if root.is_dir() else []
    )


FATES = st.one_of(
    st.tuples(st.just("changed"), CHANGES),
    st.tuples(st.sampled_from(["gone", "folder", "link inside", "link outside", "no link", "empty"]), st.none()),
)


@cases(10)
@given(
    fates=st.lists(st.tuples(PLACE, FATES), min_size=1, max_size=3),
    over=st.booleans(),
    command=st.sampled_from(["show", "show", "show two", "eval", "rank", "train", "train on", "train other"]),
)
def test_a_run_folder_of_any_kind_is_used_or_refused_and_whole_steps_stay(world, run, fates, over, command):
    folder = world.here / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    if not over:
        (folder / "result.json").unlink()
    for place, (fate, changes) in fates:
        paths = sorted(folder.rglob("*"))
        meet(paths[place % len(paths)], fate, changes, folder, world)
    before = whole_steps(folder)
    rest = {"train": [], "train on": ["steps=4"], "train other": ["batch.lists=8"]}
    arguments = {
        "show": ["show", folder],
        "show two": ["show", run, folder],
        "eval": ["eval", folder, "--split", "valid"],
        "rank": ["rank", folder, "--user", "u3"],
    }.get(command) or ["train", TINY, *SMALL, *rest[command], "--run", folder]
    writes = () if command.startswith(("show", "rank")) else (folder,)
    fine(world, *arguments, writes=writes)
    after = whole_steps(folder)
    assert not before or (after and after[-1] >= before[-1]), (before, after)


def meet(path: Path, fate: str, changes: tuple | None, folder: Path, world: World) -> None:
    """What a file or folder of the run meets with."""
    if fate == "changed":
        if path.is_file():
            content = path.read_bytes()
            tree = changes[0] if path.suffix == ".json" and content[:1] in (b"{", b"[") else []
            path.write_bytes(changed(content, (tree, changes[1])) if tree or changes[1] else b"x" + content)
        return
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    targets = {
        "link inside": folder / "config.yaml",
        "link outside": world.root / "mine.txt",
        "no link": folder / "nowhere",
    }
    if fate in targets:
        path.symlink_to(targets[fate])
    elif fate == "folder":
        path.mkdir()
        (path / "file").write_text("mine")
    elif fate == "empty":
        path.write_bytes(b"")
