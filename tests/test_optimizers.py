import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobjrec import optimizers
from mobjrec.optimizers import Average, Group, adam, adamw, averaged, from_optax, sgd

PARAMS = {
    "encoder": {"kernel": jnp.array([[1.0, -2.0], [0.5, 4.0]]), "bias": jnp.array([1.0, 2.0]), "frozen": None},
    "item": {"ids": {"author": {"rows": jnp.ones((3, 2))}}, "norm": {"scale": jnp.ones(2)}},
    "objectives": {"rating": {"thresholds": jnp.array([-1.0, 1.0])}},
}
GRADS = jax.tree.map(lambda leaf: 0.1 * leaf + 0.3, PARAMS)
FACTORIES = [adamw, adam, sgd, lambda steps, **settings: from_optax(steps, "lion", **settings)]


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
    # two moments and the average; a count each for Adam, the average, the rate and what injects it; the rate
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 3 * trained + 5


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
        ("exponential", [0.5, 1.0, *(optax.exponential_decay(1.0, 8, 0.01)(n) for n in range(8))]),
    ],
)
def test_the_learning_rate_of_each_step(schedule, expected):
    rate = optimizers.rates(10, 2.0, schedule, 0.2)
    np.testing.assert_allclose([rate(jnp.int32(n)) for n in range(10)], 2.0 * np.array(expected), atol=1e-6)
    np.testing.assert_allclose(
        rate(jnp.int32(10)), {"constant": 2.0, "exponential": 0.02}.get(schedule, 0.0), atol=1e-6
    )


def test_an_optimizer_takes_the_schedules_rate_at_its_own_step():
    optimizer = sgd(4, learning_rate=1.0, schedule="linear")
    params, grads = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
    assert [float(run(optimizer, steps, params, grads)[0]["w"][0]) for steps in (1, 2, 3, 4)] == [
        -1,
        -1.75,
        -2.25,
        -2.5,
    ]


LAYERS = {
    "encoder": {
        "both": {
            "embeddings": {"word": jnp.ones((5, 2))},
            "upper": {"wide": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((3, 2))}},
        }
    },
    "scorer": {"kernel": jnp.ones(2)},
}


@pytest.mark.parametrize("factory", FACTORIES)
def test_layers_slow_down_from_the_last_to_the_embeddings(factory):
    grads = jax.tree.map(jnp.ones_like, LAYERS)
    plain, _ = run(factory(10), 2, LAYERS, grads)
    params, _ = run(factory(10, groups={"encoder/*": Group(0.5, layer_decay=0.8)}), 2, LAYERS, grads)
    ratio = jax.tree.map(lambda new, other, old: np.asarray((new - old) / (other - old)), params, plain, LAYERS)
    found = ratio["encoder"]["both"]
    by_layer = 0.5 * np.array([0.64, 0.8, 1.0])
    np.testing.assert_allclose(found["upper"]["wide"]["bias"], np.tile(by_layer[:, None], 2), rtol=5e-3)
    np.testing.assert_allclose(found["upper"]["wide"]["kernel"][:, 1, 0], by_layer, rtol=5e-3)
    np.testing.assert_allclose(found["embeddings"]["word"], np.full((5, 2), 0.5 * 0.8**3), rtol=5e-3)
    np.testing.assert_allclose(ratio["scorer"]["kernel"], 1.0)


def test_where_only_the_last_layers_train_the_top_one_has_the_whole_rate():
    both = {"embeddings": None, "lower": None, "upper": {"kernel": jnp.zeros((2, 1))}}
    params = {"encoder": {"both": both}}
    grads = {"encoder": {"both": {**both, "upper": {"kernel": jnp.ones((2, 1))}}}}
    params, _ = run(sgd(10, learning_rate=1.0, groups={"*": Group(layer_decay=0.5)}), 1, params, grads)
    np.testing.assert_allclose(params["encoder"]["both"]["upper"]["kernel"], [[-0.5], [-1.0]])


def test_layer_decay_reads_the_paths_of_a_real_encoder():
    from mobjrec.models.bert import Last, bert
    from mobjrec.models.functional import init

    encoder = bert(layers=3, width=4, heads=1, train=Last(2))
    params = jax.eval_shape(init(lambda rngs: encoder(20, 8, rngs)), jax.random.key(0))
    paths = {path for path, _ in optimizers._with_paths({"encoder": {"both": params}})}
    assert {path.split("/")[2] for path in paths} == {"embeddings", "lower", "upper"}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["upper"])} == {2}


