"""What weightings ask of their settings and of a step's signals before they solve anything."""

from collections.abc import Callable

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.solvers import Solution


def check_numbers(name: str, values: PerObjective, low: float | None = 0.0) -> None:
    """ValueError unless all are finite in 32 bits and at least `low`. () is no number and passes."""
    largest = float(jnp.finfo(jnp.float32).max)
    if not all(abs(value) <= largest and (low is None or value >= low) for value in values):
        bound = "" if low is None else " and not negative" if low == 0 else f" and at least {low}"
        raise ValueError(f"{name} is {tuple(values)}; its entries must be finite{bound}")


def check_preference(name: str, values: PerObjective) -> None:
    """ValueError unless all are finite in 32 bits, none negative, and not all 0; () is refused."""
    largest = float(jnp.finfo(jnp.float32).max)
    if not all(0 <= value <= largest for value in values) or not any(values):
        raise ValueError(f"{name} is {tuple(values)}; its entries must be finite, not negative, and not all 0")


def check_count(name: str, values: PerObjective, count: int) -> None:
    """ValueError unless there is one per objective, or none at all."""
    if values and len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries for {count} objectives")


def preferring(values: PerObjective) -> Callable[[int], tuple[()]]:
    """The `init` of a weighting that keeps no state and takes a `preference`, or none. ValueError as of the checks above."""
    if values:
        check_preference("preference", values)

    def init(count: int) -> tuple[()]:
        check_count("preference", values, count)
        return ()

    return init


def solving(
    solve: Callable[[Signals], Solution], fits: Callable[[int], object] = lambda count: (), needs_positive: bool = False
) -> Weighting:
    """A weighting of the Gram matrix without a memory: its state is the residual of its last problem, a scalar in 0 to 1.

    solve: sound signals -> the problem's solution   fits: K -> anything; raises ValueError if the settings do not fit K
    """

    def init(count: int) -> Array:
        fits(count)
        return jnp.zeros(())

    def update(signals: Signals, state: Array) -> tuple[Array, Array]:
        found = solve(sound(signals))
        missed = jnp.where(jnp.isfinite(found.residual), jnp.clip(found.residual, 0.0, 1.0), 1.0)
        return found.weights, missed.astype(state.dtype)

    return Weighting(init, update, needs_gram=True, needs_positive=needs_positive, residual=lambda state: state)


def check_rate(name: str, value: float) -> None:
    """ValueError unless 0 < value < inf."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be finite and above 0")


def check_at_least_0(name: str, value: float) -> None:
    """ValueError unless 0 <= value < inf."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be finite and not negative")


def check_share(name: str, value: float) -> None:
    """ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must be from 0 to below 1")


def sound(signals: Signals) -> Signals:
    """The signals with every objective that is absent, or whose loss or gradient is not finite, left out.

    Out of the problem: present False, loss 1, a row and column of 0 in the Gram matrix.
    """
    present = signals.present & jnp.isfinite(signals.losses)
    gram = signals.gram
    if gram is not None:
        present = present & jnp.isfinite(jnp.diagonal(gram))
        gram = jnp.where(present[:, None] & present[None, :], gram, 0.0)
    return signals._replace(losses=jnp.where(present, signals.losses, 1.0), present=present, gram=gram)


def shares(values: PerObjective, signals: Signals) -> Array:
    """[K] preferences of the present objectives over their sum, 0 elsewhere and where that sum is 0.

    The setting's; if there is none, the step's; if there is none, all alike.
    """
    if values:
        given = jnp.asarray(values, signals.losses.dtype)
    else:
        given = jnp.ones_like(signals.losses) if signals.preference is None else signals.preference
    return proportions(jnp.where(signals.present, given, 0.0))


def proportions(values: Array) -> Array:
    """Values [K] >= 0 over their sum, 0 where that is 0."""
    total = jnp.sum(values)
    return values / jnp.where(total > 0, total, 1.0)


def softmax(logits: Array, present: Array) -> Array:
    """Softmax over the present objectives [K], 0 elsewhere; all 0 where none is present."""
    kept = jnp.where(present, logits, -jnp.inf)
    raised = jnp.where(present, jnp.exp(logits - jnp.max(kept, initial=jnp.finfo(logits.dtype).min)), 0.0)
    return proportions(raised)
