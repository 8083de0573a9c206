"""Memory that ran out: what the sentence says of it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import evaluate, exhausted, mesh, train
from mobjrec.config import load
from mobjrec.errors import NumericError
from mobjrec.types import Batch, Texts

TINY = Path(__file__).parent / "tiny.yaml"

CPU = "RESOURCE_EXHAUSTED: Out of memory allocating 35184372088832 bytes."


def failing(message):
    return jax.errors.JaxRuntimeError(message)


def test_what_really_runs_out_is_a_numeric_error():
    with (
        pytest.raises(NumericError, match=r"^told: RESOURCE_EXHAUSTED: Out of memory allocating 35184372088832 bytes"),
        exhausted.told(lambda error: f"told: {error}"),
    ):
        jnp.zeros(2**43).block_until_ready()


@pytest.mark.parametrize("error", [ValueError("RESOURCE_EXHAUSTED: no space left"), failing("INTERNAL: no")])
def test_a_full_disk_and_other_errors_of_jax_pass(error):
    assert not exhausted.ran_out(error)
    with pytest.raises(type(error)), exhausted.told(str):
        raise error


@pytest.mark.parametrize(
    ("rows", "chunk", "wanted"),
    [(1024, None, 512), (96, 32, 16), (90, None, 45), (97, None, 32), (7, 4, 2), (3, 2, 1), (8, 1, None), (0, None, None)],
)  # fmt: skip
def test_a_smaller_chunk_is_about_half_and_divides_where_it_can(rows, chunk, wanted):
    assert exhausted.smaller(rows, chunk) == wanted


@pytest.mark.parametrize(
    ("changes", "devices", "rows", "wanted"),
    [
        (["batch.lists=64"], 1, 96, "Set batch.chunk_rows=48 (now null, all rows at once; the result stays the same), then"),
        (["batch.lists=64", "batch.chunk_rows=8"], 8, 96, "Set batch.chunk_rows=4 (now 8;"),
        (["batch.lists=64", "batch.chunk_rows=1"], 1, 96, "Set batch.lists=32 (now 64)"),
        (["batch.lists=24"], 8, 0, "Set batch.lists=8 (now 24)"),
        (["batch.lists=8"], 8, 0, "Take a smaller model"),
    ],
)  # fmt: skip
def test_the_settings_to_change_have_values(changes, devices, rows, wanted):
    assert exhausted.advice(load(TINY, changes), devices, rows).startswith(wanted)


def test_a_step_names_batch_length_arrays_and_setting():
    config, empty = load(TINY), np.zeros((16, 12), np.int32)
    texts = Texts(empty, empty, empty, np.ones((16, 2), bool))
    batch = Batch(*[None] * len(Batch._fields))._replace(
        user_texts=texts, item_texts=texts, where=np.ones((16, 5), bool)
    )

    def step(state, batch):
        def body(carry, layer):
            return jnp.tanh(carry @ layer), carry

        rows = jnp.zeros((*batch.user_texts.tokens.shape, 8)) + state["rest"][0]
        return state, jnp.sum(jnp.concatenate([jax.lax.scan(body, rows, state["layers"])[1]] * 9))

    state = {"layers": np.zeros((5, 8, 8), np.float32), "rest": np.zeros(3, np.float32)}
    said = exhausted.of_step(failing(CPU), config, 1, step, state, batch)
    assert said.startswith(
        "memory ran out while training on 16 lists of 5 items, user texts in 16 packed rows of 12 tokens, item texts "
        "in 16 packed rows of 12 tokens; the largest arrays: concatenate float32[45, 16, 12, 8] of 0.3 MiB, "
        "scan float32[5, 16, 12, 8] of 0.0 MiB, "
    )
    assert (
        "; the error was RESOURCE_EXHAUSTED: Out of memory allocating 35184372088832 bytes. Set batch.chunk_rows=8 (now"
        in said
    )
    big = {**state, "rest": jax.ShapeDtypeStruct((10**6,), jnp.float32)}
    assert "arrays: rest float32[1000000] of 3.8 MiB" in exhausted.of_step(MemoryError(), config, 1, step, big, batch)


def raising(*_):
    raise failing(CPU)


def test_training_and_evaluation_say_it(monkeypatch, tmp_path, tiny_trained):
    parts = tiny_trained.parts
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "blocks", raising)
        words = r"memory ran out while measuring valid \(128 lists .*; the largest arrays: encoder/\S+ float32.*evaluate.cand"
        with pytest.raises(NumericError, match=words):
            evaluate.run(parts, tiny_trained.params, tiny_trained.memory, "valid")
    real = train.mapped_step(parts, mesh.make(1))

    def step(state, batch):
        traced = isinstance(jax.tree.leaves(batch)[0], jax.core.Tracer)
        return real(state, batch) if traced else raising()

    monkeypatch.setattr(train, "mapped_step", lambda *_: step)
    monkeypatch.setattr(train, "evaluated", lambda *_: evaluate.Evaluation({}, {}))
    words = (
        r"training on 16 lists of 8 items, user texts in \d+ packed rows of .*; the largest arrays: \S+ float32.* MiB;"
    )
    with pytest.raises(NumericError, match=words):
        train.run(parts.config, tmp_path / "run", parts.cache, quiet=True)
