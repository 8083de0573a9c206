"""The command line in process: what it prints, what it writes, and one sentence and an exit code for what is wrong."""

import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import mobjrec
from mobjrec import checkpoint, cli, record, report
from mobjrec.config import load, parse, plain

TINY = Path(__file__).parent / "tiny.yaml"
# A model of ids alone, where it matters that there is one and not which: it compiles in a tenth of the time.
SMALL = [
    "tokenizer=null",
    "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}",
    "weighting={use: equal}",
    "save.every={steps: 1}",
    "steps=3",
]


def called(*arguments, capture) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    before, sys.argv = sys.argv, ["mobjrec", *map(str, arguments)]
    capture.readouterr()
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    finally:
        sys.argv = before
    out, error = capture.readouterr()
    return code, out, error


@pytest.fixture
def call(capsys, monkeypatch):
    # Rich takes a test's terminal for 80 columns wide and would cut what is looked for.
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: called(*arguments, capture=capsys)


@pytest.fixture(scope="module", autouse=True)
def cache(tiny_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBJREC_CACHE", str(tiny_cache))
        yield tiny_cache


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("runs") / "tiny"))


@pytest.fixture(scope="module")
def small(tiny_cache, tmp_path_factory) -> Path:
    from mobjrec import train
    from mobjrec.config import load

    folder = tmp_path_factory.mktemp("runs") / "small"
    train.run(load(TINY, SMALL), folder, tiny_cache, quiet=True)
    return folder


