"""Fast adaptive multitask optimisation: all losses shall fall by the same factor, told from losses alone."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from mobjrec.types import Array, PerObjective, Signals, Weighting
from mobjrec.weightings.given import check_at_least_0, check_count, check_numbers, check_rate, softmax, sound

Optimizer = Literal["adam", "sgd"]
# The paper's: a loss at its least stays a finite weight.
LEAST = 1e-8


class Famo(NamedTuple):
    """logits: [K]   moments: the optimizer's, leaves [K]   then: [2, K], logarithms of the losses of the step and
    whether (1 or 0) the objective was present
    """

    logits: Array
    moments: Any
    then: Array


def famo(
    learning_rate: float = 0.025, decay: float = 1e-3, ideal: PerObjective = (), optimizer: Optimizer = "adam"
) -> Weighting:
    """Weights that raise the smallest log decrease of the losses. Liu et al. 2023 (FAMO), algorithm 1.

    w_k = c z_k / (L_k - b_k), z a softmax whose logit rises for who fell least.
    c makes the weights sum to 1. After the step the losses of the same batch are taken once more (a second forward
    pass), and z's logits move against (diag z - z z^T) (log L before - log L after) + decay * logits. Needs losses
    above b (`ideal`, 0 if not given). Weighted losses are invariant to a factor on any loss. An absent objective keeps
    its logit and moments. Breaks by decay: it holds z near equal, 0 lets the paper's toy arrive from every start. It
    is no promise that losses end balanced. ValueError unless 0 < learning_rate < inf, 0 <= decay < inf, ideal is finite.
    """
    check_rate("learning_rate", learning_rate)
    check_at_least_0("decay", decay)
    check_numbers("ideal", ideal, low=None)
    if optimizer not in get_args(Optimizer):
        raise ValueError(f"optimizer is {optimizer!r}; it must be one of {', '.join(get_args(Optimizer))}")
    descent = optax.adam(learning_rate) if optimizer == "adam" else optax.sgd(learning_rate)

    def above(losses: Array) -> Array:
        return jnp.maximum(losses - (jnp.asarray(ideal, losses.dtype) if ideal else 0.0), 0.0) + LEAST

    def init(count: int) -> Famo:
        check_count("ideal", ideal, count)
        logits = jnp.zeros(count)
        return Famo(logits, jax.vmap(descent.init)(logits), jnp.zeros((2, count)))

    def update(signals: Signals, state: Famo) -> tuple[Array, Famo]:
        signals = sound(signals)
        gaps = above(signals.losses)
        weights = softmax(state.logits, signals.present) / gaps
        total = jnp.sum(weights)
        then = jnp.stack([jnp.where(signals.present, jnp.log(gaps), 0.0), signals.present]).astype(state.then.dtype)
        return weights / jnp.where(total > 0, total, 1.0), state._replace(then=then)

    def observe(losses: Array, state: Famo) -> Famo:
        before, there = state.then[0], (state.then[1] > 0) & jnp.isfinite(losses)
        fell = jnp.where(there, before - jnp.log(above(jnp.where(there, losses, 1.0))), 0.0)
        z = softmax(state.logits, there)
        slope = z * (fell - jnp.sum(z * fell)) + decay * state.logits
        change, moments = jax.vmap(descent.update)(slope.astype(state.logits.dtype), state.moments)
        after = (state.logits + change, moments)
        logits, moments = jax.tree.map(lambda new, old: jnp.where(there, new, old), after, state[:2])
        return Famo(logits, moments, state.then)

    return Weighting(init, update, needs_positive=not ideal, observe=observe)
