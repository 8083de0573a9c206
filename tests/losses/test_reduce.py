import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given

from mobjrec.losses import masked_mean
from mobjrec.losses.reduce import not_below_zero

WIDTH = 5
VALUES = hnp.arrays(np.float32, (2, WIDTH), elements=st.floats(-9, 9, width=32))
WHERE = hnp.arrays(bool, (2, WIDTH))
mean = jax.jit(masked_mean)


@given(VALUES, WHERE, st.sampled_from([np.nan, np.inf, -7]))
def test_the_mean_is_that_of_the_real_items_weights_do_not_divide(values, where, fill):
    weights = np.float32([[3, 1, 4, 1, 5], [0, 0, 2, 6, 0.5]])
    found = mean(np.where(where, values, fill), where, np.where(where, weights, fill))
    wanted = [np.sum((v * u)[w]) / max(w.sum(), 1) for v, u, w in zip(values, weights, where, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_padding_and_empty_lists_give_no_gradient():
    values, where = jnp.array([[1.0, jnp.nan], [jnp.inf, jnp.nan]]), jnp.array([[True, False], [False, False]])
    value, back = jax.vjp(lambda v: masked_mean(v, where), values)
    np.testing.assert_array_equal(value, [1, 0])
    np.testing.assert_array_equal(back(jnp.ones(2))[0], [[1, 0], [0, 0]])


def test_a_weight_under_the_mask_gives_no_gradient_either():
    values, where, weights = jnp.array([1.0, 2.0]), jnp.array([True, False]), jnp.array([3.0, jnp.nan])
    value, grad = jax.value_and_grad(lambda v: masked_mean(v, where, weights))(values)
    np.testing.assert_array_equal(value, 3)
    np.testing.assert_array_equal(grad, [3, 0])


def test_what_rounding_took_below_zero_is_zero_and_keeps_its_gradient():
    value, slope = jax.vmap(jax.value_and_grad(lambda x: not_below_zero(2.0 * x)))(jnp.asarray([-1e-7, 0.0, 3.0]))
    assert value.tolist() == [0.0, 0.0, 6.0] and slope.tolist() == [2.0, 2.0, 2.0]
