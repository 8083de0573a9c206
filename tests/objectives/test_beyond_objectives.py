"""Diversity and exposure as objectives: whose vectors, which lists, which labels."""

import jax
import numpy as np
import pytest

from mobjrec import losses, objectives
from mobjrec.testing import check_objective

random = np.random.default_rng(0)
SCORES = random.normal(size=(3, 5)).astype(np.float32)
ITEMS = random.normal(size=(3, 5, 4)).astype(np.float32)
WHERE = np.array([[1] * 5, [1, 1, 1, 0, 0], [1] * 5], bool)


@pytest.mark.parametrize(
    "one",
    [
        objectives.diversity("click", k=2),
        objectives.exposure("niche", "click"),
        objectives.exposure("niche", "click", merit="rating"),
    ],
)
def test_promises(one):
    check_objective(one)


@pytest.mark.slow
def test_diversity_is_of_the_models_vectors_which_it_does_not_move(batch_of, scored, now):
    one, given = objectives.diversity("click", k=3), batch_of({"any": 0 * SCORES}, where=WHERE)
    value, speaks, _ = one.value(scored(items=ITEMS, click=SCORES), given, (), (), now())
    np.testing.assert_allclose(value, losses.similarity_on_top(SCORES, ITEMS, where=WHERE, k=3), rtol=1e-6)
    assert speaks.tolist() == [True, False, True] and one.labels == () and one.label == ""
    shared = one.value(scored(items=ITEMS[:1], click=SCORES), given, (), (), now())[0]
    every = losses.similarity_on_top(SCORES, np.repeat(ITEMS[:1], 3, 0), where=WHERE, k=3)
    np.testing.assert_allclose(shared, every, rtol=1e-6)
    grad = jax.grad(lambda items: one.value(scored(items=items, click=SCORES), given, (), (), now())[0].sum())(ITEMS)
    assert not grad.any()
    np.testing.assert_array_equal(one.predict(scored(click=SCORES), (), ()), SCORES)


@pytest.mark.slow
def test_exposure_is_of_what_is_known_and_of_lists_with_both_kinds(batch_of, scored, now):
    niche = [[1, 0, 0, 1, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0]]
    rating = [[1, 2, 3, 4, 5], [1, 1, 1, 0, 0], [0, 0, 0, 0, 2]]
    seen = {"niche": WHERE, "rating": [[1, 1, 1, 1, 0], [1] * 5, [1, 1, 1, 1, 0]]}
    given = batch_of({"niche": niche, "rating": rating}, seen, WHERE)
    value, speaks, _ = objectives.exposure("niche", "click").value(scored(click=SCORES), given, (), (), now())
    np.testing.assert_allclose(value, losses.exposure_gap(SCORES, given.labels["niche"], where=WHERE), rtol=1e-6)
    # The second list is all niche.
    assert speaks.tolist() == [True, False, True]
    one = objectives.exposure("niche", "click", merit="rating", temperature=0.5)
    value, speaks, _ = one.value(scored(click=SCORES), given, (), (), now())
    where = given.observed["niche"] & given.observed["rating"]
    wanted = losses.exposure_gap(
        SCORES, given.labels["niche"], where=where, merit=given.labels["rating"], temperature=0.5
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    # The only rated item of the third is not known to be so.
    assert speaks.tolist() == [True, False, False] and one.takes == ("share", "gain")


def test_settings_without_a_meaning_are_refused():
    for make in (objectives.diversity, lambda **s: objectives.exposure("niche", **s)):
        with pytest.raises(ValueError, match=r"temperature is 0\.0"):
            make(head="click", temperature=0.0)
    with pytest.raises(ValueError, match="k is 1; two items"):
        objectives.diversity("click", k=1)
