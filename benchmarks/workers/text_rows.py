"""The rows of benchmarks/speed.py on texts: which work, whose, beside which goal."""

from typing import Any

import numpy as np
from small import slice_of
from turns import Run, Task, asked, compared, ended, equal, in_turns, rate, ratio, started

LIMIT = 12.0  # GiB that a batch may take
FACTORS = "adamw, learning_rate: 2e-5, weight_decay: 0.0, clip: null"


def weights(run: Run) -> str:
    """MiniLM's folder; of a tiny run a slice of it."""
    whole = run.cache / "weights" / "minilm"
    return str(slice_of(whole, run.folder / "slice") if run.tiny else whole)


def ranklens(
    run: Run, *, item: str = "{title}. {description}", train: str = "all", model: str = "", **more: Any
) -> list[str]:
    """The changes to the shipped config that make it the ranker of texts alone that the peers are."""
    model = model or "width: 64, scorer: {use: mlp, layers: [64]}"
    encoder = f"{{use: bert, weights: {weights(run)}, train: {train}, normalise: true, dropout: 0.0}}"
    return [
        f'model={{use: ranker, encoder: {encoder}, user: {{text: "{{history.title}}. "}}, item: {{text: "{item}"}}, {model}}}',
        f"tokenizer={{use: pretrained, weights: {weights(run)}}}",
        "labels={}",
        "objectives={like: {use: single, loss: softmax, label: like, needs_relevant: true}}",
        "weighting={use: static, weights: {like: 1}}",
        f"optimizer={{use: {FACTORS}}}",
        "evaluate.metrics=[auc]",
        *(f"{key}={value}" for key, value in more.items()),
    ]


def ours(run: Run, config: str, changes: list[str], **more: Any) -> Task:
    given = {"work": "steps", "config": config, "changes": changes, "cache": str(run.cache), "warm": not run.tiny}
    return Task("ours.py", given | ({"plan": 2} if run.tiny else {}) | more)


def towers(run: Run, data: str, **more: Any) -> Task:
    given = {
        "data": data,
        "weights": weights(run),
        "rate": 2e-5,
        "each": "lists",
        "loss": "softmax",
        "head": "like",
        "piece": 0,
    }
    return Task("towers.py", given | {"warm": not run.tiny} | more, "text")


def fine_tuning(run: Run) -> list[dict]:
    """Ours by plain torch on the same lists; and what the step makes of the machine, in the same rounds."""
    lists, data = 2 if run.tiny else 8, str(run.folder / "fine_tuning.npz")
    mine = ours(run, "ranklens", ranklens(run, **{"batch.lists": lists}), export=data, gemm=True)
    what = f"fine-tuning MiniLM on RankLens, {lists} lists a batch, interactions a second: ours ÷ plain torch"
    rows = compared(what, "≥ 2", {"mobjrec": mine, "torch": towers(run, data)}, run)
    answers = rows[0]["raw"]["mobjrec"]
    shares = [one["flops"] / one["wall"] / one["gemm"] for one in answers]
    padding = 1 - sum(one["tokens"] for one in answers) / sum(one["cells"] for one in answers)
    share = {
        "what": "share of the GEMM bound in that step: FLOPs of its real tokens ÷ (measured GEMM rate x time)",
        "goal": "≥ 70 %",
    }
    rows.append(share | {"ours": f"{np.median(shares):.0%}", "range": [min(shares), max(shares)], "padding": padding})
    return rows


