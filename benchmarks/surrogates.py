"""Surrogates and the metrics that they stand for: how close they are on random lists, and what optimising them reaches.

    nice python benchmarks/surrogates.py gap             # table 1: every surrogate by temperature and length of list
    nice python benchmarks/surrogates.py reach           # table 2: free scores, and linear scorers on lists they have not seen
    python benchmarks/surrogates.py --render

Rows are appended to results/surrogates.jsonl; `--render` prints the tables from that file alone, the last row of a name.

Table 1: a tenth of the items (3 of 10) relevant with grades 1 to 3, scores N(0, 1) + 0.8 grade.
Table 2: lists of 100, 10 relevant with grades 1 to 3. Free: the scores themselves are trained from N(0, 1), Adam at 0.05, 500
steps. Linear: 16 features, relevant are the 10 items that a linear rule and noise put first, one weight vector without a
constant from 64 lists, Adam at 0.05, 200 steps, measured on 192 others. Bent: the same scorer where one of two rules holds, by
the sign of a feature, so that no weights are right and a loss chooses what to get wrong. Losses marked b see only whether a
grade is above 0: their free NDCG cannot be 1. All seeds of a row run as one program.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobjrec import losses, metrics, objectives
from mobjrec.types import Batch, Clock, LabelSpec, Objective, Outputs, SideSpec, Spec

RESULTS = Path(__file__).parent / "results" / "surrogates.jsonl"
SEEDS = 6
ITEMS, FEATURES, FREE, TRAIN, TEST = 100, 16, 16, 64, 192
# Steps and rate of the tasks.
RUNS = {"free": (500, 0.05), "linear": (200, 0.05), "bent": (200, 0.05)}
# How many lists of a length table 1 takes.
LENGTHS = {10: 400, 100: 200, 1_000: 40, 10_000: 12}
METRICS = ("precision@5", "recall@20", "ndcg@10")
# The list loss of the same labels that a surrogate of a metric has to beat.
RIVALS = {"precision@5": "sl t 0.2 b", "recall@20": "sl t 0.2 b", "ndcg@10": "softmax"}


def hard(name: str, k: int | None) -> Callable[..., jax.Array]:
    """The true metric, a smooth one's limit: recall over min(k, |P|)."""
    given = {"recall": {"capped": True}, "f_beta": {"beta": 1.0}}.get(name, {})
    return partial(getattr(metrics, name), k=k, **given)


def smooth(length: int) -> Iterator[tuple[str, str, Callable[..., jax.Array], Callable[..., jax.Array]]]:
    """Name, temperature, loss and metric of table 1, at the cuts that suit the length."""
    few, many, ten = (3, 3, 3) if length == 10 else (5, 20, 10)
    cold = [(1.0, 1.0), (0.1, 1.0), (0.01, 0.1)]
    for loss, metric, k in (
        ("recall_at_k", "recall", many),
        ("precision_at_k", "precision", few),
        ("f_beta_at_k", "f_beta", many),
    ):
        for rank, cut in [*cold, (0.1, k / 2)]:
            call = partial(getattr(losses, loss), k=k, temperature_rank=rank, temperature_cut=cut)
            yield loss, f"{rank:g}/{'(k/2)' if cut == k / 2 else f'{cut:g}'}", call, hard(metric, k)
    call = partial(losses.recall_at_k, k=many, offset=0.0, temperature_rank=0.1, temperature_cut=1.0)
    yield "recall_at_k, offset 0", "0.1/1", call, hard("recall", many)
    for t in (1.0, 0.1, 0.01):
        yield "top_k_recall", f"{t:g}", partial(losses.top_k_recall, k=many, temperature=t), hard("recall", many)
        yield "top_k_precision", f"{t:g}", partial(losses.top_k_precision, k=few, temperature=t), hard("precision", few)
        yield "approx_ndcg", f"{t:g}", partial(losses.approx_ndcg, temperature=t), hard("ndcg", None)
        yield "approx_mrr", f"{t:g}", partial(losses.approx_mrr, temperature=t), hard("mrr", None)
        yield "smooth_ap", f"{t:g}", partial(losses.smooth_ap, temperature=t), hard("average_precision", None)
        if length <= 1_000 and t > 0.01:
            yield "neural_ndcg", f"{t:g}", partial(losses.neural_ndcg, k=ten, temperature=t), hard("ndcg", ten)
        alpha = 1 / t
        yield (
            "smooth_i_precision",
            f"a {alpha:g}",
            partial(losses.smooth_i_precision, k=few, alpha=alpha),
            hard("precision", few),
        )
        yield "smooth_i_ndcg", f"a {alpha:g}", partial(losses.smooth_i_ndcg, k=ten, alpha=alpha), hard("ndcg", ten)


