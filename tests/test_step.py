"""The four-stage step: against jax.grad of the weighted sum, in chunks, on eight devices, with a loss not finite."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mobjrec import losses, mesh, objectives, state, weightings
from mobjrec.models.dropout import dropout as dropped
from mobjrec.models.mlp import mlp
from mobjrec.models.ranker import ranker
from mobjrec.state import TrainState
from mobjrec.step import Setting, forward, make_step, measured
from mobjrec.types import Batch, Clock, Column, Input, LabelSpec, Side, SideSpec, Spec, Texts

LISTS, ITEMS, ROWS, TOKENS, SLOTS = 16, 5, 16, 12, 2
SPEC = Spec(
    vocabulary=30,
    users=SideSpec(True, (Column("user", 9),), ()),
    items=SideSpec(True, (Column("item", 9),), ()),
    context=SideSpec(),
    labels={"click": LabelSpec(), "dwell": LabelSpec("s", 0.2, 1.5)},
    lists=64,
    catalogue=8,
    item_row=TOKENS,
    user_row=TOKENS,
)
OBJECTIVES = {
    "click": objectives.single(losses.sigmoid_cross_entropy, "click", link="sigmoid"),
    "recall": objectives.recall(k=2),
    "dwell": objectives.single(losses.huber, "dwell", standardise=True),
}
# After one step from zero the trace is the gradient itself, and so is the change of the parameters.
SHOWN = optax.trace(decay=0.9)


class Bag(nnx.Module):
    """A text as a layer over the mean of its tokens' and positions' rows: compiles in a tenth of a BERT's time."""

    width = 16

    def __init__(self, vocabulary, positions, rate, rngs):
        self.rate = rate
        self.tokens, self.positions = nnx.Embed(vocabulary, 16, rngs=rngs), nnx.Embed(positions, 16, rngs=rngs)
        self.upper = nnx.Linear(16, 16, rngs=rngs)

    def __call__(self, texts, keys):
        words = dropped(self.tokens(texts.tokens) + self.positions(texts.position), self.rate, keys)
        slots = jax.nn.one_hot(texts.slot - 1, texts.used.shape[1])
        mean = jnp.einsum("rts,rtd->rsd", slots, words) / jnp.maximum(slots.sum(1), 1)[..., None]
        return jnp.tanh(self.upper(mean)) * texts.used[..., None]


@cache
def make_model(dropout):
    return ranker(
        SPEC,
        {"click": 1, "dwell": 1},
        encoder=lambda vocabulary, positions, rngs: Bag(vocabulary, positions, dropout, rngs),
        user=Input(text="{history.title}", ids=("user",)),
        item=Input(text="{title}", ids=("item",)),
        scorer=mlp(layers=(8,), dropout=dropout),
        width=8,
        id_dropout=dropout,
    )


DROPPING = 0.2
MODEL = make_model(0.0)