def best_batch(run: Run) -> list[dict]:
    """Each at the batch that suits it: torch's is looked for, ours is many lists, encoded in chunks."""
    data, tried = str(run.folder / "best_batch.npz"), {}
    mine = ours(
        run,
        "ranklens",
        ranklens(run, **{"batch.lists": 4 if run.tiny else 1024, "batch.chunk_rows": 16}),
        export=data,
        warm=False,
        first=False,
    )
    for lists in (1, 2) if run.tiny else (2, 4, 8, 16):
        told = str(run.folder / f"best_batch_{lists}.npz")
        one = ours(run, "ranklens", ranklens(run, **{"batch.lists": lists}), export=told, work="export")
        ended(started(one, run)[0])
        process, _ = started(towers(run, told), run)
        found = asked(process)
        ended(process)
        tried[lists] = {"rate": found["count"] / found["wall"], "peak_gib": found["peak_gib"]}
    fit = {lists: found["rate"] for lists, found in tried.items() if found["peak_gib"] <= LIMIT}
    lists = max(fit, key=fit.get)
    tasks = {"mobjrec": mine, "torch": towers(run, str(run.folder / f"best_batch_{lists}.npz"))}
    what = f"the same, each at its own best batch within 12 GB (ours 1,024 lists, torch {lists})"
    # Other batches, so other first losses; they were compared in the row above.
    rows = compared(what, "≥ 5", tasks, run, checked=[])
    peaks = {who: max(one["peak_gib"] for one in found) for who, found in rows[0]["raw"].items()}
    return [{**rows[0], "tried": tried, "peak_gib": peaks}]


def pairs(run: Run) -> list[dict]:
    """The pairs and the loss of sentence-transformers' trainer."""
    rows, count = [], 8 if run.tiny else 64
    width = 32 if run.tiny else 384
    for name, item, goal in (("titles", "{title}", "≥ 1.5"), ("descriptions", "{title}. {description}", "≥ 2.5")):
        data = str(run.folder / f"pairs_{name}.npz")
        model = f"width: {width}, scorer: {{use: cosine, temperature: 0.05}}"
        more = {"batch.lists": count, "candidates": "{use: in_batch}"}
        mine = ours(
            run,
            "ranklens",
            ranklens(run, item=item, model=model, **more),
            export=data,
            pairs=True,
            steps=1 if run.tiny else 2,
        )
        spec = {"data": data, "weights": weights(run), "rate": 2e-5, "batch": count, "seed": 0, "warm": not run.tiny}
        peer = Task("pairs.py", spec | {"folder": str(run.folder / "st"), "steps": 1 if run.tiny else 2}, "text")
        what = f"the same pairs and in-batch loss as sentence-transformers' trainer, {name}, pairs of {count} a second"
        rows += compared(what, goal, {"mobjrec": mine, "sentence-transformers": peer}, run)
    return rows


