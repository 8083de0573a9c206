"""Saves beside the loop: what is handed over is what is sealed, and failures surface where they must."""

import resource
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import checkpoint
from mobjrec.errors import RunFolderError
from mobjrec.saving import Saver


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def saver(tmp_path, told):
    with Saver(tmp_path, {"data": "d"}, told.append) as found:
        yield found


def failing(*which):
    """checkpoint.write, whose calls of these numbers, from 1, find no room."""
    calls = []

    def write(folder, state, step, seal, *, name, keep):
        calls.append((name, step))
        if len(calls) in which:
            raise RunFolderError("no room")

    return SimpleNamespace(write=write, calls=calls)


def put(saver, step, **other):
    saver.save({"a": jnp.full(3, step)}, step, {"best": None}, keep=2, **other)


def test_a_state_that_the_next_step_takes_over_is_sealed_as_it_was(tmp_path, saver):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = {"rows": jnp.zeros((256, 1024))}
    for number in range(1, 4):
        state = jax.tree.map(step, state)
        saver.save(state, number, {"best": number}, keep=3)
        for _ in range(5):
            state = jax.tree.map(step, state)
    assert saver.settle() == ""
    assert checkpoint.steps(tmp_path) == [1, 2, 3]
    found, seal = checkpoint.latest(tmp_path, state)
    assert seal["run"] == {"data": "d", "best": 3}
    np.testing.assert_array_equal(found["rows"], 13)
    checkpoint.forget(tmp_path, 1)
    np.testing.assert_array_equal(checkpoint.latest(tmp_path, state)[0]["rows"], 1)


def test_the_loop_goes_on_while_the_state_is_written(monkeypatch, saver):
    begun, go = threading.Event(), threading.Event()

    def write(*_, **__):
        begun.set()
        assert go.wait(60)

    monkeypatch.setattr(checkpoint, "write", write)
    put(saver, 1)
    # Handed over, and `write` waits: nobody waited for it.
    assert begun.wait(60)
    go.set()
    assert saver.settle() == ""


def test_no_thread_is_left_and_what_was_handed_over_is_sealed(tmp_path, told):
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path, {}, told.append) as saver:
        put(saver, 1)
        raise KeyboardInterrupt
    assert checkpoint.steps(tmp_path) == [1]
    assert threading.active_count() == before


def test_one_failed_save_is_told_of_and_the_second_in_a_row_stops(monkeypatch, saver, told):
    fake = failing(1, 3, 4)
    monkeypatch.setattr(checkpoint, "write", fake.write)
    put(saver, 1)
    put(saver, 2)
    assert told == ["no room; training goes on and stops if the next save fails, too"]
    put(saver, 3)
    put(saver, 4)
    with pytest.raises(RunFolderError, match="no room; two saves in a row failed, so training stops"):
        saver.settle()
    assert fake.calls == [("checkpoints", step) for step in (1, 2, 3, 4)]


def test_the_last_save_is_tried_again_at_once(monkeypatch, saver, told):
    fake = failing(1, 3, 4)
    monkeypatch.setattr(checkpoint, "write", fake.write)
    put(saver, 1, last=True)
    assert fake.calls == [("checkpoints", 1)] * 2 and told == ["no room; it is tried again"]
    with pytest.raises(RunFolderError, match="two saves in a row failed"):
        put(saver, 2, last=True)
    assert len(fake.calls) == 4


def test_failures_of_the_best_and_of_the_newest_step_count_apart(monkeypatch, saver, told):
    monkeypatch.setattr(checkpoint, "write", failing(1, 2).write)
    put(saver, 1, name=checkpoint.BEST)
    assert saver.settle() == checkpoint.BEST
    put(saver, 1)
    assert saver.settle() == checkpoint.RECENT
    assert len(told) == 2


def test_a_full_disk_is_one_sentence_and_no_traceback(saver, told, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        saver.save({"rows": np.random.default_rng(0).random(30000)}, 1, {}, keep=2)
        assert saver.settle() == checkpoint.RECENT
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (sentence,) = told
    assert sentence.startswith("step 1 could not be written to ") and "\n" not in sentence
    assert "Traceback" not in capfd.readouterr().err


def test_what_is_no_failure_of_the_disk_is_not_passed_over(monkeypatch, saver):
    monkeypatch.setattr(checkpoint, "write", lambda *_, **__: 1 / 0)
    put(saver, 1)
    with pytest.raises(ZeroDivisionError):
        saver.settle()
