"""Which weighting: every member on real data, beside single-objective runs, tuned fixed weights, and heads mixed at request.

    mobjrec data get kuairand --from ... ; mobjrec data get ml-100k --from ...
    python benchmarks/weightings.py                      # all rows and seeds that results/weightings.jsonl has not yet
    python benchmarks/weightings.py --only kuairand --seeds 1
    python benchmarks/weightings.py --trained            # the last two layers of MiniLM trained, on ML-100K
    python benchmarks/weighting_tables.py                # the tables, from that file alone

One process prepares a data set once; a run is one compiled loop over all its steps, the seed an argument. Every preference
orders the test items once, and each objective is measured on that ordering: per run the corners (each head alone), equal
preferences, and what lies between. Fixed weights of any kind are one program, whose weights are its state.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from mobjrec import evaluate, fronts, mesh, pareto, rank, state, train, weightings
from mobjrec.config import load
from mobjrec.data.download import cache_folder
from mobjrec.data.loading import batches
from mobjrec.evaluate import utility
from mobjrec.metrics.pooled import pairs_in_order
from mobjrec.parts import Parts, assemble, shares_candidates, sizes_of
from mobjrec.shipped import config as shipped
from mobjrec.step import Setting, make_step
from mobjrec.types import Array, Signals, Tree, Weighting

RESULTS = Path(__file__).parent / "results" / "weightings.jsonl"
SPLITS = ("valid", "test")
# Watched at least so much of a video: what its play share is measured by.
HALF = 0.5
PREFERENCES = 15
# Members with the papers' defaults, in the order of the issue that asked for them; of what a default does not say, below.
MEMBERS = (
    *("equal", "rlw", "uncertainty", "dwa", "gls", "imtl_l", "chebyshev", "smooth_chebyshev", "famo", "constrained"),
    *("gradnorm", "mgda", "pe_ltr", "pcgrad", "gradvac", "cagrad", "imtl_g", "nash_mtl", "fairgrad", "aligned_mtl"),
    *("upgrad", "dualproj", "config", "sdmgrad", "epo", "smoothed mgda", "every 10 upgrad", "normalised mgda"),
)
TRAINED = ("equal", "mgda", "upgrad", "famo")


class Bench(NamedTuple):
    """A data set. changes: of the shipped config   objectives: {name: the metric's name}   pooled: measured over the whole
    split in one ordering, not list by list"""

    config: str
    changes: tuple[str, ...]
    objectives: dict[str, str]
    pooled: bool


IDS = ("model.encoder=null", "tokenizer=null", "model.item={ids: [item, genres]}")
WATCHED = (
    "objectives.watched={use: single, loss: softmax, label: watched, needs_relevant: true}",
    "evaluate={candidates: {use: catalogue}, metrics: [ndcg@10]}",
)
BENCHES = {
    "kuairand": Bench(
        "kuairand",
        ("lists.eval_window=8", "evaluate.metrics=[auc]"),
        dict.fromkeys(("click", "long_view", "like", "profile_enter", "play_share"), "AUC"),
        pooled=True,
    ),
    "ml-100k": Bench(
        "ml-100k",
        (*IDS, *WATCHED, "epochs=4", "batch.lists=64", "candidates.negatives=256"),
        {"watched": "ndcg@10", "liked": "ndcg@10", "rating": "pairs in order"},
        pooled=False,
    ),
}
SHORT = (
    'model.item={text: "{title} ({year}) {genres}"}',
    "model.user={history: true}",
    "batch={lists: 256, item_row: 32}",
    "epochs=4",
    "optimizer.learning_rate=6e-3",
    "model.encoder.train={last: 2}",
    "optimizer.groups={encoder/*: {factor: 0.0167}}",
)


class Point(NamedTuple):
    """Predictions of a split: {objective: [N]} scores and labels (NaN = not known) of its items, one after the other."""

    scores: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def preferences(count: int) -> np.ndarray:
    """[P, K]: each objective alone, then equal ones, then others evenly over the simplex."""
    others = pareto.simplex(PREFERENCES, count)
    others = others[(others.max(axis=1) < 1) & (np.ptp(others, axis=1) > 0)]
    return np.concatenate([np.eye(count), np.full((1, count), 1 / count), others])


def fixed(count: int) -> Weighting:
    """Weights that are the state: any fixed ones with one program."""

    def update(signals: Signals, now: Array) -> tuple[Array, Array]:
        return jnp.where(signals.present, now, 0.0), now

    return Weighting(lambda _: jnp.ones(count), update)


def weighting_of(name: str, count: int, bounds: tuple[float, ...]) -> Weighting:
    """A member with its paper's defaults; pe_ltr: lower bounds of half the weight; constrained: the first objective at most
    1 % above the loss of its own run, the others minimised."""
    made = {
        "pe_ltr": lambda: weightings.pe_ltr((0.5 / count,) * count),
        "constrained": lambda: weightings.constrained(bounds, slack=0.01),
        "smoothed mgda": lambda: weightings.smoothed(weightings.mgda()),
        "every 10 upgrad": lambda: weightings.every(weightings.upgrad(), steps=10),
        "normalised mgda": lambda: weightings.normalised(weightings.mgda()),
    }
    return made.get(name, lambda: getattr(weightings, name)())()


def rows_of(objectives: list[str], seed: int) -> Iterator[tuple[str, np.ndarray | None]]:
    """(row, its fixed weights or None): single-objective runs first, members, then as many random fixed weights."""
    for number, name in enumerate(objectives):
        yield f"single {name}", np.eye(len(objectives))[number]
    for name in MEMBERS:
        yield name, np.ones(len(objectives)) if name == "equal" else None
    random = np.random.default_rng([seed, 17])
    for trial in range(len(MEMBERS)):
        yield f"fixed {trial}", 10.0 ** random.uniform(-1, 1, len(objectives))


def loop(parts: Parts, weighting: Weighting) -> Callable:
    """(seed, state, batches [S, ...]) -> (state, logs [S, ...]): the run as one program."""
    devices = mesh.make(1)
    setting = Setting(
        0, parts.steps_per_epoch, shared=shares_candidates(parts), gram_at=train.gram_at(parts), varying=False
    )

    def run(seed: Array, first: Tree, whole: Tree):
        def each(now: Tree, batch: Tree):
            made = make_step(parts.model, parts.objectives, weighting, parts.optimizer, setting._replace(seed=seed))
            now, logs = made(now, batch)
            return now, {name: logs[name] for name in ("losses", "weights", "finite")}

        return jax.lax.scan(each, first, whole)

    none, cut = PartitionSpec(), PartitionSpec(None, "data")
    return jax.jit(
        jax.shard_map(run, mesh=devices, in_specs=(none, none, cut), out_specs=(none, none), check_vma=False)
    )


def predicted(parts: Parts, params: Tree, memory: Tree, split: str) -> Point:
    """All predictions of a split."""
    scores, labels = ({name: [] for name in parts.objectives} for _ in range(2))
    own = evaluate.labels_measured(parts)
    for block in evaluate.blocks(parts, params, memory, getattr(parts.dataset, split), parts.eval_candidates):
        inside = block.drawn.where & (block.rows >= 0)[:, None]
        for name in parts.objectives:
            known = np.where(block.observed[own[name]], block.labels[own[name]], np.nan)
            scores[name].append(block.predictions[name][inside])
            labels[name].append(known[inside])
    return Point(*({name: np.concatenate(rows) for name, rows in kind.items()} for kind in (scores, labels)))


def points(parts: Parts, bench: Bench, params: Tree, memory: Tree) -> dict[str, list]:
    """{split: [P, K] what each objective is measured at on each preference's ordering}."""
    wanted = preferences(len(parts.objectives))
    if not bench.pooled:
        scale = evaluate.scale_of(parts, params, memory)
        found = {split: by_list(parts, bench, params, memory, split, wanted, scale) for split in SPLITS}
    else:
        told = {split: predicted(parts, params, memory, split) for split in SPLITS}
        scale = {name: (float(x.mean()), float(x.std()) or 1.0) for name, x in told["valid"].scores.items()}
        found = {split: np.array([pooled(point, one, scale) for one in wanted]) for split, point in told.items()}
    return {split: np.round(values, 5).tolist() for split, values in found.items()}


def pooled(point: Point, preference: np.ndarray, scale: dict[str, tuple[float, float]]) -> list[float]:
    """AUC of one ordering of all items on each objective's label."""
    ordered = utility(point.scores, scale, dict(zip(point.scores, preference.tolist(), strict=True)))
    found = []
    for label in point.labels.values():
        known = np.isfinite(label)
        found.append(pairs_in_order(ordered[known], label[known] >= HALF))
    return found


def by_list(
    parts: Parts, bench: Bench, params: Tree, memory: Tree, split: str, wanted: np.ndarray, scale
) -> np.ndarray:
    """[P, K] means over lists: NDCG@10 over the catalogue, or the share of rated pairs in order. In numpy: sorting whole
    rows in XLA for every preference, as `fronts.orderings` does for any metric, took 76 seconds a run."""
    own, rows = evaluate.labels_measured(parts), {name: [] for name in parts.objectives}
    wishes = [dict(zip(parts.objectives, one.tolist(), strict=True)) for one in wanted]
    for block in evaluate.blocks(parts, params, memory, getattr(parts.dataset, split), parts.eval_candidates):
        real = block.rows >= 0
        ordered = np.stack([utility(block.predictions, scale, wish) for wish in wishes])[:, real]
        for name in parts.objectives:
            labels, inside = block.labels[own[name]][real], block.observed[own[name]][real]
            measure = at_ten if bench.objectives[name] == "ndcg@10" else in_order
            rows[name].append(measure(ordered, labels, inside))
    return np.stack([np.nanmean(np.concatenate(rows[name], axis=1), axis=1) for name in parts.objectives], axis=1)


def at_ten(scores: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """NDCG@10 [P, B] of scores [P, B, L] and labels of 0 and 1, NaN for a list without a 1."""
    masked = np.where(inside, scores, -np.inf)
    top = np.argpartition(-masked, 10, axis=-1)[..., :10]
    order = np.argsort(-np.take_along_axis(masked, top, -1), axis=-1, kind="stable")
    gains = np.take_along_axis(np.broadcast_to(labels * inside, scores.shape), np.take_along_axis(top, order, -1), -1)
    discounts = 1 / np.log2(np.arange(2, 12))
    best = np.concatenate([[np.nan], np.cumsum(discounts)])[np.minimum((labels * inside).sum(-1).astype(int), 10)]
    return gains @ discounts / best


def in_order(scores: np.ndarray, labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Share [P, B] of pairs of different label that stand in order, equal scores half; NaN for a list without one."""
    found = np.full(scores.shape[:2], np.nan)
    for row, known in enumerate(inside):
        value, score = labels[row, known], scores[:, row, known]
        above = value[:, None] > value
        if above.any():
            gap = score[:, :, None] - score[:, None, :]
            found[:, row] = ((gap > 0) + 0.5 * (gap == 0))[:, above].mean(axis=1)
    return found


def fit(parts: Parts, bench: Bench, weighting: Weighting, compiled: Callable | None, seed: int, first, whole) -> tuple:
    """(record of a run, its program)"""
    begin = time.process_time()
    if compiled is None:
        compiled = loop(parts, weighting).lower(jnp.uint32(seed), first, whole).compile()
    middle, wall = time.process_time(), time.monotonic()
    last, logs = jax.block_until_ready(compiled(jnp.uint32(seed), first, whole))
    seconds, wall, end = time.process_time() - middle, time.monotonic() - wall, time.process_time()
    tail = max(1, len(logs["losses"]) // 10)
    record = points(parts, bench, last.params, last.memory)
    return {
        **record,
        "losses": np.asarray(logs["losses"])[-tail:].mean(axis=0).round(6).tolist(),
        "weights": np.asarray(logs["weights"]).mean(axis=0).round(5).tolist(),
        "finite": float(np.asarray(logs["finite"]).mean()),
        "steps": len(logs["losses"]),
        "cpu": round(seconds, 3),
        "wall": round(wall, 3),
        "compile": round(middle - begin, 2),
        "evaluate": round(time.process_time() - end, 2),
    }, compiled


def stacked(parts: Parts, seed: int) -> Tree:
    """All batches of a run [S, ...]."""
    loaded = batches(
        parts.feed,
        parts.dataset.train,
        parts.train_candidates,
        sizes_of(parts, 1),
        seed=seed,
        batch=parts.config.batch.lists,
        start=0,
        stop=parts.steps,
    )
    return jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows)), *(one.batch for one in loaded))


def known_runs() -> dict[tuple[str, str, int], dict]:
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines() if line]
    return {(row["set"], row["row"], row["seed"]): row for row in rows}


def write(row: dict) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row["set"], row["row"], row["seed"], row.get("cpu"), np.round(np.diag(row["test"]), 4), flush=True)


def measure(name: str, seeds: range, only: set[str]) -> None:
    """The rows of a data set that are not in the file yet."""
    bench, there = BENCHES[name], known_runs()
    config = load(shipped(bench.config), [*bench.changes, "weighting={use: equal}"])
    parts = assemble(config, cache_folder())
    objectives = list(parts.objectives)
    count, programs = len(objectives), {}
    if (name, "random", 0) not in there:
        chance = [0.5] * count
        if not bench.pooled:
            ordered = {one: "ndcg@10" for one in objectives if bench.objectives[one] == "ndcg@10"}
            chance = fronts.random_point(parts, "test", metrics=ordered)
            chance = [float(x) if one in ordered else 0.5 for one, x in zip(objectives, chance, strict=True)]
        write({"set": name, "row": "random", "seed": 0, "objectives": objectives, "test": [chance]})
    for seed in seeds:
        todo = [(row, w) for row, w in rows_of(objectives, seed) if (name, row, seed) not in there]
        todo = [(row, w) for row, w in todo if not only or row in only]
        if not todo:
            continue
        whole = stacked(parts, seed)
        blank = state.first(parts.model, parts.objectives, fixed(count), parts.optimizer, parts.spec, seed)
        for row, weights in todo:
            key = row if weights is None else "fixed"
            weighting = (
                fixed(count) if weights is not None else weighting_of(row, count, bounds(name, objectives, seed))
            )
            own = weighting.init(count) if weights is None else jnp.asarray(weights, jnp.float32)
            first = blank._replace(weighting_state=jax.tree.map(jnp.asarray, own))
            found, program = fit(parts, bench, weighting, programs.get(key), seed, first, whole)
            programs |= {} if row == "constrained" else {key: program}  # its bounds are this seed's
            given = None if weights is None else np.round(weights, 5).tolist()
            write({"set": name, "row": row, "seed": seed, "given": given, "host": platform.node(), **found})


def bounds(name: str, objectives: list[str], seed: int) -> tuple[float, ...]:
    """The loss of the first objective's own run, and infinity."""
    own = known_runs().get((name, f"single {objectives[0]}", seed))
    return (own["losses"][0] if own else 1.0, *(float("inf"),) * (len(objectives) - 1))


def measure_trained(seeds: range) -> None:
    """ML-100K with text, MiniLM's last two layers trained: a few members."""
    bench, there = BENCHES["ml-100k"], known_runs()
    for seed in seeds:
        for row in TRAINED:
            if ("trained", row, seed) in there:
                continue
            changes = [*SHORT, *WATCHED, f"seed={seed}", f"weighting={{use: {row}}}"]
            with tempfile.TemporaryDirectory() as folder:
                result = train.run(load(shipped("ml-100k"), changes), Path(folder) / "run", cache_folder(), quiet=True)
                run = rank.load(Path(folder) / "run", cache_folder())
                found = points(run.parts, bench, run.params, run.memory)
            seconds = result["timing"]
            record = {"cpu": round(seconds["train"], 2), "compile": round(seconds["compile"], 2), **found}
            write({"set": "trained", "row": row, "seed": seed, "steps": result["steps"], **record})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(BENCHES), help="one data set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=[], help="these rows alone")
    parser.add_argument("--trained", action="store_true", help="with MiniLM's last two layers trained")
    given = parser.parse_args()
    mesh.keep_compilations(cache_folder() / "compiled")
    if given.trained:
        measure_trained(range(given.seeds))
        return
    for name in (given.only,) if given.only else BENCHES:
        measure(name, range(given.seeds), set(given.rows))


if __name__ == "__main__":
    main()
