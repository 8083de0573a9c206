"""Every metric of a split, block by block, with standard errors: what each objective's order does to each label."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from mobjrec import exhausted
from mobjrec import metrics as metric_room
from mobjrec.data import order
from mobjrec.data.batching import labels_of
from mobjrec.errors import NumericError
from mobjrec.inference import item_matrix, users_of, wished
from mobjrec.metrics import left_out, pooled
from mobjrec.metrics.keys import ITEMS, keyed
from mobjrec.parts import Parts, split_of
from mobjrec.types import Candidates, Drawn, Lists, Objective, Tree

BLOCK = 128
# Lists whose candidates give the mean and deviation that put predictions of all objectives on one scale.
SCALE_LISTS = 1024
AT = ("ndcg@5", "ndcg@10", "ndcg@20", "precision@5", "recall@5", "recall@20", "hit@5", "mean_label@1", "mean_label@5")
BROAD = (*AT, "mrr", "auc")
# Metrics of predicted values, not of orders: they speak of items whose label is known, whatever else is ranked.
OF_VALUES = frozenset({"log_loss", "accuracy", "rmse", "ece"})


class Measured(NamedTuple):
    """value: mean over lists, or the pooled value   error: its standard error, NaN for pooled ones

    lists: how many lists it speaks of   left_out: those where it is undefined   why: {reason: how many of these}
    """

    value: float
    error: float
    lists: int
    left_out: int
    why: dict[str, int]


class Block(NamedTuple):
    """A block of lists with its predictions {objective: [B, L]} and labels, as numpy; padding lists have rows of -1."""

    rows: np.ndarray
    drawn: Drawn
    predictions: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """measured: {key: Measured}, key = ORDER:LABEL/metric, or LABEL/metric where an objective has its label's name

    per_list: {key: [Q] float32, NaN where undefined}   first: the first lists and their orders, the utility's too
    """

    measured: dict[str, Measured]
    per_list: dict[str, np.ndarray]
    first: Block | None = None


def run(
    parts: Parts,
    params: Tree,
    memory: Tree,
    split: str,
    *,
    scale: dict[str, tuple[float, float]] | None = None,
    names: tuple[str, ...] = (),
    candidates: Candidates | None = None,
    limit: int | None = None,
    preference: dict[str, float] | None = None,
    segments: bool = False,
    zeros: frozenset[str] = frozenset(),
    watch: Callable[[Block, dict[str, np.ndarray]], None] | None = None,
) -> Evaluation:
    """Metrics of a split's lists, BLOCK of them at a time.

    Where nothing is drawn (`catalogue`, `as_logged` without a size) the result does not depend on BLOCK. What is drawn is
    drawn block by block, so under `uniform` and a `size` another BLOCK draws other items; under `in_batch` a block is the
    batch: its lists rank the items of all of them, and a larger one makes the task harder.

    names: metrics, the config's by default   limit: only the first so many lists   preference: of the utility's order, and
    what a conditioned model is told; equal by default   scale: {objective: (mean, deviation)} of its predictions, see
    `scale_of`   segments: also with items that training has and has not met apart, and users likewise
    zeros: labels that are an observed 0 on candidates that were not shown; what OF_VALUES names stays with what is known
    watch: is shown every block with its orders {name: [B, L]}, the utility's too
    """
    lists, feed = split_of(parts, split), parts.feed
    what = (
        f"{split} ({BLOCK} lists at a time, texts of up to {feed.user_row} tokens of users, {feed.item_row} of items)"
    )
    with exhausted.told(lambda error: exhausted.of_evaluation(error, what, params)):
        predicted = blocks(parts, params, memory, lists, candidates or parts.eval_candidates, limit, preference)
        scale = scale or scale_of(parts, params, memory)
        return measure(parts, lists, predicted, scale, names, preference, segments, zeros, watch)


def measure(
    parts: Parts,
    lists: Lists,
    predicted: Iterator[Block],
    scale: dict[str, tuple[float, float]],
    names: tuple[str, ...] = (),
    preference: dict[str, float] | None = None,
    segments: bool = False,
    zeros: frozenset[str] = frozenset(),
    watch: Callable[[Block, dict[str, np.ndarray]], None] | None = None,
) -> Evaluation:
    """The metrics of predictions, whoever made them: a model or an oracle.

    NumericError where a metric is no number for a list whose labels and items define it.
    """
    own = labels_measured(parts)
    gains = gains_of(parts)
    per_list = {gain: _per_list(tuple(names or parts.config.evaluate.metrics), gain) for gain in set(gains.values())}
    pools = {(name, metric): (made, made.init()) for name in own for metric, made in _pooled(parts, name).items()}
    kinds = {"": lambda block: block.drawn.where} | (_segments(parts, lists) if segments else {})
    columns: dict[str, list[np.ndarray]] = {}
    states: dict[tuple[str, str], list[np.ndarray]] = {}
    first = None
    for block in predicted:
        real = block.rows >= 0
        orders = {**block.predictions, "utility": utility(block.predictions, scale, preference)}
        first = first or block._replace(predictions=orders)
        if watch is not None:
            watch(block, orders)
        masks = {kind: mask(block) & block.drawn.where for kind, mask in kinds.items()}
        for label in dict.fromkeys(own.values()):
            value, inside = block.labels[label], ranked(block, label, zeros)
            told = {kind: left_out.codes(value, inside, mask) for kind, mask in masks.items()}
            told |= {"known": left_out.codes(value, block.observed[label], block.drawn.where)}
            for kind, code in told.items():
                states.setdefault((label, kind), []).append(code[real])
            for (name, scores), (kind, mask) in itertools.product(orders.items(), masks.items()):
                for metric, found in per_list[gains[label]](scores, value, inside & mask).items():
                    columns.setdefault(keyed(name, label, metric, kind), []).append(np.asarray(found)[real])
        for (name, metric), (made, state) in pools.items():
            inside = block.observed[own[name]] if metric in OF_VALUES else ranked(block, own[name], zeros)
            pools[name, metric] = made, made.update(state, block.predictions[name], block.labels[own[name]], inside)
    rows = {key: np.concatenate(column) for key, column in columns.items()}
    codes = {key: np.concatenate(column) for key, column in states.items()}
    measured = {key: summary(key, column, codes[label_of(key)]) for key, column in rows.items()}
    for (name, metric), (made, state) in pools.items():
        code = codes[own[name], "known" if metric in OF_VALUES else ""]
        gone = np.isin(code, left_out.PAIRLESS if metric == "gauc" else left_out.ITEMLESS)
        pool = float(made.value(state)), float("nan"), int((~gone).sum()), int(gone.sum()), left_out.counted(code[gone])
        measured[keyed(name, own[name], metric)] = Measured(*pool)
    return Evaluation(measured, rows, first)


def ranked(block: Block, label: str, zeros: frozenset[str]) -> np.ndarray:
    """[B, L] where a label takes part in orders: where it is observed, and of `zeros` on all that was not shown."""
    observed = block.observed[label]
    return observed | (block.drawn.where & (block.drawn.row < 0)) if label in zeros else observed


def gains_of(parts: Parts) -> dict[str, str]:
    """{label: the gain of its NDCG}, by its largest value in any split."""
    labels = dict.fromkeys(labels_measured(parts).values())
    splits = (parts.dataset.train, parts.dataset.valid, parts.dataset.test)
    return {
        label: metric_room.gain_of(max(float(np.nanmax(s.labels[label], initial=0.0)) for s in splits))
        for label in labels
    }


def blocks(
    parts: Parts,
    params: Tree,
    memory: Tree,
    lists: Lists,
    candidates: Candidates,
    limit: int | None = None,
    preference: Mapping[str, float] | None = None,
) -> Iterator[Block]:
    """The split's lists in table order with the model's predictions.

    preference: by objective's name, equal by default, of a conditioned model; others do not read it
    """
    for rows, drawn, predicted in asked(parts, params, memory, lists, candidates, limit):
        yield Block(rows, drawn, predicted(preference), *labels_of(parts.dataset, lists, drawn))


def asked(
    parts: Parts, params: Tree, memory: Tree, lists: Lists, candidates: Candidates, limit: int | None = None
) -> Iterator[tuple[np.ndarray, Drawn, Callable[..., dict[str, np.ndarray]]]]:
    """(rows, candidates, preference -> predictions), block by block: all that no preference changes is computed once."""
    matrix = jax.device_put(item_matrix(parts.functions, params, parts.feed))
    for rows, drawn in drawn_blocks(parts, lists, candidates, limit):
        users = users_of(parts.functions, params, parts.feed, lists, rows)
        logged = (drawn.row >= 0)[..., None]
        context = np.where(logged, lists.context[drawn.row], 0).astype(np.float32)
        context_ids = np.where(logged, lists.context_ids[drawn.row], 0).astype(np.int32)
        given = (params, memory, users, matrix, drawn.item, context, context_ids)

        def predicted(preference: Mapping[str, float] | None, given: tuple = given) -> dict[str, np.ndarray]:
            wish = wished(parts.model, parts.objectives, preference)
            return jax.device_get(parts.functions.predict(*given, wish))

        yield rows, drawn, predicted


def drawn_blocks(
    parts: Parts, lists: Lists, candidates: Candidates, limit: int | None = None
) -> Iterator[tuple[np.ndarray, Drawn]]:
    """(rows, candidates) of the split's lists in table order, the last block padded with -1."""
    count = len(lists.user) if limit is None else min(limit, len(lists.user))
    for begin in range(0, count, BLOCK):
        rows = np.arange(begin, begin + BLOCK)
        rows = np.where(rows < count, rows, -1)
        yield rows, candidates(parts.dataset, lists, rows, order.random(parts.config.seed, begin))


