"""Rates as context: how often a label came true before, for the event's user, item, tab: made of training events alone."""

from collections.abc import Mapping

import numpy as np

from mobjrec.types import Category, Corpus, Labels


def with_rates(
    corpus: Corpus, labels: Mapping[str, Labels], of: Mapping[str, Mapping[str, float]], split: np.ndarray
) -> Corpus:
    """The corpus with an event number "LABEL by KEY" for every label and key of it in `of`, {label: {key: count}}.

    rate = (sum of y + c m) / (n + c) over the n training events of the same key strictly before the event where the label
    is known, m being the label's mean over all training events and c the count; its log-odds where the label lies in 0 to
    1. So no event, of training or not, sees its own label or a later one: to leave an event out of its own rate would not
    do, since a model that knows the key can tell the label from what is missing. An event without the key has the rate m.

    keys: "user", "item", or a single-valued category of events, users or items   split: [E], 0 = training
    ValueError for a label or key that is not there, and for a category of which an event has several values.
    """
    missing = [name for name in of if name not in labels]
    if missing:
        raise ValueError(f"no label {', '.join(missing)}; labels are {', '.join(labels)}")
    keys = {key: keys_of(corpus, key) for counts in of.values() for key in counts}
    numbers = {
        f"{name} by {key}": rates(keys[key], corpus.events.time, labels[name].value, split == 0, count)
        for name, counts in of.items()
        for key, count in counts.items()
    }
    return corpus._replace(events=corpus.events._replace(numbers={**corpus.events.numbers, **numbers}))


def rates(key: np.ndarray, time: np.ndarray, value: np.ndarray, train: np.ndarray, count: float) -> np.ndarray:
    """[E] float32, see `with_rates`. key: [E] whole numbers, -1 for none   value: [E], NaN = not known   count: c > 0"""
    known = train & np.isfinite(value)
    worth = np.where(known, value, 0.0).astype(np.float64)
    mean = worth.sum() / max(known.sum(), 1)
    order = np.lexsort((time, key))
    total, met = (np.concatenate([[0.0], np.cumsum(column[order])]) for column in (worth, known))
    place = np.arange(len(order))
    opens = np.diff(key[order], prepend=-2) != 0
    moves = opens | (np.diff(time[order], prepend=-1) != 0)
    # Where the key's events, and those of the same second, begin.
    begin, here = (np.maximum.accumulate(np.where(at, place, 0)) for at in (opens, moves))
    there = key[order] >= 0
    sums, counts = (np.where(there, column[here] - column[begin], 0.0) for column in (total, met))
    found = np.empty(len(order))
    found[order] = (sums + count * mean) / (counts + count)
    if known.any() and value[known].min() >= 0 and value[known].max() <= 1:
        found = np.clip(found, 1e-6, 1 - 1e-6)
        found = np.log(found) - np.log1p(-found)
    return found.astype(np.float32)


def keys_of(corpus: Corpus, name: str) -> np.ndarray:
    """[E] a whole number for each value of the key, -1 where an event has none."""
    events = corpus.events
    if name in ("user", "item"):
        return np.asarray(events.user if name == "user" else events.item, np.int64)
    places = (
        (events.categories, np.arange(len(events.user))),
        (corpus.users.categories, events.user),
        (corpus.items.categories, events.item),
    )
    for categories, rows in places:
        if name in categories:
            return _single(categories[name], name)[rows]
    there = ", ".join(dict.fromkeys(["user", "item", *(one for categories, _ in places for one in categories)]))
    raise ValueError(f"no category of events, users or items is called {name!r}; there are: {there}")


def _single(category: Category, name: str) -> np.ndarray:
    counts = np.diff(category.start)
    if counts.max(initial=0) > 1:
        raise ValueError(f"{name} has several values in a row; a rate needs a category with one")
    value = np.full(len(counts), -1, np.int64)
    value[counts == 1] = category.value
    return value
