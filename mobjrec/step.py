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


class Moment(NamedTuple):
    """What a step reads beside the parameters, drawn once.

    mask: tree of bool, what trains   memory: the objectives'   key_users, key_items: dropout in the encoders
    keys: dropout elsewhere   key: the weighting's   preference: [K] or None
    """

    batch: Batch
    mask: Tree
    memory: Tree
    clock: Clock
    key_users: Array
    key_items: Array
    keys: Keys
    key: Array
    preference: Array | None


class Share(NamedTuple):
    """One device's part of the losses and the two ways back. sums, spoken: [K] over its lists   memory: the objectives'

    pull: [K] -> cotangents of (the parameters but the encoders', embeddings)   pull_encoder: the latter's -> encoders'
    """

    sums: Array
    spoken: Array
    memory: Tree
    pull: Callable[[Array], tuple[Tree, Tree]]
    pull_encoder: Callable[[Tree], tuple[Tree]]


def make_step(
    model: Model,
    objectives: dict[str, Objective],
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    setting: Setting,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The step (state, this device's batch) -> (state, logs), to be mapped over the axis `data`.

    logs: losses [K] (mean over the lists an objective speaks of), present [K], weights [K] as applied, gram [K, K] if
    the weighting reads it (NaN in a step in which it is not due), residual if the weighting has one, gradient_norm,
    finite, bad_leaf (the first leaf of the gradient that is not finite, in the order of the trained parameters; -1 where
    all are), learning_rate where the optimizer's state holds it. Where a loss or gradient is not finite, only the step
    number changes.
    """

    def vary(tree: Tree) -> Tree:
        return jax.tree.map(lambda a: jax.lax.pcast(a, "data", to="varying"), tree) if setting.varying else tree

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        now = moment(model, setting, state, batch)
        share = share_of(model, objectives, setting.chunk_rows, vary(state.params), now)
        spoken = jax.lax.psum(share.spoken, "data")
        present, count = spoken > 0, jnp.maximum(spoken, 1.0)
        losses = jax.lax.psum(share.sums, "data") / count

        each = vary(jnp.eye(len(objectives)) / count[:, None])
        shared = divide(model.shared(state.params), now.mask)[0] if setting.gram_at == "parameters" else None
        signals = Signals(losses, present, None, now.preference, now.clock.step, now.clock.epoch, now.key)
        due = weighting.due and weighting.due(signals, state.weighting_state)
        gram, rows = where_due(due, lambda: compared(share, each, shared)) if weighting.needs_gram else (None, None)
        weights, weighting_state = weighting.update(signals._replace(gram=gram), state.weighting_state)
        weights = applied(weights, present, setting.unit)
        residual = weighting.residual and weighting.residual(weighting_state)

        pulled = lambda: jax.lax.psum(pulled_back(share, vary(weights / count)), "data")
        # Where the rows are there, mixing them spares a backward pass, and its compilation.
        grads = pulled() if rows is None else where_due(due, lambda: mixed(rows, weights), pulled)
        trained, frozen = divide(state.params, now.mask)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = join(optax.apply_updates(trained, updates), frozen)
        if weighting.observe is not None:

            def observed() -> Tree:
                again = share_of(model, objectives, setting.chunk_rows, vary(params), now)
                return weighting.observe(jax.lax.psum(again.sums, "data") / count, weighting_state)

            weighting_state = where_due(due, observed, lambda: weighting_state)
        memory = jax.tree.map(lambda new, old: old + jax.lax.psum(new - old, "data"), share.memory, state.memory)

        norm, bad_leaf = measured(grads)
        finite = jnp.all(jnp.isfinite(losses)) & jnp.isfinite(norm)
        rates = [leaf for _, leaf in optax.tree.get_all_with_path(opt_state, "learning_rate") if hasattr(leaf, "dtype")]
        kept = TrainState(state.step, params, opt_state, weighting_state, memory)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), kept, state)
        logs = {"losses": losses, "present": present, "weights": weights, "gradient_norm": norm, "finite": finite}
        logs["bad_leaf"] = bad_leaf
        logs |= {} if gram is None else {"gram": gram if due is None else jnp.where(due, gram, jnp.nan)}
        logs |= {} if residual is None else {"residual": residual}
        return kept._replace(step=state.step + 1), logs | dict(zip(["learning_rate"], rates, strict=False))

    return step


def where_due(due: Array | None, work: Callable[[], Tree], otherwise: Callable[[], Tree] | None = None) -> Tree:
    """What `work` gives, and where it is not due what `otherwise` does, zeros of the same form without it; None: always due.

    Only one of them runs: `due` is the same on every device, so that their collectives meet.
    """
    if due is None:
        return work()
    zeros = lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(work))
    return jax.lax.cond(due, work, otherwise or zeros)


def measured(gradient: Tree) -> tuple[Array, Array]:
    """The norm of a gradient, and its first leaf that is not finite by number, -1 where all are."""
    squares = jnp.stack([jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradient)] or [jnp.zeros(())])
    good = jnp.isfinite(squares)
    return jnp.sqrt(jnp.sum(squares)), jnp.where(jnp.all(good), -1, jnp.argmin(good))


def moment(model: Model, setting: Setting, state: TrainState, batch: Batch) -> Moment:
    """The step's keys, all from (seed, step), its clock and its preference."""
    mask = model.trainable(state.params)
    key = jax.random.fold_in(jax.random.key(setting.seed), state.step)
    key_users, key_items, key_lists, key_preference, key = jax.random.split(key, 5)
    clock = Clock(state.step, state.step // setting.steps_per_epoch)
    preference = None if setting.preference is None else setting.preference(key_preference)
    keys = list_keys(key_lists, batch.where.shape[0], setting.shared)
    return Moment(batch, mask, state.memory, clock, key_users, key_items, keys, key, preference)


def share_of(
    model: Model, objectives: dict[str, Objective], chunk_rows: int | None, params: Tree, now: Moment
) -> Share:
    """Stages 1 and 2 at these parameters, which vary over devices. chunk_rows: as in `Setting`."""
    trained, frozen = divide(params, now.mask)
    encoder, rest = apart(trained)
    frozen_encoder, frozen_rest = apart(frozen)

    def embed(encoder: Tree) -> tuple[Array | None, Array | None]:
        whole = join(encoder, frozen_encoder).get("encoder", {})
        return (
            encode(model.encode_users, whole, now.batch.user_texts, now.key_users, chunk_rows),
            encode(model.encode_items, whole, now.batch.item_texts, now.key_items, chunk_rows),
        )

    def score(rest: Tree, embeddings: tuple[Array | None, Array | None]) -> tuple[Array, tuple[Array, Tree]]:
        everyone = jax.tree.map(lambda e: jax.lax.all_gather(e, "data", tiled=True), embeddings)
        params = join(rest, frozen_rest)
        outputs = forward(model, params, everyone, now.batch, now.preference, now.keys)
        values, speaks, memory = per_list(objectives, outputs, now.batch, params["objectives"], now.memory, now.clock)
        return jnp.sum(values, axis=1, where=speaks), (jnp.sum(speaks, axis=1, dtype=jnp.float32), memory)

    embeddings, pull_encoder = jax.vjp(embed, encoder)
    sums, pull, (spoken, memory) = jax.vjp(score, rest, embeddings, has_aux=True)
    return Share(sums, spoken, memory, pull, pull_encoder)


def pulled_back(share: Share, weights: Array) -> Tree:
    """This device's gradient of the weighted sum, like the trained parameters. weights [K]."""
    rest, cotangent = share.pull(weights)
    (encoder,) = share.pull_encoder(cotangent)
    return {**rest, **encoder}


def compared(share: Share, each: Array, shared: Tree | None) -> tuple[Array, Tree]:
    """The Gram matrix [K, K] at the embeddings, or with the mask `shared` at these parameters and every gradient, else None.

    each: as of `gradients`
    """
    if shared is None:
        return jax.lax.psum(gram_of(jax.lax.map(lambda one: share.pull(one)[1], each)), "data"), None
    rows = gradients(share, each)
    return gram_of(divide(rows, shared)[0]), rows


def mixed(rows: Tree, weights: Array) -> Tree:
    """The weighted sum of gradients. rows: leaves [K, ...]   weights: [K]"""
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1, precision="highest"), rows)


def gradients(share: Share, each: Array) -> Tree:
    """Every objective's gradient over all devices: leaves [K, ...]. each [K, K]: a row of weights per objective."""
    # vmap, not lax.map: an encoder's backward pass in a loop took 25 s to compile instead of 7.
    return jax.lax.psum(jax.vmap(lambda one: pulled_back(share, one))(each), "data")


def applied(weights: Array, present: Array, unit: bool) -> Array:
    """Weights [K] with 0 for absent objectives; for `unit` divided by the sum of their absolute values."""
    weights = jnp.where(present, weights, 0.0)
    if not unit:
        return weights
    total = jnp.sum(jnp.abs(weights))
    return weights / jnp.where(total > 0, total, 1.0)


def encode(encoder: Callable, params: Tree, texts: Texts | None, key: Array | None, rows: int | None) -> Array | None:
    """[R * S, D] of this device's rows. `rows` at a time, recomputed when differentiated; None: at once.

    Gao et al. 2021 (GradCache). One key per row of the global batch: the same mask in any layout and any chunk; no key: no
    dropout.
    """
    if texts is None:
        return None
    count = texts.used.shape[0]
    place = jax.lax.axis_index("data") * count + jnp.arange(count)
    keys = None if key is None else jax.vmap(lambda row: jax.random.fold_in(key, row))(place)
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