def scale_of(parts: Parts, params: Tree, memory: Tree) -> dict[str, tuple[float, float]]:
    """{objective: (mean, deviation)} of its predictions over validation candidates: utilities then add like to like.

    A conditioned model's at the equal preference, for all: a unit of an objective is then the same along the front.
    """
    lists = parts.dataset.valid if len(parts.dataset.valid.user) else parts.dataset.train
    sums = {name: np.zeros(3) for name in parts.objectives}
    for block in blocks(parts, params, memory, lists, parts.eval_candidates, SCALE_LISTS):
        for name, found in block.predictions.items():
            kept = found[block.drawn.where].astype(np.float64)
            sums[name] += len(kept), kept.sum(), np.square(kept).sum()
    scale = {}
    for name, (count, total, squares) in sums.items():
        mean = total / max(count, 1)
        deviation = np.sqrt(max(squares / max(count, 1) - mean**2, 0.0))
        scale[name] = float(mean), float(deviation) if deviation > 0 else 1.0
    return scale


def reached(parts: Parts) -> tuple[dict[str, dict[str, Measured]], str]:
    """({"best", "truth": test metrics of a synthetic corpus' posterior mean and of its hidden truth}, why there is no best)

    Of orders by labels that the oracle knows, and of the utility where it knows all. {} and "" for other corpora.
    """
    oracle, lists = parts.corpus.best, parts.dataset.test
    if oracle is None or not len(lists.user):
        return {}, ""
    # A derived label may take a column's name.
    known = {"click", "satisfaction"} - set(parts.config.labels)
    told = {name: o.label for name, o in parts.objectives.items() if o.label in known}
    if not told:
        return {}, "the corpus' law speaks of click and satisfaction, and no objective is measured by either"
    read = oracle.told(parts.feed, parts.inputs, parts.tokenizer, parts.config.lists.history.of)
    means = {"truth": oracle.truth}
    if not isinstance(read, str):
        means = {"best": lambda *of: oracle.best(*of, read), **means}
    found = {name: _reached(parts, lists, mean, told) for name, mean in means.items()}
    return found, read if isinstance(read, str) else ""


