"""Where every weighting ends: over the exact front of a small ranking problem, and on the synthetic corpus.

    nice python benchmarks/fronts.py toy --keep
    nice python benchmarks/fronts.py corpus --keep               # --conflicts low medium high, --seeds 3, --only mgda ...
    python benchmarks/fronts.py --render                         # tables; --picture FILE.svg draws the toy's front

Rows are appended to results/fronts.jsonl; `--render` reads that file alone, the last row of a name.

Toy: 60 items, 6 features, one linear score for clicks (log loss) and satisfaction (squares), both strictly convex, so that the
front is traced by Newton to 1e-12. Plain descent in 64 bits, weights divided by the sum of their sizes, the rate falling to 0;
from 0 and 7 drawn starts. Corpus: ids and a history of clicks, no text; one program for all runs of a member.
Orderings of 11 preferences are measured on test lists by both objectives' NDCG, in units of (value - random order) / (own
single-objective run - random order). The row `equal` is the plain model of several heads, mixed when asked.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec import fronts, state, train, weightings
from mobjrec.config import load
from mobjrec.data.download import cache_folder
from mobjrec.link import Link
from mobjrec.parts import Parts, assemble, shares_candidates, sizes_of
from mobjrec.shipped import config as shipped
from mobjrec.state import TrainState
from mobjrec.step import Setting, applied, make_step
from mobjrec.types import Array, Signals, Tree, Weighting

RESULTS = Path(__file__).parent / "results" / "fronts.jsonl"
SIDE = 1 / 3
# What needs more than its defaults, for two objectives. On the toy the losses of the mean are 1.4 and 0.4, and on the corpus
# the bound is a standardised satisfaction loss.
MADE: dict[str, Callable[[], Weighting]] = {
    "static": lambda: weightings.static((0.8, 0.2)),
    "pe_ltr": lambda: weightings.pe_ltr((0.2, 0.2)),
    "constrained": lambda: weightings.constrained((float("inf"), SIDE)),
    "smoothed": lambda: weightings.smoothed(weightings.upgrad()),
    "every": lambda: weightings.every(weightings.upgrad()),
    "normalised": lambda: weightings.normalised(weightings.mgda()),
}
NAMES = {
    "static": "static 0.8, 0.2",
    "pe_ltr": "pe_ltr 0.2, 0.2",
    "constrained": "constrained, satisfaction <= 1/3",
    "smoothed": "smoothed upgrad",
    "every": "every 10 upgrad",
    "normalised": "normalised mgda",
    "equal": "equal (one plain model)",
}
CONFLICTS = {"low": 0.1, "medium": 0.4, "high": 0.8}
CHANGES = (
    "model.encoder=null",
    "tokenizer=null",
    "model.user={ids: [user], history: true}",
    "model.item={ids: [item]}",
    "objectives={click: {use: single, loss: softmax, label: click, needs_relevant: true}, "
    "satisfaction: {use: single, loss: huber, label: satisfaction, standardise: true}}",
    "epochs=6",
    "weighting={use: equal}",
    "evaluate.metrics=[ndcg]",
    "data={use: synthetic, users: 600, items: 120, lists_per_user: 8, list_size: 12, noise: 0.5}",
)


def made(name: str) -> Weighting:
    return MADE.get(name, getattr(weightings, name))()


def problem() -> tuple[Callable[[Array], Array], int]:
    """Losses of theta [6]: clicks and satisfaction of 60 items, whose tastes are 100 degrees apart."""
    random = np.random.default_rng(0)
    items = random.normal(size=(60, 6))
    liked, kept = random.normal(size=(2, 6))
    kept = kept - (kept @ liked) / (liked @ liked) * liked
    kept = kept / np.linalg.norm(kept) - 0.18 * liked / np.linalg.norm(liked)
    clicks = jnp.asarray(random.random(60) < 1 / (1 + np.exp(-items @ liked)), float)
    stars = jnp.asarray(2 * items @ kept + 0.3 * random.normal(size=60))
    items = jnp.asarray(items)

    def losses(theta: Array) -> Array:
        scores, size = items @ theta, 0.005 * jnp.sum(theta**2)
        click = jnp.mean(jax.nn.softplus(scores) - clicks * scores)
        return jnp.stack([click, 0.5 * jnp.mean((scores - stars) ** 2)]) + size

    return losses, 6


def traced(losses: Callable[[Array], Array], size: int, count: int = 8001) -> tuple[np.ndarray, np.ndarray]:
    """Shares of clicks [N] and their exact minima [N, 2], by Newton with half steps at first."""

    def one(share: Array) -> tuple[Array, Array]:
        mixed = lambda theta: jnp.array([share, 1 - share]) @ losses(theta)
        slope = jax.grad(mixed)

        def turn(theta: Array, rate: Array) -> tuple[Array, None]:
            return theta - rate * jnp.linalg.solve(jax.hessian(mixed)(theta), slope(theta)), None

        theta, _ = jax.lax.scan(turn, jnp.zeros(size), jnp.where(jnp.arange(60) < 20, 0.5, 1.0))
        return losses(theta), jnp.max(jnp.abs(slope(theta)))

    shares = np.linspace(0, 1, count)
    points, slopes = jax.jit(jax.vmap(one))(shares)
    assert float(slopes.max()) < 1e-12, f"Newton's slope is still {slopes.max():.1e}"
    return shares, np.asarray(points)


def descended(
    losses: Callable[[Array], Array], weighting: Weighting, start: Array, *, steps: int, rate: float
) -> Array:
    """Losses at the end of plain descent."""

    def turn(carry: tuple[Array, Tree], number: Array) -> tuple[tuple[Array, Tree], None]:
        theta, held = carry
        values, rows = losses(theta), jax.jacrev(losses)(theta)
        there, key = jnp.ones(2, bool), jax.random.fold_in(jax.random.key(0), number)
        epoch = number // 100
        weights, held = weighting.update(Signals(values, there, rows @ rows.T, None, number, epoch, key), held)
        theta = theta - rate * (1 - number / steps) * applied(weights, there, True) @ rows
        if weighting.observe is not None:
            held = weighting.observe(losses(theta), held)
        return (theta, held), None

    (theta, _), _ = jax.lax.scan(turn, (start, weighting.init(2)), jnp.arange(steps))
    return losses(theta)


def toy(names: list[str], steps: int) -> Iterator[dict[str, Any]]:
    with jax.enable_x64(True):
        losses, size = problem()
        shares, front = traced(losses, size)
        starts = jnp.asarray(np.concatenate([np.zeros((1, size)), np.random.default_rng(1).normal(size=(7, size))]))
        yield {"table": "toy front", "row": "front", "points": front[::160].tolist(), "shares": shares[::160].tolist()}
        for name in names:
            began = time.process_time()
            weighting = made(name)
            solve = jax.jit(jax.vmap(partial(descended, losses, weighting, steps=steps, rate=0.4)))
            ends = np.asarray(solve(starts))
            place = np.interp(ends[:, 0], front[::-1, 0], shares[::-1])
            off = ends[:, 1] - np.interp(ends[:, 0], front[::-1, 0], front[::-1, 1])
            row = {"table": "toy", "row": name, "end": ends[0].tolist(), "share": float(place[0])}
            row |= {"shares": [float(place.min()), float(place.max())], "off": float(off.max())}
            print(told_toy(row), flush=True)
            yield row | {"steps": steps, "core_seconds": time.process_time() - began}


def told_toy(row: dict[str, Any]) -> str:
    click, satisfaction = row["end"]
    low, high = row["shares"]
    return (
        f"| {NAMES.get(row['row'], row['row'])} | {click:.3f} | {satisfaction:.3f} | {row['share']:.2f} "
        f"| {low:.2f} to {high:.2f} | {max(row['off'], 0.0):.0e} |"
    )


def parts_of(conflict: float) -> Parts:
    config = load(shipped("quickstart"), [*CHANGES, f"data.conflict={conflict}"])
    return assemble(config, cache_folder())


def batches_of(parts: Parts) -> Tree:
    """All batches of the run, stacked: leaves [N, ...]."""
    found = [one.batch for one in train.fed(parts, sizes_of(parts, 1), 1, 0, parts.steps, Link())]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


def trainer(parts: Parts, weighting: Weighting) -> Callable[[TrainState, Tree], tuple[TrainState, Tree]]:
    """(states [C, S, ...], batches [C, N, ...]) -> (states after the last step, the weights' means [C, S, K])."""
    setting = Setting(
        seed=parts.config.seed,
        steps_per_epoch=parts.steps_per_epoch,
        shared=shares_candidates(parts),
        gram_at=train.gram_at(parts),
        varying=False,
    )
    step = make_step(parts.model, parts.objectives, weighting, parts.optimizer, setting)

    def turn(held: TrainState, batch: Tree) -> tuple[TrainState, Array]:
        # The axis `data` of one device.
        alone = jax.tree.map(lambda leaf: leaf[None], batch)
        after, logs = jax.vmap(step, in_axes=(None, 0), axis_name="data")(held, alone)
        return jax.tree.map(lambda leaf: leaf[0], after), logs["weights"][0]

    def whole(held: TrainState, given: Tree) -> tuple[TrainState, Array]:
        held, weights = jax.lax.scan(turn, held, given)
        return held, jnp.mean(weights, axis=0)

    # One after the other: under vmap the step of `mgda` ended jaxlib's threads on CPU (a segmentation fault, twice in two).
    each = lambda held, given: jax.lax.map(lambda one: whole(one, given), held)
    return jax.jit(lambda held, given: jax.lax.map(lambda one: each(*one), (held, given)))


def corpus(names: list[str], conflicts: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    every = {kind: parts_of(CONFLICTS[kind]) for kind in conflicts}
    given = jax.tree.map(lambda *leaves: np.stack(leaves), *map(batches_of, every.values()))
    wishes = np.stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)], axis=1)
    chance = {kind: fronts.random_point(parts, "test") for kind, parts in every.items()}

    def measured(weighting: Weighting) -> tuple[np.ndarray, np.ndarray]:
        """Points [C, S, P, 2] of the mixed orderings, and mean weights [C, S, 2]."""
        firsts = [
            [state.first(p.model, p.objectives, weighting, p.optimizer, p.spec, seed) for seed in range(seeds)]
            for p in every.values()
        ]
        stack = lambda *leaves: jnp.stack(leaves)
        firsts = jax.tree.map(stack, *[jax.tree.map(stack, *row) for row in firsts])
        ends, weights = trainer(next(iter(every.values())), weighting)(firsts, given)
        points = np.zeros((len(every), seeds, len(wishes), 2))
        for c, parts in enumerate(every.values()):
            for seed in range(seeds):
                params, memory = jax.tree.map(itemgetter((c, seed)), (ends.params, ends.memory))
                points[c, seed] = fronts.orderings(parts, params, memory, "test", wishes)
        return points, np.asarray(weights)

    # Each objective alone, ordered by its own head.
    own = [measured(weightings.static(one)) for one in ((1.0, 0.0), (0.0, 1.0))]
    best = np.stack([own[0][0][:, :, -1, 0].mean(axis=1), own[1][0][:, :, 0, 1].mean(axis=1)], axis=1)
    for name in names:
        began = time.process_time()
        points, weights = measured(made(name))
        for c, kind in enumerate(every):
            units = fronts.units(points[c], chance[kind], best[c])
            volume = [fronts.reached(one, chance[kind], best[c]) for one in points[c]]
            row = {"table": "corpus", "row": f"{name}, {kind}", "member": name, "conflict": kind, "seeds": seeds}
            row |= {"middle": units[:, 5].mean(axis=0).tolist(), "curve": units.mean(axis=0).tolist()}
            error = np.std(volume, ddof=1) / np.sqrt(seeds) if seeds > 1 else 0.0
            row |= {"volume": float(np.mean(volume)), "error": float(error)}
            row |= {"weights": weights[c].mean(axis=0).tolist(), "steps": next(iter(every.values())).steps}
            row |= {"random": chance[kind].tolist(), "best_single": best[c].tolist()}
            print(f"{name:18} {kind:7}", told_corpus(row), f"weights {np.round(row['weights'], 2)}", flush=True)
            yield row | {"core_seconds": (time.process_time() - began) / len(every)}


