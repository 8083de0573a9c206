"""The rows of benchmarks/speed.py without an encoder, and those of ours alone: memory, starts, many events."""

import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from text_rows import ours
from turns import HERE, Run, Task, asked, compared, ended, in_turns, rate, ratio, started

sys.path.insert(0, str(HERE.parent))

WIDTH = 64
# RecBole's names of what is compared, and ours.
METRICS = {
    "recall@10": "recall@10",
    "mrr@10": "mrr@10",
    "ndcg@10": "ndcg@10",
    "hit@10": "hit@10",
    "precision@10": "precision@10",
}


def by_ids(data: list[str], lists: int) -> list[str]:
    """Matrix factorisation by the BPR loss on one drawn negative for each event. data: what names the corpus"""
    return [
        *data,
        f"model={{use: ranker, user: {{ids: [user]}}, item: {{ids: [item]}}, width: {WIDTH}, scorer: {{use: dot}}, "
        "id_dropout: 0.0}",
        "tokenizer=null",
        "objectives={seen: {use: single, loss: bpr, label: seen}}",
        "weighting={use: static, weights: {seen: 1}}",
        "optimizer={use: adam, learning_rate: 1e-3}",
        "candidates={use: uniform, negatives: 1}",
        f"batch={{lists: {lists}}}",
        "evaluate={candidates: {use: catalogue}, metrics: [ndcg@10], select: seen/ndcg@10}",
    ]


def of_ml_100k() -> list[str]:
    labels = "labels={seen: {use: at_least, of: rating, value: 1, known: everywhere}}"
    return [labels, "lists={split: {use: random}, history: {of: seen}, window: 1, eval_window: 0}"]


def of_ml_1m(run: Run, folder: Path) -> list[str]:
    """IR-Benchmark's file as a table of events; its order stands for the time."""
    with zipfile.ZipFile(folder / "proc.zip") as archive:
        lines = archive.read("train.tsv").decode().splitlines()[1:]
    place = run.folder / "ml_1m"
    place.mkdir(exist_ok=True)
    rows = [f"{line}\t{number}\t1" for number, line in enumerate(lines[:5000] if run.tiny else lines)]
    (place / "events.tsv").write_text("user\titem\ttime\tseen\n" + "\n".join(rows) + "\n", encoding="utf-8")
    columns = "{user: user, item: item, time: time, feedback: [seen]}"
    return [
        f"data={{use: table, path: {place}, events: events.tsv, columns: {columns}}}",
        "labels={seen: {use: at_least, of: seen, value: 1, known: everywhere}}",
        "lists={split: {use: random}, history: {of: seen}, window: 1, eval_window: 0}",
    ]


def factors(run: Run) -> list[dict]:
    """An epoch of BPR: draws, batches and steps."""
    corpora, rows = {"ML-100K": of_ml_100k()}, []
    if run.ml_1m:
        corpora["ML-1M (IR-Benchmark)"] = of_ml_1m(run, run.ml_1m)
    batch = 2048
    for number, (name, data) in enumerate(corpora.items()):
        told = str(run.folder / f"factors_{number}.npz")
        mine = ours(
            run, "ml-100k", by_ids(data, batch), work="epochs", interactions=told, **({"length": 3} if run.tiny else {})
        )
        tasks = {"mobjrec": mine, "RecBole": recbole(run, told, number, "epochs", batch)}
        tasks["implicit"] = Task(
            "factors.py", {"whose": "implicit", "data": told, "width": WIDTH, "work": "epochs"}, "ids"
        )
        goals = {"RecBole": "≥ 3", "implicit": "no goal (its loop is not by batches)"}
        what = f"an epoch of matrix factorisation by BPR, {name}, events a second: ours ÷ {{other}}"
        rows += compared(what, "", tasks, run, pairs=goals, checked=["RecBole"])
    return rows


def recbole(run: Run, told: str, number: int, work: str, batch: int) -> Task:
    folder = run.folder / f"recbole_{work}_{number}"
    folder.mkdir(exist_ok=True)
    given = {"whose": "recbole", "data": told, "folder": str(folder), "batch": batch, "eval_batch": 4_000_000}
    return Task("factors.py", given | {"width": WIDTH, "work": work, "warm": not run.tiny}, "ids")


def evaluation(run: Run) -> list[dict]:
    """All items ranked for every test user, the same metrics of the same vectors; then a catalogue of 100,000."""
    told = str(run.folder / "evaluation.npz")
    mine = ours(run, "ml-100k", by_ids(of_ml_100k(), 64), work="evaluations", interactions=told, metrics=list(METRICS))
    tasks = {"mobjrec": mine, "RecBole": recbole(run, told, 0, "evaluations", 2048)}

    def apart(said: dict[str, dict]) -> float:
        mine, theirs = (said[who]["metrics"] for who in tasks)
        found = max(abs(mine[name] - theirs[other]) for name, other in METRICS.items())
        # RecBole rounds its metrics to four places.
        assert found < 1e-3, (mine, theirs)
        return found

    said, found = in_turns(tasks, run, apart)
    row = {"what": "evaluation of ML-100K over the whole catalogue, users a second: ours ÷ RecBole", "goal": "≥ 1.5"}
    row |= {"ratio": ratio(found["mobjrec"], found["RecBole"]), "apart": apart(said), "raw": found}
    row |= {"ours": rate(found["mobjrec"]), "theirs": rate(found["RecBole"])}
    size = {"users": 256, "items": 2000} if run.tiny else {"users": 2048, "items": 100_000}
    wide = {who: Task("catalogue.py", {"whose": who, **size}) for who in ("mobjrec", "numpy")}
    many = compared(
        f"the first 20 of {size['items']:,} items in blocks, {size['users']:,} users a round, users a second: ours ÷ {{other}}",
        "≥ 1.5", wide, run,
    )  # fmt: skip
    return [row, *many]


