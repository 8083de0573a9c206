"""How far each rung gets on real data: baselines, stored vectors, trained layers; same test lists, same metric code.

    python benchmarks/ladder.py ranklens --seeds 3
    python benchmarks/ladder.py ml-100k --seeds 3

Rows are appended to results/ladder.jsonl; `--render` prints the table from that file alone. Baselines are fitted on training
lists only. A trained row says how far it is ahead of the strongest baseline, list by list (mean difference, standard error).
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from mobjrec import evaluate, rank, train
from mobjrec.config import load
from mobjrec.data.batching import labels_of
from mobjrec.data.download import cache_folder
from mobjrec.frozen import with_store
from mobjrec.inference import item_texts
from mobjrec.parts import Parts, assemble
from mobjrec.shipped import config as shipped
from mobjrec.types import Lists

RESULTS = Path(__file__).parent / "results" / "ladder.jsonl"
# The text-alone rungs that train layers, and the same work on stored vectors beside them: short texts, large batches, since
# a batch encodes each of its texts once, however many lists share it.
SHORT = {
    "ranklens": [
        'model.item={text: "{title}. {genres}"}',
        "batch={lists: 256, item_row: 32}",
        "optimizer.learning_rate=2e-3",
    ],
    "ml-100k": [
        'model.item={text: "{title} ({year}) {genres}"}',
        "model.user={history: true}",
        "batch={lists: 256, item_row: 32}",
        "epochs=4",
        "optimizer.learning_rate=6e-3",
    ],
}
# The encoder at 1e-4.
LAST_TWO = {
    "ranklens": ["model.encoder.train={last: 2}", "optimizer.groups={encoder/*: {factor: 0.05}}"],
    "ml-100k": ["model.encoder.train={last: 2}", "optimizer.groups={encoder/*: {factor: 0.0167}}"],
}
# What each corpus' rows change in its shipped config, the label and metrics they are measured by.
ROWS = {
    "ranklens": {
        "stored MiniLM vectors, text alone": ['model.item={text: "{title}. {description} {genres}"}'],
        "stored vectors, ids and numbers (shipped)": [],
        "ids and numbers, no text": [
            "model.encoder=null",
            "tokenizer=null",
            "model.item={ids: [item, genres], numbers: [vote_cnt, popularity, release_year]}",
        ],
        "title and genres, text alone: stored vectors": SHORT["ranklens"],
        "title and genres, text alone: last two layers train": [*SHORT["ranklens"], *LAST_TWO["ranklens"]],
    },
    "ml-100k": {
        "stored MiniLM vectors, text alone": [
            'model.item={text: "{title} ({year}) {genres}"}',
            "model.user={history: true}",
        ],
        "stored vectors and ids (shipped)": [],
        "ids alone": ["model.encoder=null", "tokenizer=null", "model.item={ids: [item]}"],
        "text alone, batches of 256: stored vectors": SHORT["ml-100k"],
        "text alone, batches of 256: last two layers train": [*SHORT["ml-100k"], *LAST_TWO["ml-100k"]],
    },
}
MEASURED = {
    "ranklens": ("like", ("auc", "ndcg@5", "ndcg@10"), "like"),
    "ml-100k": ("liked", ("auc", "ndcg@10", "recall@10", "hit@10"), "liked"),
}

RATED = "rating"  # an objective of ML-100K, measured by its RMSE in stars


def baselines(parts: Parts, label: str) -> dict[str, Callable]:
    """{name: (rows, items [B, L]) -> scores} from training lists alone; zero-shot reads the history too."""
    lists, count = parts.dataset.train, len(parts.dataset.items.id)
    values = lists.labels[label]
    known = np.isfinite(values)
    shown = np.bincount(lists.item[known], minlength=count)
    good = np.bincount(lists.item[known], weights=values[known] > 0, minlength=count)
    rate = (good + 10 * good.sum() / shown.sum()) / (shown + 10)
    found = {
        "random": lambda rows, items: np.random.default_rng(int(rows[0])).random(items.shape),
        "popularity": lambda rows, items: good[items],
        "like rate, 10 pseudo-impressions": lambda rows, items: rate[items],
    }
    numbers = parts.dataset.items.numbers
    if "vote_cnt" in numbers:
        votes = np.nan_to_num(numbers["vote_cnt"])
        found["vote count"] = lambda rows, items: votes[items]
    if parts.tokenizer is not None:
        matrix = item_texts(parts.functions, {}, parts.feed)[parts.feed.item_text]
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

        def similarity(rows: np.ndarray, items: np.ndarray) -> np.ndarray:
            spans = parts.dataset.test.history[np.maximum(rows, 0)]
            liked = [matrix[parts.dataset.history[a:b]].sum(0) for a, b in spans.tolist()]
            return np.einsum("bd,bld->bl", np.stack(liked), matrix[items])

        found["zero-shot MiniLM similarity"] = similarity
    return found


def offsets(parts: Parts, label: str) -> float:
    """RMSE on the test lists of mean + film's offset + user's offset, each shrunk as the validation lists like it best."""

    def known(lists: Lists) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        user, value = np.repeat(lists.user, np.diff(lists.start)), lists.labels[label]
        real = np.isfinite(value)
        return user[real], lists.item[real], value[real]

    def errors(shrink: float) -> list[float]:
        user, item, value = known(parts.dataset.train)
        mean, film, person = value.mean(), np.zeros(len(parts.dataset.items.id)), np.zeros(len(parts.dataset.users.id))
        for _ in range(20):  # each in turn, the other held
            left = value - mean - person[user]
            film = np.bincount(item, left, len(film)) / (np.bincount(item, minlength=len(film)) + shrink)
            left = value - mean - film[item]
            person = np.bincount(user, left, len(person)) / (np.bincount(user, minlength=len(person)) + shrink)
        found = (known(lists) for lists in (parts.dataset.valid, parts.dataset.test))
        return [float(np.sqrt(np.mean((v - mean - film[i] - person[u]) ** 2))) for u, i, v in found]

    return min(errors(shrink) for shrink in (1.0, 2.0, 5.0, 10.0, 20.0))[1]


def measured_baseline(parts: Parts, score: Callable, names: tuple[str, ...]) -> evaluate.Evaluation:
    lists = parts.dataset.test

    def predicted():
        for rows, drawn in evaluate.drawn_blocks(parts, lists, parts.eval_candidates):
            items = np.maximum(np.broadcast_to(drawn.item, drawn.where.shape), 0)
            scores = np.asarray(score(rows, items), np.float32)
            yield evaluate.Block(
                rows, drawn, dict.fromkeys(parts.objectives, scores), *labels_of(parts.dataset, lists, drawn)
            )

    return evaluate.measure(parts, lists, predicted(), dict.fromkeys(parts.objectives, (0.0, 1.0)), names)


def ahead(mine: evaluate.Evaluation, other: evaluate.Evaluation, keys: tuple[str, ...]) -> dict[str, list[float]]:
    """{key: [mean difference over lists, its standard error]}: the same lists, so their own difficulty cancels."""
    found = {}
    for key in keys:
        difference = mine.per_list[key] - other.per_list[key]
        difference = difference[np.isfinite(difference)]
        found[key] = [float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))]
    return found


def write(row: dict) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def run(corpus: str, seeds: range, only: str) -> None:
    label, metrics, objective = MEASURED[corpus]
    keys = tuple(f"{label}/{m}" for m in metrics)
    about = {"corpus": corpus, "jax": jax.__version__, "machine": platform.machine(), "cores": os.cpu_count()}
    parts = assemble(load(shipped(corpus)), cache_folder())
    parts = with_store(parts, parts.first_state().params)
    known = {name: measured_baseline(parts, score, metrics) for name, score in baselines(parts, label).items()}
    strongest = max(known, key=lambda name: known[name].measured[keys[0]].value)
    if not only:
        for name, found in known.items():
            write({**about, "row": name, "seed": 0, **{m: found.measured[f"{label}/{m}"].value for m in metrics}})
        if RATED in parts.objectives:
            write({**about, "row": "mean and offsets of film and user", "seed": 0, "rmse": offsets(parts, RATED)})
    for name, changes in ROWS[corpus].items():
        if only and only not in name:
            continue
        for seed in seeds:
            began = time.monotonic()
            config = load(shipped(corpus), [*changes, f"seed={seed}"])
            with tempfile.TemporaryDirectory() as folder:
                train.run(config, Path(folder) / "run", cache_folder(), quiet=True)
                seconds = round(time.monotonic() - began)
                trained = rank.load(Path(folder) / "run")
                found = evaluate.run(
                    trained.parts, trained.params, trained.memory, "test", scale=trained.scale, names=metrics
                )
            values = {m: found.measured[f"{objective}/{m}"].value for m in metrics}
            if f"{RATED}/rmse" in found.measured:
                values["rmse"] = found.measured[f"{RATED}/rmse"].value
            beside = {"ahead of": strongest, "ahead": ahead(found, known[strongest], keys)}
            write({**about, "row": name, "seed": seed, **values, **beside, "seconds": seconds})


def render(corpus: str) -> None:
    metrics = (*MEASURED[corpus][1], *(("rmse",) if corpus == "ml-100k" else ()))
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["corpus"] == corpus]
    print(f"| {corpus} | seeds | " + " | ".join(metrics) + " | s a seed |")
    print("|---|---:|" + "---:|" * (len(metrics) + 1))
    for name in dict.fromkeys(row["row"] for row in rows):
        mine = list({row["seed"]: row for row in rows if row["row"] == name}.values())
        cells = []
        for metric in metrics:
            values = np.array([row[metric] for row in mine if metric in row])
            if not len(values):
                cells.append("–")
                continue
            spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.4f}{spread}")
        seconds = [row["seconds"] for row in mine if "seconds" in row]
        print(
            f"| {name} | {len(mine)} | " + " | ".join(cells) + f" | {np.mean(seconds):.0f} |"
            if seconds
            else f"| {name} | – | " + " | ".join(cells) + " | – |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=sorted(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--render", action="store_true", help="print the table of what was measured")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    render(given.corpus) if given.render else run(given.corpus, seeds, given.only)
