import json

import numpy as np

from mobjrec.data.corpus import events_from, several, table_from
from mobjrec.data.show import show
from mobjrec.types import Corpus


def corpus() -> Corpus:
    users = table_from(["u", "v"], text={"city": ["Rome", ""]}, numbers={"age": [20, np.nan]})
    items = table_from(
        ["a", "b", "c"], text={"title": ["x" * 200, "yy", "zzzz"]}, categories={"tag": several([["p", "q"], ["q"], []])}
    )
    events = events_from(
        [0, 0, 1], [0, 1, 2], [0, 86_400, 86_401], {"click": [1, 0, np.nan]}, list=[5, 5, -1], split=[0, 0, 2]
    )
    return Corpus(users, items, events, units={"click": "taps"})


def test_counts_spans_and_rates_are_those_of_the_corpus():
    found = show(corpus())
    assert found["users"]["rows"] == 2
    assert found["users"]["text"]["city"] == {"empty": 1, "min": 4, "median": 4, "95 %": 4, "max": 4}
    assert found["users"]["numbers"]["age"] == {"missing": 1, "min": 20.0, "mean": 20.0, "max": 20.0}
    assert found["items"]["text"]["title"]["median"] == 4
    tag = found["items"]["categories"]["tag"]
    assert tag == {"values": 2, "empty": 1, "a row": 1.0, "most frequent": ["q", "p"]}
    events = found["events"]
    assert (events["rows"], events["users"], events["items"], events["lists"]) == (3, 2, 3, 1)
    assert (events["first"], events["last"]) == ("1970-01-01 00:00:00", "1970-01-02 00:00:01")
    assert (events["a user"], events["a list"]) == (1.5, 2.0)
    assert events["split"] == {"train": 2, "valid": 0, "test": 1}
    click = events["feedback"]["click"]
    assert (click["mean"], click["missing"], click["unit"]) == (0.5, 1, "taps")
    assert click["observed"] == np.float64(2 / 3)


def test_a_corpus_without_events_has_no_statistics_of_nothing():
    nothing = events_from([], [], [], {"click": []})
    found = show(corpus()._replace(events=nothing))
    json.dumps(found, allow_nan=False)
    assert found["events"]["first"] is None
    assert found["events"]["feedback"]["click"]["mean"] is None
