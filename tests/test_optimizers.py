import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobjrec import optimizers
from mobjrec.optimizers import Average, Group, adam, adamw, averaged, sgd

PARAMS = {
    "encoder": {"kernel": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "bias": jnp.array([1.0, 2.0]), "frozen": None},
    "item": {"ids": {"author": {"rows": jnp.ones((3, 2))}}, "norm": {"scale": jnp.ones(2)}},
    "objectives": {"rating": {"thresholds": jnp.array([-1.0, 1.0])}},
}
GRADS = jax.tree.map(lambda leaf: 0.1 * leaf + 0.3, PARAMS)
FACTORIES = [adamw, adam, sgd]


def run(optimizer, steps=1, params=PARAMS, grads=GRADS):
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def same(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def test_adamw_is_the_papers_algorithm_in_float64():
    p = np.array([1.0, -2.0])
    m = v = np.zeros(2)
    grads = [np.array([0.3, -0.1]), np.array([-0.2, 0.4]), np.array([0.5, 0.5])]
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        p = p - 0.1 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8) + 0.05 * p)
    optimizer = adamw(10, learning_rate=0.1, weight_decay=0.05, b2=0.99, clip=None)
    params = {"kernel": jnp.array([1.0, -2.0])}
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update({"kernel": jnp.asarray(g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], p, rtol=1e-5)


def test_sgd_with_momentum_by_hand():
    params, _ = run(sgd(10, learning_rate=0.5, momentum=0.5), 2, {"w": jnp.array([1.0])}, {"w": jnp.array([0.2])})
    np.testing.assert_allclose(params["w"], [1.0 - 0.5 * 0.2 - 0.5 * (0.5 * 0.2 + 0.2)], rtol=1e-6)


def test_decay_spares_biases_scales_id_tables_and_objectives():
    with_decay, _ = run(adamw(10, learning_rate=0.1, weight_decay=0.5))
    without, _ = run(adamw(10, learning_rate=0.1, weight_decay=0.0))
    difference = jax.tree.map(lambda a, b: np.asarray(b - a), with_decay, without)
    kernel = difference["encoder"].pop("kernel")
    np.testing.assert_allclose(kernel, 0.1 * 0.5 * PARAMS["encoder"]["kernel"], atol=1e-6)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(difference))


def test_a_frozen_leaf_is_none_and_has_no_state():
    params, state = run(adamw(10, average=0.9))
    assert params["encoder"]["frozen"] is None
    trained = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    # two moments and the average, a count each for Adam, the schedule and the average
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 3 * trained + 3


def test_clipping_is_by_the_norm_of_all_gradients():
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    params, _ = run(sgd(10, learning_rate=1.0, clip=1.0), 1, params, grads)
    np.testing.assert_allclose((params["a"][0], params["b"][0]), (-0.6, -0.8), rtol=1e-6)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_groups_factor_scales_its_step_alone(factory):
    plain, _ = run(factory(10))
    grouped, _ = run(factory(10, groups={"encoder/*": Group(factor=0.25)}))
    moved = jax.tree.map(lambda new, old: new - old, plain, PARAMS)
    expected = {**moved, "encoder": jax.tree.map(lambda step: 0.25 * step, moved["encoder"])}
    same(jax.tree.map(lambda new, old: new - old, grouped, PARAMS), expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_frozen_group_stays_and_the_rest_moves_as_without_it(factory):
    optimizer = factory(10, groups={"item/ids/*": Group(frozen=True)}, clip=None, average=0.5)
    params, state = run(optimizer, 3)
    plain, _ = run(factory(10, clip=None), 3)
    np.testing.assert_array_equal(params["item"]["ids"]["author"]["rows"], PARAMS["item"]["ids"]["author"]["rows"])
    same(params["encoder"], plain["encoder"])
    same(params["objectives"], plain["objectives"])
    rows = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (3, 2)]
    assert len(rows) == 1, "the average alone holds the frozen group"