def _reached(parts: Parts, lists: Lists, mean: Callable, told: dict[str, str]) -> dict[str, Measured]:
    """The metrics of an oracle's orders. told: {objective: its label} for those that the oracle knows"""

    def predicted() -> Iterator[Block]:
        for rows, drawn in drawn_blocks(parts, lists, parts.eval_candidates):
            item = np.broadcast_to(drawn.item, drawn.where.shape)
            by_label = mean(parts.dataset, lists, np.maximum(rows, 0), item)
            scores = {name: np.asarray(by_label[label], np.float32) for name, label in told.items()}
            yield Block(rows, drawn, scores, *labels_of(parts.dataset, lists, drawn))

    pairs = [(block.predictions, block.drawn.where) for block in predicted()]
    scale = {}
    for name in told:
        kept = np.concatenate([predictions[name][where] for predictions, where in pairs])
        scale[name] = float(kept.mean()), float(kept.std()) or 1.0
    fewer = parts._replace(objectives={name: parts.objectives[name] for name in told})
    found = measure(fewer, lists, predicted(), scale).measured
    return (
        found
        if len(told) == len(parts.objectives)
        else {k: v for k, v in found.items() if not k.startswith("utility:")}
    )


def utility(
    predictions: dict[str, np.ndarray], scale: dict[str, tuple[float, float]], preference: dict[str, float] | None
) -> np.ndarray:
    """sum_k preference_k (predict_k - mean_k) / deviation_k, [B, L]; equal preferences by default."""
    preference = preference or dict.fromkeys(predictions, 1.0)
    return sum(weight * (predictions[name] - scale[name][0]) / scale[name][1] for name, weight in preference.items())


