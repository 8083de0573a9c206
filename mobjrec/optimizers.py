"""Optimizers as a config names them: a function of settings and the number of steps, returning an optax transformation.

What they update is the tree of trained parameters with None in place of a frozen leaf (`state.divide`). To JAX None is
no leaf, so plain optax works and a frozen parameter has no moments. Paths are those of that tree,
"encoder/layers/kernel"; in a pattern `*` stands for any characters, "/" too. Order within a step: clipping, moments,
decay, learning rate, group factor.
"""

import inspect
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobjrec.problems import nearest
from mobjrec.types import Array, Tree

__all__ = ["adam", "adamw", "from_optax", "sgd"]

Schedule = Literal["constant", "cosine", "exponential", "linear"]
# Biases, norms' and heads' scales, id tables (a rare id would decay to nothing between two looks) and objectives' own.
UNDECAYED = ("*bias", "*scale", "*ids/*", "objectives/*")


class Group(NamedTuple):
    """How parameters of one path pattern differ: learning rate times `factor`; `frozen` leaves them as they are.

    layer_decay: of an encoder's layers the last has the whole rate, each below it so much of the one above, and the
    embeddings so much of the first layer's (Clark et al. 2020, ELECTRA)
    weight_decay: in place of the optimizer's, None = that; what is `undecayed` stays so
    """

    factor: float = 1.0
    frozen: bool = False
    layer_decay: float = 1.0
    weight_decay: float | None = None


class Average(NamedTuple):
    """State of the parameters' average. count: int32 steps   mean: like the trained parameters."""

    count: Array
    mean: Tree


