"""Weightings made of another one: its weights smoothed over steps, used for several, or of losses of one scale."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Signals, Tree, Weighting
from mobjrec.weightings.given import check_share, sound

Measure = Literal["first", "running", "log"]


class Held(NamedTuple):
    """weights: [K], smoothed or of the last solution   known: [K] bool, whether there is one   left: steps it still serves

    fresh: whether the last step asked the inner weighting, whose state is `inner`
    """

    weights: Array
    known: Array
    left: Array
    fresh: Array
    inner: Any


class Scales(NamedTuple):
    """scale: [K], what losses are divided by   seen: [K] bool, whether there was a loss   inner: the weighting's own"""

    scale: Array
    seen: Array
    inner: Any


def smoothed(of: Weighting, rate: float = 0.9) -> Weighting:
    """The running mean of another weighting's weights: less noise of batches in them. Zhou et al. 2022 (CR-MOGM).

    w_t = rate w_(t-1) + (1 - rate) of_t, an objective's first weight being `of`'s; an absent one keeps its mean. A rate
    near 1 is what the paper's convergence needs. What `of` guarantees of one step goes: the mean of directions that hurt
    no objective then may hurt one now. ValueError unless 0 <= rate < 1.
    """
    check_share("rate", rate)

    def update(signals: Signals, state: Held) -> tuple[Array, Held]:
        found, inner = of.update(signals, state.inner)
        present = sound(signals).present
        mean = jnp.where(state.known, rate * state.weights + (1 - rate) * found, found).astype(state.weights.dtype)
        kept = jnp.where(present, mean, state.weights)
        return jnp.where(present, mean, 0.0), Held(kept, state.known | present, state.left, state.fresh, inner)

    return _around(of, _held(of), update, _observed(of))


def every(of: Weighting, steps: int = 10) -> Weighting:
    """Another weighting's weights, solved every so many steps and used in between. Navon et al. 2022, section 4.

    Solved again at once when an objective comes that has no weight yet. Spares the solver, the gradients that `of` would
    compare, and its look at the losses after the step. An absent objective keeps its last weight. What `of` guarantees
    holds for the steps in which it is solved. ValueError if steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1")

    def due(signals: Signals, state: Held) -> Array:
        return (state.left <= 0) | jnp.any(sound(signals).present & ~state.known)

    def update(signals: Signals, state: Held) -> tuple[Array, Held]:
        present = sound(signals).present

        def solve(state: Held) -> Held:
            found, inner = of.update(signals, state.inner)
            kept = jnp.where(present, found, state.weights).astype(state.weights.dtype)
            left = jnp.full_like(state.left, steps - 1)
            return Held(kept, state.known | present, left, jnp.ones_like(state.fresh), inner)

        def serve(state: Held) -> Held:
            return state._replace(left=state.left - 1, fresh=jnp.zeros_like(state.fresh))

        state = jax.lax.cond(due(signals, state), solve, serve, state)
        return jnp.where(present, state.weights, 0.0), state

    made = _around(of, _held(of), update, _observed(of))
    residual = made.residual and (lambda state: jnp.where(state.fresh, made.residual(state), 0.0))
    return made._replace(residual=residual, due=due)


def normalised(of: Weighting, by: Measure = "running", rate: float = 0.9) -> Weighting:
    """Another weighting of losses of one scale, so that no magnitude decides by accident.

    `of` sees L_k / s_k and gradients g_k / s_k, and its weights are divided by s_k. by: s_k is the loss's first value
    (`first`), the running mean of its size (`running`, at `rate`), or its value now (`log`: `of` sees log L_k, whose
    gradient that is; with `equal`, sum_k log L_k, so that weights are 1 / L_k). The direction is then invariant to a factor
    on any loss. A scale below 1e-9 of the largest counts as that. `log` needs losses above 0. What `of` guarantees holds for
    the normalised gradients, and so for the losses: dividing changes no sign. Breaks where a first loss is no typical one,
    and where losses near 0. ValueError for another word, unless 0 <= rate < 1, and for `log` of a weighting that needs
    losses above 0.
    """
    if by not in get_args(Measure):
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(get_args(Measure))}")
    check_share("rate", rate)
    if by == "log" and of.needs_positive:
        raise ValueError("by is 'log', whose losses may go below 0, but the weighting in `of` needs them above 0")

    def init(count: int) -> Scales:
        return Scales(jnp.ones(count), jnp.zeros(count, bool), of.init(count))

    def measured(signals: Signals, state: Scales) -> Array:
        size = jnp.abs(signals.losses)
        if by == "first":
            return jnp.where(state.seen, state.scale, size)
        if by == "running":
            return jnp.where(state.seen, rate * state.scale + (1 - rate) * size, size)
        return size

    def divided(losses: Array, scale: Array) -> Array:
        if by == "log":
            return jnp.log(jnp.maximum(losses, jnp.finfo(losses.dtype).tiny))
        return losses / scale

    def update(signals: Signals, state: Scales) -> tuple[Array, Scales]:
        signals = sound(signals)
        present = signals.present
        raw = jnp.where(present, measured(signals, state), 0.0)
        largest = jnp.max(raw)
        scale = jnp.where(present, jnp.maximum(raw, 1e-9 * largest), 1.0)
        scale = jnp.where(largest > 0, scale, 1.0)
        # One factor after the other: their product may overflow.
        gram = None if signals.gram is None else signals.gram / scale[:, None] / scale[None, :]
        losses = jnp.where(present, divided(signals.losses, scale), 1.0)
        weights, inner = of.update(signals._replace(losses=losses, gram=gram), state.inner)
        kept = jnp.where(present, scale, state.scale).astype(state.scale.dtype)
        return weights / scale, Scales(kept, state.seen | present, inner)

    def observe(losses: Array, state: Scales) -> Scales:
        return state._replace(inner=of.observe(divided(losses, state.scale), state.inner))

    made = _around(of, init, update, observe if of.observe is not None else None)
    return made._replace(needs_positive=of.needs_positive or by == "log")


def _around(of: Weighting, init: Callable, update: Callable, observe: Callable | None) -> Weighting:
    """`of` in another one whose state holds its own as `inner`: what it says of its problem is passed on."""
    residual, due = of.residual, of.due
    return of._replace(
        init=init,
        update=update,
        observe=observe,
        residual=residual and (lambda state: residual(state.inner)),
        due=due and (lambda signals, state: due(signals, state.inner)),
    )


def _held(of: Weighting) -> Callable[[int], Held]:
    def init(count: int) -> Held:
        zero = jnp.zeros((), jnp.int32)
        return Held(jnp.zeros(count), jnp.zeros(count, bool), zero, jnp.ones((), bool), of.init(count))

    return init


def _observed(of: Weighting) -> Callable[[Array, Held], Held] | None:
    """`of`'s observe for the steps in which it was asked; None where it has none."""
    if of.observe is None:
        return None

    def observe(losses: Array, state: Held) -> Held:
        seen: Tree = of.observe(losses, state.inner)
        return state._replace(inner=jax.tree.map(lambda new, old: jnp.where(state.fresh, new, old), seen, state.inner))

    return observe