def make_batch(seed=0, shared=False):
    random = np.random.default_rng(seed)

    def texts():
        slot = np.repeat(np.arange(1, SLOTS + 1), TOKENS // SLOTS)[None] * (random.random((ROWS, TOKENS)) < 0.9)
        place = np.arange(TOKENS) % (TOKENS // SLOTS) + np.zeros((ROWS, 1))
        words = random.integers(1, 30, (ROWS, TOKENS))
        return Texts(*(a.astype(np.int32) for a in (words, place, slot)), np.ones((ROWS, SLOTS), bool))

    def side(*shape):
        text = random.integers(-1, ROWS * SLOTS, shape).astype(np.int32)
        return Side(text, random.integers(0, 9, (*shape, 1)).astype(np.int32), np.zeros((*shape, 0), np.float32))

    where = random.random((LISTS, ITEMS)) < 0.8
    where[3] = False
    click = (random.random((LISTS, ITEMS)) < 0.4) & where
    return Batch(
        user_texts=texts(),
        item_texts=texts(),
        users=side(LISTS),
        history=None,
        history_where=None,
        items=side(1 if shared else LISTS, ITEMS),
        context=np.zeros((LISTS, ITEMS, 0), np.float32),
        context_ids=np.zeros((LISTS, ITEMS, 0), np.int32),
        labels={"click": click.astype(np.float32), "dwell": random.normal(size=click.shape).astype(np.float32) * click},
        observed={"click": where, "dwell": click},
        where=where,
        weights=random.uniform(0.5, 2.0, where.shape).astype(np.float32),
        log_q=np.zeros((1 if shared else LISTS, ITEMS), np.float32),
        row=np.arange(LISTS, dtype=np.int32),
    )


BATCH = make_batch()


FIXED, MGDA = weightings.static((1.0, 2.0, 3.0)), weightings.mgda()


@cache
def started(dropout, weighting):
    """The first state, as numpy."""
    found = jax.jit(lambda: state.first(make_model(dropout), OBJECTIVES, weighting, SHOWN, SPEC, seed=3))()
    return jax.tree.map(np.array, found)


@cache
def compiled(dropout, weighting, devices, how, shared, **setting):
    own = make_step(make_model(dropout), OBJECTIVES, weighting, SHOWN, Setting(7, 10, shared=shared, **setting))
    return mesh.mapped(own, mesh.make(devices), shared, how)


def run(batch=BATCH, dropout=0.0, weighting=FIXED, devices=1, how="shard_map", shared=False, change=None, **setting):
    """(state before, state after one step whose trace is the gradient, logs), as numpy."""
    before = started(dropout, weighting)
    before = change(before) if change else before
    step = compiled(dropout, weighting, devices, how, shared, **{"unit": False, **setting})
    after, logs = step(mesh.place(before, mesh.make(devices)), batch)
    return before, jax.tree.map(np.array, after), jax.tree.map(np.array, logs)


def gradient(after: TrainState):
    return after.opt_state.trace


def assert_gradients_close(found, wanted, tolerance=1e-5):
    """To the tolerance of each leaf's largest; a leaf that has no gradient holds rounding noise of the whole."""
    whole = max(float(np.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(wanted))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        most = max(float(np.abs(other).max(initial=0)), 1e-6 * whole)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * most, err_msg=jax.tree_util.keystr(path))


def mean_losses(params, memory):
    """The K losses of all lists, written without stages, devices or keys: [K]."""
    return losses_of(params, embed(params), memory)


def embed(params):
    pairs = ((MODEL.encode_users, BATCH.user_texts), (MODEL.encode_items, BATCH.item_texts))
    return tuple(function(params["encoder"], texts, None).reshape(-1, 16) for function, texts in pairs)


def losses_of(params, embeddings, memory):
    outputs = forward(MODEL, params, embeddings, BATCH, None, None)
    found = []
    for name, objective in OBJECTIVES.items():
        clock = Clock(jnp.int32(0), jnp.int32(0))
        value, speaks, _ = objective.value(outputs, BATCH, params["objectives"][name], memory[name], clock)
        found.append(objectives.mean_over_lists(value, speaks))
    return jnp.stack(found)


@pytest.fixture(scope="module")
def one():
    """One device, texts at once, the Gram matrix at the embeddings, no dropout; weights are MGDA's."""
    return run(weighting=MGDA)


def test_gradients_are_those_of_the_weighted_sum(one):
    before, after, logs = one
    value, wanted = jax.jit(jax.value_and_grad(lambda p: jnp.vdot(logs["weights"], mean_losses(p, before.memory))))(
        before.params
    )
    np.testing.assert_allclose(np.vdot(logs["weights"], logs["losses"]), value, rtol=1e-6)
    assert_gradients_close(gradient(after), wanted, 2e-6)
    np.testing.assert_allclose(logs["gradient_norm"], optax.tree.norm(wanted), rtol=1e-5)
    assert logs["present"].all() and logs["finite"] and after.step == 1
    for new, old, change in zip(*map(jax.tree.leaves, (after.params, before.params, wanted)), strict=True):
        np.testing.assert_allclose(new, old + change, atol=1e-6)


def test_gram_at_embeddings_is_j_j(one):
    before, _, logs = one

    def of_embeddings(embeddings):
        return losses_of(before.params, embeddings, before.memory)

    embeddings = embed(before.params)
    jacobian = jax.jit(jax.jacrev(of_embeddings))(embeddings)
    flat = np.concatenate([np.asarray(part, np.float64).reshape(3, -1) for part in jacobian], axis=1)
    np.testing.assert_allclose(logs["gram"], flat @ flat.T, rtol=1e-4, atol=1e-6 * np.trace(logs["gram"]))


def test_gram_at_parameters_is_j_j_over_the_shared_ones_and_gradients_stay():
    before, after, logs = run(weighting=MGDA, gram_at="parameters", chunk_rows=4)
    jacobian = jax.jit(jax.jacrev(lambda p: mean_losses(p, before.memory)))(before.params)
    shared = MODEL.shared(before.params)
    assert not all(jax.tree.leaves(shared))
    kept = [leaf for leaf, mine in zip(jax.tree.leaves(jacobian), jax.tree.leaves(shared), strict=True) if mine]
    flat = np.concatenate([np.asarray(leaf, np.float64).reshape(3, -1) for leaf in kept], axis=1)
    np.testing.assert_allclose(logs["gram"], flat @ flat.T, rtol=1e-4, atol=1e-6 * np.trace(logs["gram"]))
    wanted = jax.tree.map(lambda leaf: np.tensordot(logs["weights"], leaf, 1), jacobian)
    assert_gradients_close(gradient(after), wanted)


@pytest.mark.slow
def test_eight_devices_chunks_and_pmap_are_one_device_with_dropout_on():
    settings = {"dropout": DROPPING, "weighting": MGDA}
    _, alone, logs = run(**settings)
    _, some, some_logs = run(**settings, devices=8, chunk_rows=1)
    _, folded, folded_logs = run(**settings, devices=8, chunk_rows=1, how="pmap")
    np.testing.assert_allclose(some_logs["losses"], logs["losses"], rtol=1e-6)
    np.testing.assert_allclose(some_logs["gram"], logs["gram"], rtol=1e-5, atol=1e-6 * np.trace(logs["gram"]))
    np.testing.assert_allclose(some_logs["weights"], logs["weights"], atol=1e-5)
    assert_gradients_close(gradient(some), gradient(alone), 1e-4)
    for found, wanted in zip(jax.tree.leaves((folded, folded_logs)), jax.tree.leaves((some, some_logs)), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_chunks_are_the_whole_batch_with_negatives_of_all_lists_and_the_gram_matrix(shared):
    """Gradient accumulation is this: were the losses of a chunk its own, its lists would not see the others' items."""
    batch, settings = make_batch(shared=shared), {"dropout": DROPPING, "weighting": MGDA, "shared": shared}
    _, wanted, logs = run(batch, **settings)
    _, found, found_logs = run(batch, **settings, chunk_rows=4)
    np.testing.assert_allclose(found_logs["losses"], logs["losses"], rtol=1e-6)
    np.testing.assert_allclose(found_logs["gram"], logs["gram"], rtol=1e-5, atol=1e-6 * np.trace(logs["gram"]))
    assert_gradients_close(gradient(found), gradient(wanted))


@pytest.mark.slow
def test_eight_devices_without_chunks_change_no_gradient_under_fixed_weights():
    _, wanted, logs = run(dropout=DROPPING)
    _, found, found_logs = run(dropout=DROPPING, devices=8)
    np.testing.assert_allclose(found_logs["losses"], logs["losses"], rtol=1e-6)
    assert_gradients_close(gradient(found), gradient(wanted))


REUSED = weightings.every(weightings.upgrad(), steps=2)


@pytest.mark.parametrize(("gram_at", "shared", "weighting"), [
    ("embeddings", False, MGDA),
    ("embeddings", True, MGDA),
    ("parameters", False, MGDA),
    ("embeddings", False, REUSED),
    ("parameters", False, REUSED),
    ("embeddings", False, weightings.every(weightings.famo(ideal=(-9.0, -9.0, -9.0)))),
])  # fmt: skip
def test_what_varies_over_devices_is_summed_before_it_counts(gram_at, shared, weighting):
    own = make_step(make_model(DROPPING), OBJECTIVES, weighting, SHOWN, Setting(7, 10, shared=shared, gram_at=gram_at))
    batch = make_batch(shared=shared)
    call = lambda step: mesh.mapped(step, mesh.make(8), shared, checked=True).trace(started(DROPPING, weighting), batch)
    assert call(own).jaxpr
    with pytest.raises(ValueError, match="out_specs"):  # a sum over this device's lists alone
        call(lambda state, batch: (state, batch.weights.sum()))


@pytest.mark.slow
def test_dropout_is_on_and_drawn_anew_each_step():
    def later(first):
        return first._replace(step=np.int32(1))

    losses = [run(dropout=rate, change=change)[2]["losses"] for rate in (0.0, DROPPING) for change in (None, later)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.allclose(losses[2], losses[0], rtol=1e-4) and not np.allclose(losses[2], losses[3], rtol=1e-4)


@pytest.mark.slow
def test_a_shared_candidate_set_is_one_on_all_devices():
    batch = make_batch(shared=True)
    _, wanted, logs = run(batch, dropout=DROPPING, shared=True)
    _, found, found_logs = run(batch, dropout=DROPPING, shared=True, devices=8)
    np.testing.assert_allclose(found_logs["losses"], logs["losses"], rtol=1e-6)
    assert_gradients_close(gradient(found), gradient(wanted))


def test_a_loss_that_is_not_finite_leaves_all_but_the_step_number():
    weights = BATCH.weights.copy()
    weights[BATCH.where.any(1).argmax()] = np.inf
    before, after, logs = run(BATCH._replace(weights=weights), weighting=MGDA)
    assert not logs["finite"] and after.step == before.step + 1 and logs["bad_leaf"] == 0
    for new, old in zip(jax.tree.leaves(after._replace(step=before.step)), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(("bad", "leaf"), [({}, -1), ({2: np.nan}, 2), ({1: -np.inf, 3: np.nan}, 1), ({0: 1e30}, 0)])
def test_the_first_leaf_that_is_not_finite_is_told(bad, leaf):
    gradient = {name: np.full((2, 3), bad.get(n, 2.0), np.float32) for n, name in enumerate("abcd")}
    norm, found = measured({**gradient, "frozen": None})
    assert found == leaf
    np.testing.assert_allclose(norm, np.sqrt(24 * 4.0) if leaf < 0 else np.nan if np.nan in bad.values() else np.inf)


def test_an_infinite_loss_with_a_finite_gradient_is_told_as_that():
    dwell = BATCH.labels["dwell"].copy()
    dwell[np.unravel_index(BATCH.observed["dwell"].argmax(), dwell.shape)] = np.inf
    _, _, logs = run(BATCH._replace(labels={**BATCH.labels, "dwell": dwell}))
    assert np.isinf(logs["losses"][2]) and np.isfinite(logs["gradient_norm"]) and not logs["finite"]
    assert logs["bad_leaf"] == -1


def test_an_objective_that_speaks_of_no_list_gets_0_and_the_rest_is_as_without_it(one):
    nothing = np.zeros_like(BATCH.observed["dwell"])
    batch = BATCH._replace(observed={**BATCH.observed, "dwell": nothing})
    _, after, logs = run(batch, weighting=MGDA)
    assert logs["present"].tolist() == [True, True, False] and logs["weights"][2] == 0 and logs["losses"][2] == 0
    np.testing.assert_array_equal(logs["gram"][2], np.zeros(3))
    np.testing.assert_allclose(logs["losses"][:2], one[2]["losses"][:2], rtol=1e-6)
    np.testing.assert_allclose(logs["weights"].sum(), 1.0, rtol=1e-6)
    assert logs["finite"] and not any(np.abs(leaf).max() for leaf in jax.tree.leaves(own_of("dwell", gradient(after))))


def chain(weighting, how, gram_at, some=OBJECTIVES, steps=3):
    """(states, logs) of some steps on two devices, or on a vmapped axis of one."""
    setting = Setting(7, 10, gram_at=gram_at, varying=how != "vmap")
    step = make_step(MODEL, some, weighting, SHOWN, setting)
    if how == "vmap":
        one = jax.jit(jax.vmap(step, in_axes=(None, 0), axis_name="data"))
        batch = jax.tree.map(lambda leaf: leaf[None], BATCH)
        mapped = lambda state, _: jax.tree.map(lambda leaf: leaf[0], one(state, batch))
        found = started(0.0, weighting)
    else:
        mapped, found = mesh.mapped(step, mesh.make(2), False, how), mesh.place(started(0.0, weighting), mesh.make(2))
    told = []
    for _ in range(steps):
        found, logs = mapped(found, BATCH)
        told.append(jax.tree.map(np.array, (found, logs)))
    return told


@pytest.mark.slow
@pytest.mark.parametrize(("how", "gram_at"), [
    ("shard_map", "embeddings"),
    pytest.param("shard_map", "parameters", marks=pytest.mark.slow),
    pytest.param("pmap", "embeddings", marks=pytest.mark.slow),
    pytest.param("vmap", "parameters", marks=pytest.mark.slow),
])  # fmt: skip
def test_steps_that_are_not_due_compare_nothing_and_end_where_comparing_does(how, gram_at):
    always = chain(REUSED._replace(due=None), how, gram_at)
    for number, ((found, logs), (wanted, plain)) in enumerate(zip(chain(REUSED, how, gram_at), always, strict=True)):
        assert np.isnan(logs["gram"]).all() == (number == 1) and np.isfinite(plain["gram"]).all()
        if number != 1:
            np.testing.assert_allclose(logs["gram"], plain["gram"], rtol=1e-5, atol=1e-6 * np.trace(plain["gram"]))
        np.testing.assert_allclose(logs["weights"], plain["weights"], rtol=1e-5)
        assert logs["residual"] <= 1e-5 and logs["finite"]
        assert_gradients_close(gradient(found), gradient(wanted), 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("gram_at", "wanted"), [
    ("embeddings", [4, 1, 4]),
    pytest.param("parameters", [3, 1, 3], marks=pytest.mark.slow),
])  # fmt: skip
def test_a_step_that_is_not_due_pulls_back_once(gram_at, wanted):
    ticks = []

    @jax.custom_vjp
    def counted(value):
        return value

    def backward(_, cotangent):
        jax.debug.callback(lambda _: ticks.append(1), cotangent[0])
        return (cotangent,)

    counted.defvjp(lambda value: (value, None), backward)
    click = OBJECTIVES["click"]

    def value(*read):
        found, speaks, memory = click.value(*read)
        return counted(found), speaks, memory

    seen = []
    step = make_step(
        MODEL, OBJECTIVES | {"click": click._replace(value=value)}, REUSED, SHOWN, Setting(7, 10, gram_at=gram_at)
    )
    mapped, found = mesh.mapped(step, mesh.make(1), False, "shard_map"), started(0.0, REUSED)
    for _ in range(3):
        found, _ = mapped(found, BATCH)
        jax.effects_barrier()
        seen.append(len(ticks))
    assert np.diff([0, *seen]).tolist() == wanted


def own_of(head, tree):
    return {name: leaf for name, leaf in paths(tree).items() if "heads" in name and f"'{head}'" in name}


def paths(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_unit_weights_sum_to_1_in_absolute_value():
    np.testing.assert_allclose(run()[2]["weights"], [1.0, 2.0, 3.0])
    _, _, logs = run(unit=True)
    np.testing.assert_allclose(logs["weights"], np.arange(1, 4) / 6, rtol=1e-6)