def test_the_first_pattern_that_matches_counts():
    groups = {"encoder/bias": Group(factor=0.0), "encoder/*": Group(factor=1.0)}
    params, _ = run(sgd(10, groups=groups))
    np.testing.assert_array_equal(params["encoder"]["bias"], PARAMS["encoder"]["bias"])
    assert np.all(params["encoder"]["kernel"] != PARAMS["encoder"]["kernel"])


def test_a_pattern_that_matches_nothing_is_an_error_that_lists_what_there_is():
    with pytest.raises(ValueError, match=r"groups: encodr/\* matches no trained parameter; there are encoder, item"):
        adamw(10, groups={"encodr/*": Group(factor=0.1)}).init(PARAMS)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1.0, *((1 + np.cos(np.pi * np.arange(8) / 8)) / 2)]),
    ],
)
def test_the_learning_rate_of_each_step(schedule, expected):
    rate = optimizers.rates(10, 2.0, schedule, 0.2)
    np.testing.assert_allclose([rate(jnp.int32(n)) for n in range(10)], 2.0 * np.array(expected), atol=1e-6)
    np.testing.assert_allclose(rate(jnp.int32(10)), 2.0 if schedule == "constant" else 0.0, atol=1e-6)


def test_an_optimizer_takes_the_schedules_rate_at_its_own_step():
    optimizer = sgd(4, learning_rate=1.0, schedule="linear")
    params, grads = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
    assert [float(run(optimizer, steps, params, grads)[0]["w"][0]) for steps in (1, 2, 3, 4)] == [
        -1,
        -1.75,
        -2.25,
        -2.5,
    ]


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_average_is_that_of_the_parameters(factory):
    optimizer, plain = factory(10, average=0.3), factory(10)
    mean, n = PARAMS["encoder"]["kernel"], 0
    for n in range(5):
        d = min(0.3, (1 + n) / (10 + n))
        mean = d * mean + (1 - d) * run(plain, n + 1)[0]["encoder"]["kernel"]
    params, state = run(optimizer, 5)
    same(params, run(plain, 5)[0])
    np.testing.assert_allclose(averaged(state, params)["encoder"]["kernel"], mean, rtol=1e-5)


def test_averaged_leaves_frozen_parameters_and_runs_without_average_alone():
    params, state = run(adamw(10, average=0.9))
    whole = {**params, "encoder": {**params["encoder"], "frozen": {"deep": jnp.ones(3)}}}
    np.testing.assert_array_equal(averaged(state, whole)["encoder"]["frozen"]["deep"], jnp.ones(3))
    assert averaged(run(adamw(10))[1], whole) is whole


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_second_step_does_not_compile_again_and_keeps_every_type(factory):
    optimizer = factory(10, schedule="cosine", warmup=0.3, average=0.9, groups={"item/*": Group(frozen=True)})
    traced = []

    @jax.jit
    def step(params, state):
        traced.append(1)
        updates, state = optimizer.update(GRADS, state, params)
        return optax.apply_updates(params, updates), state

    first = (PARAMS, optimizer.init(PARAMS))
    last = step(*step(*first))
    assert len(traced) == 1
    assert jax.tree.structure(last) == jax.tree.structure(first)
    assert [leaf.dtype for leaf in jax.tree.leaves(last)] == [leaf.dtype for leaf in jax.tree.leaves(first)]


def test_a_donated_state_shares_no_array_with_the_parameters():
    state = adamw(10, average=0.9).init(PARAMS)
    (mean,) = [
        leaf.mean
        for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, Average))
        if isinstance(leaf, Average)
    ]
    assert mean["encoder"]["kernel"].unsafe_buffer_pointer() != PARAMS["encoder"]["kernel"].unsafe_buffer_pointer()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("weight_decay", -0.1),
        ("b1", 1.0),
        ("b2", -0.1),
        ("warmup", 1.0),
        ("clip", 0.0),
        ("average", 1.0),
    ],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        adamw(10, **{name: value})
