"""Plain descent under a weighting, as one scan: what the toy problems have in common, and problems of both files."""

import jax
import jax.numpy as jnp
import optax

from mobjrec.types import Signals


def signals_of(values, rows, present, wish=None, number=0):
    gram = rows @ rows.T
    return Signals(values, present, gram, wish, number, number, jax.random.fold_in(jax.random.key(0), number))


def descend(losses, weighting, start, wish=None, present=None, *, rate, steps, adam=False):
    """Where theta ends, its losses, and the worst gain of an objective on the way as a cosine bound, at most 0."""
    count = len(jax.eval_shape(losses, start))
    present = jnp.ones(count, bool) if present is None else present
    optimizer = optax.adam(rate) if adam else optax.sgd(rate)

    def step(carry, number):
        theta, moments, state = carry
        values, rows = losses(theta), jax.jacrev(losses)(theta)
        weights, state = weighting.update(signals_of(values, rows, present, wish, number), state)
        direction, length = weights @ rows, jnp.linalg.norm(rows, axis=1)
        gains = rows @ direction / jnp.maximum(length * (jnp.abs(weights) @ length), 1e-300)
        change, moments = optimizer.update(direction, moments)
        theta = theta + change
        if weighting.observe is not None:
            state = weighting.observe(losses(theta), state)
        return (theta, moments, state), jnp.min(jnp.where(present, gains, 0.0))

    first = (start, optimizer.init(start), weighting.init(count))
    (theta, _, _), worst = jax.lax.scan(step, first, jnp.arange(steps))
    return theta, losses(theta), jnp.min(worst)


def circle(z):
    """A concave front, a quarter of a circle or an eighth of a sphere: as many losses as theta has entries."""
    *angles, far = [jnp.pi / 2 * jax.nn.sigmoid(one) for one in z[:-1]] + [1 + z[-1] ** 2]
    if len(angles) == 1:
        return far * jnp.stack([jnp.cos(angles[0]), jnp.sin(angles[0])])
    a, b = angles
    return far * jnp.stack([jnp.cos(a) * jnp.cos(b), jnp.cos(a) * jnp.sin(b), jnp.sin(a)])


def ranking(told):
    """Clicks and satisfaction of 60 items under one linear score: a function of theta [6]."""
    items, clicks, ratings = (jnp.array(told[key], jnp.float64) for key in ("X", "y", "r"))

    def losses(theta):
        scores, norm = items @ theta, told["l2"] / 2 * jnp.sum(theta**2)
        click = jnp.mean(jax.nn.softplus(scores) - clicks * scores)
        return jnp.stack([click, 0.5 * jnp.mean(jnp.square(scores - ratings))]) + norm

    return losses
