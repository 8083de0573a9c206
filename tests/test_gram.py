import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec.gram import cosines, gram, norms


def test_gram_is_the_sum_over_leaves_of_products_of_rows():
    random = np.random.default_rng(0)
    rows = {"a": random.normal(size=(3, 4, 5)), "b": {"c": random.normal(size=(3,)), "d": random.normal(size=(3, 2))}}
    flat = np.concatenate([rows["a"].reshape(3, -1), rows["b"]["c"][:, None], rows["b"]["d"]], axis=1)
    np.testing.assert_allclose(gram({"x": None, **rows}), flat @ flat.T, rtol=1e-5)


def test_half_precision_rows_are_summed_in_float32():
    rows = {"a": jnp.full((2, 4096), 1.0, jnp.bfloat16)}
    assert gram(rows).dtype == jnp.float32
    np.testing.assert_array_equal(gram(rows), np.full((2, 2), 4096.0))


def test_no_leaf_is_refused():
    with pytest.raises(ValueError, match="no leaf is trained and shared"):
        gram({"a": None})


def test_norms_and_cosines():
    # (3, 0), (0, 0), (-4, 4)
    products = jnp.array([[9.0, 0.0, -12.0], [0.0, 0.0, 0.0], [-12.0, 0.0, 32.0]])
    np.testing.assert_allclose(norms(products), [3.0, 0.0, 32**0.5], rtol=1e-6)
    half = 2**-0.5
    np.testing.assert_allclose(cosines(products), [[1, 0, -half], [0, 0, 0], [-half, 0, 1]], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(norms(jnp.array([[-1e-9]])), [0.0])
