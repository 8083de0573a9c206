"""How far apart one step is on other devices, maps and chunks: largest differences, dropout on.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/equalities.py

Every scorer once with static weights and with MGDA at the embeddings, in-batch softmax, a shared candidate set, and a
weighting that draws from the step's key; each on 8 devices, under pmap and in chunks against one device. Differences of
losses and Gram are absolute, those of gradients relative to each leaf's largest entry, those of parameters absolute after
10 SGD steps; under Adam the logged losses of 10 steps.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobjrec import mesh
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.parts import Parts, assemble, sizes_of
from mobjrec.train import mapped_step
from mobjrec.types import Signals, Tree, Weighting

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
DEVICES, CHUNK, STEPS = 8, 1, 10
STATIC = "weighting={use: static, weights: {click: 1, recall: 0.5, satisfaction: 2}}"
MGDA = ["weighting={use: mgda}", "gram_at=embeddings"]
SCORERS = {
    "dot": "model.scorer={use: dot}",
    "cosine": "model.scorer={use: cosine}",
    "mlp": "model.scorer={use: mlp, layers: [16], dropout: 0.2}",
    "transformer": "model.scorer={use: transformer, layers: 1, heads: 2, dropout: 0.2}",
}
BOTH = "model.user={text: '{history.title}', ids: [user], history: true}"
# name -> what it changes in the tiny config; the last two are looked at by the weights they give.
CASES = {
    f"{name}, {kind}": [scorer, BOTH, *how]
    for name, scorer in SCORERS.items()
    for kind, how in (("static", [STATIC]), ("mgda", MGDA))
}
CASES |= {
    "in-batch softmax, mgda": [SCORERS["dot"], "candidates={use: in_batch}", *MGDA],
    "shared candidates, mgda": [SCORERS["mlp"], "candidates={use: in_batch, negatives: 16}", *MGDA],
    "gram at parameters, mgda": [SCORERS["mlp"], "weighting={use: mgda}", "gram_at=parameters"],
    "drawn weights": [SCORERS["mlp"], STATIC],
}


class Layout(NamedTuple):
    """devices: how many   map: shard_map or pmap   chunk: rows a chunk or None"""

    devices: int
    map: str = "shard_map"
    chunk: int | None = None


LAYOUTS = {
    "8 devices": Layout(DEVICES),
    "8 devices, pmap": Layout(DEVICES, "pmap"),
    "1 device, chunks": Layout(1, chunk=CHUNK),
    "8 devices, chunks": Layout(DEVICES, chunk=CHUNK),
}


def drawn() -> Weighting:
    """Weights drawn from the step's key: the same everywhere only if the keys are."""

    def update(signals: Signals, state: Tree) -> tuple[jax.Array, Tree]:
        return jax.random.uniform(signals.key, signals.losses.shape), state

    return Weighting(lambda count: (), update)


def grabbing(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The rule, with the last gradient kept in its state."""

    def init(params: Tree) -> Tree:
        return jax.tree.map(jnp.zeros_like, params), rule.init(params)

    def update(grads: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        updates, inner = rule.update(grads, state[1], params)
        return updates, (grads, inner)

    return optax.GradientTransformation(init, update)


def assembled(changes: list[str], cache: Path, weighting: Weighting | None = None) -> Parts:
    """Parts of the tiny config, dropout on in encoder and towers."""
    found = assemble(load(TINY, ["model.dropout=0.2", "model.id_dropout=0.3", *changes]), cache)
    return found if weighting is None else found._replace(weighting=weighting)


def ran(found: Parts, layout: Layout, rule: optax.GradientTransformation, steps: int) -> dict[str, Any]:
    """Losses, Gram and weights of every step, the first step's gradients, the last parameters."""
    config = found.config
    batch = config.batch.model_copy(update={"chunk_rows": layout.chunk})
    parallel = config.parallel.model_copy(update={"map": layout.map})
    found = found._replace(
        config=config.model_copy(update={"batch": batch, "parallel": parallel}), optimizer=grabbing(rule)
    )
    devices = mesh.make(layout.devices)
    # One size for all layouts: the global batch is the same.
    sizes = sizes_of(found, DEVICES * CHUNK)
    step = mapped_step(found, devices)
    state = mesh.place(found.first_state(), devices)
    lists = found.dataset.train
    logged, grads = [], None
    for number in range(steps):
        rows = order.rows(config.seed, number, len(lists.user), config.batch.lists)
        candidates = found.train_candidates(found.dataset, lists, rows, order.random(config.seed, number))
        state, logs = step(state, build(found.feed, lists, rows, candidates, sizes[-1:], DEVICES * CHUNK)[0])
        logged.append(jax.device_get({name: logs[name] for name in ("losses", "weights", "gram") if name in logs}))
        grads = jax.device_get(state.opt_state[0]) if grads is None else grads
    whole = {name: np.stack([one[name] for one in logged]) for name in logged[0]}
    return {**whole, "grads": grads, "params": jax.device_get(state.params)}


def apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Largest differences between two runs of the same steps; the first step's losses, Gram and gradients alone."""
    found = {"losses": float(np.abs(one["losses"][0] - other["losses"][0]).max())}
    if "gram" in one:
        found["gram"] = float(np.abs(one["gram"][0] - other["gram"][0]).max())
    found["weights"] = float(np.abs(one["weights"][0] - other["weights"][0]).max())
    pairs = list(zip(jax.tree.leaves(one["grads"]), jax.tree.leaves(other["grads"]), strict=True))
    found["gradients"] = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) for a, b in pairs)
    pairs = zip(jax.tree.leaves(one["params"]), jax.tree.leaves(other["params"]), strict=True)
    found["parameters"] = max(float(np.abs(a - b).max()) for a, b in pairs)
    found["logged"] = float(np.abs(one["losses"] - other["losses"]).max())
    return found


def main(only: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in CASES.items():
            if only not in name:
                continue
            found = assembled(changes, Path(folder), drawn() if name == "drawn weights" else None)
            rules = {"sgd": optax.sgd(0.1)} | ({"adam": optax.adam(1e-3)} if "mlp, " in name else {})
            for rule_name, rule in rules.items():
                first = ran(found, Layout(1), rule, STEPS)
                others = {layout: ran(found, how, rule, STEPS) for layout, how in LAYOUTS.items()}
                for layout, other in others.items():
                    print(
                        json.dumps({"case": name, "rule": rule_name, "layout": layout, **apart(first, other)}),
                        flush=True,
                    )
                pairs = zip(
                    *(jax.tree.leaves(others[layout]) for layout in ("8 devices", "8 devices, pmap")), strict=True
                )
                same = all(np.array_equal(a, b) for a, b in pairs)
                print(json.dumps({"case": name, "rule": rule_name, "pmap bit-equal to shard_map": same}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    main(parser.parse_args().only)