def to_auc(run: Run) -> list[dict]:
    """Seconds of training until the AUC that sentence-transformers has reached in its budget; seeds in place of rounds."""
    budget, piece, found = (2, 1, []) if run.tiny else (300, 60, [])
    lists, limit = (4, 16) if run.tiny else (64, 300)
    for seed in range(min(run.rounds, 3)):
        data, evaluation = str(run.folder / f"auc_{seed}.npz"), str(run.folder / f"auc_{seed}_lists.json")
        changes = ranklens(run, item="{title}. {genres}", **{"batch.lists": lists, "seed": seed})
        changes[5] = (
            "optimizer={use: adamw, learning_rate: 1e-3, weight_decay: 0.0, groups: {encoder/*: {factor: 0.05}}}"
        )
        mine, _ = started(ours(run, "ranklens", changes, work="to_auc", export=data, auc=evaluation, limit=limit), run)
        spec = {
            "data": data,
            "auc": evaluation,
            "weights": weights(run),
            "rate": 5e-5,
            "batch": 8 if run.tiny else 64,
            "seed": seed,
        }
        peer = Task("pairs.py", spec | {"folder": str(run.folder / "st"), "seconds": piece, "warm": False}, "text")
        theirs, first = started(peer, run)
        curve = [asked(theirs) for _ in range(budget // piece)]
        ended(theirs)
        goal = max(curve, key=lambda one: one["auc"])
        own = [asked(mine)]
        while own[-1]["auc"] < goal["auc"] and own[-1]["trained"] < budget:
            own.append(asked(mine))
        ended(mine)
        found.append(
            {
                "seed": seed,
                "before": first["auc"],
                "theirs": curve,
                "ours": own,
                "ratio": goal["trained"] / own[-1]["trained"],
                "reached": own[-1]["auc"] >= goal["auc"],
            }
        )
    ratios = [one["ratio"] for one in found]
    row = {
        "what": "time to the AUC within a list that sentence-transformers reaches in 5 minutes, the same lists (titles, genres)"
    }
    # A ratio of one that was not reached is only a bound.
    row["ours"] = f"reached in {sum(one['reached'] for one in found)} of {len(found)}"
    middle = [float(np.median(ratios)), min(ratios), max(ratios)]
    return [row | {"goal": "≥ 5", "ratio": {"wall": middle}, "rounds": len(found), "raw": found}]


def histories(run: Run) -> list[dict]:
    """Users told by the titles they liked: a list's events share one text; a table of events has one for each."""
    lists, data = 2 if run.tiny else 64, str(run.folder / "histories.npz")
    encoder = f"{{use: bert, weights: {weights(run)}, train: all, normalise: true, dropout: 0.0}}"
    changes = [
        f'model={{use: ranker, encoder: {encoder}, user: {{text: "{{history.title}}. "}}, item: {{text: "{{title}}"}}, '
        "width: 64, scorer: {use: mlp, layers: [64]}}",
        f"tokenizer={{use: pretrained, weights: {weights(run)}}}",
        "labels={liked: {use: at_least, of: rating, value: 4}}",
        "objectives={liked: {use: single, loss: sigmoid_cross_entropy, label: liked}}",
        "weighting={use: static, weights: {liked: 1}}",
        f"optimizer={{use: {FACTORS}}}",
        "lists={split: {use: last_share, valid: 0.1, test: 0.2}, history: {of: liked, last: 30}, window: 16}",
        "candidates={use: as_logged}",
        f"batch={{lists: {lists}, item_row: 128, user_row: 128}}",
        "evaluate={metrics: [auc], select: liked/auc}",
    ]
    events = 8 if run.tiny else 128
    tasks = {
        "mobjrec": ours(run, "ml-100k", changes, export=data),
        "torch, an event a row": towers(run, data, each="events", piece=events, loss="sigmoid", head="liked"),
        "torch, shared lists": towers(
            run, data, each="lists", loss="sigmoid", head="liked", piece=1 if run.tiny else 16
        ),
    }
    goals = {"torch, an event a row": "≥ 10", "torch, shared lists": "no goal"}
    return compared(
        "ML-100K, users told by 30 liked titles, events a second: ours ÷ {other}", "", tasks, run, pairs=goals
    )


def cached(run: Run) -> list[dict]:
    """Ours alone: what is gained by not training all."""
    lists = 2 if run.tiny else 16
    # The frozen one's steps are too short to be timed one by one.
    kinds = {"none": ("none", 1 if run.tiny else 50), "last two layers": ("{last: 2}", 2), "all": ("all", 1)}
    if run.tiny:
        kinds["last two layers"] = ("{last: 1}", 1)
    tasks = {
        name: ours(run, "ranklens", ranklens(run, train=how, **{"batch.lists": lists}), steps=steps)
        for name, (how, steps) in kinds.items()
    }
    said, found = in_turns(tasks, run, lambda said: equal(said, list(kinds)))
    rows = []
    for name, what, goal in (
        ("last two layers", "last two layers trained over cached lower ones ÷ training all", "≥ 2.5"),
        ("none", "frozen encoder, stored vectors ÷ training all", "≥ 30"),
    ):
        row = {"what": what, "goal": goal, "ratio": ratio(found[name], found["all"])}
        row |= {"ours": rate(found[name]), "theirs": rate(found["all"])}
        rows.append(row | {"loss": {who: one["loss"] for who, one in said.items()}, "raw": found})
    return rows


def padding(run: Run) -> list[dict]:
    """Cells that hold no token, over an epoch of batches, and how many shapes are compiled."""
    rows = []
    for lists in (8, 64):
        process, said = started(ours(run, "ranklens", ranklens(run, **{"batch.lists": lists}), work="padding"), run)
        ended(process)
        row = {"what": f"padding and compiled shapes, RankLens, batches of {lists} lists", "goal": "≤ 5 %; ≤ 3"}
        rows.append(row | {"ours": f"{said['padding']:.1%}; {said['shapes']}", "raw": said})
    return rows


TEXT_ROWS = {
    "fine-tuning": fine_tuning,
    "best-batch": best_batch,
    "pairs": pairs,
    "to-auc": to_auc,
    "histories": histories,
    "cached": cached,
    "padding": padding,
}