def gap(length: int) -> Iterator[dict[str, Any]]:
    """Rank correlation with 1 - metric, mean gap and share of lists whose gradient is next to none."""
    random = np.random.default_rng(length)
    grades = np.zeros((LENGTHS[length], length), np.float32)
    relevant = np.argsort(random.random(grades.shape), 1)[:, : max(3, length // 10)]
    np.put_along_axis(grades, relevant, random.integers(1, 4, relevant.shape).astype(np.float32), 1)
    scores = (random.normal(size=grades.shape) + 0.8 * grades).astype(np.float32)
    where = jnp.ones(length, bool)
    for name, temperature, loss, metric in smooth(length):
        if length > 1_000 and (name == "f_beta_at_k" or (name in ("approx_mrr", "smooth_ap") and temperature != "0.1")):
            continue

        @jax.jit
        def values(scores, grades, loss=loss, metric=metric):
            def one(given):
                return loss(*given, where=where), 1 - metric(*given, where=where)

            def slope(given):
                return jnp.linalg.norm(jax.grad(lambda s: loss(s, given[1], where=where))(given[0]))

            some = 4 if length > 1_000 else len(scores)
            return *jax.lax.map(one, (scores, grades)), jax.lax.map(slope, (scores[:some], grades[:some]))

        found, wanted, size = map(np.asarray, values(scores, grades))
        yield {
            **{"table": 1, "row": name, "temperature": temperature, "length": length},
            "correlation": spearman(found, wanted),
            "gap": float(np.abs(found - wanted).mean()),
            "dead": float((size < 1e-6).mean()),
        }


def spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Correlation of ranks, ties sharing theirs; None where all lists are worth the same."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values.round(7), return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(left), ranks(right))[0, 1]) if np.ptp(right) > 0 else None


class Row(NamedTuple):
    """objective: (steps) -> Objective on `click` or `grade`   own: the metric that it stands for, "" for a list loss"""

    objective: Callable[[int], Objective]
    own: str = ""


def loss_of(name: str, label: str = "click", own: str = "", **settings: Any) -> Row:
    return Row(lambda steps: objectives.single(partial(getattr(losses, name), **settings), label), own)


def rows() -> dict[str, Row]:
    """The losses and objectives of table 2; b = they see only whether a grade is above 0."""
    p, r, n = METRICS
    found = {
        "sigmoid_cross_entropy b": loss_of("sigmoid_cross_entropy"),
        "softmax": loss_of("softmax", "grade"),
        "softmax b": loss_of("softmax"),
        "pairwise_logistic": loss_of("pairwise_logistic", "grade"),
        "sl t 0.2 b": loss_of("sl", temperature=0.2),
        "sampled_softmax b": loss_of("sampled_softmax"),
        "bsl b": loss_of("bsl"),
        "adv_infonce b": Row(lambda steps: objectives.adv_infonce(negatives=1.0, every=1)),
        "llpauc b": Row(lambda steps: objectives.llpauc()),
        "approx_ndcg t 1": loss_of("approx_ndcg", "grade", n, temperature=1.0),
        "approx_ndcg t 0.1": loss_of("approx_ndcg", "grade", n),
        "smooth_ap t 0.1 b": loss_of("smooth_ap"),
        "smooth_ap t 0.01 b": loss_of("smooth_ap", temperature=0.01),
        "approx_mrr t 0.1 b": loss_of("approx_mrr"),
        "f_beta b": loss_of("f_beta"),
        "smooth_i_ndcg@10 a 1": loss_of("smooth_i_ndcg", "grade", n),
    }
    for a in (1.0, 10.0):
        found[f"smooth_i_precision@5 a {a:g} b"] = loss_of("smooth_i_precision", own=p, alpha=a)
    for k, own in ((5, p), (20, r)):
        found[f"sl_at_k k {k} b"] = loss_of("sl_at_k", own=own, k=k)
    for rank, cut in ((1.0, 1.0), (0.1, 1.0), (0.01, 1.0), (0.1, 3.0), (0.1, 10.0)):
        found[f"recall_at_k t {rank:g}/{cut:g} b"] = loss_of(
            "recall_at_k", own=r, temperature_rank=rank, temperature_cut=cut
        )
    for rank, cut in ((1.0, 1.0), (0.1, 1.0), (0.1, 2.5), (0.1, 5.0), (0.1, 20.0)):
        found[f"precision_at_k t {rank:g}/{cut:g} b"] = loss_of(
            "precision_at_k", own=p, temperature_rank=rank, temperature_cut=cut
        )
    found["f_beta_at_k k 20 t 0.1/1 b"] = loss_of("f_beta_at_k", temperature_cut=1.0)
    for t in (1.0, 0.3, 0.1):
        found[f"top_k_recall t {t:g} b"] = loss_of("top_k_recall", own=r, temperature=t)
        found[f"top_k_precision t {t:g} b"] = loss_of("top_k_precision", own=p, temperature=t)
    for name, make, k, own in (("recall", objectives.recall, 20, r), ("precision", objectives.precision, 5, p)):
        # From as wide as k to a cut of 1, over the first four fifths of the steps.
        cooled = lambda steps, k=k: objectives.Anneal(float(k), steps=4 * steps // 5)
        narrow = partial(make, k=k, temperature_cut=1.0)
        found[f"{name} t 0.1/1 + softmax b"] = Row(lambda steps, make=narrow: make(), own)
        found[f"{name} t 0.1/(k/2) + softmax b"] = Row(lambda steps, make=make, k=k: make(k=k), own)
        found[f"{name} cooled to 0.1/1 b"] = Row(
            lambda steps, make=narrow, cooled=cooled: make(softmax=0.0, anneal=cooled(steps)), own
        )
        found[f"{name} cooled + softmax b"] = Row(
            lambda steps, make=narrow, cooled=cooled: make(anneal=cooled(steps)), own
        )
    found["list_mle"] = loss_of("list_mle", "grade")
    found["lambda_rank"] = loss_of("lambda_rank", "grade", n)
    found["lambda_rank@10"] = loss_of("lambda_rank", "grade", n, k=10)
    found["lambda_loss ndcg2"] = loss_of("lambda_loss", "grade", n)
    for metric, k, own in (("precision", 5, p), ("recall", 20, r)):
        found[f"lambda_loss {metric}@{k} b"] = loss_of("lambda_loss", own=own, metric=metric, k=k)
    found["psl tanh t 0.1 b"] = loss_of("psl")
    for t in (1.0, 0.1):
        found[f"neural_ndcg@10 t {t:g}"] = loss_of("neural_ndcg", "grade", n, k=10, temperature=t, rounds=10)
    return found


class Lists(NamedTuple):
    """start: what is trained   features: [..., N, L, F] or None, the scores being trained themselves   grade: [..., N, L]"""

    start: jax.Array
    features: jax.Array | None
    grade: jax.Array
    test_features: jax.Array | None
    test_grade: jax.Array


def drawn(task: str) -> Lists:
    """The lists of all seeds, by a leading axis."""
    each = [_drawn(task, np.random.default_rng((7, seed))) for seed in range(SEEDS)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves), jnp.float32), *each)


def _drawn(task: str, random: np.random.Generator) -> Lists:
    if task == "free":
        grade = np.zeros((FREE, ITEMS))
        np.put_along_axis(
            grade, np.argsort(random.random(grade.shape), 1)[:, :10], random.integers(1, 4, (FREE, 10)), 1
        )
        return Lists(random.normal(size=grade.shape), None, grade, None, grade)
    rule = random.normal(size=FEATURES)
    features = random.normal(size=(TRAIN + TEST, ITEMS, FEATURES))
    useful = features @ (rule / np.linalg.norm(rule)) + 0.8 * random.normal(size=features.shape[:2])
    if task == "bent":
        other = rule + 2.0 * random.normal(size=FEATURES)
        useful = np.where(features[..., 0] > 0, useful, features @ (other / np.linalg.norm(other)))
    grade = np.zeros(useful.shape)
    best = np.argsort(-useful, 1)[:, :10]
    np.put_along_axis(grade, best, np.array([3, 3, 3, 2, 2, 2, 1, 1, 1, 1]), 1)
    return Lists(np.zeros(FEATURES), features[:TRAIN], grade[:TRAIN], features[TRAIN:], grade[TRAIN:])


def reached(objective: Objective, task: str, lists: Lists) -> jax.Array:
    """[3] means of the true metrics after training on one seed's lists."""
    steps, rate = RUNS[task]
    spec = Spec(
        0, SideSpec(), SideSpec(), SideSpec(), {"click": LabelSpec(), "grade": LabelSpec()}, len(lists.grade), ITEMS
    )
    own, memory = objective.init(jax.random.key(0), spec) if objective.init else ((), ())
    blank = Batch(**dict.fromkeys(Batch._fields))
    labels = {"grade": lists.grade, "click": (lists.grade > 0).astype(jnp.float32)}
    where = jnp.ones(lists.grade.shape, bool)
    batch = blank._replace(
        labels=labels, observed=dict.fromkeys(labels, where), where=where, weights=jnp.ones(where.shape),
        log_q=jnp.zeros(where.shape), row=jnp.arange(len(where)),
    )  # fmt: skip
    (head,) = objective.heads

    def total(params, memory, step):
        scores = params[0] if lists.features is None else lists.features @ params[0]
        clock = Clock(step, jnp.int32(0))
        value, speaks, memory = objective.value(Outputs({head: scores}, None, None), batch, params[1], memory, clock)
        return objectives.mean_over_lists(value, speaks), memory

    adam = optax.adam(rate)

    def one(state, step):
        params, memory, moments = state
        grads, memory = jax.grad(total, has_aux=True)(params, memory, step)
        updates, moments = adam.update(grads, moments)
        return (optax.apply_updates(params, updates), memory, moments), None

    params = lists.start, own
    (params, _, _), _ = jax.lax.scan(one, (params, memory, adam.init(params)), jnp.arange(steps))
    scores = params[0] if lists.features is None else lists.test_features @ params[0]
    where = jnp.ones(scores.shape, bool)
    true = [
        getattr(metrics, name.partition("@")[0])(scores, lists.test_grade, where=where, k=int(name.partition("@")[2]))
        for name in METRICS
    ]
    return jnp.stack([one.mean() for one in true])


def reach(name: str, row: Row, task: str, lists: Lists) -> dict[str, Any]:
    began = time.process_time()
    run = jax.jit(jax.vmap(partial(reached, row.objective(RUNS[task][0]), task)))
    values = np.asarray(run(lists), np.float64).round(5).tolist()
    took = round(time.process_time() - began, 1)
    return {"table": 2, "row": name, "own": row.own, "task": task, "values": values, "cpu_s": took}


def written(row: dict[str, Any]) -> None:
    about = {"jax": jax.__version__, "cores": os.cpu_count()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, **about}) + "\n")
    print(json.dumps(row), flush=True)


