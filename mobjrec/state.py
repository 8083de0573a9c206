"""What training carries from step to step. No key and no data cursor: both are functions of (seed, step)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobjrec.types import Array, Model, Objective, Spec, Tree, Weighting


class TrainState(NamedTuple):
    """step: int32, updates done   params: all parameters, frozen ones too, the objectives' under "objectives"

    opt_state: optax's, for trained leaves   weighting_state: the weighting's   memory: {objective: its memory}
    """

    step: Array
    params: Tree
    opt_state: Tree
    weighting_state: Tree
    memory: Tree


def first(
    model: Model, objectives: dict[str, Objective], weighting: Weighting, optimizer, spec: Spec, seed: int
) -> TrainState:
    """The state before step 0, a function of the seed. ValueError where the weighting does not fit the objectives."""
    key_model, key_objectives = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2**31 - 1))
    params, memory = dict(model.init(key_model)), {}
    own = {}
    for name, key in zip(objectives, jax.random.split(key_objectives, len(objectives)), strict=True):
        init = objectives[name].init
        own[name], memory[name] = init(key, spec) if init else ((), ())
    params["objectives"] = own
    trained, _ = divide(params, model.trainable(params))
    state = TrainState(
        jnp.zeros((), jnp.int32), params, optimizer.init(trained), weighting.init(len(objectives)), memory
    )
    # Donation refuses one array that stands twice in the state.
    return jax.tree.map(jnp.array, state)


def divide(params: Tree, mask: Tree) -> tuple[Tree, Tree]:
    """(where mask, where not): each the whole tree with None in place of the other's leaves."""
    return (
        jax.tree.map(lambda leaf, kept: leaf if kept else None, params, mask),
        jax.tree.map(lambda leaf, kept: None if kept else leaf, params, mask),
    )


def join(some: Tree, others: Tree) -> Tree:
    """What `divide` took apart."""
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf, some, others, is_leaf=lambda leaf: leaf is None
    )
