import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import record, resume, views
from mobjrec.errors import RunFolderError

HOLDER = """
import sys, time
from pathlib import Path
from mobjrec import record, resume, views
log = record.open(Path(sys.argv[1]), "seed: 0")
log.start(0)
log.write(1, "train", {"loss": 1.0})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def log(tmp_path):
    with record.open(tmp_path / "run", "seed: 0\n") as opened:
        opened.start(0, command=["train", "a.yaml"])
        yield opened


@pytest.fixture
def holder(tmp_path):
    """Another process that writes into the folder `run`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def again(folder: Path, step: int) -> record.Record:
    opened = record.open(folder, "seed: 0\n")
    opened.start(step)
    return opened


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_new_folder_holds_config_and_environment(log):
    assert log.previous is None
    assert (log.folder / "config.yaml").read_text() == "seed: 0\n"
    (start,) = json.loads((log.folder / "env.json").read_text())
    assert (start["step"], start["command"], start["pid"]) == (0, ["train", "a.yaml"], os.getpid())
    assert start["versions"]["numpy"] == np.__version__
    assert start["devices"]["kind"] == "cpu"


def test_nothing_but_the_lock_is_written_before_the_start(tmp_path):
    record.open(tmp_path / "a" / "run", "seed: 0").close()
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == [record.LOCK]


def test_a_row_is_on_disk_when_write_returns(log):
    values = {"loss": jnp.float32(0.5), "gram": np.eye(2), "b": jnp.bfloat16(1.5), "text": "ä", "n": np.int64(3)}
    log.write(1, "train", values)
    assert (log.folder / "metrics.jsonl").read_text(encoding="utf-8") == (
        '{"step": 1, "kind": "train", "loss": 0.5, "gram": [[1.0, 0.0], [0.0, 1.0]], "b": 1.5, "text": "ä", "n": 3}\n'
    )


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), jnp.float32(-np.inf), jnp.bfloat16(np.nan), None])
def test_what_is_not_finite_is_null_under_its_name(value, log):
    log.write(1, "eval", {"ndcg@10": value, "per list": [1.0, value]})
    assert list(record.rows(log.folder)) == [{"step": 1, "kind": "eval", "ndcg@10": None, "per list": [1.0, None]}]


@pytest.mark.parametrize("name", ["step", "kind"])
def test_a_value_cannot_replace_the_rows_own_names(name, log):
    with pytest.raises(ValueError, match="cannot be named"):
        log.write(1, "train", {name: 1.0})


