"""What every weighting promises, checked on random and degenerate Gram matrices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobjrec.types import Array, Signals, Tree, Weighting

COUNT = 4
PARAMETERS = 6
CLAIMS = frozenset({"convex", "non_conflicting", "scale_invariant", "solved", "stationary"})
# A larger residual is told of, and may stop a run.
UNSOLVED = 1e-3


def check_weighting(weighting: Weighting, claims: frozenset[str] = frozenset()) -> None:
    """Every promise of a weighting of four objectives; AssertionError says which does not hold.

    One finite weight per objective for any Gram matrix (opposite, duplicate, tiny, huge, zero gradients) and a state
    that stays finite and keeps its form; an absent objective gets 0, its entries of the state stay, and what stands in
    its row, NaN too, has no influence; all absent: all 0; a second call does not recompile; vmap agrees with one call; a
    residual, where there is one, is a number from 0 to 1; in a step that is not due the Gram matrix has no influence.

    claims: "convex": weights >= 0 that sum to 1   "non_conflicting": the direction hurts no present objective
    "scale_invariant": one positive factor on all losses and gradients leaves the weights' proportions
    "solved": the residual is at most 0.001 for each of these gradients, and so each problem solved
    "stationary": the direction is 0 where 0 is in the gradients' convex hull. ValueError for any other claim.
    """
    unknown = set(claims) - CLAIMS
    if unknown:
        raise ValueError(f"there is no claim {', '.join(sorted(unknown))}; there are {', '.join(sorted(CLAIMS))}")
    compiled = jax.jit(weighting.update)
    state = weighting.init(COUNT)
    for name, jacobian in jacobians().items():
        weights, after = _checked(name, weighting, compiled, signals(weighting, jacobian), state)
        if "solved" in claims:
            _check(weighting.residual is not None, "claims to be solved, but has no residual that says so")
            missed = float(weighting.residual(after))
            _check(missed <= UNSOLVED, f"{name}: not solved, the residual is {missed}")
        if "convex" in claims:
            _check(
                bool((weights >= 0).all()) and abs(weights.sum() - 1) < 1e-5, f"{name}: not convex weights: {weights}"
            )
        if "non_conflicting" in claims:
            _check_descent(name, jacobian, weights, np.ones(COUNT, bool))
        if "stationary" in claims and name in ("opposite", "zero", "surrounded"):
            length = np.linalg.norm(weights @ jacobian) / max(np.abs(weights).sum(), 1e-30)
            _check(
                length < 1e-5 * np.linalg.norm(jacobian), f"{name}: stationary, but the direction's length is {length}"
            )
    _check_absent(weighting, compiled, state, "non_conflicting" in claims)
    _check_run(weighting, compiled, state)
    if "scale_invariant" in claims:
        _check_scale(weighting, compiled, state)
    _check_vmap(weighting, compiled, state)
    size = getattr(compiled, "_cache_size", lambda: 1)()
    _check(size <= 2, f"update was compiled {size} times for one shape")


def jacobians() -> dict[str, np.ndarray]:
    """Gradients [K, P] by what is special about them."""
    plain = np.random.default_rng(0).normal(size=(COUNT, PARAMETERS)) + 0.5
    special = {
        "plain": plain,
        "conflicting": plain - plain.mean(0),
        "duplicate": plain[[0, 1, 0, 1]],
        "opposite": np.stack([plain[0], -plain[0], plain[1], plain[2]]),
        "surrounded": np.stack([plain[0], plain[1], -plain[0] - plain[1], plain[2]]),
        "zero": np.stack([plain[0], plain[1], 0 * plain[0], plain[2]]),
        "all zero": 0 * plain,
        "scales": plain * np.logspace(-3, 3, COUNT)[:, None],
        "tiny": 1e-12 * plain,
        "huge": 1e12 * plain,
    }
    return {name: rows.astype(np.float32) for name, rows in special.items()}


def signals(weighting: Weighting, jacobian: np.ndarray, present: np.ndarray | None = None, step: int = 0) -> Signals:
    """What a step would show a weighting of these gradients; losses are above 0 where it needs them so."""
    losses = np.random.default_rng(1 + step).uniform(0.2, 2.0, COUNT).astype(np.float32)
    if not weighting.needs_positive:
        losses[1] = -losses[1]
    present = np.ones(COUNT, bool) if present is None else present
    gram = jacobian @ jacobian.T if weighting.needs_gram else None
    preference, counter = np.full(COUNT, 1.0 / COUNT, np.float32), np.int32(step)
    return Signals(losses, present, gram, preference, counter, counter, jax.random.key(step))


def _checked(
    name: str, weighting: Weighting, compiled: Callable[..., Any], given: Signals, state: Tree
) -> tuple[np.ndarray, Tree]:
    weights, after = compiled(given, state)
    _check(weights.shape == (COUNT,), f"{name}: weights have shape {weights.shape}, one per objective is wanted")
    _check(bool(np.isfinite(weights).all()), f"{name}: a weight is not finite: {weights}")
    same = jax.tree.structure(after) == jax.tree.structure(state) and all(
        jnp.shape(a) == jnp.shape(b) and jnp.result_type(a) == jnp.result_type(b)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
    )
    _check(same, f"{name}: the state changed its form")
    _check(all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after)), f"{name}: the state is not finite")
    if weighting.residual is not None:
        missed = np.asarray(weighting.residual(after))
        _check(missed.shape == () and 0 <= missed <= 1, f"{name}: the residual is {missed}, not a number from 0 to 1")
    return np.asarray(weights), after


def _check_descent(name: str, jacobian: np.ndarray, weights: np.ndarray, present: np.ndarray) -> None:
    length = np.linalg.norm(jacobian.astype(np.float64), axis=1)
    products = jacobian.astype(np.float64) @ (weights @ jacobian.astype(np.float64))
    allowed = 1e-5 * length * (np.abs(weights) @ length)
    _check(bool((products >= -allowed)[present].all()), f"{name}: the direction hurts an objective: {products}")


def _check_absent(weighting: Weighting, compiled: Callable[..., Any], state: Tree, descends: bool) -> None:
    present = np.array([True, False, True, True])
    jacobian = jacobians()["plain"]
    # Moments and counts start at 0, where decaying is no change: they must have moved first.
    _, state = compiled(signals(weighting, jacobian), state)
    given = signals(weighting, jacobian, present)
    weights, after = _checked("one absent", weighting, compiled, given, state)
    _check(weights[1] == 0, f"an absent objective has the weight {weights[1]}")
    _check(bool(np.any(weights[present] != 0)), "one absent: every weight is 0")
    if descends:
        _check_descent("one absent", jacobian, weights, present)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        if jnp.shape(old)[:1] == (COUNT,):
            _check(bool(np.array_equal(old[1], new[1])), "an absent objective's state changed")
    for rubbish in (5.0, np.nan):
        at = np.arange(COUNT) == 1
        other = given._replace(losses=np.where(at, np.float32(rubbish), given.losses))
        if given.gram is not None:
            other = other._replace(gram=np.where(at | at[:, None], np.float32(rubbish), given.gram))
        found, _ = _checked(f"an absent objective's row is {rubbish}", weighting, compiled, other, state)
        _check(np.allclose(found, weights, atol=1e-6), f"an absent objective's row of {rubbish} changes the weights")
    weights, _ = _checked("all absent", weighting, compiled, signals(weighting, jacobian, np.zeros(COUNT, bool)), state)
    _check(bool((weights == 0).all()), f"all are absent, but weights are {weights}")


def _check_run(weighting: Weighting, compiled: Callable[..., Any], state: Tree) -> None:
    for step, (name, jacobian) in enumerate(jacobians().items()):
        given = signals(weighting, jacobian, step=step)
        if weighting.due is not None and not weighting.due(given._replace(gram=None), state):
            weights, after = compiled(given, state)
            given = given._replace(gram=None if given.gram is None else np.zeros_like(given.gram))
            same = jax.tree.map(np.array_equal, compiled(given, state), (weights, after))
            _check(all(jax.tree.leaves(same)), f"{name}: not due, but the Gram matrix has an influence")
        _, state = _checked(f"{name}, step {step}", weighting, compiled, given, state)
        if weighting.observe is not None:
            state = weighting.observe(given.losses * np.float32(0.9), state)


def _check_scale(weighting: Weighting, compiled: Callable[..., Any], state: Tree) -> None:
    given = signals(weighting, jacobians()["plain"])
    wanted = _shares(compiled(given, state)[0])
    for factor in (1e-3, 1e3):
        scaled = given._replace(losses=given.losses * np.float32(factor))
        if given.gram is not None:
            scaled = scaled._replace(gram=given.gram * np.float32(factor**2))
        _check(
            np.allclose(_shares(compiled(scaled, state)[0]), wanted, atol=1e-4), f"a factor {factor} changes weights"
        )


def _check_vmap(weighting: Weighting, compiled: Callable[..., Any], state: Tree) -> None:
    some = [signals(weighting, jacobian) for jacobian in jacobians().values()]
    stack = lambda *leaves: (np if isinstance(leaves[0], np.ndarray | np.generic) else jnp).stack(leaves)
    stacked = jax.tree.map(stack, *some)
    many = jax.jit(jax.vmap(lambda given: weighting.update(given, state)[0]))(stacked)
    for given, weights in zip(some, np.asarray(many), strict=True):
        _check(np.allclose(compiled(given, state)[0], weights, atol=1e-5), "vmap disagrees with single calls")


def _shares(weights: Array) -> np.ndarray:
    return np.asarray(weights) / np.abs(weights).sum()


def _check(holds: bool, failure: str) -> None:
    if not holds:
        raise AssertionError(failure)
