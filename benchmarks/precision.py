"""Loss curves of bfloat16 beside float32: the quickstart config's steps, the same batches from the same parameters.

    python benchmarks/precision.py

Per objective the loss at some steps, and the largest and mean relative difference over all of them; for scale the same
between float32 and itself with the rows encoded in chunks, whose rounding alone differs.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np

from mobjrec import mesh
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.parts import assemble, sizes_of
from mobjrec.train import mapped_step

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
CHUNK, SHOWN = 16, 10
WAYS = {"float32": [], "bfloat16": ["model.encoder.compute=bfloat16"], "chunks": [f"batch.chunk_rows={CHUNK}"]}


def curve(changes: list[str], steps: int, cache: Path) -> tuple[list[str], np.ndarray]:
    """The objectives' names and their losses [steps, K]."""
    parts = assemble(load(QUICKSTART, changes), cache)
    devices, lists, config = mesh.make(1), parts.dataset.train, parts.config
    sizes = sizes_of(parts, CHUNK)[-1:]
    step, state = mapped_step(parts, devices), mesh.place(jax.jit(parts.first_state)(), devices)
    losses = []
    for number in range(steps):
        rows = order.rows(config.seed, number, len(lists.user), config.batch.lists)
        drawn = parts.train_candidates(parts.dataset, lists, rows, order.random(config.seed, number))
        state, logs = step(state, build(parts.feed, lists, rows, drawn, sizes, CHUNK)[0])
        losses.append(np.asarray(logs["losses"]))
    return list(parts.objectives), np.stack(losses)


def main(steps: int, cache: Path) -> None:
    found = {}
    for way, changes in WAYS.items():
        names, found[way] = curve(changes, steps, cache)
    for k, name in enumerate(names):
        print(f"{name}: step, then the loss under {', '.join(WAYS)}")
        for number in [*range(0, steps, SHOWN), steps - 1]:
            print(f"  {number + 1:4}", *(f"{losses[number, k]:.5f}" for losses in found.values()))
        for way in list(WAYS)[1:]:
            apart = np.abs(found[way][:, k] / found["float32"][:, k] - 1)
            print(
                f"  {way}: relative difference at most {apart.max():.2e}, mean {apart.mean():.2e}, first {apart[0]:.2e}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--cache", type=Path, help="a folder for tokenised texts; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.steps, given.cache or Path(folder))
