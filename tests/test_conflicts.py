"""What a step's gradients say, and the sentences on who conflicted, who was sacrificed and what was not solved."""

import numpy as np
import pytest

from mobjrec import conflicts, losses, objectives

CLICK = objectives.single(losses.softmax, "click")
SATISFIED = objectives.single(losses.huber, "satisfaction")
BOTH = {"click": CLICK, "satisfaction": SATISFIED}
METRICS = ("rmse", "ndcg@5", "auc")


def logs(jacobian, present=(True, True, True), **more):
    rows = np.array(jacobian, np.float32)
    weights = np.full(len(rows), 1 / len(rows), np.float32)
    given = {"losses": np.arange(1.0, 1 + len(rows)), "present": np.array(present), "weights": weights}
    return given | {"gram": rows @ rows.T} | more


def test_cosines_lengths_and_the_shortest_vector_are_those_of_the_present_gradients():
    found = conflicts.numbers(
        "abc", logs([[3, 0], [0, 4], [0, 0]], present=(True, True, False), residual=np.float32(0.5))
    )
    assert found["cosine/a/b"] == 0 and not {"cosine/a/c", "cosine/b/c"} & found.keys()
    assert [found[f"gradient_norm/{name}"] for name in "abc"] == [3, 4, 0]
    # The distance of the line from (3, 0) to (0, 4) from 0.
    assert found["min_norm"] == pytest.approx(12 / 5) and found["residual"] == 0.5
    assert found["loss/b"] == 2 and np.isnan(found["loss/c"]) and found["weight/a"] == pytest.approx(1 / 3)
    assert conflicts.numbers("ab", logs([[1, 0], [-1, 1]], (True, True)))["cosine/a/b"] == pytest.approx(-(0.5**0.5))


def test_a_step_that_compared_nothing_says_nothing_of_gradients():
    for given in (logs(np.full((2, 2), np.nan), (True, True)), logs([[1.0]], (True,)) | {"gram": None}):
        found = conflicts.numbers("ab"[: len(given["losses"])], given)
        assert not any(key.startswith(("gram", "gradient_norm", "cosine", "min_norm", "residual")) for key in found)


@pytest.mark.parametrize("jacobian, wanted", [
    ([[5, 0], [3, 0]], 3), ([[1, 0], [-1, 0]], 0), ([[1, 0], [1, 0], [1, 1]], 1), ([[0, 0], [1, 0]], 0),
    ([[1, 0], [-1, 1], [-1, -1]], 0), ([[1e-4, 0, 0], [0, 1e4, 0], [0, 0, 1]], 1e-4), ([[1e-12, 1e-12]], 2**0.5 * 1e-12),
    ([[1, 2, 0], [2, 1, 0], [2, 2, 5], [3, 3, 1]], 3 / 2**0.5),
])  # fmt: skip
def test_the_shortest_vector_of_a_hull(jacobian, wanted):
    rows = np.array(jacobian, np.float64)
    assert conflicts.min_norm(rows @ rows.T) == pytest.approx(wanted, rel=1e-4, abs=1e-4 * abs(rows).max())


def test_no_shortest_vector_is_told_of_what_is_not_finite():
    assert np.isnan(conflicts.min_norm(np.full((2, 2), np.nan))) and np.isnan(conflicts.min_norm(np.zeros((0, 0))))


def row(step, click, satisfied, cosine=None, **more):
    found = {"step": step, "kind": "train", "loss/click": click, "loss/satisfaction": satisfied}
    found |= {"weight/click": 0.75, "weight/satisfaction": 0.25}
    return found | ({} if cosine is None else {"gram": [[1, 0], [0, 1]], "cosine/click/satisfaction": cosine}) | more


def valid(step, click, satisfied):
    return {"step": step, "kind": "eval", "valid/click/ndcg@5": click, "valid/satisfaction/ndcg@5": satisfied}


def table(click, satisfied, error=0.01):
    ends = {"click/ndcg@5": click, "satisfaction/ndcg@5": satisfied}
    made = {key: {"before": before, "after": after, "error": error} for key, (before, after) in ends.items()}
    return made | {"satisfaction/rmse": {"before": 1.0, "after": 2.0, "error": None}}


def test_who_conflicted_and_who_was_sacrificed_is_told():
    rows = [row(1, 3.0, 0.5, 0.5), row(2, 1.0, 1.5, -0.5, residual=0.2), row(3, 1.0, 1.5, -0.5), row(4, 1.0, 1.5)]
    rows += [valid(2, 0.5, 0.91), valid(4, 0.6, 0.88)]
    told = conflicts.told(rows, BOTH, METRICS, table((0.3, 0.7), (0.92, 0.87)))
    assert "  click and satisfaction: cosine -0.17 on average, apart in 67% of 3 steps" in told
    assert "  click: loss 3.000 to 1.000, mean weight 0.75, ndcg@5 0.300 to 0.700 ± 0.010" in told
    assert "sacrificed: satisfaction, worse than before training" in told
    way = "gave way: satisfaction, whose ndcg@5 on validation was 0.910 after step 2 and is 0.880 after step 4"
    assert [line for line in told if line.startswith("gave way")] == [way]
    assert told[-1].startswith("the weighting's problem was not solved in 1 of 4 steps") and "0.2 in step 2" in told[-1]


def test_no_one_is_sacrificed_within_a_standard_error_and_no_gradients_are_told_of_where_none_were_compared():
    told = conflicts.told([row(1, 1.0, 1.0)], BOTH, METRICS, table((0.3, 0.7), (0.9, 0.895)))
    assert told[0].startswith("conflicts between gradients: not measured")
    assert "sacrificed: none, no objective is worse than before training" in told
    assert "not learnt: satisfaction, within a standard error of before training" in told
    assert not any("not solved" in line or "gave way" in line for line in told)
    # What its metric cannot tell, its loss does.
    told = conflicts.told([row(1, 1.0, 1.0), row(2, 1.0, 1.1)], BOTH, METRICS, table((0.3, 0.7), (0.9, 0.895)))
    assert "sacrificed: satisfaction, worse than before training" in told and "not learnt" not in " ".join(told)


def test_a_run_that_goes_on_is_told_of_from_its_validations_and_losses():
    rows = [row(1, 1.0, 1.0), valid(1, 0.5, 0.9), row(2, 1.0, 2.0), valid(2, 0.6, 0.8)]
    told = conflicts.told(rows, BOTH, METRICS, {})
    assert "sacrificed: satisfaction, worse than the first validation" in told
    # Without an evaluation the loss decides.
    told = conflicts.told([rows[0], rows[2]], {"satisfaction": SATISFIED}, METRICS, {})
    assert told[-1] == "sacrificed: satisfaction, worse than the first steps"
    assert conflicts.told([valid(0, 0.5, 0.5)], BOTH, METRICS, {}) == []
