"""How far apart one step is on other devices, maps and chunks, dropout on, and a run of other processes or interrupted.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python benchmarks/equalities.py      # a row a case, appended
    python benchmarks/equalities.py --what runs      # whole runs: two processes, interrupted and resumed
    python benchmarks/equalities.py --render         # the table of largest differences, of results/equalities.jsonl alone

Every scorer once with static weights and with MGDA at the embeddings, in-batch softmax, a shared candidate set, and a
weighting that draws from the step's key; each on 8 devices, under pmap and in chunks against one device. losses, gram and
weights are differences of the first step, those of losses and gram relative to the largest where that is above 1; gradients
are relative to each leaf's largest entry, a leaf that has none to a millionth of the whole's; parameters are absolute, after
10 steps of SGD; adam: the losses logged in 10 steps of Adam.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobjrec import checkpoint, mesh, record
from mobjrec.config import load
from mobjrec.data import order
from mobjrec.data.batching import build
from mobjrec.parts import Parts, assemble, sizes_of
from mobjrec.train import mapped_step
from mobjrec.types import Signals, Tree, Weighting

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
RESULTS = Path(__file__).parent / "results" / "equalities.jsonl"
DEVICES, CHUNK, STEPS = 8, 1, 10
RULES = {"sgd": optax.sgd(0.1), "adam": optax.adam(1e-3)}
KINDS = ("losses", "gram", "weights", "gradients", "parameters", "adam")
STATIC = "weighting={use: static, weights: {click: 1, recall: 0.5, satisfaction: 2}}"
MGDA = ["weighting={use: mgda}", "gram_at=embeddings"]
SCORERS = {
    "dot": "model.scorer={use: dot}",
    "cosine": "model.scorer={use: cosine}",
    "mlp": "model.scorer={use: mlp, layers: [16], dropout: 0.2}",
    "transformer": "model.scorer={use: transformer, layers: 1, heads: 2, dropout: 0.2}",
}
BOTH = "model.user={text: '{history.title}', ids: [user], history: true}"
CONDITIONED = ["model.scorer={use: conditioned, of: {use: dot}}", "preference={use: dirichlet}"]
# name -> what it changes in the tiny config; those of drawn weights are looked at by the weights they give.
CASES = {
    f"{name}, {kind}": [scorer, BOTH, *how]
    for name, scorer in SCORERS.items()
    for kind, how in (("static", [STATIC]), ("mgda", MGDA))
}
CASES |= {
    "conditioned, preferred": [*CONDITIONED, "weighting={use: preferred}"],
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


class Either(NamedTuple):
    """which: of the rules   grads: the last gradient   states: one a rule"""

    which: jax.Array
    grads: Tree
    states: tuple[Tree, ...]


def either(rules: list[optax.GradientTransformation]) -> optax.GradientTransformation:
    """The rule that its state says, so that one compiled step runs under each; the last gradient is kept."""

    def init(params: Tree) -> Either:
        return Either(jnp.int32(0), jax.tree.map(jnp.zeros_like, params), tuple(rule.init(params) for rule in rules))

    def update(grads: Tree, state: Either, params: Tree = None) -> tuple[Tree, Either]:
        made = [rule.update(grads, inner, params) for rule, inner in zip(rules, state.states, strict=True)]
        updates, states = zip(*made, strict=True)
        chosen = jax.tree.map(lambda *leaves: jnp.stack(leaves)[state.which], *updates)
        return chosen, Either(state.which, grads, states)

    return optax.GradientTransformation(init, update)


def assembled(name: str, cache: Path, *more: str) -> Parts:
    """Parts of the tiny config changed for this case and as `more` says, dropout on in encoder and towers."""
    found = assemble(load(TINY, ["model.dropout=0.2", "model.id_dropout=0.3", *CASES[name], *more]), cache)
    found = found._replace(optimizer=either(list(RULES.values())))
    return found._replace(weighting=drawn()) if name == "drawn weights" else found


def ran(found: Parts, layout: Layout, steps: int = STEPS) -> dict[str, dict[str, Any]]:
    """By rule: losses, Gram and weights of every step, the first step's gradients, the last parameters."""
    config = found.config
    batch = config.batch.model_copy(update={"chunk_rows": layout.chunk})
    parallel = config.parallel.model_copy(update={"map": layout.map})
    found = found._replace(config=config.model_copy(update={"batch": batch, "parallel": parallel}))
    devices = mesh.make(layout.devices)
    step, first = mapped_step(found, devices), jax.device_get(found.first_state())
    return {name: steps_of(found, step, devices, first, which, steps) for which, name in enumerate(RULES)}


def steps_of(found: Parts, step: Any, devices: Any, first: Any, which: int, steps: int) -> dict[str, Any]:
    """One rule's part of `ran`."""
    lists, config = found.dataset.train, found.config
    # One size for all layouts: the global batch is the same.
    sizes = sizes_of(found, DEVICES * CHUNK)
    state = mesh.place(first._replace(opt_state=first.opt_state._replace(which=np.int32(which))), devices)
    logged, grads = [], None
    for number in range(steps):
        rows = order.rows(config.seed, number, len(lists.user), config.batch.lists)
        candidates = found.train_candidates(found.dataset, lists, rows, order.random(config.seed, number))
        state, logs = step(state, build(found.feed, lists, rows, candidates, sizes[-1:], DEVICES * CHUNK)[0])
        logged.append(jax.device_get({name: logs[name] for name in ("losses", "weights", "gram") if name in logs}))
        grads = jax.device_get(state.opt_state.grads) if grads is None else grads
    whole = {name: np.stack([one[name] for one in logged]) for name in logged[0]}
    return {**whole, "grads": grads, "params": jax.device_get(state.params)}


