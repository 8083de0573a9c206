"""One pure training step, written for one device of the axis `data`: collectives on that name, no mesh.

Four stages: encode distinct texts; gather, score and take K losses; Gram matrix and weights; one weighted pull-back.
A device differentiates its own share, the sum over its lists, so no collective but all_gather is ever differentiated.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobjrec.gram import gram as gram_of
from mobjrec.state import TrainState, divide, join
from mobjrec.types import Array, Batch, Clock, Model, Objective, Outputs, Signals, Texts, Tree, Weighting


class Setting(NamedTuple):
    """What a step is made of beside its functions.

    chunk_rows: rows encoded at a time with recomputation (None: at once)   shared: one candidate set for all lists
    gram_at: "embeddings" or "parameters"   unit: divide weights by the sum of their absolute values
    preference: key -> [K], or None   varying: False under vmap, which knows no pcast
    """

    seed: int
    steps_per_epoch: int
    chunk_rows: int | None = None
    shared: bool = False
    gram_at: str = "embeddings"
    unit: bool = True
    preference: Callable[[Array], Array] | None = None
    varying: bool = True


class Keys(NamedTuple):
    """Dropout keys: [B] for users, [B] or [1] for items, [B] for histories and for the scorer."""

    users: Array
    items: Array
    history: Array
    scorer: Array


def make_step(
    model: Model,
    objectives: dict[str, Objective],
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    setting: Setting,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The step (state, this device's batch) -> (state, logs), to be mapped over the axis `data`.

    logs: losses [K] (mean over the lists an objective speaks of), present [K], weights [K] as applied, gram [K, K] if
    the weighting reads it, gradient_norm, finite. Where a loss or gradient is not finite, only the step number changes.
    """

    def vary(tree: Tree) -> Tree:
        return jax.tree.map(lambda a: jax.lax.pcast(a, "data", to="varying"), tree) if setting.varying else tree

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        mask = model.trainable(state.params)
        key = jax.random.fold_in(jax.random.key(setting.seed), state.step)
        key_users, key_items, key_lists, key_preference, key = jax.random.split(key, 5)
        clock = Clock(state.step, state.step // setting.steps_per_epoch)
        preference = None if setting.preference is None else setting.preference(key_preference)
        keys = list_keys(key_lists, batch.where.shape[0], setting.shared)

        def embed(encoder: Tree, frozen: Tree) -> tuple[Array | None, Array | None]:
            whole, rows = join(encoder, frozen).get("encoder", {}), setting.chunk_rows
            users, items = batch.user_texts, batch.item_texts
            return (
                encode(model.encode_users, whole, users, key_users, rows),
                encode(model.encode_items, whole, items, key_items, rows),
            )

        def share(rest: Tree, embeddings: tuple[Array | None, Array | None], frozen: Tree, memory: Tree):
            everyone = jax.tree.map(lambda e: jax.lax.all_gather(e, "data", tiled=True), embeddings)
            params = join(rest, frozen)
            outputs = forward(model, params, everyone, batch, preference, keys)
            values, speaks, memory = per_list(objectives, outputs, batch, params["objectives"], memory, clock)
            return jnp.sum(values, axis=1, where=speaks), (jnp.sum(speaks, axis=1, dtype=jnp.float32), memory)

        def losses_at(params: Tree):
            """Sums [K] of this device and how to pull a cotangent back; params are varying."""
            trained, frozen = divide(params, mask)
            encoder, rest = apart(trained)
            frozen_encoder, frozen_rest = apart(frozen)
            embeddings, pull_encoder = jax.vjp(lambda p: embed(p, frozen_encoder), encoder)
            sums, pull, (spoken, memory) = jax.vjp(
                lambda r, e: share(r, e, frozen_rest, state.memory), rest, embeddings, has_aux=True
            )
            return sums, spoken, memory, pull, pull_encoder

        sums, spoken, memory, pull, pull_encoder = losses_at(vary(state.params))
        spoken = jax.lax.psum(spoken, "data")
        present, count = spoken > 0, jnp.maximum(spoken, 1.0)
        losses = jax.lax.psum(sums, "data") / count

        gram, rows = None, None
        if weighting.needs_gram:
            unit = vary(jnp.eye(len(objectives)) / count[:, None])
            if setting.gram_at == "embeddings":
                gram = jax.lax.psum(gram_of(jax.lax.map(lambda u: pull(u)[1], unit)), "data")
            else:
                # vmap, not lax.map: an encoder's backward pass in a loop took 25 s to compile instead of 7.
                rows = jax.lax.psum(jax.vmap(lambda u: together(pull(u), pull_encoder))(unit), "data")
                shared, _ = divide(rows, divide(model.shared(state.params), mask)[0])
                gram = gram_of(shared)
        signals = Signals(losses, present, gram, preference, clock.step, clock.epoch, key)
        weights, weighting_state = weighting.update(signals, state.weighting_state)
        weights = jnp.where(present, weights, 0.0)
        if setting.unit:
            total = jnp.sum(jnp.abs(weights))
            weights = weights / jnp.where(total > 0, total, 1.0)

        if rows is None:
            grads = jax.lax.psum(together(pull(vary(weights / count)), pull_encoder), "data")
        else:
            # The rows are there: mixing them spares a backward pass, and its compilation.
            grads = jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1, precision="highest"), rows)
        trained, frozen = divide(state.params, mask)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = join(optax.apply_updates(trained, updates), frozen)
        if weighting.observe is not None:
            after = jax.lax.psum(losses_at(vary(params))[0], "data") / count
            weighting_state = weighting.observe(after, weighting_state)
        memory = jax.tree.map(lambda new, old: old + jax.lax.psum(new - old, "data"), memory, state.memory)

        norm = optax.tree.norm(grads)
        finite = jnp.all(jnp.isfinite(losses)) & jnp.isfinite(norm)
        kept = TrainState(state.step, params, opt_state, weighting_state, memory)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), kept, state)
        logs = {"losses": losses, "present": present, "weights": weights, "gradient_norm": norm, "finite": finite}
        return kept._replace(step=state.step + 1), logs if gram is None else {**logs, "gram": gram}

    return step