def told_corpus(row: dict[str, Any]) -> str:
    click, satisfaction = row["middle"]
    return f"{click:.2f}, {satisfaction:.2f}; {row['volume']:.3f} ± {row['error']:.3f}"


def read() -> dict[tuple[str, str], dict[str, Any]]:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {(row["table"], row["row"]): row for row in rows}


def render() -> None:
    rows = read()
    front = rows.get(("toy front", "front"))
    if front:
        print(
            "| weighting | click loss | satisfaction loss | its fixed share of click | over 8 starts | off the front |"
        )
        print("|---|---|---|---|---|---|")
        found = sorted((row for row in rows.values() if row["table"] == "toy"), key=lambda row: row["share"])
        print("\n".join(map(told_toy, found)))
    found = [row for row in rows.values() if row["table"] == "corpus"]
    kinds = [kind for kind in CONFLICTS if any(row["conflict"] == kind for row in found)]
    if kinds:
        print("\n| weighting |", " | ".join(f"conflict {kind} ({CONFLICTS[kind]:g})" for kind in kinds), "|")
        print("|---" * (1 + len(kinds)) + "|")
        by = {name: {row["conflict"]: row for row in found if row["member"] == name} for name in weightings.__all__}
        whole = {name: own for name, own in by.items() if len(own) == len(kinds)}
        for name, own in sorted(whole.items(), key=lambda one: -sum(row["volume"] for row in one[1].values())):
            print(f"| {NAMES.get(name, name)} |", " | ".join(told_corpus(own[kind]) for kind in kinds), "|")