def test_a_resume_cuts_later_rows_and_a_half_written_line(log):
    for step in (1, 2, 3, 4):
        log.write(step, "train", {"loss": float(step)})
    log.write(2, "eval", {"ndcg@10": 0.5})
    log.close()
    with (log.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "kind": "tr')
    assert len(list(record.rows(log.folder))) == 5
    with again(log.folder, 2) as resumed:
        assert resumed.previous == "seed: 0\n"
        assert [(row["step"], row["kind"]) for row in record.rows(log.folder)] == [
            (1, "train"),
            (2, "train"),
            (2, "eval"),
        ]
        resumed.write(3, "train", {"loss": 3.5})
    assert [row.get("loss") for row in record.rows(log.folder)] == [1.0, 2.0, None, 3.5]


def test_a_resume_without_anything_to_cut_leaves_the_file(log):
    log.write(1, "train", {"loss": 1.0})
    log.close()
    before = (log.folder / "metrics.jsonl").stat()
    again(log.folder, 1).close()
    after = (log.folder / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_line_is_named_and_dropped_at_the_resume(log):
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": 1.0})
    log.close()
    path = log.folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "garbage\n" + lines[2])
    with pytest.raises(RunFolderError, match=r"metrics.jsonl, line 2 is damaged"):
        list(record.rows(log.folder))
    again(log.folder, 3).close()
    assert [row["step"] for row in record.rows(log.folder)] == [1, 3]


def test_starts_are_added_and_changed_versions_told(log):
    log.close()
    path = log.folder / "env.json"
    (start,) = json.loads(path.read_text())
    start["versions"]["jax"] = "0.1"
    path.write_text(json.dumps([start]))
    with record.open(log.folder, "seed: 0\n") as resumed:
        (sentence,) = resumed.start(7)
    assert sentence.startswith("jax was 0.1 and is ")
    assert [start["step"] for start in json.loads(path.read_text())] == [0, 7]


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml", ".hidden"])
def test_a_folder_that_holds_something_else_is_refused_and_left(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match=f"is not a run folder: it holds {name}"):
        record.open(tmp_path, "seed: 0")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(RunFolderError, match="is not a run folder"):
        record.state(tmp_path)


@pytest.mark.parametrize(
    ("inner", "word"), [("file", "it is a file"), ("file/run", "Not a directory"), ("x" * 300, "too long")]
)
def test_a_place_that_cannot_be_a_folder_is_named(inner, word, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=word):
        record.open(tmp_path / inner, "seed: 0")


def test_a_second_process_is_refused_and_told_who_has_the_folder(tmp_path, holder):
    with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on {socket.gethostname()}") as error:
        record.open(tmp_path / "run", "seed: 1")
    assert error.value.code == 3
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 0"


def test_a_running_run_can_be_read(tmp_path, holder):
    status = record.state(tmp_path / "run")
    assert status == (1, True, holder.pid, socket.gethostname(), False)
    assert [row["loss"] for row in record.rows(tmp_path / "run")] == [1.0]


def test_the_kernel_frees_the_folder_of_a_killed_run(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not record.state(tmp_path / "run").running
    with record.open(tmp_path / "run", "seed: 0") as resumed:
        assert resumed.previous == "seed: 0"


def test_a_look_at_the_folder_keeps_no_run_from_starting(tmp_path, monkeypatch):
    record.open(tmp_path, "seed: 0").close()
    look = os.open(tmp_path / record.LOCK, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(record.time, "sleep", lambda seconds: os.close(look))
    record.open(tmp_path, "seed: 0").close()


def test_the_result_says_that_the_run_is_over_until_it_goes_on(log):
    log.finish({"ndcg@10": jnp.float32(0.5), "nothing": float("nan")})
    assert json.loads((log.folder / "result.json").read_text()) == {"ndcg@10": 0.5, "nothing": None}
    log.close()
    assert record.state(log.folder) == (-1, False, 0, "", True)
    again(log.folder, 0).close()
    assert not record.state(log.folder).over


def test_event_files_show_the_same_numbers_and_purge_at_a_resume(log):
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": 0.5 * step, "bad": float("nan"), "name": "x"})
    log.close()
    with again(log.folder, 2) as resumed:
        resumed.write(3, "train", {"loss": 9.0})
        resumed.write(3, "eval", {"ndcg@10": 0.25})
    assert len(list((log.folder / "events").iterdir())) == 2
    assert scalars(log.folder) == {"train/loss": [(1, 0.5), (2, 1.0), (3, 9.0)], "eval/ndcg_10": [(3, 0.25)]}


def test_two_starts_in_one_second_write_two_event_files(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    for step in (0, 1):
        with record.open(tmp_path, "seed: 0") as opened:
            opened.start(step)
            opened.write(step + 1, "train", {"loss": 2.0 * step})
    assert len(list((tmp_path / "events").iterdir())) == 2
    assert scalars(tmp_path)["train/loss"] == [(1, 0.0), (2, 2.0)]


def test_a_killed_runs_event_file_holds_all_that_was_written(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert scalars(tmp_path / "run") == {"train/loss": [(1, 1.0)]}


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_event_file_is_read_up_to_there_and_keeps_no_run_from_going_on(damage, log):
    (file,) = (log.folder / "events").iterdir()
    sizes = []
    for step in (1, 2, 3):
        log.write(step, "train", {"loss": 0.5 * step})
        sizes.append(file.stat().st_size)
    log.close()
    content = bytearray(file.read_bytes())
    content[sizes[1] + 20] ^= 255
    file.write_bytes(content[: sizes[1] + 20] if damage == "cut" else content)
    assert scalars(log.folder) == {"train/loss": [(1, 0.5), (2, 1.0)]}
    with again(log.folder, 2) as resumed:
        resumed.write(3, "train", {"loss": 9.0})
    assert [row["loss"] for row in record.rows(log.folder)] == [0.5, 1.0, 9.0]
    newest = [path for path in (log.folder / "events").iterdir() if path != file]
    (log.folder / "other" / "events").mkdir(parents=True)
    newest[0].rename(log.folder / "other" / "events" / newest[0].name)
    assert scalars(log.folder / "other") == {"train/loss": [(3, 9.0)]}


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_place_that_takes_no_file_is_told_by_its_name_before_any_work(call, tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # Who runs the tests may write anywhere, so the file system is asked to refuse.
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(*((Path, "mkdir", refused) if call == "mkdir" else (os, "open", refused)))
    with pytest.raises(RunFolderError, match=r"run' cannot be a run folder: Read-only file system"):
        record.open(tmp_path / "run", "seed: 0")


def test_a_full_disk_loses_rows_not_the_run(log, monkeypatch, capsys):
    log.write(1, "train", {"loss": 1.0})
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:10]))
    log.write(2, "train", {"loss": 2.0})
    log.write(3, "train", {"loss": 3.0})
    monkeypatch.setattr(os, "write", real)
    log.write(4, "train", {"loss": 4.0})
    assert [row["step"] for row in record.rows(log.folder)] == [1, 4]
    assert log.lost == 2
    assert capsys.readouterr().err.count("the run goes on") == 1


def test_a_link_to_the_folder_is_the_folder_and_its_lock(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with record.open(tmp_path / "link", "seed: 0") as log:
        log.start(0)
        assert log.folder == tmp_path.resolve() / "real"
        with pytest.raises(RunFolderError, match="is in use"):
            record.open(tmp_path / "real" / ".." / "real", "seed: 0")
    assert (tmp_path / "real" / "config.yaml").read_text() == "seed: 0"


@pytest.mark.parametrize("name", [record.LOCK, "metrics.jsonl", "checkpoints", "events", "none"])
def test_a_link_out_of_the_folder_is_refused_and_its_target_left(name, tmp_path):
    outside, run = tmp_path / "outside", tmp_path / "run"
    run.mkdir()
    (run / record.LOCK).write_text("{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    if name != "none":
        outside.write_text("mine")
    with pytest.raises(RunFolderError, match=f"{name} is a link to .*outside; a run writes inside its folder alone"):
        record.open(run, "seed: 0")
    assert name == "none" or outside.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == (["run"] if name == "none" else ["outside", "run"])


@pytest.mark.parametrize(
    ("name", "said"), [("a\0b", "null byte"), ("broken", "it is a file or a broken link"), ("loop", "broken link")]
)
def test_a_name_that_leads_nowhere_is_refused(name, said, tmp_path):
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RunFolderError, match=said):
        record.open(tmp_path / name, "seed: 0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "loop"]


@pytest.mark.parametrize("write", [lambda log: log.start(0), lambda log: log.finish({"steps": 3})])
def test_a_disk_that_takes_no_file_is_a_sentence_and_leaves_what_is_there(write, log, monkeypatch):
    log.write(1, "train", {"loss": 1.0})
    before = {path: path.read_bytes() for path in log.folder.rglob("*") if path.is_file()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"(config.yaml|result.json) cannot be written: No space left on device"):
        write(log)
    assert {path: path.read_bytes() for path in log.folder.rglob("*") if path.is_file()} == before


def test_event_files_hold_settings_and_texts(log):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log.settings(
        {"seed": 0, "weighting.use": "mgda", "optimizer.groups": None, "batch.lists": 16}, ["test/click/ndcg@5"]
    )
    log.text(0, "ranked/test", "| item |\n|---|\n| i1 |")
    log.close()
    events = accumulator.EventAccumulator(str(log.folder / "events")).Reload()
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("ranked")]
    assert events.Tensors(tag)[0].tensor_proto.string_val == [b"| item |\n|---|\n| i1 |"]
    plugins = events.summary_metadata
    told = plugins["_hparams_/session_start_info"].plugin_data.content
    assert all(word in told for word in (b"weighting.use", b"mgda", b"batch.lists"))
    assert b"eval/test/click/ndcg_5" in plugins["_hparams_/experiment"].plugin_data.content


def test_a_view_that_fails_ends_and_the_record_goes_on(log, capsys):
    def fails(*_):
        raise RuntimeError("the other side is gone")

    log._views.append(views.View(fails, fails, fails, lambda: None))
    for step in (1, 2):
        log.write(step, "train", {"loss": 1.0})
    assert [row["step"] for row in record.rows(log.folder)] == [1, 2]
    assert capsys.readouterr().err.count("the other side is gone; metrics.jsonl goes on") == 1


def test_wandb_gets_the_same_scalars_offline_under_one_id_and_nothing_outside_the_run(tmp_path, monkeypatch):
    told, library = [], types.SimpleNamespace()
    library.Settings, library.Html = (lambda **given: given), (lambda text: text)
    run = types.SimpleNamespace(
        define_metric=lambda *names, **how: None,
        log=lambda values: told.append(values),
        finish=lambda: told.append("end"),
    )
    run.config = types.SimpleNamespace(update=lambda values, allow_val_change: told.append(values))
    starts = []
    library.init = lambda **given: starts.append(given) or run
    monkeypatch.setitem(sys.modules, "wandb", library)
    for name in (*views.WANDB_PLACES, "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for step in (0, 1):
        with record.open(tmp_path / "run", "seed: 0") as log:
            log.start(step, wandb="shop")
            log.write(step + 1, "train", {"loss": 0.5, "bad": float("nan"), "gram": np.eye(2)})
    assert told == [{"step": 1, "train/loss": 0.5}, "end", {"step": 2, "train/loss": 0.5}, "end"]
    assert [(one["project"], one["id"], one["mode"], one["dir"]) for one in starts] == [
        ("shop", (tmp_path / "run" / "wandb" / "id").read_text(), "offline", str(tmp_path / "run"))
    ] * 2
    assert all(Path(os.environ.pop(name)).is_relative_to(tmp_path / "run") for name in views.WANDB_PLACES)


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("metrics.jsonl", b"3\n", lambda folder: list(record.rows(folder))),
        ("metrics.jsonl", b'{"step": "1", "kind": "train"}\n', lambda folder: list(record.rows(folder))),
        ("metrics.jsonl", b'{"kind": "train"}\n', lambda folder: list(record.rows(folder))),
        ("env.json", b'{"a": 1}', lambda folder: again(folder, 0)),
        ("env.json", b"[1]", lambda folder: again(folder, 0)),
        ("config.yaml", b"\xff\xfe", lambda folder: again(folder, 0)),
        ("result.json", b"[]", resume.result),
        ("result.json", b"{}", resume.result),
    ],
)
def test_what_json_can_hold_but_no_run_writes_is_damage(name, content, read, log):
    log.close()
    (log.folder / name).write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{name}.* is damaged"):
        read(log.folder)