def adamw(
    steps: int,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.01,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    clip: float | None = 1.0,
    groups: dict[str, Group] | None = None,
    undecayed: tuple[str, ...] = UNDECAYED,
    average: float | None = None,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay. Loshchilov & Hutter 2019, algorithm 2.

    Decay is learning rate times `weight_decay` times the parameter, for paths that match nothing in `undecayed`.
    schedule, warmup: see `rates`   clip: largest global norm of the gradient, null for none
    groups: {path pattern: Group}; the first pattern that matches counts
    average: decay of an exponential average of the parameters, null for none; see `averaged`

    ValueError for a setting out of its range and, at `init`, for a group's pattern that matches no trained parameter.
    """
    _check_moments(b1, b2, eps)
    rate = rates(steps, learning_rate, schedule, warmup)
    return _assembled([optax.scale_by_adam(b1, b2, eps)], rate, clip, groups, average, weight_decay, undecayed)


def adam(
    steps: int,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    clip: float | None = None,
    groups: dict[str, Group] | None = None,
    average: float | None = None,
) -> optax.GradientTransformation:
    """Adam, step size from running first and second moments. Kingma & Ba 2015, algorithm 1. Settings as for `adamw`."""
    _check_moments(b1, b2, eps)
    rule = [optax.scale_by_adam(b1, b2, eps)]
    return _assembled(rule, rates(steps, learning_rate, schedule, warmup), clip, groups, average)


def sgd(
    steps: int,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
    nesterov: bool = False,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    clip: float | None = None,
    groups: dict[str, Group] | None = None,
    average: float | None = None,
) -> optax.GradientTransformation:
    """Gradient descent, with m <- momentum m + g as the direction where momentum > 0. Settings as for `adamw`."""
    _check_share("momentum", momentum)
    rule = [optax.trace(momentum, nesterov)] if momentum else []
    return _assembled(rule, rates(steps, learning_rate, schedule, warmup), clip, groups, average)


def from_optax(
    steps: int,
    name: str,
    settings: dict[str, Any] | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    clip: float | None = None,
    groups: dict[str, Group] | None = None,
    undecayed: tuple[str, ...] = UNDECAYED,
    average: float | None = None,
) -> optax.GradientTransformation:
    """Any optimizer of optax that is a function of a learning rate: lamb, lion, adafactor, rmsprop, adagrad, yogi ...

    It runs at a rate of 1; what it returns is decayed and then scaled by the rate, as `adamw` does it.
    settings: optax's own, but for the learning rate and masks; of a `weight_decay` among them, which the optimizer sees
    (LAMB's ratio takes it in), what is `undecayed` is spared too   the others: as for `adamw`

    ValueError for a name or setting that optax does not have, and an optimizer that needs more than gradients.
    """
    there = [one for one, function in vars(optax).items() if _takes_a_rate(function)]
    if name not in there:
        raise ValueError(f"name is {name!r}; optax has no such optimizer{nearest(name, there, what='its optimizers')}")
    make, given = getattr(optax, name), dict(settings or {})
    own = [one for one in inspect.signature(make).parameters if one != "learning_rate" and "mask" not in one]
    for one in given:
        if one not in own:
            raise ValueError(f"settings has {one}, which optax.{name} has not{nearest(one, own, what='its settings')}")
    if "weight_decay" in given and "mask" in inspect.signature(make).parameters:
        given["mask"] = lambda params: _by_path(lambda path, _: not _matched(path, undecayed), params)
    try:
        rule = make(learning_rate=1.0, **given)
        like = {"bias": jnp.zeros((2, 2))}
        jax.eval_shape(lambda tree: rule.update(tree, rule.init(tree), tree), like)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings: optax.{name} cannot be made or used with these alone: {error}") from error
    rate = rates(steps, learning_rate, schedule, warmup)
    return _assembled([rule, optax.scale(-1.0)], rate, clip, groups, average, weight_decay, undecayed)


def _takes_a_rate(function: Any) -> bool:
    return inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "learning_rate"


def rates(steps: int, peak: float, schedule: Schedule, warmup: float) -> Callable[[Array], Array]:
    """The learning rate of step n = 0 .. steps - 1.

    Over the first W = round(warmup * steps) steps peak (n + 1) / W, so that none is lost to a rate of 0. Then, with
    x = (n - W) / (steps - W), peak, peak (1 + cos(pi x)) / 2, peak 0.01^x or peak (1 - x): from `steps` on the last two and
    the cosine stay where they are at x = 1.
    """
    _check_share("warmup", warmup)
    if not 0 < peak < math.inf:
        raise ValueError(f"learning_rate is {peak}; it must be above 0 and finite")
    first = round(warmup * steps)

    def rate(count: Array) -> Array:
        x = jnp.clip((count - first) / max(steps - first, 1), 0.0, 1.0)
        falls = {"cosine": (1 + jnp.cos(jnp.pi * x)) / 2, "exponential": 0.01**x, "linear": 1 - x}
        shape = falls.get(schedule, jnp.ones_like(x))
        return peak * jnp.minimum(shape, (count + 1) / first if first else 1.0)

    return rate


def averaged(opt_state: Tree, params: Tree) -> Tree:
    """`params` with their running average where one is kept, as they are where not.

    params: the whole tree or the trained one; leaves without an average (frozen ones) stay.
    """
    found = [leaf for leaf in jax.tree.leaves(opt_state, is_leaf=_is_average) if _is_average(leaf)]
    if not found:
        return params
    return jax.tree.map(
        lambda mean, leaf: leaf if mean is None else mean, found[0].mean, params, is_leaf=lambda leaf: leaf is None
    )


def _is_average(leaf: Any) -> bool:
    return isinstance(leaf, Average)


def _assembled(
    rule: list[optax.GradientTransformation],
    rate: Callable[[Array], Array],
    clip: float | None,
    groups: dict[str, Group] | None,
    average: float | None,
    weight_decay: float = 0.0,
    undecayed: tuple[str, ...] = UNDECAYED,
) -> optax.GradientTransformation:
    """Clip, rule, decay, rate and group factor over what no group freezes, then the average of all that comes out."""
    groups = groups or {}
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is {clip}; it must be above 0, or null for no clipping")
    wrong = {name: group.factor for name, group in groups.items() if not 0 <= group.factor < math.inf}
    if wrong:
        raise ValueError(f"groups has the factors {wrong}; each must be finite and not negative")
    for pattern, group in groups.items():
        if not 0 < group.layer_decay <= 1:
            raise ValueError(
                f"groups: layer_decay of {pattern} is {group.layer_decay}; it must be above 0 and at most 1"
            )
    parts = [optax.clip_by_global_norm(clip)] if clip is not None else []
    # Injected, so that the rate in force stands in the state, from where a step logs it.
    scaled = optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=rate)
    parts += [*rule, _decayed(weight_decay, groups, undecayed), scaled]
    parts += [_scaled_by_group(groups)] if groups else []
    whole = optax.chain(*parts)
    if any(group.frozen for group in groups.values()):
        kinds = {"trained": whole, "frozen": optax.set_to_zero()}
        whole = optax.partition(kinds, lambda params: _by_path(lambda path, _: _kind(_group(path, groups)), params))
    last = [_average(average)] if average is not None else []
    return optax.chain(_all_matched(groups), whole, *last)


def _kind(group: Group) -> str:
    return "frozen" if group.frozen else "trained"


def _group(path: str, groups: dict[str, Group]) -> Group:
    return next((group for pattern, group in groups.items() if fnmatchcase(path, pattern)), Group())


def _matched(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _decayed(weight_decay: float, groups: dict[str, Group], undecayed: tuple[str, ...]) -> optax.GradientTransformation:
    """Adds weight decay times the parameter, each group its own, to all that is not `undecayed`."""
    for name, value in {"": weight_decay, **{f" of {name}": one.weight_decay for name, one in groups.items()}}.items():
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(
                f"{'groups: ' if name else ''}weight_decay{name} is {value}; it must be finite and not negative"
            )

    def amount(path: str) -> float:
        own = _group(path, groups).weight_decay
        return 0.0 if _matched(path, undecayed) else weight_decay if own is None else own

    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        def add(path: str, leaf: Array, param: Array) -> Array:
            return leaf + amount(path) * param if amount(path) else leaf

        return _by_path(add, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _all_matched(groups: dict[str, Group]) -> optax.GradientTransformation:
    """Changes nothing; at `init` a pattern that no parameter has is an error, not a setting without effect."""

    def init(params: Tree) -> optax.EmptyState:
        paths = [path for path, _ in _with_paths(params)]
        layers = [_group(path, groups) for path in paths if "/upper/" in path]
        for pattern, group in groups.items():
            if not any(fnmatchcase(path, pattern) for path in paths):
                rooms = ", ".join(sorted({path.rsplit("/", 1)[0] for path in paths})[:12])
                raise ValueError(f"groups: {pattern} matches no trained parameter; there are {rooms} ...")
            if group.layer_decay != 1 and group not in layers:
                raise ValueError(f"groups: {pattern} has a layer_decay, but matches no trained layers of an encoder")
        return optax.EmptyState()

    return optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def _scaled_by_group(groups: dict[str, Group]) -> optax.GradientTransformation:
    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        stacked = [(path, leaf) for path, leaf in _with_paths(updates) if "/upper/" in path]
        layers = {path.split("/upper/")[0]: leaf.shape[0] for path, leaf in stacked}
        return _by_path(lambda path, leaf: leaf * _factor(path, leaf, _group(path, groups), layers), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _factor(path: str, leaf: Array, group: Group, layers: dict[str, int]) -> Array | float:
    """What a leaf's step is scaled by. layers: how many an encoder trains, by its path, stacked in leaves [layers, ...]"""
    if "/upper/" in path:
        depth = jnp.arange(leaf.shape[0] - 1, -1, -1).reshape(-1, *[1] * (leaf.ndim - 1))
        return group.factor * group.layer_decay**depth if group.layer_decay != 1 else group.factor
    below = layers.get(path.split("/embeddings/")[0], 0) if "/embeddings/" in path else 0
    return group.factor * group.layer_decay**below


def _average(decay: float) -> optax.GradientTransformation:
    """Average of the parameters after each step, from their first values: m <- d m + (1 - d) p.

    d = min(decay, (1 + n) / (10 + n)) at step n, so that the first values are soon forgotten. Updates pass unchanged.
    """
    _check_share("average", decay)

    def init(params: Tree) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))

    def update(updates: Tree, state: Average, params: Tree = None) -> tuple[Tree, Average]:
        d = jnp.minimum(decay, (1 + state.count) / (10 + state.count))
        moved = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda old, new: d * old + (1 - d) * new, state.mean, moved)
        return updates, Average(state.count + 1, mean)

    return optax.GradientTransformation(init, update)


def _with_paths(tree: Tree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _by_path(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: function(jax.tree_util.keystr(path, simple=True, separator="/"), *leaves), tree, *others
    )


def _check_moments(b1: float, b2: float, eps: float) -> None:
    _check_share("b1", b1)
    _check_share("b2", b2)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps}; it must be above 0 and finite")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")