def picture(path: Path) -> None:
    """The toy's front as a line, the members' ends as numbered dots."""
    rows = read()
    front = np.array(rows["toy front", "front"]["points"])
    members = sorted((row for row in rows.values() if row["table"] == "toy"), key=lambda row: row["share"])
    low, high = front.min(axis=0), np.array([front[:, 0].max(), np.quantile(front[:, 1], 0.9)])

    def at(point: Any) -> tuple[float, float]:
        x, y = (np.asarray(point) - low) / (high - low)
        return 60 + 420 * float(np.clip(x, -0.05, 1.05)), 430 - 400 * float(np.clip(y, -0.05, 1.05))

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, front))
    said = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d55e00" fill-opacity="0.6"/>'
        f'<text x="520" y="{24 + 13 * n}" fill="#444" font-size="11">{row["share"]:.2f} {NAMES.get(name, name)}</text>'
        for n, row in enumerate(members)
        for (x, y), name in [(at(row["end"]), row["row"])]
    )
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 470" font-family="sans-serif" role="img">'
        "<title>Where every weighting ends on a front of clicks and satisfaction</title>"
        '<rect width="760" height="470" fill="white"/><path d="M60 30V430H480" fill="none" stroke="#888"/>'
        f'<polyline points="{line}" fill="none" stroke="#0072b2" stroke-width="2"/>{said}'
        '<text x="200" y="455" font-size="13" fill="#444">click loss</text>'
        '<text x="30" y="280" font-size="13" fill="#444" transform="rotate(-90 30 280)">satisfaction loss</text></svg>',
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["toy", "corpus"])
    parser.add_argument("--only", nargs="*", help="weightings, all by default")
    parser.add_argument("--conflicts", nargs="*", default=list(CONFLICTS), choices=list(CONFLICTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000, help="of the toy")
    parser.add_argument("--keep", action="store_true", help=f"append to benchmarks/results/{RESULTS.name}")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    chosen = asked.only or list(weightings.__all__)
    if asked.render:
        render()
    elif asked.picture:
        picture(asked.picture)
    elif asked.what:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "jax": jax.__version__}
        found = toy(chosen, asked.steps) if asked.what == "toy" else corpus(chosen, asked.conflicts, asked.seeds)
        for row in found:
            if asked.keep:
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row | machine) + "\n")
    else:
        parser.error("say toy, corpus, --render or --picture FILE")
