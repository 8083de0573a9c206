"""Optimizers as a config names them: a function of settings and the number of steps, returning an optax transformation.

What they update is the tree of trained parameters with None in place of a frozen leaf (`state.divide`). To JAX None is
no leaf, so plain optax works and a frozen parameter has no moments. Paths are those of that tree,
"encoder/layers/kernel"; in a pattern `*` stands for any characters, "/" too. Order within a step: clipping, moments,
decay, learning rate, group factor.
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobjrec.types import Array, Tree

__all__ = ["adam", "adamw", "sgd"]

Schedule = Literal["constant", "cosine", "linear"]
# Biases, norms' and heads' scales, id tables (a rare id would decay to nothing between two looks) and objectives' own.
UNDECAYED = ("*bias", "*scale", "*ids/*", "objectives/*")


class Group(NamedTuple):
    """How parameters of one path pattern differ: learning rate times `factor`; `frozen` leaves them as they are."""

    factor: float = 1.0
    frozen: bool = False


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
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay}; it must be finite and not negative")

    def decays(params: Tree) -> Tree:
        return _by_path(lambda path, _: not any(fnmatchcase(path, pattern) for pattern in undecayed), params)

    rule = [optax.scale_by_adam(b1, b2, eps), optax.add_decayed_weights(weight_decay, decays)]
    return _assembled(rule, rates(steps, learning_rate, schedule, warmup), clip, groups or {}, average)


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
    return _assembled(rule, rates(steps, learning_rate, schedule, warmup), clip, groups or {}, average)


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
    return _assembled(rule, rates(steps, learning_rate, schedule, warmup), clip, groups or {}, average)


def rates(steps: int, peak: float, schedule: Schedule, warmup: float) -> Callable[[Array], Array]:
    """The learning rate of step n = 0 .. steps - 1.

    Over the first W = round(warmup * steps) steps peak (n + 1) / W, so that none is lost to a rate of 0. Then, with
    x = (n - W) / (steps - W), peak, peak (1 + cos(pi x)) / 2 or peak (1 - x): 0 from `steps` on, unless constant.
    """
    _check_share("warmup", warmup)
    if not 0 < peak < math.inf:
        raise ValueError(f"learning_rate is {peak}; it must be above 0 and finite")
    first = round(warmup * steps)

    def rate(count: Array) -> Array:
        x = jnp.clip((count - first) / max(steps - first, 1), 0.0, 1.0)
        shape = {"constant": jnp.ones_like(x), "cosine": (1 + jnp.cos(jnp.pi * x)) / 2, "linear": 1 - x}[schedule]
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
    groups: dict[str, Group],
    average: float | None,
) -> optax.GradientTransformation:
    """Clip, rule, rate and group factor over what no group freezes, then the average of all that comes out."""
    if clip is not None and not clip > 0:
        raise ValueError(f"clip is {clip}; it must be above 0, or null for no clipping")
    wrong = {name: group.factor for name, group in groups.items() if not 0 <= group.factor < math.inf}
    if wrong:
        raise ValueError(f"groups has the factors {wrong}; each must be finite and not negative")
    parts = [optax.clip_by_global_norm(clip)] if clip is not None else []
    parts += [*rule, optax.scale_by_learning_rate(rate)]
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


def _all_matched(groups: dict[str, Group]) -> optax.GradientTransformation:
    """Changes nothing; at `init` a pattern that no parameter has is an error, not a setting without effect."""

    def init(params: Tree) -> optax.EmptyState:
        paths = jax.tree.leaves(_by_path(lambda path, _: path, params))
        for pattern in groups:
            if not any(fnmatchcase(path, pattern) for path in paths):
                rooms = ", ".join(sorted({path.rsplit("/", 1)[0] for path in paths})[:12])
                raise ValueError(f"groups: {pattern} matches no trained parameter; there are {rooms} ...")
        return optax.EmptyState()

    return optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))


def _scaled_by_group(groups: dict[str, Group]) -> optax.GradientTransformation:
    def update(updates: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
        return _by_path(lambda path, leaf: leaf * _group(path, groups).factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


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


def _by_path(function: Callable[[str, Any], Any], tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(jax.tree_util.keystr(path, simple=True, separator="/"), leaf), tree
    )


def _check_moments(b1: float, b2: float, eps: float) -> None:
    _check_share("b1", b1)
    _check_share("b2", b2)
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps}; it must be above 0 and finite")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")
