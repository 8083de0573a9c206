"""One conditioned model against eleven separately trained ones, and against one plain model whose heads are mixed.

    python benchmarks/conditioned.py --seeds 3
    python benchmarks/conditioned.py --render

Fronts on the test split: for each of eleven preferences one ordering, both objectives' own metrics measured on it. Hypervolume
is counted from the random ranker in units of the single-objective runs, the two ends of the eleven. All runs have the same
steps, optimizer and batches; losses are divided by their running means, so that a preference means the same everywhere.

- `separate`: eleven models of fixed weights p, each ordering by its own p
- `mixed`: one model of equal weights, its heads mixed by each p at request time
- `best mixed`: the same of that one of the eleven whose mixtures have the largest hypervolume on validation lists
- `conditioned`: one model told p; `long` with 1.4 times as many steps
- `own scale`: the same model, predictions put on one scale at each p anew, not at the equal one

Rows are appended to results/conditioned.jsonl; cost is the processor time of the training loop, without its compilation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mobjrec import fronts, mesh
from mobjrec.config import parse
from mobjrec.data.download import cache_folder
from mobjrec.link import Link
from mobjrec.parts import Parts, assemble, multiple_of, sizes_of
from mobjrec.train import fed, mapped_step
from mobjrec.types import Weighting
from mobjrec.weightings import normalised

RESULTS = Path(__file__).parent / "results" / "conditioned.jsonl"
SHARES = np.linspace(0, 1, 11)
WISHES = np.stack([SHARES, 1 - SHARES], 1)
LABELS = {name: {"use": "at_least", "of": "rating", "value": least, "known": "everywhere"}
          for name, least in (("watched", 1), ("liked", 4))}  # fmt: skip
CORPORA = {
    "synthetic": {
        "epochs": 6,
        "data": {"use": "synthetic", "conflict": 0.75},
        "lists": {"split": {"use": "by_time", "valid": 0.1, "test": 0.2}, "history": {"of": "click", "last": 20}},
        "candidates": {"use": "as_logged"},
        "batch": {"lists": 64},
        "model": {
            "use": "ranker",
            "user": {"ids": ["user"], "history": True},
            "item": {"ids": ["item"]},
            "width": 32,
            "scorer": {"use": "mlp", "layers": [64]},
        },
        "objectives": {
            "click": {"use": "single", "loss": "softmax", "label": "click", "needs_relevant": True},
            "satisfaction": {"use": "single", "loss": "huber", "label": "satisfaction", "standardise": True},
        },
        "optimizer": {"use": "adamw", "learning_rate": 3e-3, "weight_decay": 0.05, "schedule": "linear"},
        "evaluate": {"metrics": ["ndcg@5"]},
    },
    "ml-100k": {
        "epochs": 10,
        "data": {"use": "ml-100k"},
        "labels": LABELS,
        "lists": {
            "split": {"use": "last_share", "valid": 0.1, "test": 0.2},
            "history": {"of": "liked", "last": 30},
            "window": 8,
            "eval_window": 0,
        },
        "candidates": {"use": "in_batch", "negatives": 256},
        "batch": {"lists": 128},
        "model": {
            "use": "ranker",
            "user": {"ids": ["user"], "history": True},
            "item": {"ids": ["item", "genres"]},
            "width": 64,
            "id_dropout": 0.2,
            "scorer": {"use": "dot", "bias": ["rating"]},
        },
        "objectives": {
            "watched": {"use": "single", "loss": "softmax", "label": "watched", "needs_relevant": True},
            "rating": {"use": "single", "loss": "huber", "label": "rating", "standardise": True},
        },
        "optimizer": {"use": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "schedule": "linear", "warmup": 0.1},
        "evaluate": {"candidates": {"use": "catalogue"}, "metrics": ["ndcg@10"]},
    },
}


def stored() -> Weighting:
    """Weights that stand in the state, so that one compiled step serves all eleven models."""
    return Weighting(
        lambda count: jnp.ones(count) / count, lambda signals, weights: (weights * signals.present, weights)
    )


class Kind(NamedTuple):
    """Runs of the same parts on one compiled step."""

    parts: Parts
    devices: Mesh
    step: Callable
    sizes: tuple


def kind_of(corpus: str, seed: int, conditioned: bool, longer: float = 1.0) -> Kind:
    """A plain model's weights stand in its state. longer: times the steps, the schedule with them"""
    told = {"seed": seed, "weighting": {"use": "normalised", "of": {"use": "preferred"}}, **CORPORA[corpus]}
    told["epochs"] *= longer
    if conditioned:
        told["preference"] = {"use": "dirichlet"}
        told["model"] = told["model"] | {"scorer": {"use": "conditioned", "of": told["model"]["scorer"]}}
    else:
        told["weighting"] = {"use": "equal"}
    parts = assemble(parse(told), cache_folder())
    parts = parts if conditioned else parts._replace(weighting=normalised(stored()))
    devices = mesh.make(1, parts.config.batch.lists, "shard_map")
    return Kind(parts, devices, mapped_step(parts, devices), sizes_of(parts, multiple_of(parts.config, 1)))


