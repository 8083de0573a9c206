"""Bad input through the command line: one message, the right exit code, no traceback, nothing else written."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mobjrec import cli
from mobjrec.data.leaks import SHOWN

ROOT = Path(__file__).resolve().parents[1]
TINY = Path(__file__).parent / "tiny.yaml"

# Ids alone, so that what must be trained compiles in seconds.
TABLE = """\
steps: 2
data: {use: table, path: ., events: events.csv, columns: {feedback: [click]}}
lists: {split: {use: last_out, valid: 1, test: 1}, history: {last: 3}}
candidates: {use: as_logged}
batch: {lists: 4}
model: {use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}
objectives: {click: {use: single, loss: squared, label: click}}
weighting: {use: mgda}
optimizer: {use: adamw}
evaluate: {metrics: ["ndcg@5", auc]}
parallel: {devices: 1}
"""
HEADER = "user,item,time,click\n"


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """A command in a folder of its own -> (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MOBJREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["mobjrec", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    return called


def assert_refused(found: tuple[int, str, str], code: int, *words: str) -> None:
    assert found[0] == code, found
    for word in words:
        assert word in found[2]
    assert "Traceback" not in found[2] and "unexpected" not in found[2] and found[2].count("mobjrec: ") == 1


def bomb(levels: int = 9, wide: int = 9) -> str:
    """The billion laughs: every list names the one before nine times."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * wide)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [lol]", *lines, ""])


YAML = {
    "brackets": ("a: " + "[" * 3000, "wrong.yaml:1: this is not the YAML of a config: more than 50 levels"),
    "closed brackets": ("a: " + "[" * 3000 + "]" * 3000, "more than 50 levels"),
    "braces": ("{a: " * 3000, "more than 50 levels"),
    "dashes": ("- " * 3000 + "a", "more than 50 levels"),
    "aliases": (bomb(), "aliases (*name) repeat more than 10,000 values"),
    "itself": ("a: &a [*a]\n", "wrong.yaml:1: this is not the YAML of a config: an alias"),
    "object": ("seed: !!python/object/apply:os.system ['echo no']\n", "wrong.yaml:1: the tag !!python/object/apply"),
    "name": ("seed: !!python/name:os.system\n", "the tag !!python/name:os.system is not allowed"),
    "large": ("# " + "x" * 1_000_000, "wrong.yaml: the config is larger than 1,000,000 bytes"),
    "many": ("a: [" + "1," * 60_000 + "]", "more than 50,000 keys and values"),
    "tab": ("seed: 0\nbatch:\n\tlists: 3\n", "wrong.yaml:3: this is not the YAML of a config: a tab stands"),
    "empty": ("", "wrong.yaml: the file is empty"),
    "mark alone": ("\ufeff", "wrong.yaml: the file is empty"),
    "comment": ("# nothing\r\n", "wrong.yaml: the file is empty"),
    "twice": ("seed: 0\nsteps: 1\nseed: 1\n", "seed: the key is given twice, on lines 1 and 3; keep one"),
    "nul": ("seed: 0\na: \0\n", "wrong.yaml:2: a character that may not stand in YAML"),
    "merge": ("seed: &a {b: 1}\n<<: *a\n", "merge keys (<<) are not allowed"),
    "bytes": (b"seed: 0\nnote: \xff\n", "wrong.yaml:2: byte 14 is not UTF-8"),
    "utf-16": ("seed: 0\n".encode("utf-16"), "wrong.yaml:1: byte 0 is not UTF-8"),
    "unknown": ("sed: 0\n", "wrong.yaml:1: sed: this is not a key here; did you mean `seed`?"),
}


@pytest.mark.parametrize("command", ["config", "train"])
@pytest.mark.parametrize("name", YAML)
def test_a_file_that_is_no_config_is_one_message_with_its_line(name, command, call):
    text, said = YAML[name]
    Path("wrong.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused(call(command, "wrong.yaml"), 2, said)
    assert [path.name for path in Path().iterdir()] == ["wrong.yaml"]


@pytest.mark.parametrize("value", ["[" * 3000, "!!python/object:os.system 1", "&a [*a]", "\t- 1", "1e999", ".nan"])
def test_an_override_that_is_no_setting_is_quoted(value, call):
    assert_refused(call("config", TINY, f"optimizer.learning_rate={value}"), 2, "optimizer.learning_rate")


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(call):
    whole = call("config", TINY)
    assert whole[0] == 0
    Path("tiny.yaml").write_bytes(b"\xef\xbb\xbf" + TINY.read_bytes().replace(b"\n", b"\r\n"))
    assert call("config", "tiny.yaml") == whole


@pytest.mark.parametrize("name", ["...yaml", "..yaml"])
def test_a_config_whose_name_leads_out_of_the_runs_is_refused(name, call):
    Path(name).write_text(TABLE)
    assert_refused(call("train", name), 2, "this name cannot be a run folder's")
    assert [path.name for path in Path().iterdir()] == [name]


@pytest.mark.parametrize("command", [["train"], ["train", "--dry-run"], ["data", "check"], ["data", "show"]])
@pytest.mark.parametrize(
    ("events", "said"),
    [
        ("", "events.csv is empty; expected a table with a header"),
        (HEADER, "events.csv has columns (user, item, time, click) but no rows"),
        (HEADER.rstrip(), "events.csv holds no rows; expected a header and rows below it"),
        ("\n\n", "events.csv holds no rows; expected a header and rows below it"),
    ],
)
def test_a_table_of_nothing_is_a_sentence(events, said, command, call):
    Path("small.yaml").write_text(TABLE)
    Path("events.csv").write_text(events)
    assert_refused(call(*command, "small.yaml"), 2, said)


def test_a_table_that_a_split_uses_up_is_a_sentence(call):
    Path("small.yaml").write_text(TABLE.replace("{use: last_out, valid: 1, test: 1}", "{use: by_time}"))
    Path("events.csv").write_text(HEADER + "u,i,5,1\n")
    for command in (["train"], ["data", "check"], ["data", "show"]):
        assert_refused(call(*command, "small.yaml"), 2, "lists.split makes 1 events 0 training, 0 validation, 1 test")


def test_one_event_is_shown(call):
    Path("small.yaml").write_text(TABLE)
    Path("events.csv").write_text(HEADER + "u,i,5,1\n")
    assert call("data", "check", "small.yaml")[:2] == (0, "1 users, 1 items, 1 events: no problem found\n")
    code, out, _ = call("data", "show", "small.yaml")
    assert code == 0 and "one training list: user u, 0 remembered events" in out


def test_one_user_one_item_one_objective_trains_and_stays_in_its_folders_whatever_the_ids(call, tmp_path):
    Path("small.yaml").write_text(TABLE)
    rows = [f"../../evil,/abs/../evil,{n},{n % 2}\n" for n in range(6)]
    Path("events.csv").write_text(HEADER + "".join(rows))
    code, out, error = call("train", "small.yaml")
    assert code == 0 and "click/" in out, error
    assert call("eval", "runs/small")[0] == 0
    code, out, error = call("rank", "runs/small", "--user", "../../evil", "--again", "--json")
    assert code == 0 and '"item": "/abs/../evil"' in out, error
    assert {path.name for path in tmp_path.iterdir()} <= {"here", "cache"}
    assert {path.name for path in Path().iterdir()} == {"small.yaml", "events.csv", "runs"}
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]
    # More steps are welcome, other data are not.
    Path("events.csv").write_text(HEADER + "".join(rows[:-1]) + rows[-1].replace("1\n", "0\n"))
    assert_refused(
        call("train", "small.yaml", "steps=3"), 3, "trained with other data; changed since: histories, test labels;"
    )


def test_a_leak_is_counted_by_data_check_and_show_and_an_error_where_strict(call):
    Path("small.yaml").write_text(TABLE.replace("{use: last_out, valid: 1, test: 1}", "{use: published}"))
    rows = [f"u,i{n},{n},{n % 2},{split}\n" for split in ("train", "test") for n in range(5)]
    Path("events.csv").write_text("user,item,time,click,split\n" + "".join(rows))
    said = "events of the same user, item and time as one of an earlier split: 5; user 'u', item 'i0' at 0 (test, and"
    code, out, _ = call("data", "check", "small.yaml")
    assert code == 0 and "10 events: leaks between the splits" in out and said in out
    assert out.count("(test, and training)") == SHOWN
    code, out, _ = call("data", "show", "small.yaml")
    assert code == 0 and said[:60] in out
    for command in (["data", "check"], ["data", "show"], ["train"]):
        assert_refused(call(*command, "small.yaml", "lists.strict=true"), 2, f"lists.strict: {said}")


def test_no_network_no_home_and_no_environment_are_needed(call, monkeypatch):
    def refused(*_):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    code, _, error = call("data", "show", TINY)
    assert code == 0, error
    command = [sys.executable, "-m", "mobjrec", "config", str(TINY)]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "weighting" in done.stdout, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a folder in place of a file")
@pytest.mark.parametrize("name", ["", "/tokens"])
def test_a_cache_that_is_a_file_is_named(name, call, tmp_path):
    place = tmp_path / f"cache{name}"
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    assert_refused(call("data", "show", TINY), 2, "cannot be written", "MOBJREC_CACHE")
    assert place.read_text() == "mine"


FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch"}


@pytest.mark.parametrize("path", sorted((ROOT / "mobjrec").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_that_runs_what_it_reads_is_called(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not FORBIDDEN & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN
        elif isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "compile", "__import__", "yaml.load", "yaml.unsafe_load")
