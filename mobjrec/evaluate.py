"""Every metric of a split, block by block, with standard errors: what each objective's order does to each label."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from mobjrec import metrics as metric_room
from mobjrec.data import order
from mobjrec.data.batching import labels_of
from mobjrec.inference import item_matrix, users_of
from mobjrec.metrics import pooled
from mobjrec.parts import Parts, split_of
from mobjrec.types import Candidates, Drawn, Lists, Objective, Tree

BLOCK = 128
# Lists whose candidates give the mean and deviation that put predictions of all objectives on one scale.
SCALE_LISTS = 1024
AT = ("ndcg@5", "ndcg@10", "ndcg@20", "precision@5", "recall@5", "recall@20", "hit@5", "mean_label@1", "mean_label@5")
BROAD = (*AT, "mrr", "auc")


class Measured(NamedTuple):
    """value: mean over lists, or the pooled value   error: its standard error, NaN for pooled ones

    lists: how many lists it speaks of   left_out: lists where it is undefined (no item, no or only relevant ones)
    """

    value: float
    error: float
    lists: int
    left_out: int


class Block(NamedTuple):
    """A block of lists with its predictions {objective: [B, L]} and labels, as numpy; padding lists have rows of -1."""

    rows: np.ndarray
    drawn: Drawn
    predictions: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]


class Evaluation(NamedTuple):
    """measured: {key: Measured}, key = ORDER:LABEL/metric, or LABEL/metric where an objective has its label's name

    per_list: {key: [Q] float32, NaN where undefined}
    """

    measured: dict[str, Measured]
    per_list: dict[str, np.ndarray]


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
) -> Evaluation:
    """Metrics of a split's lists. The result does not depend on the block's size.

    names: metrics, the config's by default   limit: only the first so many lists   preference: of the utility's order,
    equal by default   scale: {objective: (mean, deviation)} of its predictions, see `scale_of`   segments: also with
    items that training has and has not met apart, and users likewise
    """
    lists = split_of(parts, split)
    predicted = blocks(parts, params, memory, lists, candidates or parts.eval_candidates, limit)
    return measure(parts, lists, predicted, scale or scale_of(parts, params, memory), names, preference, segments)


def measure(
    parts: Parts,
    lists: Lists,
    predicted: Iterator[Block],
    scale: dict[str, tuple[float, float]],
    names: tuple[str, ...] = (),
    preference: dict[str, float] | None = None,
    segments: bool = False,
) -> Evaluation:
    """The metrics of predictions, whoever made them: a model or an oracle."""
    per_list = jax.jit(_per_list(names or parts.config.evaluate.metrics))
    values: dict[str, list[np.ndarray]] = {}
    pools = {
        f"{_key(name, objective.label)}/{metric}": (metric, made, made.init(), name)
        for name, objective in parts.objectives.items()
        if objective.label
        for metric, made in _pooled(objective).items()
    }
    kinds = _segments(parts, lists) if segments else {}
    for block in predicted:
        real = block.rows >= 0
        orders = {**block.predictions, "utility": utility(block.predictions, scale, preference)}
        for label in dict.fromkeys(o.label for o in parts.objectives.values() if o.label):
            where = {"": block.observed[label]}
            where |= {f"[{kind}]": block.observed[label] & mask(block) for kind, mask in kinds.items()}
            for name, scores in orders.items():
                for kind, inside in where.items():
                    for metric, found in per_list(scores, block.labels[label], inside).items():
                        values.setdefault(f"{_key(name, label)}{kind}/{metric}", []).append(np.asarray(found)[real])
        for key, (metric, made, state, name) in pools.items():
            label = parts.objectives[name].label
            state = made.update(state, block.predictions[name], block.labels[label], block.observed[label])
            pools[key] = metric, made, state, name
    rows = {key: np.concatenate(found) for key, found in values.items()}
    measured = {key: _summary(found) for key, found in rows.items()}
    count = len(next(iter(rows.values()), ()))
    for key, (_, made, state, _) in pools.items():
        measured[key] = Measured(float(made.value(state)), float("nan"), count, 0)
    return Evaluation(measured, rows)


def blocks(
    parts: Parts, params: Tree, memory: Tree, lists: Lists, candidates: Candidates, limit: int | None = None
) -> Iterator[Block]:
    """The split's lists in table order with the model's predictions; the item matrix is made once."""
    matrix = jax.device_put(item_matrix(parts.functions, params, parts.feed))
    for rows, drawn in drawn_blocks(parts, lists, candidates, limit):
        users = users_of(parts.functions, params, parts.feed, lists, rows)
        logged = (drawn.row >= 0)[..., None]
        context = np.where(logged, lists.context[drawn.row], 0).astype(np.float32)
        context_ids = np.where(logged, lists.context_ids[drawn.row], 0).astype(np.int32)
        found = parts.functions.predict(params, memory, users, matrix, drawn.item, context, context_ids)
        yield Block(rows, drawn, jax.device_get(found), *labels_of(parts.dataset, lists, drawn))


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
    """{objective: (mean, deviation)} of its predictions over validation candidates: utilities then add like to like."""
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


def reached(parts: Parts) -> dict[str, dict[str, Measured]]:
    """{"best", "truth"}: test metrics of a synthetic corpus' posterior mean and of its hidden truth; {} for others."""
    oracle, lists = parts.corpus.best, parts.dataset.test
    if oracle is None or not len(lists.user):
        return {}
    found = {}
    for name in ("best", "truth"):

        def predicted(name: str = name) -> Iterator[Block]:
            told = getattr(oracle, name)
            for rows, drawn in drawn_blocks(parts, lists, parts.eval_candidates):
                item = np.broadcast_to(drawn.item, drawn.where.shape)
                by_label = told(parts.dataset, lists, np.maximum(rows, 0), item)
                scores = {n: np.asarray(by_label[o.label], np.float32) for n, o in parts.objectives.items()}
                yield Block(rows, drawn, scores, *labels_of(parts.dataset, lists, drawn))

        pairs = [(block.predictions, block.drawn.where) for block in predicted()]
        scale = {}
        for objective in parts.objectives:
            kept = np.concatenate([predictions[objective][where] for predictions, where in pairs])
            scale[objective] = float(kept.mean()), float(kept.std()) or 1.0
        found[name] = measure(parts, lists, predicted(), scale).measured
    return found


