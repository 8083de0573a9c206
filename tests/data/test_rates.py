from pathlib import Path

import numpy as np
import pytest

from mobjrec import config as configs
from mobjrec.data.corpus import events_from, several, single, table_from
from mobjrec.data.rates import rates, with_rates
from mobjrec.errors import UserError
from mobjrec.reading import data_of, objectives_of
from mobjrec.types import Corpus, Labels

NAN = np.nan
TINY = Path(__file__).resolve().parents[1] / "tiny.yaml"


def slow(key, time, value, train, count):
    """The docstring's sentence, event by event."""
    known = [e for e in range(len(key)) if train[e] and not np.isnan(value[e])]
    mean = np.mean([value[e] for e in known])
    found = []
    for own in range(len(key)):
        before = [value[e] for e in known if key[own] >= 0 and key[e] == key[own] and time[e] < time[own]]
        found.append((sum(before) + count * mean) / (len(before) + count))
    return np.array(found)


def drawn(seed, events=60):
    random = np.random.default_rng(seed)
    value = np.where(random.random(events) < 0.2, NAN, random.integers(0, 9, events)).astype(np.float32)
    return random.integers(-1, 4, events), random.integers(0, 25, events), value, random.random(events) < 0.6


@pytest.mark.parametrize("seed", range(5))
def test_a_rate_is_the_smoothed_mean_of_training_events_strictly_before(seed):
    key, time, value, train = drawn(seed)
    np.testing.assert_allclose(rates(key, time, value, train, 2.5), slow(key, time, value, train, 2.5), rtol=1e-6)
    share = value / 8
    expected = slow(key, time, share, train, 2.5)
    np.testing.assert_allclose(
        rates(key, time, share, train, 2.5), np.log(expected / (1 - expected)), rtol=2e-5, atol=1e-6
    )


def test_no_event_sees_its_own_label_a_later_one_or_one_of_another_split():
    key, time, value, train = drawn(0)
    before = rates(key, time, value, train, 1.0)
    at = np.flatnonzero(train & np.isfinite(value))[0]
    changed = value.copy()
    changed[~train] = 100.0
    np.testing.assert_array_equal(rates(key, time, changed, train, 1.0), before)
    # Another label that has the same mean: what stands before and in the same second is as it was.
    other = np.flatnonzero(train & np.isfinite(value) & (key == key[at]) & (time >= time[at]))
    other = other[other != at][0]
    changed = value.copy()
    changed[at], changed[other] = value[at] + 2, value[other] - 2
    after = rates(key, time, changed, train, 1.0)
    earlier = (time <= time[at]) | (key != key[at])
    np.testing.assert_array_equal(after[earlier], before[earlier])
    assert (after != before).any()


def small():
    users = table_from(["a", "b"], categories={"city": single(["x", ""])})
    items = table_from(["i", "j"], categories={"tag": several([["p", "q"], ["p"]]), "kind": single(["k", "k"])})
    events = events_from(
        np.array([0, 0, 1, 1]),
        np.array([0, 1, 0, 1]),
        np.array([1, 2, 3, 4]),
        {"click": np.array([1, 0, 1, 0])},
        categories={"tab": single(["t", "s", "t", "t"])},
    )
    return Corpus(users, items, events, {})


def test_keys_are_users_items_and_categories_of_any_table():
    corpus, split = small(), np.zeros(4)
    labels = {"click": Labels(corpus.events.feedback["click"])}
    found = with_rates(corpus, labels, {"click": {"user": 1, "item": 1, "tab": 1, "city": 1, "kind": 1}}, split)
    rate = {name: 1 / (1 + np.exp(-column)) for name, column in found.events.numbers.items()}
    assert list(rate) == [f"click by {key}" for key in ("user", "item", "tab", "city", "kind")]
    np.testing.assert_allclose(rate["click by user"], [0.5, 0.75, 0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(rate["click by item"], [0.5, 0.5, 0.75, 0.25], rtol=1e-6)
    np.testing.assert_allclose(rate["click by tab"], [0.5, 0.5, 0.75, 2.5 / 3], rtol=1e-6)
    np.testing.assert_allclose(rate["click by city"], [0.5, 0.75, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(rate["click by kind"], [0.5, 0.75, 0.5, 0.625], rtol=1e-6)
    with pytest.raises(ValueError, match="tag has several values"):
        with_rates(corpus, labels, {"click": {"tag": 1}}, split)
    with pytest.raises(ValueError, match="no category of events, users or items is called 'town'; there are: user, item"):
        with_rates(corpus, labels, {"click": {"town": 1}}, split)
    with pytest.raises(ValueError, match="no label like; labels are click"):
        with_rates(corpus, labels, {"like": {"user": 1}}, split)


def test_a_config_gives_rates_as_context_and_a_wrong_one_is_told_with_its_key():
    changes = ["rates={click: {user: 5, item: 20}}", "data.users=20", "model.scorer=mlp"]
    one = configs.load(TINY, changes)
    dataset = data_of(one, objectives_of(one)).dataset
    assert dataset.context.numbers == ("click by user", "click by item")
    for lists in (dataset.train, dataset.test):
        assert lists.context.shape == (len(lists.item), 2) and np.std(lists.context, axis=0).min() > 0
    wrong = configs.load(TINY, ["rates={clik: {user: 5}}", "data.users=20"])
    with pytest.raises(UserError, match="rates: no label clik; labels are"):
        data_of(wrong, objectives_of(wrong))
    with pytest.raises(UserError, match=r"rates\.click\.user.*above 0"):
        configs.load(TINY, ["rates={click: {user: 0}}"])
