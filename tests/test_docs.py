"""The pages say what the code does: keys, defaults, commands, examples, messages and links are held against it."""

import importlib.util
import inspect
import io
import re
import runpy
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

import jax
import numpy as np
import pytest
import typer
from pydantic import BaseModel

from mobjrec import cli, errors, mesh, metrics, shipped
from mobjrec.config import Block, Config, load, parse, plain
from mobjrec.data import sides
from mobjrec.data.example import example
from mobjrec.data.pivot import Kinds
from mobjrec.data.readers.table import Columns
from mobjrec.errors import UserError
from mobjrec.lookup import ROOMS, lookup, names
from mobjrec.metrics import pooled
from mobjrec.optimizers import Group
from mobjrec.resolve import SUPPLIED, complete
from mobjrec.types import Input, PooledMetric
from mobjrec.yaml_reader import read

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TINY = ROOT / "tests" / "tiny.yaml"


class Fenced(NamedTuple):
    """A fenced block of a page. line: where its text begins."""

    page: str
    line: int
    language: str
    text: str


def fenced(path: Path) -> list[Fenced]:
    """A page's fenced blocks."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Fenced(path.name, text.count("\n", 0, one.start(2)) + 1, one[1], one[2]) for one in found]


BLOCKS = [block for page in PAGES for block in fenced(page)]


def of(language: str) -> list[Any]:
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in BLOCKS if b.language == language]


def file_name(block: Fenced) -> str:
    """The name of the file that a Python block is, "" where it is a mere excerpt."""
    found = re.match(r"# (\w+\.py)\n", block.text)
    return found[1] if block.language == "python" and found else ""


FILES = {file_name(block): block for block in BLOCKS if file_name(block)}


def tables(path: Path) -> list[list[list[str]]]:
    """A page's tables as rows of cells, the header first."""
    found, text = [], re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for lines in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines.splitlines()]
        found.append([[cell.replace("\\|", "|") for cell in row] for row in (rows[0], *rows[2:])])
    return found


