"""What a loss says of itself reaches the objective around it, and what is checked before training."""

import functools

import jax.numpy as jnp
import pytest

from mobjrec import losses, objectives
from mobjrec.losses import facts_of, states
from mobjrec.types import Facts


@states("gain", relevant=True, positive=False)
def mine(scores, labels, *, where, weights=None, slope=1.0):
    return -slope * jnp.sum(labels * scores, -1, where=where)


def unsaid(scores, labels, *, where, weights=None):
    return jnp.sum(scores, -1, where=where)


@pytest.mark.parametrize(
    "loss, facts",
    [
        (losses.sigmoid_cross_entropy, Facts("share")),
        (losses.huber, Facts(value=True)),
        (functools.partial(losses.lambda_loss, metric="ndcg2"), Facts("grade", order=True, relevant=True)),
        (functools.partial(losses.recall_at_k, k=3), Facts("gain", order=True, relevant=True, positive=False)),
        (functools.partial(mine, slope=2.0), Facts("gain", relevant=True, positive=False)),
        (unsaid, Facts()),
    ],
)
def test_an_objective_passes_on_what_its_loss_says(loss, facts):
    assert facts_of(loss) == facts
    one = objectives.single(loss, "click")
    assert (one.takes, one.order, one.relevant, one.positive, one.expectation) == ((facts.labels,), *facts[1:])


def test_a_link_and_lists_that_are_left_out_say_more():
    one = objectives.single(losses.squared, "click", link="sigmoid", needs_relevant=True)
    assert one.takes == ("share",) and one.relevant and one.probability and not one.expectation


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_here_says_what_it_takes(name):
    assert hasattr(getattr(losses, name), "facts"), f"{name} has no @states(...)"


@pytest.mark.parametrize("name", ["approx_ndcg", "lambda_rank", "lambda_loss", "neural_ndcg", "smooth_i_ndcg"])
def test_losses_whose_gain_is_two_to_the_label_take_grades(name):
    assert facts_of(getattr(losses, name)).labels == "grade"


def test_other_words_for_labels_are_refused():
    with pytest.raises(ValueError, match="labels is 'binary'; it may be any, gain"):
        states("binary")
