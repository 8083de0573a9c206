"""What every objective promises, checked on small lists with gaps, unknown labels and padding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.testing.lists import Kind
from mobjrec.types import Batch, Clock, LabelSpec, Objective, Outputs, Side, SideSpec, Spec, Tree

LISTS, ITEMS, WIDTH = 5, 6, 4
# Full, with a gap, one item, nothing observed, a padding list.
WHERE = np.array([[1] * 6, [1, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1] * 6, [0] * 6], bool)
RUBBISH = (np.nan, np.inf, -7.0)


class Recorded(dict):
    """A dict that remembers what was read from it."""

    def __init__(self, content: dict[str, Any]):
        super().__init__(content)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def check_objective(objective: Objective, labels: Kind = "binary") -> None:
    """Every promise of an objective; AssertionError says which does not hold.

    One finite value per list with finite gradient to scores and parameters for any `where`, fully masked too, and for
    scores of +-1e3; the order of items, what stands under `where`, and a label that is not observed, have no influence
    on value or gradient; a padding list is not spoken of; a fully masked batch speaks of nothing; some score has a
    gradient; memory keeps its form; heads and labels read are those declared; `predict` is finite, [B, L], in [0, 1]
    where it is a probability; `positive` holds.
    labels: what every label holds: 0/1, grades 0 to 4, any number, or numbers >= 0 with zeros.
    """
    params, memory = objective.init(jax.random.key(0), _spec(objective)) if objective.init else ((), ())
    call = _call(objective, params, memory)
    outputs, batch = _outputs(objective), _batch(objective, labels)
    value, speaks, after = jax.eval_shape(lambda: objective.value(outputs, batch, params, memory, _clock()))
    shapes = [value.shape, speaks.shape]
    _check(shapes == [(LISTS,)] * 2, f"value is {shapes[0]} and speaks {shapes[1]}, not one per list")
    value, speaks, grads = call(outputs, batch)
    _check(speaks.dtype == bool and bool(speaks.any()), "speaks is not bool, or of no list")
    _check(not speaks[4], "a padding list is spoken of")
    _check_finite("ordinary scores", value, grads)
    _check(any(np.abs(grad).max() > 0 for grad in grads[0].values()), "no score has a gradient")
    _check_declared(objective, params, memory, outputs, batch)
    _check_order(call, outputs, batch, (value, speaks, grads))
    _check_masked(objective, call, outputs, batch, (value, speaks, grads))
    _check_extremes(objective, call, outputs, batch)
    _check_memory(memory, after)
    _check_predict(objective, params, memory, outputs)


def _check_declared(objective: Objective, params: Tree, memory: Tree, outputs: Outputs, batch: Batch) -> None:
    heads, labels, observed = Recorded(outputs.scores), Recorded(batch.labels), Recorded(batch.observed)
    batch = batch._replace(labels=labels, observed=observed)
    outputs = outputs._replace(scores=heads)
    jax.eval_shape(lambda: objective.value(outputs, batch, params, memory, _clock()))
    jax.eval_shape(lambda: objective.predict(outputs, params, memory))
    _check(
        heads.read == set(objective.heads), f"heads {sorted(heads.read)} are read, {sorted(objective.heads)} declared"
    )
    read = labels.read | observed.read
    _check(read == set(objective.labels), f"labels {sorted(read)} are read, {sorted(objective.labels)} declared")
    _check(objective.label in ("", *objective.labels), f"label is {objective.label!r}, which it does not read")


def _check_order(call: Callable[..., Any], outputs: Outputs, batch: Batch, wanted: tuple[Any, ...]) -> None:
    order = np.random.default_rng(2).permutation(ITEMS)
    fields = ("items", "context", "context_ids", "labels", "observed", "where", "weights", "log_q", "position")
    moved = batch._replace(**{field: jax.tree.map(lambda a: a[:, order], getattr(batch, field)) for field in fields})
    scores = {name: score[:, order] for name, score in outputs.scores.items()}
    value, speaks, (grads, own) = call(outputs._replace(scores=scores, items=outputs.items[:, order]), moved)
    wanted_grads = {name: grad[:, order] for name, grad in wanted[2][0].items()}
    _check(_close((value, speaks), wanted[:2]), "the order of the items changes the value")
    _check(_close((grads, own), (wanted_grads, wanted[2][1])), "permuting the items does not permute the gradient")


def _check_masked(
    objective: Objective, call: Callable[..., Any], outputs: Outputs, batch: Batch, wanted: tuple[Any, ...]
) -> None:
    for rubbish in RUBBISH:
        filled = {name: _filled(scores, ~batch.where, rubbish) for name, scores in outputs.scores.items()}
        padded = batch._replace(weights=_filled(batch.weights, ~batch.where, rubbish))
        labels = {name: _filled(batch.labels[name], ~batch.where, rubbish) for name in batch.labels}
        found = call(outputs._replace(scores=filled), padded._replace(labels=labels))
        _check(_close(found, wanted), f"{rubbish} under the mask changes value or gradient")
    unknown = {name: _filled(label, ~batch.observed[name], 7.0) for name, label in batch.labels.items()}
    found = call(outputs, batch._replace(labels=unknown))
    _check(_close(found, wanted), "a label that is not observed changes value or gradient")
    nothing = batch._replace(
        where=np.zeros_like(batch.where), observed={n: o & False for n, o in batch.observed.items()}
    )
    value, speaks, grads = call(outputs, nothing)
    _check_finite("a fully masked batch", value, grads)
    _check(not speaks.any(), "a fully masked batch is spoken of")
    _check(all((leaf == 0).all() for leaf in jax.tree.leaves(grads)), "a fully masked batch has a gradient")


def _check_extremes(objective: Objective, call: Callable[..., Any], outputs: Outputs, batch: Batch) -> None:
    for far in (lambda s: 1e3 * np.sign(s), lambda s: 0 * s + 1e3, lambda s: 0 * s - 1e3, lambda s: 0 * s):
        value, _, grads = call(outputs._replace(scores={n: far(s) for n, s in outputs.scores.items()}), batch)
        _check_finite("scores of +-1e3", value, grads)
        _check(not objective.positive or bool((value >= 0).all()), f"declared positive, but a value is {value.min()}")


def _check_memory(memory: Tree, after: Tree) -> None:
    same = jax.tree.structure(after) == jax.tree.structure(memory)
    _check(same and _close(jax.tree.map(jnp.shape, after), jax.tree.map(jnp.shape, memory)), "memory changed its form")


def _check_predict(objective: Objective, params: Tree, memory: Tree, outputs: Outputs) -> None:
    found = np.asarray(jax.jit(objective.predict)(outputs, params, memory))
    _check(found.shape == (LISTS, ITEMS), f"predict has shape {found.shape}, one number per item is wanted")
    _check(bool(np.isfinite(found).all()), "predict is not finite")
    if objective.probability:
        _check(bool(((found >= 0) & (found <= 1)).all()), "declared a probability, but predict leaves [0, 1]")


def _check_finite(what: str, value: np.ndarray, grads: Tree) -> None:
    _check(bool(np.isfinite(value).all()), f"{what}: a value is not finite")
    _check(all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)), f"{what}: a gradient is not finite")


def _call(objective: Objective, params: Tree, memory: Tree) -> Callable[..., tuple[np.ndarray, np.ndarray, Tree]]:
    """(Outputs, Batch) -> values, whether spoken, gradients of the spoken values' sum; compiled once."""

    def total(scores: Tree, params: Tree, outputs: Outputs, batch: Batch) -> tuple[Any, Any]:
        value, speaks, _ = objective.value(outputs._replace(scores=scores), batch, params, memory, _clock())
        return jnp.sum(value, where=speaks), (value, speaks)

    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))

    def call(outputs: Outputs, batch: Batch) -> tuple[np.ndarray, np.ndarray, Tree]:
        (_, (value, speaks)), grads = both(outputs.scores, params, outputs, batch)
        return np.asarray(value), np.asarray(speaks), jax.tree.map(np.asarray, grads)

    return call