def spans(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def value_of(text: str) -> Any:
    """What YAML says; an empty text for a bare `.`, which a path is by default."""
    return read(text, "page").value


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with every file that the pages write and the diary that one of them reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, block in FILES.items():
        (tmp_path / name).write_text(block.text, encoding="utf-8")
    written_diary(tmp_path / "diary")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").is_file():
            del sys.modules[name]


def written_diary(place: Path) -> None:
    random = np.random.default_rng(0)
    place.mkdir()
    words = (("verse", "moon", "poetry"), ("harbour", "whale", "sea"), ("clue", "alibi", "crime"))
    books = [f"b{n}\tThe {words[n % 3][n % 2]} of {n}\t{words[n % 3][2]}|shelf{n % 5}" for n in range(24)]
    stars = [f"r{n % 20}\tb{random.integers(24)}\t{1_700_000_000 + 60 * n}\t{random.integers(5)}" for n in range(400)]
    (place / "books.tsv").write_text("\n".join(books) + "\n", encoding="utf-8")
    (place / "stars.tsv").write_text("\n".join(stars) + "\n", encoding="utf-8")


# The config's keys


def keys_of(model: type[BaseModel], above: str = "") -> dict[str, Any]:
    """{dotted key: default, "required" where there is none} of a config's model; blocks count as one key."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) if get_origin(field.annotation) is UnionType else (field.annotation,)
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel) and k is not Block]
        if inner:
            own = keys_of(inner[0], f"{above}{name}.")
            if isinstance(field.default, BaseModel):
                own |= {
                    f"{above}{name}.{key}": value for key, value in flat(field.default).items() if value is not None
                }
            found |= own
        else:
            found[f"{above}{name}"] = "required" if field.is_required() else plain(field.default)
    return found


def flat(model: BaseModel) -> dict[str, Any]:
    found = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        inner = flat(value) if isinstance(value, BaseModel) and not isinstance(value, Block) else None
        found |= {name: plain(value)} if inner is None else {f"{name}.{key}": one for key, one in inner.items()}
    return found


def test_every_key_of_the_config_is_on_its_page_with_its_default_and_no_other_is():
    (table,) = [t for t in tables(DOCS / "config.md") if t[0][0] == "key"]
    told = {spans(key)[0]: default for key, _, default, _ in table[1:]}
    known = keys_of(Config)
    assert told.keys() == known.keys()
    for key, default in told.items():
        shown = default if default == "required" else value_of(spans(default)[0])
        assert shown == known[key], f"{key}: {default} on the page, {known[key]} in config.py"


PIECES = {
    "data.columns": Columns,
    "data.item_columns": sides.SideColumns,
    "data.user_columns": sides.SideColumns,
    "data.kinds": Kinds,
    "model.user": Input,
    "model.item": Input,
    "optimizer.groups.PATTERN": Group,
}
# Metrics have no block in a config: metrics.md names them.
SEAMS = [seam for seam in ROOMS if seam != "Metric"]


def told_settings() -> dict[str, list[dict[str, str]]]:
    """{function or piece: [{setting: default as the page writes it, "required"}], one for each row of that name}."""
    found: dict[str, list[dict[str, str]]] = {}
    for header, *rows in tables(DOCS / "config.md"):
        if header[0] == "`use`":
            for name, settings, *_ in rows:
                pairs = [span.partition(":") for span in spans(settings)]
                found.setdefault(spans(name)[0], []).append(
                    {key: default.strip() or "required" for key, _, default in pairs}
                )
        elif header[0].startswith("`"):
            for name in spans(header[0]):
                table = {spans(key)[0]: "".join(spans(default)) or default for key, _, default, _ in rows}
                found.setdefault(name, []).append(table)
    return found


def known_settings() -> dict[tuple[str, str], dict[str, Any]]:
    """{(seam, or "" for a piece, function or piece): {setting: default}}."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for seam in SEAMS:
        for name in names(seam):
            parameters = signature(lookup(seam, name)).parameters.values()
            own = [one for one in parameters if one.name not in SUPPLIED.get(seam, ())]
            found[seam, name] = {one.name: "required" if one.default is one.empty else one.default for one in own}
    for name, piece in PIECES.items():
        found["", name] = {field: piece._field_defaults.get(field, "required") for field in piece._fields}
    return found


@pytest.mark.parametrize("seam, name", known_settings())
def test_every_setting_of_a_named_function_is_on_the_page_with_its_default(seam, name):
    known = known_settings()[seam, name]
    # A loss and an objective may share a name, each with a row.
    rows = [told for told in told_settings().get(name, []) if told.keys() == known.keys()]
    assert rows, f"{seam} {name} with the settings {', '.join(known)} is not on docs/config.md"
    assert any(all(stands(told[key], default) for key, default in known.items()) for told in rows), f"{rows}: {known}"


def stands(told: str, default: Any) -> bool:
    """Whether the page's default is the code's."""
    if isinstance(default, tuple) and hasattr(default, "_fields"):
        return told == "{}" and default == type(default)()
    if "required" in (told, default):
        return told == default
    return value_of(told) == (str(default) if isinstance(default, Path) else plain(default))


def test_no_other_setting_is_on_the_page():
    known: dict[str, list[set[str]]] = {}
    for (_, name), settings in known_settings().items():
        known.setdefault(name, []).append(set(settings))
    told = told_settings()
    assert told.keys() <= known.keys()
    for name, rows in told.items():
        assert len(rows) <= len(known[name]) and all(row.keys() in known[name] for row in rows), name


# Configs


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_config_parses_resolves_and_is_named_on_the_page(name):
    complete(load(shipped.config(name)))
    assert f"`{name}`" in (DOCS / "config.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", of("yaml"))
def test_a_yaml_block_parses_and_resolves(block, folder):
    """A block that is a part of a config stands in for that part of a small one."""
    value, _, problems = read(block.text, f"{block.page}:{block.line}")
    assert not problems and isinstance(value, dict)
    whole = value if "objectives" in value and "data" in value else plain(load(TINY)) | rest(value) | value
    complete(parse(whole))


def rest(value: dict[str, Any]) -> dict[str, Any]:
    """Objectives that a number per objective on the pages names, and a weighting for any objectives."""
    single = {"use": "single", "loss": "softmax"}
    objectives = {name: single | {"label": name} for name in ("click", "satisfied")}
    return {"objectives": objectives, "weighting": {"use": "equal"}}


# Commands


def commands() -> list[Any]:
    lines = [(b, line) for b in BLOCKS if b.language == "sh" for line in b.text.splitlines()]
    return [pytest.param(line, id=f"{b.page}: {line[:50]}") for b, line in lines if line.startswith("mobjrec ")]


@pytest.mark.parametrize("line", commands())
def test_a_command_on_a_page_is_one(line, folder):
    example(Path("my_shop"))
    command, words = typer.main.get_command(cli.app), shlex.split(line, comments=True)[1:]
    context = typer.Context(command, info_name="mobjrec")
    while hasattr(command, "resolve_command"):
        _, command, words = command.resolve_command(context, words)
    parameters = command.make_context(command.name, list(words), parent=context).params
    if "config" in parameters and parameters["config"] != "mine.yaml":
        complete(load(shipped.config(parameters["config"]), parameters["changes"] or ()))


# Python


@pytest.mark.parametrize("name", FILES)
def test_a_python_file_on_a_page_runs(name, folder):
    runpy.run_path(str(folder / name), run_name="__main__")
    if name == "train_here.py":
        # The one run that there is: its folder is what the page about run folders says, all but an evaluation's and an extra's.
        told = {spans(row[0])[0].rstrip("/") for row in tables(DOCS / "run_folder.md")[0][1:]}
        there = {path.name for path in (folder / "runs/from_python").iterdir()}
        assert there == told - {"eval-test.json", "eval-test.npz", "wandb"}


def test_a_file_of_ones_own_is_on_one_page_only():
    assert len([b for b in BLOCKS if file_name(b)]) == len(FILES)


def test_ones_own_pieces_make_a_step_together(folder):
    from mobjrec.data import order
    from mobjrec.data.batching import build
    from mobjrec.parts import assemble, sizes_of
    from mobjrec.train import mapped_step

    (block,) = [b for b in BLOCKS if b.page == "extend.md" and b.language == "yaml" and "seed" in b.text]
    parts = assemble(complete(parse(read(block.text, "extend.md").value)), folder / "cache")
    lists = parts.dataset.train
    rows = order.rows(0, 0, len(lists.user), parts.config.batch.lists)
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(0, 0))
    batch, _ = build(parts.feed, lists, rows, drawn, sizes_of(parts, 1))
    state = parts.first_state()
    after, logs = jax.eval_shape(mapped_step(parts, mesh.make(1)), state, batch)
    assert logs["losses"].shape == (2,) and jax.tree.structure(after) == jax.tree.structure(state)


