"""Half precision stays inside the encoder's layers: what is kept from step to step, and what is logged, is float32."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mobjrec import mesh
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.parts import assemble, sizes_of
from mobjrec.train import mapped_step

TINY = Path(__file__).parent / "tiny.yaml"
AVERAGED = "optimizer={use: adamw, average: 0.9}"


@pytest.mark.parametrize("gram_at", ["embeddings", "parameters"])
def test_parameters_losses_gram_and_optimizer_state_stay_float32(tiny_cache, gram_at):
    changes = ["model.encoder.compute=bfloat16", "batch.chunk_rows=2", "model.encoder.remat=true", AVERAGED]
    parts = assemble(load(TINY, [*changes, f"gram_at={gram_at}"]), tiny_cache)
    lists, state = parts.dataset.train, jax.eval_shape(parts.first_state)
    rows = order.rows(0, 0, len(lists.user), 16)
    drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(0, 0))
    batch, _ = build(parts.feed, lists, rows, drawn, sizes_of(parts, 2), 2)
    traced = mapped_step(parts, mesh.make(1)).trace(state, batch)
    assert " bf16[" in str(traced.jaxpr) or ":bf16[" in str(traced.jaxpr)
    after, logs = traced.out_info
    assert {"losses", "weights", "gram", "gradient_norm"} <= logs.keys()
    for leaf in jax.tree.leaves((state, after, logs)):
        assert leaf.dtype in (np.float32, np.int32, bool)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)