def test_layer_decay_without_layers_is_an_error():
    with pytest.raises(ValueError, match=r"item/\* has a layer_decay, but matches no trained layers"):
        adamw(10, groups={"item/*": Group(layer_decay=0.9)}).init(PARAMS)
    with pytest.raises(ValueError, match=r"layer_decay of a is 0.0; it must be above 0"):
        adamw(10, groups={"a": Group(layer_decay=0.0)})


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_groups_own_weight_decay_replaces_the_optimizers_and_spares_the_same(factory):
    groups = {"encoder/*": Group(weight_decay=0.5)}
    difference = jax.tree.map(lambda a, b: np.asarray(b - a), run(factory(10, groups=groups))[0], run(factory(10))[0])
    rate = {adamw: 3e-4, sgd: 0.1}.get(factory, 1e-3)
    before = run(factory(10, groups={"encoder/*": Group()}))[0]
    assert before.keys() == PARAMS.keys()
    taken = rate * (0.5 - (0.01 if factory is adamw else 0.0)) * np.asarray(PARAMS["encoder"]["kernel"])
    np.testing.assert_allclose(difference["encoder"].pop("kernel"), taken, atol=1e-6)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(difference))


@pytest.mark.parametrize("name", ["lamb", "lion", "adafactor", "rmsprop", "adagrad", "yogi", "novograd", "radam"])
def test_an_optimizer_of_optax_is_optaxs_own_with_our_schedule(name):
    own = getattr(optax, name)(learning_rate=optimizers.rates(10, 0.1, "cosine", 0.2))
    wanted, _ = run(own, 3, LAYERS, jax.tree.map(lambda leaf: 0.3 * leaf, LAYERS))
    ours = from_optax(10, name, learning_rate=0.1, schedule="cosine", warmup=0.2)
    found, _ = run(ours, 3, LAYERS, jax.tree.map(lambda leaf: 0.3 * leaf, LAYERS))
    same(found, wanted, rtol=1e-5)


def test_lion_by_hand_and_a_setting_of_optax_reaches_it():
    optimizer = from_optax(
        10, "lion", {"b1": 0.5, "b2": 0.75, "weight_decay": 0.0}, learning_rate=0.1, weight_decay=0.5
    )
    params, _ = run(optimizer, 1, {"kernel": jnp.array([2.0])}, {"kernel": jnp.array([0.3])})
    np.testing.assert_allclose(params["kernel"], [2.0 - 0.1 * (1 + 0.5 * 2.0)], rtol=1e-6)


def test_optaxs_own_decay_spares_the_same():
    settings = {"weight_decay": 0.5}
    params, _ = run(from_optax(10, "lamb", settings, learning_rate=0.1))
    plain, _ = run(from_optax(10, "lamb", {"weight_decay": 0.0}, learning_rate=0.1))
    np.testing.assert_array_equal(params["encoder"]["bias"], plain["encoder"]["bias"])
    assert np.abs(params["encoder"]["kernel"] - plain["encoder"]["kernel"]).max() > 1e-3


def test_a_config_names_it_and_keeps_what_it_says():
    from mobjrec.resolve import bind

    block = {
        "use": "from-optax",
        "name": "lamb",
        "settings": {"b1": 0.5},
        "groups": {"encoder/*": {"layer_decay": 0.5}},
    }
    bound = bind("optimizer", block, where="optimizer")
    assert bound.block.settings["settings"] == {"b1": 0.5}
    group = {"factor": 1.0, "frozen": False, "layer_decay": 0.5, "weight_decay": None}
    assert dict(bound.block.settings["groups"]["encoder/*"]) == group
    same(
        run(bound.call(10), 1, LAYERS, LAYERS)[0],
        run(from_optax(10, "lamb", {"b1": 0.5}, groups={"encoder/*": Group(layer_decay=0.5)}), 1, LAYERS, LAYERS)[0],
    )


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("lambb", {}, r"name is 'lambb'; optax has no such optimizer; did you mean `lamb`\?"),
        ("lamb", {"b3": 1}, r"settings has b3, which optax.lamb has not; its settings are b1, b2, eps"),
        ("lamb", {"learning_rate": 1}, "settings has learning_rate, which optax.lamb has not"),
        ("lamb", {"b1": "x"}, "settings: optax.lamb cannot be made or used with these alone"),
        ("chain", {}, "name is 'chain'; optax has no such optimizer"),
    ],
)
def test_what_optax_does_not_have_is_named(name, settings, said):
    with pytest.raises(ValueError, match=said):
        from_optax(10, name, settings)


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