def known() -> list[dict[str, Any]]:
    """The last line of each row, in the order of the first."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    told = ("table", "row", "temperature", "length", "task")
    return list({tuple(map(one.get, told)): one for one in lines}.values())


def render() -> None:
    """Both tables as Markdown, and by how much each that stands for a metric is ahead of its rival at it."""
    found = known()
    lengths = list(LENGTHS)
    print(
        f"| surrogate | temperature | {' | '.join(f'{length:,}' for length in lengths)} |\n|---|---|{'---|' * len(lengths)}"
    )
    first = {(one["row"], one["temperature"]): {} for one in found if one["table"] == 1}
    for one in found:
        if one["table"] == 1:
            first[one["row"], one["temperature"]][one["length"]] = one
    for (name, temperature), by in first.items():
        cells = [
            "{} {:.3f} {:.2f}".format(told(by[length]["correlation"]), by[length]["gap"], by[length]["dead"])
            if length in by
            else "–"
            for length in lengths
        ]
        print(f"| {name} | {temperature} | {' | '.join(cells)} |")
    second: dict[str, dict[str, np.ndarray]] = {}
    own = {one["row"]: one["own"] for one in found if one["table"] == 2}
    for one in found:
        if one["table"] == 2:
            second.setdefault(one["row"], {})[one["task"]] = np.array(one["values"])
    for task in RUNS:
        print(f"\n{task}\n")
        print(
            f"| loss | {' | '.join(METRICS)} | to sigmoid CE (error) | own metric, to the rival |\n|---|---|---|---|---|---|"
        )
        plain = second["sigmoid_cross_entropy b"].get(task)
        for name, values in second.items():
            if task in values:
                here, m = values[task], METRICS.index(own[name]) if own[name] else None
                ahead = " ".join(paired(here[:, at] - plain[:, at]) for at in range(3))
                rival = "" if m is None else f"{own[name]} {paired((here - second[RIVALS[own[name]]][task])[:, m])}"
                print(f"| {name} | {' | '.join(f'{value:.3f}' for value in here.mean(0))} | {ahead} | {rival} |")


def told(correlation: float | None) -> str:
    return "–" if correlation is None or np.isnan(correlation) else f"{correlation:.2f}"


def paired(difference: np.ndarray) -> str:
    """Mean and standard error over seeds."""
    return f"{difference.mean():+.3f} ({difference.std(ddof=1) / np.sqrt(len(difference)):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=["gap", "reach"])
    parser.add_argument("--only", action="append", help="rows whose name holds this; may be repeated")
    parser.add_argument("--task", choices=list(RUNS), action="append")
    parser.add_argument("--length", type=int, choices=list(LENGTHS), action="append")
    parser.add_argument("--render", action="store_true")
    given = parser.parse_args()
    if given.table == "gap":
        for length in given.length or LENGTHS:
            for row in gap(length):
                written(row)
    if given.table == "reach":
        data = {task: drawn(task) for task in given.task or RUNS}
        for name, row in rows().items():
            for task, lists in data.items():
                if any(part in name for part in given.only or [""]):
                    written(reach(name, row, task, lists))
    if given.render:
        render()


if __name__ == "__main__":
    main()
