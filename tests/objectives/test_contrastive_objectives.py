"""Objectives around contrastive losses: corrections, thresholds that are remembered, adversaries, and one run of all."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses, objectives, rank, train
from mobjrec.defaults import load
from mobjrec.testing import check_objective
from mobjrec.testing.objectives import _batch
from mobjrec.types import Clock, Column, LabelSpec, Outputs, Side, SideSpec, Spec

NOW = Clock(jnp.int32(0), jnp.int32(0))
OBJECTIVES = {
    "sampled_softmax": objectives.sampled_softmax(),
    "sl_at_k": objectives.sl_at_k(k=2, head="other"),
    "adv_infonce": objectives.adv_infonce(),
    "llpauc": objectives.llpauc(),
    "precision": objectives.precision(k=2),
    "precision that cools": objectives.precision(k=2, softmax=0.0, anneal=objectives.Anneal(3.0, epochs=2)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_promises(name):
    check_objective(OBJECTIVES[name])


def batch(labels, log_q=None, observed=None, row=None, items=None):
    labels = np.array(labels, np.float32)
    observed = np.ones(labels.shape, bool) if observed is None else np.array(observed, bool)
    blank = _batch(OBJECTIVES["llpauc"])
    return blank._replace(
        labels={"click": labels},
        observed={"click": observed},
        where=observed,
        weights=np.ones_like(labels),
        log_q=np.zeros_like(labels) if log_q is None else np.array(log_q, np.float32),
        row=np.arange(len(labels), dtype=np.int32) if row is None else np.array(row, np.int32),
        items=blank.items if items is None else Side(None, np.array(items, np.int32), None),
    )


def outputs(scores):
    return Outputs({"click": jnp.asarray(scores, jnp.float32)}, None, None)


def started(objective, ids=(), lists=4):
    spec = Spec(0, SideSpec(), SideSpec(ids=ids), SideSpec(), {"click": LabelSpec()}, lists=lists, catalogue=8)
    return objective.init(jax.random.key(0), spec)


def test_drawn_candidates_stand_for_the_catalogue_and_logged_ones_for_themselves():
    # The two drawn are in the set with probability 1/4, so each stands for four; the last is as logged.
    given = batch([[1, 0, 0, 0]], [[0.0, np.log(1 / 4), np.log(1 / 4), 0.0]])
    scores = np.array([[1.0, 0.2, -0.3, 0.5]])
    total = np.exp(1) + 4 * np.exp(0.2) + 4 * np.exp(-0.3) + np.exp(0.5)
    value, speaks, _ = OBJECTIVES["sampled_softmax"].value(outputs(scores), given, (), (), NOW)
    np.testing.assert_allclose(value, [np.log(total) - 1], rtol=1e-5)
    plain = objectives.sampled_softmax(correct=False).value(outputs(scores), given, (), (), NOW)[0]
    np.testing.assert_allclose(plain, [np.log(np.exp(scores).sum()) - 1], rtol=1e-5)
    assert speaks.tolist() == [True]


def test_a_shared_set_has_one_correction_for_all_lists():
    given = batch([[1, 0, 0], [0, 1, 0]], [[np.log(0.5), np.log(0.2), np.log(0.3)]], [[1, 1, 1], [1, 1, 0]])
    value, _, _ = OBJECTIVES["sampled_softmax"].value(outputs(np.zeros((2, 3))), given, (), (), NOW)
    odds = 1 / np.array([0.5, 0.2, 0.3])
    np.testing.assert_allclose(value, [np.log(odds.sum() / odds[0]), np.log(odds[:2].sum() / odds[1])], rtol=1e-5)


def test_hard_negatives_are_the_highest_scored_others():
    given = batch([[1, 0, 0, 0, 1]], observed=[[1, 1, 1, 0, 1]])
    scores = np.array([[0.1, 0.4, -2.0, 9.0, 3.0]])
    one = objectives.sampled_softmax(hardest=1)
    value = lambda s: one.value(outputs(s), given, (), (), NOW)[0].sum()
    wanted = np.mean([np.log1p(np.exp(0.4 - mine)) for mine in (0.1, 3.0)])
    np.testing.assert_allclose(value(scores), wanted, rtol=1e-5)
    assert jax.grad(value)(jnp.asarray(scores))[0, 2:4].tolist() == [0, 0]
    with pytest.raises(ValueError, match="hardest is 0; it must be at least 1"):
        objectives.sampled_softmax(hardest=0)


def test_lists_without_a_relevant_item_or_without_others_are_not_spoken_of():
    given = batch([[1, 1], [0, 0], [0, 1], [1, 0]], observed=[[1, 1], [1, 1], [1, 1], [1, 0]])
    for name in ("sampled_softmax", "adv_infonce", "llpauc"):
        params, memory = started(OBJECTIVES[name]) if OBJECTIVES[name].init else ((), ())
        speaks = OBJECTIVES[name].value(outputs(np.zeros((4, 2))), given, params, memory, NOW)[1]
        assert speaks.tolist() == [False, False, True, False]


def test_a_threshold_is_remembered_by_list_and_moves_by_the_rate():
    one = objectives.sl_at_k(k=2, rate=0.25)
    params, memory = started(one)
    call = jax.jit(one.value)
    labels = [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    first, again = np.array([[3, 2, 1], [5, 7, 9], [8, 8, 8]]), np.array([[3, 6, 1], [5, 7, 9], [8, 8, 8]])
    seen = [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
    # The third list is padding; of the second one item is there, its least.
    given = batch(labels, row=[2, 0, -1], observed=seen)
    _, _, memory = call(outputs(first), given, params, memory, NOW)
    np.testing.assert_allclose(memory["beta"], [5, 0, 2, 0])
    value, _, memory = call(outputs(again), given, params, memory, NOW)
    np.testing.assert_allclose(memory["beta"], [5, 0, 2.25, 0])
    assert memory["seen"].tolist() == [1, 0, 1, 0]
    wanted = losses.sl_at_k(
        again[:1] * 1.0, np.array(labels[:1]), where=np.array(seen[:1]) > 0, k=2, beta=np.array([2.25])
    )
    np.testing.assert_allclose(value[:1], wanted, rtol=1e-5)


def test_a_drawn_item_counts_in_the_threshold_for_as_many_as_it_stands_for():
    one = objectives.sl_at_k(k=3, rate=1.0)
    # The best is as logged, counting 1; each of the two drawn stands for four: the third place is within the first of them.
    given = batch([[1, 0, 0]], [[0.0, np.log(1 / 4), np.log(1 / 4)]])
    memory = one.value(outputs([[3.0, 2.0, 1.0]]), given, *started(one), NOW)[2]
    assert memory["beta"][0] == 2
    assert (
        objectives.sl_at_k(k=3).value(outputs([[3.0, 2.0, 1.0]]), batch([[1, 0, 0]]), *started(one), NOW)[2]["beta"][0]
        == 1
    )


def test_the_adversary_climbs_in_every_fifth_epoch_and_the_scores_descend():
    ids = (Column("genre", 5, slots=2), Column("item", 9))
    one = OBJECTIVES["adv_infonce"]
    params, memory = started(one, ids)
    assert params["item"].shape == (9,) and memory["column"] == 2
    params = {"slope": jnp.float32(0.5), "item": jnp.arange(9.0) / 9}
    items = np.zeros((1, 3, 3), int)
    items[0, :, 2] = [3, 8, 1]
    given, scores = batch([[1, 0, 0]], items=items), jnp.array([[0.0, 0.4, -0.2]])

    @jax.jit
    def both(scores, params, epoch):
        value = lambda s, p: one.value(outputs(s), given, p, memory, Clock(jnp.int32(7), epoch))[0].sum()
        return value(scores, params), jax.grad(value, (0, 1))(scores, params)

    def plain(scores, params):
        g = params["slope"] * jax.lax.stop_gradient(scores) + params["item"][items[..., 2]]
        labels = given.labels["click"]
        return losses.adv_infonce(scores, labels, where=given.where, temperature=0.2, negatives=64.0, g=g).sum()

    wanted = jax.grad(plain, (0, 1))(scores, params)
    value, grads = both(scores, params, 5)
    np.testing.assert_allclose(value, plain(scores, params), rtol=1e-6)
    np.testing.assert_allclose(grads[0], wanted[0], rtol=1e-5)
    for name in params:
        np.testing.assert_allclose(grads[1][name], -wanted[1][name], rtol=1e-4, atol=1e-7)
        assert np.abs(wanted[1][name]).max() > 0.01
    # What descends on this lifts the hard negative's hardness.
    assert grads[1]["slope"] < 0 and not jax.tree.reduce(
        lambda a, b: a + jnp.abs(b).sum(), both(scores, params, 6)[1][1], 0.0
    )


@pytest.mark.parametrize("far", [0.0, 30.0, -30.0])
def test_the_players_of_llpauc_stay_in_their_ranges_and_pull_their_ways(far):
    params = {name: jnp.float32(far) for name in ("a", "b", "g", "s_p", "s_n")}
    found = objectives.contrastive._auxiliaries(params)
    assert 0 <= found["a"] <= 1 and 0 <= found["b"] <= 1
    assert max(-found["a"], found["b"] - 1) - 1e-6 <= found["g"] <= 1
    pulls = jax.grad(lambda p: sum(objectives.contrastive._auxiliaries(p).values()))(params)
    assert pulls["s_p"] == -1 and pulls["s_n"] == 1 and pulls["g"] <= 0 <= min(pulls["a"], pulls["b"])


def test_descent_and_ascent_on_llpauc_end_where_neither_player_gains():
    given = batch([[1, 1, 0, 0, 0, 0]])
    one, scores = OBJECTIVES["llpauc"], outputs([[1.0, -0.5, 0.3, -1.0, -0.2, -2.0]])
    params, memory = started(one)
    slope = jax.grad(lambda p: one.value(scores, given, p, memory, NOW)[0].sum())
    step = lambda p, _: (jax.tree.map(lambda x, g: x - 0.3 * g, p, slope(p)), None)
    params, _ = jax.jit(lambda p: jax.lax.scan(step, p, length=3000))(params)
    value = jax.jit(lambda p: one.value(scores, given, p, memory, NOW)[0].sum())
    at = value(params)
    for name, gains in (("s_p", 1), ("s_n", -1)):
        moved = [value({**params, name: params[name] + by}) for by in (-0.1, 0.1)]
        assert all(gains * (one - at) <= 1e-6 for one in moved), name


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_temperatures_fall_geometrically_and_stay(by):
    given, scores = batch([[1, 0, 0, 1, 0]]), outputs([[0.1, 0.5, 0.3, -0.2, 0.0]])
    one = objectives.recall(k=2, softmax=0.0, anneal=objectives.Anneal(16.0, **{by: 4}))
    for gone, factor in ((0, 16), (1, 8), (3, 2), (4, 1), (9, 1)):
        clock = Clock(jnp.int32(gone if by == "steps" else 77), jnp.int32(gone if by == "epochs" else 77))
        plain = objectives.recall(k=2, softmax=0.0, temperature_rank=0.1 * factor, temperature_cut=1.0 * factor)
        wanted = plain.value(scores, given, (), (), NOW)[0]
        np.testing.assert_allclose(one.value(scores, given, (), (), clock)[0], wanted, rtol=1e-5)


def test_precision_mixes_a_smooth_precision_and_the_softmax_per_gain():
    given, scores = batch([[1, 1, 0]]), np.array([[1.0, 0.0, -1.0]], np.float32)
    value, speaks, _ = objectives.precision(k=3, softmax=0.25).value(outputs(scores), given, (), (), NOW)
    smooth = losses.precision_at_k(scores, given.labels["click"], where=given.where, k=3)
    entropy = -np.mean(scores[0, :2] - np.log(np.exp(scores[0]).sum()))
    np.testing.assert_allclose(value, 0.75 * smooth + 0.25 * entropy, rtol=1e-5)
    assert speaks.tolist() == [True]


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: objectives.precision(k=0), "k is 0; it must be at least 1"),
        (lambda: objectives.precision(temperature_rank=0.0), "temperature_rank is 0.0; it must be above 0"),
        (lambda: objectives.recall(anneal=objectives.Anneal(0.0, epochs=1)), "anneal has the factor 0.0"),
        (
            lambda: objectives.recall(anneal=objectives.Anneal(2.0, 1, 1)),
            "anneal has epochs 1 and steps 1; one of them",
        ),
        (lambda: objectives.recall(anneal=objectives.Anneal()), "anneal has epochs 0 and steps 0; one of them"),
        (lambda: objectives.sampled_softmax(temperature=-1.0), "temperature is -1.0; it must be above 0"),
        (lambda: objectives.sl_at_k(rate=0.0), "rate is 0.0; it must be above 0 and at most 1"),
        (lambda: objectives.sl_at_k(temperature_weight=0.0), "temperature_weight is 0.0; it must be above 0"),
        (lambda: objectives.adv_infonce(every=0), "every is 0; it must be at least 1"),
        (lambda: objectives.llpauc(beta=0.0), "beta is 0.0; it must be above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_data_are_read(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.slow
def test_one_run_trains_and_ranks_with_all_of_them(tiny_cache, tmp_path):
    blocks = {
        "sampled": "{use: sampled_softmax, head: one}",
        "near": "{use: sl_at_k, head: two, k: 3}",
        "adverse": "{use: adv_infonce, head: three}",
        "game": "{use: llpauc, head: four}",
        "precise": "{use: precision, head: five, k: 2, anneal: {factor: 4.0, steps: 5}}",
    }
    changes = [
        "objectives={" + ", ".join(f"{name}: {block}" for name, block in blocks.items()) + "}",
        "weighting={use: equal}",
        "candidates={use: in_batch, negatives: 4}",
        "evaluate.candidates={use: as_logged}",
        "steps=6",
    ]
    config = load(Path(__file__).parents[1] / "tiny.yaml", changes)
    train.run(config, tmp_path / "run", tiny_cache, quiet=True)
    found = rank.load(tmp_path / "run", tiny_cache)
    own, near = jax.device_get((found.params["objectives"], found.memory["near"]))
    assert np.abs(own["adverse"]["item"]).max() > 0 and own["adverse"]["slope"] != 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own)) and own["game"]["s_n"] != 0
    assert near["seen"].max() == 1 and np.abs(near["beta"][near["seen"] == 1]).min() > 0
    assert (near["beta"][near["seen"] == 0] == 0).all()
    best = found.rank(next(iter(found.rows["user"])), top=3, prefer={"near": 1.0})
    assert len(best) == 3
