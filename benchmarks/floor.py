"""A floor under recall@5: kept on lists that nobody chose by, or not, and what it cost.

    nice python benchmarks/floor.py                # ten seeds of corpus and model as one program: a minute
    python benchmarks/floor.py --render

Rows are written to results/floor.jsonl, one a seed and way; `--render` prints the table from that file alone.

Synthetic corpus, ids alone, conflict 0.75, lists of 12 cut by time into 60, 20 and 20 %. One score an item, from user and item
vectors, serves clicks (softmax loss) and, after a click, satisfaction (pairwise logistic), which pull apart. The floor is nine
tenths of the validation recall@5 that the same model reaches for clicks alone. Validation is measured each 30 of 300 steps,
and a step is chosen as `evaluate.select: satisfaction/kendall` and `evaluate.floors` choose it; what is chosen is measured on
test. The ways to keep the floor:

- loss bound alone: `constrained`, the click loss at most 1.05 times that of clicks alone; the last step.
- loss bound: the same with the slack of five (0.01 to 0.2) and the step that are best on validation above the floor, or above
  the floor and two or three standard errors of the validation mean.
- fixed weights: likewise with five weights of satisfaction, 0.1 to 0.9.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobjrec import choice, losses, metrics
from mobjrec.config import Evaluate
from mobjrec.data.readers.synthetic import synthetic
from mobjrec.types import Array, Signals, Weighting
from mobjrec.weightings import constrained

RESULTS = Path(__file__).parent / "results" / "floor.jsonl"
SEEDS, SHARE = 10, 0.9
USERS, ITEMS, LISTS, SIZE, WIDTH, BATCH, STEPS, EACH = 300, 160, 6000, 12, 16, 64, 300, 30
RECALL, SATISFIED = "click/recall@5", "satisfaction/kendall"
SLACKS, WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.2), (0.1, 0.3, 0.5, 0.7, 0.9)
WAYS = (
    "clicks alone",
    "satisfaction alone",
    "loss bound alone",
    "loss bound, floor",
    "loss bound, floor + 2 errors",
    "loss bound, floor + 3 errors",
    "fixed weights, floor + 3 errors",
)


class Given(NamedTuple):
    """What a run is given beside its seed. limit: [2] what losses are divided by   weights: [2], or 0 where they are learnt"""

    limit: Any
    weights: Any


def corpus(seed: int) -> dict[str, np.ndarray]:
    """The lists in time's order: user [Q], item, click, satisfaction [Q, SIZE], NaN where that is not known."""
    made = synthetic(users=USERS, items=ITEMS, lists_per_user=LISTS // USERS, list_size=SIZE, conflict=0.75, seed=seed)
    events = made.events
    order = np.lexsort((events.position, events.list, events.time))
    cut = {name: np.asarray(column)[order].reshape(LISTS, SIZE) for name, column in events.feedback.items()}
    user, item = (np.asarray(column)[order].reshape(LISTS, SIZE) for column in (events.user, events.item))
    assert (user == user[:, :1]).all()
    return {"user": user[:, 0], "item": item, **cut}


def learnt(given: Given) -> Weighting:
    """`constrained` on the click loss in units of its limit, or the weights that are given."""
    of = constrained((1.0, float("inf")), learning_rate=0.1)

    def update(signals: Signals, state: Any) -> tuple[Array, Any]:
        found, state = of.update(signals._replace(losses=signals.losses / given.limit), state)
        weights = jnp.where(jnp.any(given.weights > 0), given.weights, found / given.limit)
        return weights / jnp.sum(jnp.abs(weights)), state

    return of._replace(update=update)


def trained(lists: dict[str, Array], given: Given, key: Array) -> dict[str, Array]:
    """Values [STEPS / EACH] of a run after every EACH steps: both metrics and recall's error by split, and the click loss."""
    weighting, optimizer = learnt(given), optax.adam(0.01)
    train = LISTS * 6 // 10
    keys = jax.random.split(key, 3)
    params = {
        "user": 0.1 * jax.random.normal(keys[0], (USERS, WIDTH)),
        "item": 0.1 * jax.random.normal(keys[1], (ITEMS, WIDTH)),
        "bias": jnp.zeros(ITEMS),
    }

    def both(params: Any, some: dict[str, Array]) -> Array:
        scores, known, present = scored(params, some), ~jnp.isnan(some["satisfaction"]), jnp.ones((), bool)
        click = losses.softmax(scores, some["click"], where=jnp.broadcast_to(present, scores.shape))
        served = losses.pairwise_logistic(scores, jnp.where(known, some["satisfaction"], 0.0), where=known)
        return jnp.stack([click.mean(), jnp.sum(served) / jnp.maximum(jnp.sum(known.sum(1) > 1), 1)])

    def step(carry: Any, number: Array) -> tuple[Any, Array]:
        params, moments, state = carry
        rows = jax.random.randint(jax.random.fold_in(keys[2], number), (BATCH,), 0, train)
        some = {name: column[rows] for name, column in lists.items()}
        values, pull = jax.vjp(lambda params: both(params, some), params)
        signals = Signals(values, jnp.ones(2, bool), None, None, number, number, keys[2])
        weights, state = weighting.update(signals, state)
        updates, moments = optimizer.update(pull(weights)[0], moments)
        return (optax.apply_updates(params, updates), moments, state), values[0]

    def turn(carry: Any, numbers: Array) -> tuple[Any, dict[str, Array]]:
        carry, values = jax.lax.scan(step, carry, numbers)
        cuts = {"valid": slice(train, LISTS * 8 // 10), "test": slice(LISTS * 8 // 10, LISTS)}
        found = {"loss": values.mean()}
        for split, cut in cuts.items():
            found |= {f"{split}/{name}": value for name, value in measured(carry[0], lists, cut).items()}
        return carry, found

    start = (params, optimizer.init(params), weighting.init(2))
    return jax.lax.scan(turn, start, jnp.arange(STEPS).reshape(-1, EACH))[1]


def scored(params: Any, some: dict[str, Array]) -> Array:
    """[B, SIZE]"""
    items = params["item"][some["item"]]
    return jnp.einsum("bd,bld->bl", params["user"][some["user"]], items) + params["bias"][some["item"]]


def measured(params: Any, lists: dict[str, Array], cut: slice) -> dict[str, Array]:
    """Recall@5 of clicks with its standard error, and Kendall's tau of satisfaction, over the lists where they are defined."""
    some = {name: column[cut] for name, column in lists.items()}
    scores, known = scored(params, some), ~jnp.isnan(some["satisfaction"])
    recall = metrics.recall(scores, some["click"], where=jnp.ones(scores.shape, bool), k=5)
    served = metrics.kendall(scores, jnp.where(known, some["satisfaction"], 0.0), where=known)
    count = jnp.sum(~jnp.isnan(recall))
    return {RECALL: jnp.nanmean(recall), SATISFIED: jnp.nanmean(served), "error": jnp.nanstd(recall) / jnp.sqrt(count)}


def best(runs: list[dict[str, np.ndarray]], settings: tuple[float, ...], floor: float) -> dict[str, Any]:
    """The step that `evaluate.floors` keeps of all these runs' evaluations."""
    rules = Evaluate(select=SATISFIED, floors={RECALL: floor})
    standing, kept = choice.Standing(), {}
    for setting, one in zip(settings, runs, strict=True):
        for place in range(len(one["loss"])):
            standing = choice.after(
                standing, {key: float(one[f"valid/{key}"][place]) for key in (RECALL, SATISFIED)}, rules
            )
            kept = row(one, place, setting) if standing.since == 0 else kept
    return kept | {"met": standing.shortfall == 0}


def row(one: dict[str, np.ndarray], place: int, setting: float | None) -> dict[str, Any]:
    found = {name: float(values[place]) for name, values in one.items()}
    return {"setting": setting, "step": EACH * (place + 1) if place >= 0 else STEPS, **found}


def rows() -> Iterator[dict[str, Any]]:
    """A row a seed and way. The runs for clicks alone come first: they set the floors and the bounds."""
    own = [corpus(seed) for seed in range(SEEDS)]
    lists = {name: jnp.asarray(np.stack([one[name] for one in own])) for name in own[0]}
    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    fixed = [(1.0, 0.0), (0.0, 1.0), *((1 - weight, weight) for weight in WEIGHTS)]
    # Settings inside, seeds outside: the same program for all.
    program = jax.jit(jax.vmap(jax.vmap(trained, (None, 0, None)), (0, 0, 0)))
    count = len(fixed)
    weights = jnp.broadcast_to(jnp.array(fixed, jnp.float32), (SEEDS, count, 2))
    found = unstacked(program(lists, Given(jnp.ones((SEEDS, count, 2)), weights), keys))
    bounds = np.array([[(1 + slack) * of[0]["loss"][-1] for slack in SLACKS] for of in found], np.float32)
    limit = np.ones((SEEDS, count, 2), np.float32)
    limit[:, : len(SLACKS), 0] = bounds
    bound = unstacked(program(lists, Given(jnp.asarray(limit), jnp.zeros((SEEDS, count, 2))), keys))
    for seed, (of, held) in enumerate(zip(found, bound, strict=True)):
        floor = SHARE * float(of[0][f"valid/{RECALL}"][-1])
        error = float(of[0]["valid/error"][-1])
        held = held[: len(SLACKS)]
        ways = [
            row(of[0], -1, None),
            row(of[1], -1, None),
            row(held[2], -1, SLACKS[2]),
            *(best(held, SLACKS, floor + margin * error) for margin in (0, 2, 3)),
            best(of[2:], WEIGHTS, floor + 3 * error),
        ]
        for way, one in zip(WAYS, ways, strict=True):
            bounded = {"bound": float(bounds[seed, SLACKS.index(one["setting"])])} if way.startswith("loss") else {}
            yield {"way": way, "seed": seed, "floor": floor, **one, **bounded}


def unstacked(found: dict[str, Array]) -> list[list[dict[str, np.ndarray]]]:
    """By seed and setting."""
    values = jax.tree.map(np.asarray, found)
    seeds, settings = values["loss"].shape[:2]
    return [[{name: v[s, n] for name, v in values.items()} for n in range(settings)] for s in range(seeds)]


def render() -> None:
    """The table, a row a way."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    print("| way | floor kept on test | recall@5 less the floor | satisfaction (Kendall) | click loss over its bound |")
    print("|---|---:|---:|---:|---:|")
    for way in WAYS:
        own = [one for one in found if one["way"] == way]
        above = [one[f"test/{RECALL}"] - one["floor"] for one in own]
        over = [one["loss"] / one["bound"] - 1 for one in own if "bound" in one]
        cells = [f"{sum(value >= 0 for value in above)} of {len(own)}", spread(above)]
        print(f"| {way} | {' | '.join([*cells, spread([one[f'test/{SATISFIED}'] for one in own]), spread(over)])} |")


def spread(values: list[float]) -> str:
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1):.3f}" if values else "–"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true")
    if not parser.parse_args().render:
        RESULTS.write_text("".join(f"{json.dumps(one)}\n" for one in rows()))
    render()