@pytest.fixture
def copy(small, tmp_path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def assert_refused(found: tuple[int, str, str], code: int, *words: str) -> None:
    assert found[0] == code, found
    assert "Traceback" not in found[2]
    assert "unexpected" not in found[2]
    assert found[2].count("mobjrec: ") == 1
    for word in words:
        assert word in found[2]


def test_train_prints_its_table_and_again_without_training(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, first, _ = call("train", TINY, *SMALL)
    assert code == 0
    assert "click/ndcg@5" in first
    written = (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_bytes()
    code, second, _ = call("train", TINY, *SMALL)
    assert code == 0
    assert [line for line in second.splitlines() if "ndcg" in line] == [
        line for line in first.splitlines() if "ndcg" in line
    ]
    assert (tmp_path / "runs" / "tiny" / "metrics.jsonl").read_bytes() == written


def test_a_printed_config_prints_itself(call, tmp_path):
    code, out, _ = call("config", TINY, "batch.lists=7")
    assert code == 0
    assert "lists: 7" in out
    (tmp_path / "whole.yaml").write_text(out)
    assert call("config", tmp_path / "whole.yaml")[:2] == (0, out)


@pytest.mark.slow
def test_a_dry_run_writes_no_run_folder(call, tmp_path):
    changes = ["model.user={ids: [user]}", "weighting={use: equal}"]
    code, out, _ = call("train", TINY, *changes, "--dry-run", "--run", tmp_path / "none")
    assert code == 0
    assert "GFLOP" in out
    assert "encoder" in out
    assert not (tmp_path / "none").exists()


def refuse_nan(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def test_eval_prints_what_it_writes(call, copy):
    code, out, _ = call("eval", copy, "--split", "test", "--json")
    assert code == 0
    printed = json.loads(out, parse_constant=refuse_nan)
    assert printed == json.loads((copy / "eval-test.json").read_text(), parse_constant=refuse_nan)
    assert 0 <= printed["metrics"]["click/ndcg@5"]["value"] <= 1
    assert {"split": "test", "step": 3, "candidates": "config"}.items() <= printed.items()
    code, out, _ = call("eval", copy, "--split", "valid")
    assert code == 0
    assert "click/ndcg@5" in out


def test_rank_for_an_id_for_words_and_for_an_item(call, trained):
    for asked in (["--user", "u3"], ["--text", "galaxy telescope"], ["--item", "i4"]):
        code, out, _ = call("rank", trained, *asked, "--top", 4, "--prefer", "click=0.7,satisfaction=0.3", "--json")
        assert code == 0
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        assert all(math.isfinite(row["utility"]) for row in rows)
    code, out, _ = call("rank", trained, "--user", "u3", "--top", 2)
    assert code == 0
    assert "utility" in out


def test_the_version_is_that_of_the_package(call):
    assert call("--version") == (0, f"mobjrec {mobjrec.__version__}\n", "")


@pytest.mark.parametrize(
    ("user", "item", "asked"),
    [
        ({"text": "{history.title}"}, {"ids": ["item"]}, "--text"),
        ({"history": True}, {"text": "{title}"}, "--text"),
        ({"history": True}, {"ids": ["item"]}, "--item ID"),
        ({"ids": ["user"]}, {"text": "{title}"}, ""),
        ({"text": "{city}"}, {"ids": ["item"]}, ""),
    ],
)
def test_what_to_try_next_is_what_the_model_takes(user, item, asked):
    config = load(TINY)
    model = {**plain(config.model), "user": user, "item": item}
    result = {
        "table": {"click/auc": {"before": 0.5, "after": 0.6, "error": 0.1}},
        "timing": {"train": 1.0, "wait": 0.0},
        "feed": {"padding": 0.0, "shapes": 1},
        "steps": 1,
        "chosen": 1,
    }
    buffer = io.StringIO()
    changed = parse({**plain(config), "model": model})
    Console(file=buffer, width=200).print(report.finished(Path("run"), result, changed))
    lines = [line for line in buffer.getvalue().splitlines() if "mobjrec rank" in line and "--user" not in line]
    assert len(lines) == bool(asked) and all(f"mobjrec rank run {asked}" in line for line in lines)


@pytest.mark.parametrize("there", [("mobjrec", "tensorboard"), ("mobjrec",), ()])
@pytest.mark.parametrize("active", [True, False])
def test_what_to_try_next_is_called_as_it_can_be_here(there, active, tmp_path, monkeypatch):
    place = tmp_path / ".venv" / "bin"
    place.mkdir(parents=True)
    for name in ("python", *there):
        (place / name).write_text("#!/bin/sh\n")
        (place / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(place / "python"))
    monkeypatch.setenv("PATH", str(place if active else tmp_path))
    lines = report.next_lines(Path("runs/a b"), "click=0.7")
    program = "mobjrec" if active and there else ".venv/bin/mobjrec" if there else f"{place / 'python'} -m mobjrec"
    assert lines[0] == f"{program} eval 'runs/a b' --split test"
    assert all(line.startswith(f"{program} rank 'runs/a b' ") for line in lines[1:3])
    board = f"{'' if active else '.venv/bin/'}tensorboard --logdir 'runs/a b/events'"
    assert lines[3:] == ([board] if "tensorboard" in there else [])


def test_what_to_try_next_is_not_broken_where_the_terminal_ends(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(report, "next_lines", lambda *_: ["x" * 90])
    result = {"table": {}, "timing": {"train": 1.0, "wait": 0.0}, "feed": {"padding": 0.0, "shapes": 1}}
    cli._print(report.finished(Path("run"), result | {"steps": 1, "chosen": 1}))
    assert "x" * 90 in capsys.readouterr().out


def test_rank_of_ones_own_items(call, trained, tmp_path):
    (tmp_path / "new.csv").write_text("item,title,description\na,galaxy,orbit\nb,oven,sauce\n")
    code, out, _ = call("rank", trained, "--user", "u3", "--items", tmp_path / "new.csv", "--json")
    assert code == 0
    assert {json.loads(line)["item"] for line in out.splitlines()} == {"a", "b"}


def test_data_example_checks_shows_and_is_complete(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("data", "example", "shop")
    assert code == 0
    config = next((tmp_path / "shop").glob("*.yaml"))
    code, out, error = call("data", "check", config)
    assert code == 0, error
    assert "no problem found" in out
    code, out, error = call("data", "show", config)
    assert code == 0, error
    assert "one training list" in out


@pytest.mark.parametrize("name", ["", "train", "config", "eval", "rank", "data", "data show", "data check", "data get"])
def test_help(name, call):
    code, out, _ = call(*name.split(), "--help")
    assert code == 0
    assert "Usage: mobjrec" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "no-such-config"], ["no-such-config"]),
        (["config", TINY, "batch.list=3"], ["batch.list", "lists"]),
        (["config", TINY, "steps=many"], ["steps"]),
        (["config", TINY, "steps"], ["steps"]),
        (["config", TINY, "batch.list=3", "sted=1"], ["batch.list", "sted"]),
        (["config", TINY, "optimizer.learning_rate=.nan"], ["learning_rate"]),
        (["train", TINY, "parallel.devices=4096"], ["4096"]),
        (["data", "check", TINY, "data={use: table, path: nowhere, events: e.csv}"], ["nowhere"]),
        # Before anything is loaded: there is no such run either.
        (["eval", "no-run", "--split", "tset"], ["--split tset: there are train, valid, test; did you mean test?"]),
        (["data", "get", "nothing"], ["nothing", "minilm"]),
        (["data", "get", "ml-100k", "--from", "nowhere.zip"], ["nowhere.zip"]),
    ],
)
def test_a_wrong_request_is_one_message_and_code_2(arguments, words, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(call(*arguments), 2, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 0\nweightng: {use: mgda}\n", ["wrong.yaml:2", "weightng", "did you mean `weighting`"]),
        ("seed: zero\nsteps: []\n", ["seed", "steps"]),
        ("seed: 0\nseed: 1\n", ["seed", "twice"]),
        ("", []),
        ("a: [1, 2\n", ["wrong.yaml:2"]),
    ],
)
def test_a_wrong_file_is_named_with_its_lines(text, words, call, tmp_path):
    (tmp_path / "wrong.yaml").write_text(text)
    assert_refused(call("config", tmp_path / "wrong.yaml"), 2, "wrong.yaml", *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rank", "RUN", "--user", "nobody"], ["nobody"]),
        (["rank", "RUN"], ["user, text or item"]),
        (["rank", "RUN", "--user", "u1", "--prefer", "nonsense"], ["nonsense", "NAME=NUMBER"]),
        (["rank", "RUN", "--user", "u1", "--prefer", "dwell=1"], ["click, recall, satisfaction"]),
        (["rank", "RUN", "--user", "u1", "--prefer", "click=inf"], ["finite"]),
        (["rank", "RUN", "--user", "u1", "--prefer", "click=1,click=2"], ["click is given twice"]),
        (["rank", "RUN", "--user", "u1", "--items", "nowhere.csv"], ["nowhere.csv"]),
        (["eval", "RUN", "--split", "nope"], ["nope", "train, valid, test"]),
    ],
)
def test_a_wrong_question_to_a_run_is_one_message_and_code_2(arguments, words, call, small):
    assert_refused(call(*(small if a == "RUN" else a for a in arguments)), 2, *words)


def test_what_is_no_run_folder_is_code_3(call, tmp_path):
    assert_refused(call("eval", tmp_path), 3, "not a run folder")
    (tmp_path / "thesis.txt").write_text("mine")
    assert_refused(call("train", TINY, "--run", tmp_path), 3, "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert_refused(call("train", TINY, "--run", tmp_path / "thesis.txt"), 3, "it is a file")


def test_another_config_in_the_folder_is_code_3(call, copy):
    assert_refused(call("train", TINY, *SMALL, "batch.lists=8", "--run", copy), 3, "batch.lists: 16 there, 8 now")


def test_a_key_that_differs_is_taken_where_it_is_named(call, copy):
    more = ["train", TINY, *SMALL[:-1], "steps=4", "optimizer.learning_rate=0.001", "--run", copy, "--override-resume"]
    assert_refused(call(*more, "seed"), 3, "optimizer.learning_rate: 0.003 there, 0.001 now")
    assert_refused(call(*more, "optimizer.lerning_rate"), 2, "did you mean `optimizer.learning_rate`?")
    code, _, error = call(*more, "seed", "--override-resume", "optimizer.learning_rate")
    assert code == 0, error
    assert checkpoint.steps(copy)[-1] == 4


def test_a_folder_that_another_process_writes_is_code_3(call, tmp_path):
    script = (
        "import sys, pathlib; from mobjrec import record\n"
        "with record.open(pathlib.Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert_refused(call("train", TINY, "--run", tmp_path / "run"), 3, f"process {holder.pid}")
        holder.stdin.close()
    assert holder.returncode == 0


def flip(folder: Path) -> None:
    """One bit of the largest file below a step's folder."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_best_step_is_code_3(call, copy):
    for step in (copy / "best").iterdir():
        if step.is_dir():
            flip(step)
    assert_refused(call("eval", copy), 3, "can be trusted", "was changed")


def test_a_damaged_newest_step_falls_back_to_the_one_before(call, tmp_path):
    assert call("train", TINY, *SMALL, "--run", tmp_path / "run")[0] == 0
    flip(tmp_path / "run" / "checkpoints" / "3")
    (tmp_path / "run" / "result.json").unlink()
    code, out, error = call("train", TINY, *SMALL, "--run", tmp_path / "run")
    assert code == 0, error
    assert "step 3 is not used" in out + error


def test_a_damaged_result_is_code_3(call, copy):
    (copy / "result.json").write_text("{")
    assert_refused(call("train", TINY, *SMALL, "--run", copy), 3, "result.json")


def test_a_loss_that_is_not_finite_is_code_4(call, tmp_path):
    changes = ["optimizer={use: sgd, learning_rate: 1e30}", *SMALL]
    assert_refused(call("train", TINY, *changes, "--run", tmp_path / "run"), 4, "not finite", "learning_rate")


# The command, which gets a SIGTERM once its third step is on record: from itself, so that it comes on a machine of any speed.
STOPPED = """
import os, signal
from mobjrec import cli, record
write = record.Record.write
def then_stop(self, step, kind, values):
    write(self, step, kind, values)
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
record.Record.write = then_stop
cli.main()
"""


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_ends_at_the_same_bits(tmp_path, cache):
    changes = [*SMALL[:-2], "steps=9", "evaluate.every={steps: 9}", "save.every={steps: 9}"]

    def ended(start: list[str], name: str) -> tuple[int, str]:
        command = [sys.executable, *start, "train", str(TINY), *changes, "--run", str(tmp_path / name)]
        environment = {**os.environ, "MOBJREC_CACHE": str(cache)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stderr

    code, error = ended(["-c", STOPPED], "cut")
    assert code == 143, error
    assert "stopped by SIGTERM" in error
    assert "Traceback" not in error
    reached = max(row["step"] for row in record.rows(tmp_path / "cut"))
    assert 3 <= reached < 9
    assert checkpoint.steps(tmp_path / "cut") == [reached]
    for name in ("cut", "whole"):
        code, error = ended(["-m", "mobjrec"], name)
        assert code == 0, error
    cut, whole = (
        [{key: value for key, value in row.items() if key not in record.TIMED} for row in record.rows(tmp_path / name)]
        for name in ("cut", "whole")
    )
    assert cut == whole