def labels_measured(parts: Parts) -> dict[str, str]:
    """{objective: the label that measures it}, of those that have one."""
    return {name: objective.label for name, objective in parts.objectives.items() if objective.label}


def is_own(objectives: dict[str, Objective], key: str) -> bool:
    """Whether a metric measures an objective's order on its own label or by no label, or the utility's order."""
    order, _, label = key.split("/")[0].split("[")[0].partition(":")
    return order == "utility" or order not in objectives or (label or order) in (objectives[order].label, ITEMS)


def label_of(key: str) -> tuple[str, str]:
    """(label, kind) that a key measures by, the kind "" or as in `[seen items]`."""
    label, bracket, kind = key.split("/")[0].rpartition(":")[2].partition("[")
    return label, bracket + kind


@cache
def _per_list(names: tuple[str, ...], gain: str) -> Callable[..., dict[str, Any]]:
    # Kept: compiled anew in every evaluation it took most of one.
    return jax.jit(lambda s, y, where: {name: metric_room.named(name, gain)(s, y, where=where) for name in names})


def _pooled(parts: Parts, name: str) -> dict[str, Any]:
    objective = parts.objectives[name]
    made = {"pooled_auc": pooled.auc(), "gauc": pooled.gauc()}
    if objective.probability:
        made |= {"log_loss": pooled.log_loss(), "accuracy": pooled.accuracy()}
        made |= {"pr_auc": pooled.pr_auc(), "ece": pooled.ece()}
    return made | {"rmse": pooled.rmse()} if objective.expectation else made


def _segments(parts: Parts, lists: Lists) -> dict[str, Callable[[Block], np.ndarray]]:
    """Masks [B, L] by what training has met."""
    items = np.zeros(len(parts.dataset.items.id), bool)
    items[parts.dataset.train.item] = True
    users = np.zeros(len(parts.dataset.users.id), bool)
    users[parts.dataset.train.user] = True
    # Where training met all of a kind, its segment is the whole.
    kinds: dict[str, Callable[[Block], np.ndarray]] = {}
    if not items[lists.item].all():
        kinds["[seen items]"] = lambda block: items[block.drawn.item] & block.drawn.where
        kinds["[unseen items]"] = lambda block: ~items[block.drawn.item] & block.drawn.where
    if not users[lists.user].all():
        kinds["[seen users]"] = lambda block: users[lists.user[block.rows]][:, None]
        kinds["[unseen users]"] = lambda block: ~users[lists.user[block.rows]][:, None]
    return kinds


def summary(key: str, values: np.ndarray, codes: np.ndarray) -> Measured:
    """A per-list metric's mean and error, and why which lists are left out. NumericError where no code says why."""
    gone = np.isnan(values)
    if (codes[gone] == 0).any():
        raise NumericError(
            f"{key} is no number for list {np.flatnonzero(gone & (codes == 0))[0]} of the split, which has relevant and "
            "other items: are its labels beyond what float32 holds?"
        )
    known, why = values[~gone].astype(np.float64), left_out.counted(codes[gone])
    mean = float(known.mean()) if len(known) else float("nan")
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return Measured(mean, error, len(known), int(gone.sum()), why)
