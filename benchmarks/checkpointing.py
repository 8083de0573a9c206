"""What saving costs a run: a model of 23 M parameters with Adam, saved beside its steps and in between.

    python benchmarks/checkpointing.py [--saves 3] [--minutes 10]

Prints seconds a save that the loop stands still (copy and hand-over, and the last wait), seconds that files are written and
sealed beside it, how much longer steps take meanwhile, and the share of training time at a save each so many minutes.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from mobjrec import checkpoint
from mobjrec.saving import Saver

# Six layers of width 384 and a table of 30,522 words: about the sizes of MiniLM, 23.2 M in all.
SHAPES = {"words": (30522, 384), "layers": (6, 384, 13 * 384)}
ROWS = 512


def loss(params: dict, ids: jax.Array) -> jax.Array:
    """A loss that reads every layer as an encoder does, by products of matrices."""
    rows = params["words"][ids]
    for layer in params["layers"]:
        rows = rows + jnp.tanh(rows @ layer) @ layer.T / 384
    return jnp.mean(jnp.square(rows))


def trained() -> tuple[tuple, Callable]:
    """(first state, compiled step that takes the state over)."""
    rule = optax.adam(1e-4)
    keys = dict(zip(SHAPES, jax.random.split(jax.random.key(0)), strict=True))
    params = {name: jax.random.normal(keys[name], shape) * 0.02 for name, shape in SHAPES.items()}

    def step(state: tuple, ids: jax.Array) -> tuple:
        params, rest = state
        updates, rest = rule.update(jax.grad(loss)(params, ids), rest)
        return optax.apply_updates(params, updates), rest

    return (params, rule.init(params)), jax.jit(step, donate_argnums=0)


def timed(step: Callable, state: tuple, ids: jax.Array) -> tuple[tuple, float]:
    """One step and its seconds."""
    began = time.monotonic()
    state = jax.block_until_ready(step(state, ids))
    return state, time.monotonic() - began


def measured(saves: int, folder: Path) -> dict[str, float]:
    """Medians over `saves` saves, in seconds."""
    state, step = trained()
    ids = jax.random.randint(jax.random.key(1), (ROWS,), 0, SHAPES["words"][0])
    alone, beside, blocked, writing, still = [], [], [], [], []
    for _ in range(4):
        state, seconds = timed(step, state, ids)
        alone.append(seconds)
    # The first step compiles.
    del alone[0]
    with Saver(folder, {}, print) as saver:
        for number in range(1, saves + 1):
            began = time.monotonic()
            saver.save(state, number, {}, keep=2)
            blocked.append(time.monotonic() - began)
            while number not in checkpoint.steps(folder):
                state, seconds = timed(step, state, ids)
                beside.append(seconds)
            writing.append(time.monotonic() - began)
            for _ in range(3):
                state, seconds = timed(step, state, ids)
                alone.append(seconds)
    for number in range(saves + 1, 2 * saves + 1):
        began = time.monotonic()
        checkpoint.save(folder, state, number, {})
        still.append(time.monotonic() - began)
    found = {"step": alone, "step beside": beside, "blocked": blocked, "writing": writing, "still": still}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    return {name: statistics.median(seconds) for name, seconds in found.items()} | {"megabytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0, help="between two saves")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(given.saves, Path(folder))
    # What steps beside a save do not get done is lost as well.
    slowed = max(0.0, 1 - found["step"] / found["step beside"]) * (found["writing"] - found["blocked"])
    between = 60 * given.minutes
    print(f"{found['megabytes']:.0f} MB of parameters and moments on {jax.devices()[0].device_kind}")
    print(f"the loop stands still   {found['blocked']:.3f} s a save   {found['blocked'] / between:.3%} of the time")
    print(f"written and sealed in   {found['writing']:.3f} s beside the steps")
    print(f"a step takes            {found['step']:.3f} s alone, {found['step beside']:.3f} s beside a save")
    print(
        f"in all                  {found['blocked'] + slowed:.3f} s a save   {(found['blocked'] + slowed) / between:.3%}"
    )
    print(f"a save that is awaited  {found['still']:.3f} s   {found['still'] / between:.3%}")


if __name__ == "__main__":
    main()