def utility(
    predictions: dict[str, np.ndarray], scale: dict[str, tuple[float, float]], preference: dict[str, float] | None
) -> np.ndarray:
    """sum_k preference_k (predict_k - mean_k) / deviation_k, [B, L]; equal preferences by default."""
    preference = preference or dict.fromkeys(predictions, 1.0)
    return sum(weight * (predictions[name] - scale[name][0]) / scale[name][1] for name, weight in preference.items())


def is_own(parts: Parts, key: str) -> bool:
    """Whether a metric measures an objective's order on its own label, or the utility's order."""
    order, _, label = key.split("/")[0].split("[")[0].partition(":")
    return order == "utility" or order not in parts.objectives or parts.objectives[order].label == (label or order)


def _key(name: str, label: str) -> str:
    return label if name == label else f"{name}:{label}"


def _per_list(names: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    made = {name: metric_room.named(name) for name in names}
    return lambda scores, labels, where: {name: metric(scores, labels, where=where) for name, metric in made.items()}


def _pooled(objective: Objective) -> dict[str, Any]:
    if objective.probability:
        made = {"gauc": pooled.gauc(), "log_loss": pooled.log_loss(), "accuracy": pooled.accuracy()}
        return {"pooled_auc": pooled.auc(), **made}
    return {"rmse": pooled.rmse()} if objective.expectation else {}


def _segments(parts: Parts, lists: Lists) -> dict[str, Callable[[Block], np.ndarray]]:
    """Masks [B, L] by what training has met."""
    items = np.zeros(len(parts.dataset.items.id), bool)
    items[parts.dataset.train.item] = True
    users = np.zeros(len(parts.dataset.users.id), bool)
    users[parts.dataset.train.user] = True
    # Where training met all of a kind, its segment is the whole.
    kinds: dict[str, Callable[[Block], np.ndarray]] = {}
    if not items[lists.item].all():
        kinds["seen items"] = lambda block: items[block.drawn.item] & block.drawn.where
        kinds["unseen items"] = lambda block: ~items[block.drawn.item] & block.drawn.where
    if not users[lists.user].all():
        kinds["seen users"] = lambda block: users[lists.user[block.rows]][:, None]
        kinds["unseen users"] = lambda block: ~users[lists.user[block.rows]][:, None]
    return kinds


def _summary(values: np.ndarray) -> Measured:
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return Measured(float("nan"), float("nan"), 0, len(values))
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    return Measured(float(known.mean()), error, len(known), len(values) - len(known))
