"""Modules as functions over plain dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mobjrec.models.functional import bind, blank, init, opened, stack


class Two(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Dict({"items": nnx.Linear(3, 4, rngs=rngs), "with.dot": nnx.Param(jnp.full(4, 2.0))})
        self.rest = nnx.List([nnx.Linear(4, 2, use_bias=False, rngs=rngs)])
        self.size = 7
        self.frozen = ("first",)

    def __call__(self, x):
        return self.rest[0](self.first["items"](x) * self.first["with.dot"][...])


class Deep(nnx.Module):
    def __init__(self, rngs):
        self.layers = stack(lambda key: nnx.Linear(3, 3, rngs=key), 4, rngs)

    def __call__(self, x):
        params, layer = opened(self.layers)
        return jax.lax.scan(lambda x, part: (jnp.tanh(layer(part)(x)), None), x, params)[0]


X = jnp.arange(6.0).reshape(2, 3) / 6


def plain(params, x):
    hidden = x @ params["first"]["items"]["kernel"] + params["first"]["items"]["bias"]
    return (hidden * params["first"]["with.dot"]) @ params["rest"]["0"]["kernel"]


def test_parameters_are_plain_dicts_with_string_keys_and_float32_arrays():
    params = init(Two)(jax.random.key(0))
    paths = [[step.key for step in path] for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert paths == [
        ["first", "items", "bias"],
        ["first", "items", "kernel"],
        ["first", "with.dot"],
        ["rest", "0", "kernel"],
    ]
    assert type(params) is dict and type(params["rest"]) is dict
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    np.testing.assert_array_equal(params["first"]["with.dot"], np.full(4, 2.0))


def test_init_is_a_function_of_the_key():
    same, other = init(Two)(jax.random.key(0)), init(Two)(jax.random.key(1))
    np.testing.assert_array_equal(init(Two)(jax.random.key(0))["rest"]["0"]["kernel"], same["rest"]["0"]["kernel"])
    assert not np.allclose(same["rest"]["0"]["kernel"], other["rest"]["0"]["kernel"])


def test_a_bound_module_computes_with_the_given_parameters():
    params = jax.tree.map(lambda a: a + 0.5, init(Two)(jax.random.key(0)))
    bound = bind(Two)
    np.testing.assert_allclose(bound(params)(X), plain(params, X), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda p, x: bound(p)(x))(params, X), plain(params, X), rtol=1e-6)


def test_gradients_come_as_the_same_plain_dict():
    params, bound = init(Two)(jax.random.key(0)), bind(Two)
    grads = jax.grad(lambda p: jnp.sum(bound(p)(X) ** 2))(params)
    wanted = jax.grad(lambda p: jnp.sum(plain(p, X) ** 2))(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), grads, wanted)


def test_a_bound_module_works_under_vmap_over_parameters():
    many = jax.vmap(init(Two))(jax.random.split(jax.random.key(0), 3))
    found = jax.vmap(lambda p: bind(Two)(p)(X))(many)
    for number in range(3):
        one = jax.tree.map(lambda a, number=number: a[number], many)
        np.testing.assert_allclose(found[number], plain(one, X), rtol=1e-5, atol=1e-6)


def test_a_bound_module_works_under_shard_map():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    params = init(Deep)(jax.random.key(0))

    def share(params, x):
        params = jax.tree.map(lambda a: jax.lax.pcast(a, "data", to="varying"), params)
        value, pull = jax.vjp(lambda p: jnp.sum(bind(Deep)(p)(x)), params)
        return jax.lax.psum((value, pull(jax.lax.pcast(jnp.ones(()), "data", to="varying"))[0]), "data")

    mapped = jax.shard_map(share, mesh=mesh, in_specs=(spec(), spec("data")), out_specs=spec())
    value, grads = jax.jit(mapped)(params, X)
    wanted, wanted_grads = jax.value_and_grad(lambda p: jnp.sum(bind(Deep)(p)(X)))(params)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, wanted_grads)


def test_stacked_layers_scanned_are_the_layers_one_after_the_other():
    params = init(Deep)(jax.random.key(0))
    kernel, bias = params["layers"]["kernel"], params["layers"]["bias"]
    assert kernel.shape == (4, 3, 3) and not np.allclose(kernel[0], kernel[1])
    wanted = X
    for number in range(4):
        wanted = jnp.tanh(wanted @ kernel[number] + bias[number])
    np.testing.assert_allclose(bind(Deep)(params)(X), wanted, rtol=1e-6)


def test_a_blank_module_tells_its_settings_and_shapes_without_arrays():
    module = blank(Two)
    assert module.size == 7 and module.frozen == ("first",)
    assert module.rest[0].kernel.get_value() == jax.ShapeDtypeStruct((4, 2), jnp.float32)


def test_a_module_without_parameters_is_an_empty_dict():
    class Nothing(nnx.Module):
        def __init__(self, rngs):
            self.rate = 0.5

        def __call__(self, x):
            return x * self.rate

    assert init(Nothing)(jax.random.key(0)) == {}
    np.testing.assert_array_equal(bind(Nothing)({})(X), X / 2)


def test_state_that_is_not_a_parameter_is_refused():
    with pytest.raises(ValueError, match=r"BatchNorm\.mean is a BatchStat"):
        init(lambda rngs: nnx.BatchNorm(3, rngs=rngs))(jax.random.key(0))


def test_a_missing_parameter_is_an_error():
    with pytest.raises(KeyError, match="rest"):
        bind(Two)({"first": init(Two)(jax.random.key(0))["first"]})
