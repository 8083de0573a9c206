import functools
import inspect

import jax
import jax.numpy as jnp
import pytest

from mobjrec import losses
from mobjrec.testing import check_loss

LABELS = {
    "huber": "real",
    "pairwise_logistic": "graded",
    "recall_at_k": "binary",
    "sigmoid_cross_entropy": "binary",
    "softmax": "graded",
    "squared": "real",
    "approx_ndcg": "graded",
    "approx_mrr": "binary",
    "smooth_ap": "binary",
    "neural_ndcg": "graded",
    "f_beta": "binary",
    "f_beta_at_k": "binary",
    "precision_at_k": "binary",
    "top_k_precision": "binary",
    "top_k_recall": "binary",
    "smooth_i_ndcg": "graded",
    "smooth_i_precision": "binary",
    "adv_infonce": "binary",
    "bsl": "binary",
    "llpauc": "binary",
    "psl": "binary",
    "sampled_softmax": "binary",
    "sl": "binary",
    "sl_at_k": "binary",
    "coral": "graded",
    "corn": "graded",
    "quantile": "real",
    "tweedie": "positive",
    "watch_time_logistic": "positive",
    "ziln": "positive",
    "bpr": "graded",
    "focal": "binary",
    "hinge": "graded",
    "lambda_loss": "graded",
    "lambda_rank": "graded",
    "list_mle": "real",
    "listnet": "real",
    "poly_1": "binary",
    "poly_1_softmax": "graded",
}

# Where the defaults say nothing of lists this short, or stop gradients.
SETTINGS = {
    "top_k_recall": {"k": 3},
    "smooth_i_ndcg": {"stop_gradient": False},
    "smooth_i_precision": {"stop_gradient": False},
}
# What is weighed by hard ranks, which finite differences see.
STOPPED = {"sl_at_k"}


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_keeps_its_promises(name, width):
    loss = getattr(losses, name)
    some = functools.partial(loss, **SETTINGS[name]) if name in SETTINGS else loss
    relevant = losses.facts_of(loss).relevant
    check_loss(some, LABELS[name], smooth=name not in STOPPED, needs_relevant=relevant, width=width(name))


def test_recall_keeps_them_where_the_cut_runs_through_the_list():
    check_loss(functools.partial(losses.recall_at_k, k=2, temperature_rank=0.3), "graded")


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_has_the_seams_arguments_and_defaults_for_the_rest(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert list(parameters)[:4] == ["scores", "labels", "where", "weights"]
    assert parameters["where"].default is inspect.Parameter.empty
    assert all(p.default is not inspect.Parameter.empty for p in list(parameters.values())[3:])


@pytest.mark.parametrize("name", losses.__all__)
@pytest.mark.parametrize(
    "labels, where, weights, message",
    [
        ((2, 4), ((2, 3), bool), None, r"labels has shape \(2, 4\)"),
        ((2, 3), ((2, 4), bool), None, r"where has shape \(2, 4\)"),
        ((2, 3), ((2, 3), float), None, "where is float"),
        ((2, 3), ((2, 3), bool), (3,), r"weights has shape \(3,\)"),
    ],
)
def test_every_loss_refuses_what_does_not_fit_before_it_runs(name, spread, labels, where, weights, message):
    weights = None if weights is None else jnp.zeros(weights)
    shape, kind = where

    def call(scores):
        return getattr(losses, name)(
            spread(name, scores), jnp.zeros(labels), where=jnp.ones(shape, kind), weights=weights
        )

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call, jnp.zeros((2, 3)))
