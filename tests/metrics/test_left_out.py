import numpy as np

from mobjrec.metrics.left_out import REASONS, codes, counted

T, F = True, False


def test_the_first_reason_that_holds_is_the_lists():
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 2, 0], [1, -2, 0], [1, 0, 0], [-1, -1, 0]])
    there = np.array([[F, F, F]] + 6 * [[T, T, F]])
    observed = np.array([[T, T, T], [F, F, T], [T, T, T], [T, T, T], [T, T, T], [T, T, T], [T, T, T]])
    found = codes(labels, observed, there)
    assert [REASONS[code] for code in found] == [
        "no item",
        "no observed label",
        "nothing relevant",
        "only relevant",
        "no gain: labels below 0",
        "",
        "nothing relevant",
    ]


def test_reasons_are_counted_and_those_of_no_list_left_away():
    assert counted(np.array([3, 3, 1])) == {"no item": 1, "nothing relevant": 2}
    assert counted(np.zeros(0, int)) == {}