def encode(encoder: Callable, params: Tree, texts: Texts | None, key: Array, rows: int | None) -> Array | None:
    """[R * S, D] of this device's rows. `rows` at a time, recomputed when differentiated; None: at once.

    Gao et al. 2021 (GradCache). One key per row of the global batch: the same mask in any layout and any chunk.
    """
    if texts is None:
        return None
    count = texts.used.shape[0]
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jax.lax.axis_index("data") * count + jnp.arange(count))
    if rows is None or texts.vector is not None or count <= rows:
        found = encoder(params, texts, keys)
    else:
        parts = jax.tree.map(lambda a: a.reshape(-1, rows, *a.shape[1:]), (texts, keys))
        # prevent_cse=False is right inside a scan or map only.
        found = jax.lax.map(jax.checkpoint(lambda part: encoder(params, *part), prevent_cse=False), parts)
    return found.reshape(-1, found.shape[-1])


def forward(
    model: Model,
    params: Tree,
    embeddings: tuple[Array | None, Array | None],
    batch: Batch,
    preference: Array | None,
    keys: Keys | None,
) -> Outputs:
    """Stage 2: embeddings by name -> towers -> scores. embeddings: users' and items' texts [names, D] or None."""
    user_texts, item_texts = embeddings
    keys = keys or Keys(None, None, None, None)
    items = model.item(params, by_name(item_texts, batch.items.text), batch.items.ids, batch.items.features, keys.items)
    history = None
    if batch.history is not None:
        text = by_name(item_texts, batch.history.text)
        history = model.item(params, text, batch.history.ids, batch.history.features, keys.history)
    text = by_name(user_texts, batch.users.text)
    users = model.user(params, text, batch.users.ids, batch.users.features, history, batch.history_where, keys.users)
    scores = model.score(params, users, items, batch.context, batch.context_ids, preference, keys.scorer)
    return Outputs(scores, users, items)


def by_name(embeddings: Array | None, name: Array | None) -> Array | None:
    """Embeddings [names, D] looked up by name [...], 0 for the name -1."""
    if embeddings is None or name is None:
        return None
    return jnp.where((name >= 0)[..., None], embeddings[jnp.maximum(name, 0)], 0.0)


def list_keys(key: Array, lists: int, shared: bool) -> Keys:
    """One key per list of the global batch and use; a shared candidate set has one on all devices."""
    place = jax.lax.axis_index("data") * lists + jnp.arange(lists)
    users, items, history, scorer = jax.random.split(key, 4)

    def each(key: Array) -> Array:
        return jax.vmap(lambda p: jax.random.fold_in(key, p))(place)

    return Keys(each(users), items[None] if shared else each(items), each(history), each(scorer))


def per_list(
    objectives: dict[str, Objective], outputs: Outputs, batch: Batch, params: Tree, memory: Tree, clock: Clock
) -> tuple[Array, Array, Tree]:
    """Values and whether spoken of [K, B], and the objectives' memories."""
    values, speaks, kept = [], [], {}
    for name, objective in objectives.items():
        value, speak, kept[name] = objective.value(outputs, batch, params[name], memory[name], clock)
        values.append(value.astype(jnp.float32))
        speaks.append(speak)
    return jnp.stack(values), jnp.stack(speaks), jax.lax.stop_gradient(kept)


def apart(params: Tree) -> tuple[Tree, Tree]:
    """{"encoder": the encoders' parameters}, {} in a model without that key, and the rest."""
    encoder = {name: tree for name, tree in params.items() if name == "encoder"}
    return encoder, {name: tree for name, tree in params.items() if name != "encoder"}


def together(pulled: tuple[Tree, Tree], pull_encoder: Callable) -> Tree:
    """Gradients like the parameters, from a pull-back to (the rest, embeddings)."""
    rest, cotangent = pulled
    (encoder,) = pull_encoder(cotangent)
    return {**rest, **encoder}
