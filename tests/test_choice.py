"""The best of several evaluations under floors, and when to stop."""

import pytest

from mobjrec import choice
from mobjrec.choice import Standing
from mobjrec.config import Evaluate

NAN = float("nan")


def chosen(evaluate, *values) -> tuple[int | None, Standing]:
    """(which of the evaluations is kept, the standing after them)."""
    kept, standing = None, Standing()
    for place, (a, b) in enumerate(values):
        standing = choice.after(standing, {"a": a, "b": b}, evaluate)
        kept = place if standing.since == 0 else kept
    return kept, standing


FLOOR = Evaluate(select="a", floors={"b": 0.9})


@pytest.mark.parametrize(
    ("evaluate", "values", "kept"),
    [
        (Evaluate(select="a"), [(0.1, 0), (0.3, 0), (0.2, 1)], 1),
        (Evaluate(select="a"), [(0.3, 0), (0.3, 1)], 0),
        (Evaluate(select="a"), [(NAN, 0), (-1.0, 0)], 1),
        (Evaluate(), [(0.3, 0)], None),
        (FLOOR, [(0.9, 0.8), (0.2, 0.9), (0.3, 0.95), (0.8, 0.89)], 2),
        (FLOOR, [(0.2, 0.95), (0.9, 0.8)], 0),
        # None meets it: the least short, whatever `select` says; of equally short ones the larger `select`.
        (FLOOR, [(0.9, 0.5), (0.1, 0.8), (0.2, 0.8), (0.8, 0.7)], 2),
        (FLOOR, [(0.9, NAN), (0.1, 0.1)], 1),
        (Evaluate(select="a", floors={"b": 0.9, "a": 0.5}), [(0.4, 0.5), (0.1, 0.8), (0.3, 0.6)], 2),
    ],
)
def test_the_kept_evaluation(evaluate, values, kept):
    assert chosen(evaluate, *values)[0] == kept


def test_patience_counts_evaluations_since_the_best():
    evaluate = Evaluate(select="a", patience=2)
    standings = [chosen(evaluate, *[(v, 0) for v in (0.1, 0.3, 0.2, NAN, 0.4)][:n])[1] for n in range(1, 6)]
    assert [one.since for one in standings] == [0, 0, 1, 2, 0]
    assert [choice.over(one, evaluate) for one in standings] == [False, False, False, True, False]
    assert not choice.over(Standing(since=99), Evaluate())


def test_a_seal_gives_the_standing_back_unless_evaluations_were_compared_otherwise():
    standing = chosen(FLOOR, (0.2, 0.7), (0.1, 0.1))[1]
    assert standing == Standing(0.2, pytest.approx(0.2), 1)
    seal = choice.sealed(standing, FLOOR)
    assert choice.found(seal, FLOOR) == standing
    # Patience and pace are no part of the rule.
    assert choice.found(seal, FLOOR.model_copy(update={"patience": 3})) == standing
    for other in (Evaluate(select="a", floors={"b": 0.8}), Evaluate(select="b", floors={"b": 0.9}), Evaluate(lists=5)):
        assert choice.found(seal, other) == Standing()


def test_the_end_says_what_was_missed_and_why_it_stopped():
    evaluate = Evaluate(select="a", floors={"b": 0.9}, patience=1)
    standing = chosen(evaluate, (0.2, 0.7), (0.1, 0.1))[1]
    assert choice.told(standing, evaluate, 4, 9) == [
        "stopped early at step 4 of 9: no new best in 1 evaluations",
        "no evaluation met b >= 0.9; the step that is kept misses by at most 0.2",
    ]
    assert choice.told(chosen(evaluate, (0.2, 0.9))[1], evaluate, 9, 9) == []