# Links and names


def links() -> list[Any]:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
        found += [pytest.param(page, target, id=f"{page.name}: {target}") for target in targets]
    return found


@pytest.mark.parametrize("page, target", links())
def test_a_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists() and there.is_relative_to(ROOT)
    if anchor:
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:mobjrec|configs|tests|benchmarks|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_index_names_every_page():
    linked = set(re.findall(r"\]\((\w+\.md)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_public_names_that_a_page_gives_a_module_are_there(page):
    text = page.read_text(encoding="utf-8")
    for module, name in re.findall(r"`(mobjrec(?:\.\w+)+)\.(\w+)[`(]", text):
        found = importlib.import_module(module)
        assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{module}.{name}"


def test_every_metric_is_on_its_page_and_no_other():
    by_list, over_all = (table for table in tables(DOCS / "metrics.md") if table[0][0] == "metric")
    assert {spans(row[0])[0] for row in by_list[1:]} == metrics.BY_NAME.keys()
    told = {spans(row[0])[0].removeprefix("pooled_") for row in over_all[1:]}
    assert told == {n for n, one in vars(pooled).items() if n[0] != "_" and signature_returns(one) is PooledMetric}


def signature_returns(one: Any) -> Any:
    return one.__annotations__.get("return") if inspect.isfunction(one) else None


def test_every_kind_of_mistake_has_its_exit_code_on_the_page():
    (table,) = (table for table in tables(DOCS / "run_folder.md") if table[0][0] == "exit code")
    told = {int(code) for row in table[1:] for code in row[0].split(",")}
    assert told == {0, 1, 128 + signal.SIGINT, 128 + signal.SIGTERM} | {kind.code for kind in errors.MISTAKES}


def test_every_room_is_on_the_page_of_the_layout():
    rooms = {path.name for path in (ROOT / "mobjrec").glob("*.py")} - {"__init__.py"}
    rooms |= {f"{path.parent.name}/" for path in (ROOT / "mobjrec").glob("*/__init__.py")}
    table = next(table for table in tables(DOCS / "design.md") if table[0][0] == "room")
    assert {name for row in table[1:] for name in spans(row[0])} == rooms


# What is printed


def printed(*words: str) -> str:
    """What a command prints, on a terminal of 100 columns."""
    command = typer.main.get_command(cli.app)
    buffer = io.StringIO()
    with redirect_stdout(buffer), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        command.main(args=list(words), prog_name="mobjrec", standalone_mode=False)
    return buffer.getvalue()


def assert_told(page: str, output: str) -> None:
    """Every line of some text block of the page is printed, in this order; `...` stands for any lines."""
    lines = [line.rstrip() for line in output.splitlines()]
    wrong = []
    for block in BLOCKS:
        if block.page == page and block.language == "text":
            place = iter(lines)
            missing = [told for told in block.text.splitlines() if told != "..." and told.rstrip() not in place]
            if not missing:
                return
            wrong.append(missing)
    raise AssertionError(f"no block of {page} is what is printed: {min(wrong, key=len)[:3]} of\n{output}")


def test_the_data_commands_print_what_the_page_says(folder):
    assert_told("your_data.md", printed("data", "example", "my_shop"))
    assert_told("your_data.md", printed("data", "check", "my_shop/own-table.yaml"))
    assert_told("your_data.md", printed("data", "show", "my_shop/own-table.yaml"))


def edited(name: str, old: str, new: str) -> Callable[[], None]:
    """What replaces a text in one of the example's files."""

    def edit() -> None:
        path = Path("my_shop") / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def in_latin_1() -> None:
    path = Path("my_shop/items.csv")
    path.write_bytes(path.read_text(encoding="utf-8").replace("Durable dumbbell", "Café dumbbell", 1).encode("latin-1"))


def message(mistake: Callable[[], None], command: str) -> str:
    """What the command says of the example after the mistake was made."""
    mistake()
    with pytest.raises(UserError) as caught:
        printed(*command.split(), "my_shop/own-table.yaml")
    return str(caught.value)


ROW, TEMPLATE = "u1,i10,1704067200,l1,1,", '"{title}. {description}"'
PROBABILITY = "{use: single, loss: sigmoid_cross_entropy, link: sigmoid, label: dwell}"
MISTAKES = {
    "column": (
        "A column under another name than the config's:",
        edited("own-table.yaml", "user: user_id", "user: userid"),
        "data check",
    ),
    "cell": ("A cell that is no number:", edited("events.csv", ROW + "1", ROW + "yes"), "data check"),
    "time": (
        "Milliseconds for seconds:",
        edited("events.csv", "u1,i32,1704067200,", "u1,i32,1704067200000,"),
        "data check",
    ),
    "date": ("A date in the order of a country:", edited("events.csv", ROW, "u1,i10,31.12.2023,l1,1,"), "data check"),
    "unknown": (
        "An event of an item that the item table has not:",
        edited("events.csv", ",i10,", ",i999,"),
        "data check",
    ),
    "twice": ("An item twice in one list:", edited("events.csv", "u1,i10,", "u1,i32,"), "data check"),
    "users": (
        "A list id that is used again for another user; make it unique, with the user or the day in it:",
        edited("events.csv", "u1,i10,", "u2,i10,"),
        "data check",
    ),
    "ids": ("Two rows of one item:", edited("items.csv", "\ni2,", "\ni1,"), "data check"),
    "cells": (
        "A comma too many, or a text with commas that is not quoted:",
        edited("events.csv", ROW, ROW + ","),
        "data check",
    ),
    "encoding": ("A file that is not UTF-8:", in_latin_1, "data check"),
    "template": (
        "A template with a column that is not there:",
        edited("own-table.yaml", TEMPLATE, TEMPLATE.replace("title", "titel")),
        "data show",
    ),
    "label": (
        "An objective on a label that is not there:",
        edited("own-table.yaml", "label: click}", "label: clicked}"),
        "data show",
    ),
    "probability": (
        "A probability of what is none:",
        edited("own-table.yaml", "{use: single, loss: softmax, label: click}", PROBABILITY),
        "data check",
    ),
    "history": (
        "A history of a label that is not there:",
        edited("own-table.yaml", "{of: click,", "{of: clicks,"),
        "data show",
    ),
    "split": (
        "A published split that the table has no column for:",
        edited("own-table.yaml", "split: {use: by_time, valid: 0.15, test: 0.15}", "split: {use: published}"),
        "data show",
    ),
    "key": (
        "Keys that are misspelt, all of them at once:",
        lambda: [
            edited("own-table.yaml", "  columns: ", "  colums: ")(),
            edited("own-table.yaml", "scorer: {use: mlp}", "scorer: {use: mpl}")(),
            edited("own-table.yaml", "learning_rate: 1e-3", "learning_rate: fast")(),
        ],
        "config",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_as_the_page_says(name, folder):
    example(Path("my_shop"))
    about, mistake, command = MISTAKES[name]
    text = (DOCS / "your_data.md").read_text(encoding="utf-8")
    assert f"{about}\n\n```text\n{message(mistake, command)}\n```" in text
