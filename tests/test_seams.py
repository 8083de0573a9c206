"""One short run per later need: the seams carry it without a change to step, mesh or state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from mobjrec import losses, mesh, objectives, state, weightings
from mobjrec.models.dot import dot
from mobjrec.models.ranker import ranker
from mobjrec.step import Setting, make_step
from mobjrec.types import Batch, Column, Input, LabelSpec, Objective, Side, SideSpec, Spec, Texts

LISTS, ITEMS, WIDTH, HISTORY = 8, 4, 6, 3
GENERATOR = np.random.default_rng(0)
ADAM = optax.adam(0.05)


def spec(text=False, history=0):
    ids = (Column("user", 9),), (Column("item", 9),)
    return Spec(
        20, SideSpec(False, ids[0], ()), SideSpec(text, ids[1], ()), SideSpec(), {"click": LabelSpec()}, 32, 8,
        history=history, item_row=5,
    )  # fmt: skip


def model_of(heads, scorer=None, text=False, history=0, encoder=None):
    user = Input(ids=("user",), history=history > 0)
    item = Input(text="{title}" if text else "", ids=("item",))
    given = {"encoder": encoder} if encoder else {}
    return ranker(spec(text, history), heads, user=user, item=item, scorer=scorer or dot(), width=WIDTH, **given)


def side(*shape):
    ids = GENERATOR.integers(1, 9, (*shape, 1)).astype(np.int32)
    return Side(None, ids, np.zeros((*shape, 0), np.float32))


def make_batch(shared=False, grades=2, history=False):
    where = np.ones((LISTS, ITEMS), bool)
    items = side(1 if shared else LISTS, ITEMS)
    label = GENERATOR.integers(0, grades, where.shape).astype(np.float32)
    return Batch(
        None, None, side(LISTS), side(LISTS, HISTORY) if history else None,
        np.ones((LISTS, HISTORY), bool) if history else None, items, np.zeros((LISTS, ITEMS, 0), np.float32),
        np.zeros((LISTS, ITEMS, 0), np.int32), {"click": label}, {"click": where}, where,
        np.ones_like(label), np.zeros((1 if shared else LISTS, ITEMS), np.float32), np.arange(LISTS, dtype=np.int32),
    )  # fmt: skip


CLICK = objectives.single(losses.sigmoid_cross_entropy, "click", link="sigmoid")


def steps(model, batch, some=None, devices=2, weighting=None, count=8, shared=False, text=False, history=0, **setting):
    """(first state, last state, logs of every step)."""
    some, weighting = some or {"click": CLICK}, weighting or weightings.equal()
    first = state.first(model, some, weighting, ADAM, spec(text, history), seed=0)
    on = mesh.make(devices)
    step = make_step(model, some, weighting, ADAM, Setting(1, 10, shared=shared, **setting))
    call, at, logs = mesh.mapped(step, on, shared), mesh.place(first, on), []
    before = jax.tree.map(np.array, first)
    for _ in range(count):
        at, log = call(at, batch)
        logs.append(jax.tree.map(np.array, log))
    assert all(log["finite"] for log in logs)
    return before, jax.tree.map(np.array, at), logs


def falls(logs, objective=0):
    return logs[-1]["losses"][objective] < 0.97 * logs[0]["losses"][objective]


def test_one_candidate_set_for_all_lists():
    _, _, logs = steps(model_of({"click": 1}), make_batch(shared=True), shared=True, count=20)
    assert falls(logs)


def test_an_ordinal_head_of_four_scores():
    def value(outputs, batch, params, memory, clock):
        passed = batch.labels["click"][..., None] > jnp.arange(4)
        entropy = optax.sigmoid_binary_cross_entropy(outputs.scores["grade"], passed)
        where = batch.observed["click"]
        return losses.masked_mean(entropy.sum(-1), where), where.any(-1), memory

    def predict(outputs, params, memory):
        return jax.nn.sigmoid(outputs.scores["grade"]).sum(-1)

    ordinal = Objective(value, predict, {"grade": 4}, ("click",))
    _, after, logs = steps(model_of({"grade": 4}), make_batch(grades=5), {"grade": ordinal}, count=20)
    assert falls(logs) and after.params["scorer"]["heads"]["grade"]["scale"].shape == (4, WIDTH)


def test_an_objective_with_parameters_and_a_memory():
    def init(key, spec):
        return {"shift": jnp.zeros(())}, {"lists": jnp.zeros(()), "seen": jnp.zeros(spec.lists)}

    def value(outputs, batch, params, memory, clock):
        found, speaks, _ = CLICK.value(
            outputs._replace(scores={"click": outputs.scores["click"] + params["shift"]}), batch, (), (), clock
        )
        seen = memory["seen"].at[batch.row].add(1.0)
        return found, speaks, {"lists": memory["lists"] + speaks.sum(), "seen": seen}

    own = Objective(value, lambda o, p, m: o.scores["click"] + p["shift"], {"click": 1}, ("click",), init)
    _, after, logs = steps(model_of({"click": 1}), make_batch(), {"own": own, "click": CLICK}, count=5)
    assert after.params["objectives"]["own"]["shift"] != 0 and falls(logs)
    # Two devices hold four lists each; both changes arrive, once.
    np.testing.assert_array_equal(after.memory["own"]["lists"], 5 * LISTS)
    np.testing.assert_array_equal(after.memory["own"]["seen"], 5.0 * (np.arange(32) < LISTS))


def test_an_objective_without_labels_in_a_batch():
    batch = make_batch()
    batch = batch._replace(
        labels={**batch.labels, "rare": np.zeros((LISTS, ITEMS), np.float32)},
        observed={**batch.observed, "rare": np.zeros((LISTS, ITEMS), bool)},
    )
    some = {"click": CLICK, "rare": objectives.single(losses.squared, "rare")}
    model, weighting = model_of({"click": 1, "rare": 1}), weightings.mgda()
    before, after, logs = steps(model, batch, some, weighting=weighting, gram_at="parameters")
    assert falls(logs) and not logs[0]["present"][1] and all(log["weights"][1] == 0 for log in logs)
    scale = (tree.params["scorer"]["heads"]["rare"]["scale"] for tree in (before, after))
    np.testing.assert_array_equal(*scale)


class Preferring(nnx.Module):
    """Reads the preference: a score is its first entry's mixture of two products."""

    def __init__(self, width, heads, rngs):
        self.names, self.other = tuple(heads), nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, users, items, context, context_ids, preference, keys):
        user = users[:, 0] * preference[0] + self.other(users[:, 0]) * preference[1]
        return {name: jnp.einsum("bd,bld->bl", user, items) for name in self.names}