def trained(kind: Kind, weights: np.ndarray | None = None) -> tuple[dict, float]:
    """(parameters and memory at the end, processor seconds of all steps but the first)."""
    parts, began = kind.parts, 0.0
    state = parts.first_state()
    if weights is not None:
        held = state.weighting_state._replace(inner=jnp.asarray(weights, jnp.float32))
        state = state._replace(weighting_state=held)
    state = mesh.place(state, kind.devices)
    for number, batch, *_ in fed(parts, kind.sizes, multiple_of(parts.config, 1), 0, parts.steps, Link()):
        state, _ = kind.step(state, batch)
        if number == 0:
            jax.block_until_ready(state)
            began = time.process_time()
    jax.block_until_ready(state)
    return {"params": state.params, "memory": state.memory}, time.process_time() - began


def points(parts: Parts, model: dict, wishes: np.ndarray, split: str = "test") -> np.ndarray:
    """[P, 2]: what the orderings of these preferences reach."""
    return fronts.orderings(parts, model["params"], model["memory"], split, wishes)


def with_own_scale(parts: Parts, model: dict) -> np.ndarray:
    """The same of a conditioned model with predictions put on one scale at each preference."""
    found = []
    for wish in WISHES.astype(np.float32):
        predict = lambda *given, wish=wish: parts.functions.predict(*given[:-1], wish)
        fixed = parts.model._replace(conditioned=False)
        told = parts._replace(model=fixed, functions=parts.functions._replace(predict=predict))
        found.append(points(told, model, wish[None])[0])
    return np.stack(found)


def measured(corpus: str, seed: int) -> Iterator[dict]:
    """A row for every kind of model."""
    plain, separate, costs, models = kind_of(corpus, seed, False), [], [], []
    for wish in WISHES:
        model, cost = trained(plain, wish)
        separate.append(points(plain.parts, model, wish[None])[0])
        costs.append(cost)
        models.append(model)
    random, separate = fronts.random_point(plain.parts, "test"), np.stack(separate)
    best = np.array([separate[-1, 0], separate[0, 1]])
    one = statistics.median(costs)

    def row(name: str, found: np.ndarray, cost: float) -> dict:
        volume = fronts.reached(found, random, best)
        return {
            "corpus": corpus, "seed": seed, "row": name, "volume": volume, "cost": cost, "ratio": cost / one,
            "points": found.tolist(), "random": random.tolist(), "best": best.tolist(),
        }  # fmt: skip

    yield row("separate", separate, sum(costs))
    # The middle one of the eleven has equal weights.
    yield row("mixed", points(plain.parts, models[5], WISHES), costs[5])
    floor = fronts.random_point(plain.parts, "valid")
    volumes = [
        fronts.reached(points(plain.parts, one, WISHES, "valid"), floor, floor + best - random) for one in models
    ]
    at = int(np.argmax(volumes))
    yield row("best mixed", points(plain.parts, models[at], WISHES), costs[at]) | {"weights": WISHES[at].tolist()}
    for name, longer in (("conditioned", 1.0), ("long", 1.4)):
        kind = kind_of(corpus, seed, True, longer)
        model, cost = trained(kind)
        yield row(name, points(kind.parts, model, WISHES), cost)
        if name == "conditioned":
            yield row("own scale", with_own_scale(kind.parts, model), cost)


def run(corpora: list[str], seeds: int) -> None:
    mesh.keep_compilations(cache_folder() / "compiled")
    for corpus in corpora:
        for seed in range(seeds):
            for row in measured(corpus, seed):
                print(f"{corpus} {seed} {row['row']}: volume {row['volume']:.4f}, cost {row['ratio']:.2f}", flush=True)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def render() -> None:
    """The table of what was measured: mean and deviation over seeds of volumes over that of the separate models."""
    rows = {(r["corpus"], r["row"], r["seed"]): r for r in map(json.loads, RESULTS.read_text().splitlines())}
    print("| corpus | model | hypervolume | over separate | cost of one |\n|---|---|---:|---:|---:|")
    for corpus, name in dict.fromkeys(key[:2] for key in rows):
        mine = [row for key, row in rows.items() if key[:2] == (corpus, name)]
        whole = [row["volume"] / rows[corpus, "separate", row["seed"]]["volume"] for row in mine]
        volume, cost = (statistics.mean(row[key] for row in mine) for key in ("volume", "ratio"))
        spread = f" ± {statistics.stdev(whole):.3f}" if len(whole) > 1 else ""
        print(f"| {corpus} | {name} | {volume:.3f} | {statistics.mean(whole):.3f}{spread} | {cost:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--corpus", choices=CORPORA, action="append")
    parser.add_argument("--render", action="store_true", help="print the table of what was measured")
    given = parser.parse_args()
    render() if given.render else run(given.corpus or list(CORPORA), given.seeds)