def apart(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Largest differences between two layouts' steps, by KINDS."""
    (sgd, adam), (sgds, adams) = one.values(), other.values()
    most = lambda a, b: float(np.abs(a - b).max(initial=0))
    pairs = lambda key: zip(jax.tree.leaves(sgd[key]), jax.tree.leaves(sgds[key]), strict=True)
    found = {key: most(sgd[key][0], sgds[key][0]) for key in ("losses", "gram", "weights") if key in sgd}
    for key in ("losses", "gram"):
        found |= {key: found[key] / max(1.0, float(np.abs(sgd[key][0]).max()))} if key in found else {}
    floor = 1e-6 * max(float(np.abs(a).max(initial=0)) for a, _ in pairs("grads"))
    found["gradients"] = max(most(a, b) / max(float(np.abs(a).max(initial=0)), floor) for a, b in pairs("grads"))
    found["parameters"] = max(most(a, b) for a, b in pairs("params"))
    return {**found, "adam": most(adam["losses"], adams["losses"])}


def of_case(name: str, cache: Path) -> list[dict[str, Any]]:
    """A row a layout against one device, and one of pmap against shard_map."""
    found = assembled(name, cache)
    first, others = ran(found, Layout(1)), {layout: ran(found, how) for layout, how in LAYOUTS.items()}
    rows = [{"case": name, "layout": layout, **apart(first, other)} for layout, other in others.items()]
    return [*rows, {"case": name, "layout": "pmap", **apart(others["8 devices"], others["8 devices, pmap"])}]


def of_runs(folder: Path) -> list[dict[str, Any]]:
    """A row for two processes against one of two devices, and for a run interrupted at step 7, gone on with at step 12."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meeting = f"127.0.0.1:{listener.getsockname()[1]}"
    trained([started(folder / "whole", 2)])
    trained([started(folder / "pair", 1, "--coordinator", meeting, "--processes", 2, "--process", n) for n in (0, 1)])
    trained([started(folder / "cut", 2, "steps=7")])
    trained([started(folder / "cut", 2)])
    kinds = {"pair": "2 processes", "cut": "resumed"}
    whole = folder / "whole"
    return [{"case": "whole run", "layout": said, **apart_runs(whole, folder / name)} for name, said in kinds.items()]


def started(run: Path, devices: int, *more: object) -> subprocess.Popen:
    """`mobjrec train` of the tiny config, its schedule one that stops anywhere, on so many devices."""
    cache = {"MOBJREC_CACHE": str(run.parent / "cache"), "JAX_PLATFORMS": "cpu"}
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "mobjrec", "train", TINY, "parallel.devices=null", "--run", run, *more]
    return subprocess.Popen(list(map(str, command)), env={**os.environ, **cache, "XLA_FLAGS": flags})


def trained(processes: list[subprocess.Popen]) -> None:
    """Wait for them. RuntimeError where one fails."""
    if sum(abs(process.wait()) for process in processes):
        raise RuntimeError("a run failed; see above")


def apart_runs(one: Path, other: Path) -> dict[str, float]:
    """Largest differences of the logged losses, Gram matrices and weights of all steps, and of the last parameters."""
    found = dict.fromkeys(("losses", "gram", "weights", "parameters"), 0.0)
    names = {"loss": "losses", "gram": "gram", "weight": "weights"}
    rows = [[row for row in record.rows(run) if row["kind"] == "train"] for run in (one, other)]
    for row, twin in zip(*rows, strict=True):
        for key in row:
            if key.split("/")[0] in names:
                name = names[key.split("/")[0]]
                values = [np.array(one[key], float) for one in (row, twin)]
                # An absent objective has no loss, in both.
                found[name] = max(found[name], float(np.nan_to_num(np.abs(values[0] - values[1])).max()))
    found["parameters"] = max(float(np.abs(a - b).max()) for a, b in zip(leaves(one), leaves(other), strict=True))
    return found


def leaves(run: Path) -> list[np.ndarray]:
    """The arrays of a run's last state."""
    tree = checkpoint.sealed(run)["tree"]
    like = {path: np.zeros(spec["shape"], spec["dtype"]) for path, spec in tree.items() if np.prod(spec["shape"])}
    return [np.asarray(leaf, np.float64) for leaf in checkpoint.latest(run, like, partial=True)[0].values()]


def rendered() -> str:
    """The table of largest differences over all cases, the newest row of each case and layout."""
    rows = {(row["case"], row["layout"]): row for row in map(json.loads, RESULTS.read_text().splitlines())}
    lines = [f"| | cases | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 2) + "|"]
    for layout in dict.fromkeys(layout for _, layout in rows):
        mine = [row for (_, other), row in rows.items() if other == layout]
        most = [max((row[kind] for row in mine if kind in row), default=None) for kind in KINDS]
        shown = ["" if one is None else f"{one:.1g}" for one in most]
        lines.append(f"| {layout} | {len(mine)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main(what: str, only: str) -> None:
    with tempfile.TemporaryDirectory() as folder, RESULTS.open("a") as file:
        made = [lambda: of_runs(Path(folder))] if what == "runs" else []
        made += [lambda n=n: of_case(n, Path(folder)) for n in CASES if only in n] if what == "steps" else []
        for make in made:
            for row in make():
                print(json.dumps(row), file=file, flush=True)
                print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("steps", "runs"), default="steps")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--render", action="store_true", help="print the table of what was measured")
    given = parser.parse_args()
    print(rendered()) if given.render else main(given.what, given.only)
