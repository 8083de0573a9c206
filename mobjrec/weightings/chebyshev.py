"""The worst objective alone, and its smooth form: every point of a front, whatever the front's shape."""

from collections.abc import Callable

import jax.numpy as jnp

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import (
    check_at_least_0,
    check_count,
    check_numbers,
    check_preference,
    check_rate,
    shares,
    softmax,
    sound,
)


def chebyshev(preference: PerObjective = (), ideal: PerObjective = (), share_of_all: float = 0.0) -> Weighting:
    """Weights of max_k p_k (L_k - z_k): every weakly Pareto-optimal point is the minimiser for some p. Bowman 1976.

    w_k = p_k for the worst objective (the first of equals), plus share_of_all * p_k for each: a little of that
    (Steuer & Choo 1983, rho) leaves out points that are only weakly optimal. p: the preference over its sum, the step's
    where none is set, else all alike; at the minimiser L_k - z_k is proportional to 1 / p_k where the front has such a
    point. ideal: z, each objective's best loss, 0 if not given. Losses must be on comparable scales. Breaks by zigzag:
    only one objective moves a step. ValueError unless numbers are finite, one an objective, preferences not negative
    nor all 0, and 0 <= share_of_all < inf.
    """
    _check(preference, ideal)
    check_at_least_0("share_of_all", share_of_all)

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals, wish, regret = _regret(signals, preference, ideal)
        worst = jnp.argmax(jnp.where(signals.present, regret, -jnp.inf))
        at = jnp.arange(len(regret)) == worst
        return jnp.where(signals.present, wish * (at + share_of_all), 0.0), state

    return Weighting(_init(preference, ideal), update)


def smooth_chebyshev(preference: PerObjective = (), ideal: PerObjective = (), smoothing: float = 0.1) -> Weighting:
    """Weights of mu log sum_k exp(p_k (L_k - z_k) / mu), at most mu log K above Chebyshev's maximum. Lin et al. 2024.

    w_k = p_k softmax_k(p (L - z) / mu), mu being `smoothing`, in units of loss: every weakly Pareto-optimal point is
    reached as mu goes to 0, where it is `chebyshev`; for a large mu it is the weighted sum. preference, ideal and when it
    breaks: as there. ValueError as there, and unless 0 < smoothing < inf.
    """
    _check(preference, ideal)
    check_rate("smoothing", smoothing)

    def update(signals: Signals, state: tuple[()]) -> tuple[Array, tuple[()]]:
        signals, wish, regret = _regret(signals, preference, ideal)
        return wish * softmax(regret / smoothing, signals.present), state

    return Weighting(_init(preference, ideal), update)


def _check(preference: PerObjective, ideal: PerObjective) -> None:
    if preference:
        check_preference("preference", preference)
    check_numbers("ideal", ideal, low=None)


def _init(preference: PerObjective, ideal: PerObjective) -> Callable[[int], tuple[()]]:
    def init(count: int) -> tuple[()]:
        check_count("preference", preference, count)
        check_count("ideal", ideal, count)
        return ()

    return init


def _regret(signals: Signals, preference: PerObjective, ideal: PerObjective) -> tuple[Signals, Array, Array]:
    """The sound signals, p [K] and p_k (L_k - z_k) [K]."""
    signals = sound(signals)
    wish = shares(preference, signals)
    best = jnp.asarray(ideal, signals.losses.dtype) if ideal else 0.0
    return signals, wish, wish * (signals.losses - best)
