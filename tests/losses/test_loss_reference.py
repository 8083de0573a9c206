"""Values and gradients beside the reference (other people's code, or slow forms), reduced as each entry says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobjrec import losses


def lists_mean(values, where):
    return values.mean(where=where.any(-1))


def items_mean(values, where):
    """The mean over all real items, from the lists' means."""
    counts = where.sum(-1)
    return (values * counts).sum() / counts.sum()


def pairs_of(labels, where):
    real = where[..., :, None] & where[..., None, :]
    return ((labels[..., :, None] > labels[..., None, :]) & real).sum((-2, -1))


def softmax(inputs, params):
    gain = inputs["labels"]
    if params.get("label_norm"):
        gain = gain / jnp.sum(gain, -1, where=inputs["where"], keepdims=True)
    values = losses.softmax(inputs["scores"], gain, where=inputs["where"], weights=inputs.get("weights"))
    return lists_mean(values, inputs["where"])


def entropy(inputs, params):
    return items_mean(losses.sigmoid_cross_entropy(**inputs), inputs["where"])


def pair_sum(inputs, params):
    return (losses.pairwise_logistic(**inputs) * pairs_of(inputs["labels"], inputs["where"])).sum()


def pair_mean(inputs, params):
    return pair_sum(inputs, params) / pairs_of(inputs["labels"], inputs["where"]).sum()


def recall(inputs, params):
    labels = inputs["labels"] >= 1
    settings = {"k": params["k"], "offset": params["offset"]}
    settings |= {"temperature_rank": params["t_rank"], "temperature_cut": params["t_cut"]}
    values = losses.recall_at_k(inputs["scores"], labels, where=inputs["where"], **settings)
    count = jnp.sum(labels, -1, where=inputs["where"])
    if params["norm"] == "rel":
        # Theirs divides by |P|, ours by min(k, |P|).
        values = 1 - (1 - values) * jnp.minimum(count, params["k"]) / jnp.maximum(count, 1)
    return values.mean(where=count > 0)


def huber(inputs, params):
    where = jnp.ones(len(inputs["scores"]), bool)
    return losses.huber(inputs["scores"], inputs["targets"], where=where, delta=params["delta"])


CASES = {
    "sigmoid_ce_mask": entropy,
    "sigmoid_ce_weights": entropy,
    "stress_sigmoid_ce": entropy,
    "softmax_ce": softmax,
    "softmax_ce_norm": softmax,
    "softmax_ce_weights": softmax,
    "stress_softmax": softmax,
    "pairwise_logistic_mean": pair_mean,
    "pairwise_logistic_sum": pair_sum,
    "bpr": pair_mean,
    "rs_at_k": recall,
    "rs_at_k_sharp": recall,
    "rs_at_k_centered": recall,
    "rs_at_1": recall,
    "rs_at_k_cap": recall,
    "huber_1.0": huber,
    "huber_0.5": huber,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_the_reference(agrees, case):
    agrees(case, CASES[case])


@pytest.mark.parametrize("name", losses.__all__)
def test_a_fully_masked_list_gives_zero_without_gradient(reference, spread, name):
    inputs = {key: jnp.asarray(value) for key, value in reference["stress_empty"]["inputs"].items()}

    @jax.jit
    def value_and_pull(scores):
        value, back = jax.vjp(
            lambda s: getattr(losses, name)(spread(name, s), inputs["labels"], where=inputs["where"]), scores
        )
        return value, back(jnp.ones(1))[0]

    value, pull = value_and_pull(inputs["scores"])
    np.testing.assert_array_equal(value, [0.0])
    np.testing.assert_array_equal(pull, reference["stress_empty"]["grad"]["scores"])