def test_a_preference_drawn_each_step_reaches_scorer_and_weighting():
    told = weightings.equal()._replace(update=lambda signals, own: (signals.preference, own))
    some = {"click": CLICK, "list": objectives.single(losses.softmax, "click")}
    model = model_of({"click": 1}, lambda width, heads, spec, rngs: Preferring(width, heads, rngs))
    draw = {"preference": lambda key: jax.random.dirichlet(key, jnp.ones(2))}
    _, _, logs = steps(model, make_batch(), some, weighting=told, **draw)
    drawn = np.array([log["weights"] for log in logs])
    np.testing.assert_allclose(drawn.sum(1), 1.0, rtol=1e-5)
    assert np.unique(drawn[:, 0].round(4)).size == len(drawn)


class Frozen(nnx.Module):
    """A text as the mean of its tokens' rows, never trained."""

    width, frozen = 5, ("rows",)

    def __init__(self, vocabulary, positions, rngs):
        self.rows = nnx.Embed(vocabulary, 5, rngs=rngs)

    def __call__(self, texts, keys):
        slots = jax.nn.one_hot(texts.slot - 1, texts.used.shape[1])
        return jnp.einsum("rts,rtd->rsd", slots, self.rows(texts.tokens)) * texts.used[..., None]


def test_a_frozen_encoder_is_replaced_by_its_vectors():
    model = model_of({"click": 1}, text=True, encoder=Frozen)
    slot = np.tile([1, 1, 2, 2, 0], (4, 1)).astype(np.int32)
    tokens = GENERATOR.integers(1, 20, (4, 5)).astype(np.int32)
    texts = Texts(tokens, np.tile([0, 1, 0, 1, 0], (4, 1)).astype(np.int32), slot, np.ones((4, 2), bool))
    batch = make_batch()
    named = batch.items._replace(text=GENERATOR.integers(-1, 8, (LISTS, ITEMS)).astype(np.int32))
    read = batch._replace(item_texts=texts, items=named)
    before, wanted, logs = steps(model, read, text=True)
    stored = read._replace(item_texts=model.freeze(before.params["encoder"], texts))
    assert stored.item_texts.tokens is None
    _, after, _ = steps(model, stored, text=True)
    assert falls(logs)
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    encoders = jax.tree.leaves((before.params["encoder"], after.params["encoder"]))
    np.testing.assert_array_equal(*encoders)


def test_a_history_of_item_vectors():
    batch = make_batch(history=True)
    model = model_of({"click": 1}, history=HISTORY)
    before, after, logs = steps(model, batch, history=HISTORY, count=20)
    assert falls(logs)
    only = set(np.unique(batch.history.ids)) - set(np.unique(batch.items.ids))
    moved = np.abs(
        after.params["item"]["join"]["ids"]["item"]["rows"] - before.params["item"]["join"]["ids"]["item"]["rows"]
    )
    assert all(moved[row].max() > 0 for row in only) and moved[0].max() == 0


def test_a_client_steps_alone_under_vmap():
    model, some, weighting = model_of({"click": 1}), {"click": CLICK}, weightings.equal()
    first = state.first(model, some, weighting, ADAM, spec(), seed=0)
    clients = [make_batch() for _ in range(3)]
    step = make_step(model, some, weighting, ADAM, Setting(1, 10, varying=False))

    def client(batch):
        one = jax.vmap(step, axis_name="data", in_axes=(None, 0), out_axes=0)
        after, logs = one(first, jax.tree.map(lambda leaf: leaf[None], batch))
        return jax.tree.map(lambda leaf: leaf[0], (after.params, logs["losses"]))

    params, found = jax.jit(jax.vmap(client))(jax.tree.map(lambda *leaves: np.stack(leaves), *clients))
    for number, batch in enumerate(clients):
        _, wanted, logs = steps(model, batch, some, devices=1, count=1)
        np.testing.assert_allclose(found[number], logs[0]["losses"], rtol=1e-6)
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(wanted.params), strict=True):
            np.testing.assert_allclose(one[number], other, rtol=1e-4, atol=1e-6)
