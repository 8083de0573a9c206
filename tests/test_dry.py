"""The count of FLOPs against hand and against XLA's own count of a program without loops; whole dry runs: test_cli.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from mobjrec.config import load
from mobjrec.dry import flops, traced

TINY = Path(__file__).parent / "tiny.yaml"

A, W = jax.ShapeDtypeStruct((3, 4), jnp.float32), jax.ShapeDtypeStruct((5, 4, 4), jnp.float32)


def counted(function, *shapes) -> float:
    return flops(jax.make_jaxpr(function)(*shapes).jaxpr)


def scanned(x, layers):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, layers)[0].sum()


def unrolled(x, layers):
    for n in range(5):
        x = jnp.tanh(x @ layers[n])
    return x.sum()


def test_a_scanned_layer_counts_as_often_as_it_runs():
    one = 2 * 3 * 4 * 4
    assert counted(scanned, A, W) == 5 * one
    # Back: a product each for the layer's input and its weights.
    assert counted(jax.grad(scanned, (0, 1)), A, W) == counted(jax.grad(unrolled, (0, 1)), A, W) == 15 * one


def test_what_is_computed_again_counts_again():
    again = jax.grad(lambda x, w: jnp.sin(jax.checkpoint(unrolled)(x, w)), (0, 1))
    # XLA's last product of the second pass forward is not needed by the way back.
    assert 19 * 96 <= counted(again, A, W) <= 20 * 96


@pytest.mark.parametrize("function", [unrolled, jax.jit(unrolled)])
def test_without_loops_it_is_the_compilers_count_but_for_what_is_no_product(function):
    shapes = jax.ShapeDtypeStruct((64, 128), jnp.float32), jax.ShapeDtypeStruct((5, 128, 128), jnp.float32)
    compiled = jax.jit(function).lower(*shapes).compile().cost_analysis()["flops"]
    assert counted(function, *shapes) == pytest.approx(compiled, rel=0.02)


def test_batches_of_products_branches_and_devices():
    x, y = (jax.ShapeDtypeStruct((7, 3, 4), jnp.float32) for _ in range(2))
    assert counted(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), x, y) == 2 * 7 * 3 * 3 * 4
    branch = lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[2])
    assert counted(branch, A, W) == 2 * 96
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    cut = PartitionSpec("data")
    each = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=cut, out_specs=cut)
    assert counted(each, jax.ShapeDtypeStruct((6, 4), jnp.float32)) == 2 * (2 * 3 * 3 * 4)


@pytest.mark.slow
def test_under_pmap_it_counts_the_same_program(tmp_path):
    ids = "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, width: 4, scorer: {use: dot}}"
    changes = ["tokenizer=null", ids, "weighting={use: equal}", "parallel.devices=2"]

    def said(how):
        return traced(load(TINY, [*changes, f"parallel.map={how}"]), tmp_path).renderables[2].plain

    assert "GFLOP" in said("pmap") and "MiB temporary" in said("pmap")
    assert said("pmap").split(",")[0] == said("shard_map").split(",")[0]