def memory(run: Run) -> list[dict]:
    """benchmarks/memory.py's figures beside their goals: rows in chunks against all at once."""
    import memory as measured

    lists, both = (64, 16) if run.tiny else (1024, 64)
    cache, size = run.cache, {}
    for way in ("plain", "chunks"):
        size[way] = measured.alone("one", "--lists", str(lists), "--ways", way, "--cache", str(cache))
    share = size["chunks"]["temporaries"] / size["plain"]["temporaries"]
    seconds = measured.times(both, ["plain", "chunks"], run.rounds, cache)
    each = seconds["chunks"] / seconds["plain"]
    what = f"temporary memory of the compiled step at {lists:,} lists, chunked ÷ plain"
    rows = [{"what": what, "goal": "≤ 0.15", "ours": f"{share:.3f}", "raw": size}]
    row = {"what": f"its time at {both} lists, chunked ÷ plain", "goal": "≤ 1.15", "ours": f"{np.median(each):.2f}"}
    rows.append(row | {"raw": {way: one.tolist() for way, one in seconds.items()}})
    return rows


def start(run: Run) -> list[dict]:
    """From the command to the first recorded step, the evaluation before it and all imports included."""
    rows = []
    for name, changes in (("quickstart", []), ("ranklens", [])):
        times: dict[str, list[float]] = {"cold": [], "warm": []}
        for number in range(1 if run.tiny else run.rounds):
            cache = run.folder / f"start_{name}_{number}"
            for folder in ("weights", name):
                if (run.cache / folder).exists():
                    cache.mkdir(exist_ok=True)
                    (cache / folder).symlink_to(run.cache / folder)
            for kind in times:
                times[kind].append(first_step(name, changes, cache, run.folder / f"run_{name}_{number}_{kind}"))
        cold, warm = (float(np.median(times[kind])) for kind in times)
        row = {"what": f"start of `mobjrec train {name}` to its first step, warm (cold)", "goal": "≤ 8 s"}
        rows.append(row | {"ours": f"{warm:.1f} s ({cold:.1f} s)", "raw": times})
    return rows


def first_step(name: str, changes: list[str], cache: Path, folder: Path) -> float:
    """Seconds until the run's record has a training step; the process is ended then."""
    import os
    import subprocess

    began = time.perf_counter()
    command = [sys.executable, "-m", "mobjrec", "train", name, "--run", str(folder), *changes]
    environment = {**os.environ, "MOBJREC_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    record = folder / "metrics.jsonl"
    while process.poll() is None:
        if record.exists() and '"kind": "train"' in record.read_text(encoding="utf-8"):
            break
        time.sleep(0.05)
    spent = time.perf_counter() - began
    if process.poll() not in (None, 0):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    process.kill()
    process.wait()
    return spent


def many_events(run: Run) -> list[dict]:
    """Ten times as many events, generated, kept and trained on: seconds an event and the peak of memory."""
    found: dict[int, dict[str, Any]] = {}
    for events in (10_000, 20_000) if run.tiny else (1_000_000, 10_000_000):
        changes = [
            f"data={{use: synthetic, users: {events // 96}, items: 5040, lists_per_user: 8, list_size: 12}}",
            "model={use: ranker, user: {ids: [user]}, item: {ids: [item]}, scorer: {use: dot}}",
            "tokenizer=null",
            "objectives={click: {use: single, loss: softmax, label: click, needs_relevant: true}}",
            "weighting={use: static, weights: {click: 1}}",
            "batch={lists: 256}",
            "evaluate={metrics: [auc], select: click/auc}",
        ]
        steps = 5 if run.tiny else 200
        process, said = started(ours(run, "quickstart", changes, work="many", steps=steps, plan=steps), run)
        answers = [asked(process) for _ in range(run.rounds)]
        ended(process)
        each = [one["wall"] / one["count"] for one in answers]
        found[events] = {
            "prepared": said["prepared"],
            "each": float(np.median(each)),
            "peak_gib": answers[-1]["peak_gib"],
            "range": [min(each), max(each)],
        }
    few, many = found.values()
    row = {"what": "ten times the events (1 M → 10 M): time of a trained event; peak memory", "goal": "flat; flat"}
    told = f"x {many['each'] / few['each']:.2f}; {few['peak_gib']:.1f} → {many['peak_gib']:.1f} GiB"
    return [row | {"ours": told, "raw": {str(events): one for events, one in found.items()}}]


NUMBER_ROWS = {
    "factors": factors,
    "evaluation": evaluation,
    "memory": memory,
    "start": start,
    "many-events": many_events,
}