def _outputs(objective: Objective) -> Outputs:
    random = np.random.default_rng(0)
    shapes = {name: (LISTS, ITEMS) if w == 1 else (LISTS, ITEMS, w) for name, w in objective.heads.items()}
    scores = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    users, items = random.normal(size=(LISTS, 1, WIDTH)), random.normal(size=(LISTS, ITEMS, WIDTH))
    return Outputs(
        {**scores, "another head": np.ones((LISTS, ITEMS), np.float32)},
        users.astype(np.float32),
        items.astype(np.float32),
    )


def _batch(objective: Objective, kind: Kind = "binary") -> Batch:
    random = np.random.default_rng(1)
    labels, observed = {}, {}
    for number, name in enumerate((*objective.labels, "another label")):
        seen = WHERE & (random.random(WHERE.shape) < 0.8)
        seen[:2, :2], seen[2, 2], seen[3] = True, True, False
        value = random.integers(0, 2, WHERE.shape).astype(np.float32)
        value[:2, number % 2] = 1.0
        if kind != "binary":
            value = _spread(value, kind, random)
        labels[name], observed[name] = np.where(seen, value, 0.0).astype(np.float32), seen
    none = Side(None, np.zeros((LISTS, 0), np.int32), np.zeros((LISTS, 0), np.float32))
    items = Side(None, np.zeros((LISTS, ITEMS, 0), np.int32), np.zeros((LISTS, ITEMS, 0), np.float32))
    return Batch(
        None, None, none, None, None, items, np.zeros((LISTS, ITEMS, 0), np.float32),
        np.zeros((LISTS, ITEMS, 0), np.int32), labels, observed, WHERE,
        random.uniform(0.5, 2.0, WHERE.shape).astype(np.float32), np.zeros(WHERE.shape, np.float32),
        np.array([0, 1, 2, 3, -1], np.int32), np.where(WHERE, np.arange(ITEMS, dtype=np.int32), -1),
    )  # fmt: skip


def _spread(relevant: np.ndarray, kind: Kind, random: np.random.Generator) -> np.ndarray:
    """Labels of that kind, 0 where `relevant` [B, L] is, but for any number."""
    if kind == "real":
        return random.normal(0.0, 2.0, relevant.shape)
    some = random.integers(1, 5, relevant.shape) if kind == "graded" else random.lognormal(size=relevant.shape)
    return relevant * some


def _spec(objective: Objective) -> Spec:
    labels = {name: LabelSpec("", 0.4, 0.5) for name in objective.labels}
    return Spec(0, SideSpec(), SideSpec(), SideSpec(), labels, lists=LISTS, catalogue=ITEMS, positions=ITEMS)


def _clock() -> Clock:
    return Clock(jnp.int32(0), jnp.int32(0))


def _filled(array: np.ndarray, at: np.ndarray, value: float) -> np.ndarray:
    at = at if array.ndim == at.ndim else at[..., None]
    return np.where(at, np.float32(value), array)


def _close(left: Tree, right: Tree) -> bool:
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs)


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
