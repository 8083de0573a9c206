"""Corpus and labels -> ranked lists in three splits, each with its user's history strictly before it."""

from collections.abc import Mapping

import numpy as np

from mobjrec.data.columns import side
from mobjrec.data.splits import Split
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Dataset, Events, Input, Labels, LabelSpec, Lists, Table

# Composite keys (user, time) and (user, item) are one int64 each: times span less than 2^33 s, items are fewer.
_WIDE = np.int64(1) << 33
NAMES = ("training", "validation", "test")


def build(
    corpus: Corpus,
    labels: Mapping[str, Labels],
    split: Split,
    *,
    history: str,
    last: int = 50,
    window: int = 1,
    eval_window: int | None = None,
    context_ids: tuple[str, ...] = (),
    context_numbers: tuple[str, ...] = (),
) -> Dataset:
    """The dataset of a corpus.

    Events of one impression form one list; without impressions, `window` consecutive events of a user within a split do
    (0: all of them; valid and test may have a window of their own), sharing the history of the first. history: label
    whose positive events are remembered, at most the `last` newest, strictly before the list's time and from no later
    split. UserError where a split has no list.
    """
    events = corpus.events
    if history and history not in labels:
        raise UserError(f"lists.history.of: no label {history}; labels are {', '.join(labels)}")
    order = _order(events)
    user, item, time = (np.asarray(a)[order] for a in (events.user, events.item, events.time))
    values = {name: label.value[order] for name, label in labels.items()}
    impression, place = np.asarray(events.list)[order], np.asarray(events.position)[order]
    parts = _split(events, order, split)
    windows = np.array([window] + 2 * [window if eval_window is None else eval_window])
    lists_of = _group(user, parts, impression, windows[parts])
    positive = values[history] > 0 if history else np.zeros(len(user), bool)
    elapsed = time - (time.min() if len(time) else 0)
    remembered = _remember(user.astype(np.int64), item, elapsed, positive, parts)
    begins = np.cumsum([0] + [len(items) for _, items in remembered])

    spec, ids, numbers = _context(corpus, order, parts == 0, context_ids, context_numbers)
    splits = []
    for part in range(3):
        inside, head, start = _spread(parts == part, lists_of)
        splits.append(
            Lists(
                user=user[head].astype(np.int32),
                time=time[head],
                history=begins[part] + _spans(user[head].astype(np.int64), elapsed[head], remembered[part][0], last),
                start=start,
                item=item[inside].astype(np.int32),
                event=order[inside],
                labels={name: value[inside].astype(np.float32) for name, value in values.items()},
                weights=np.ones(len(inside), np.float32),
                context_ids=ids[inside],
                context=numbers[inside],
                split=part,
                position=place[inside].astype(np.int32) if (place >= 0).any() else None,
            )
        )
    _check_training(splits[0], parts)
    return Dataset(
        corpus.users,
        corpus.items,
        *splits,
        history=np.concatenate([items for _, items in remembered]),
        whole=begins[2] + _starts(remembered[2][0], len(corpus.users.id)),
        seen=_seen(user, item, parts, len(corpus.users.id)),
        everywhere=frozenset(name for name, label in labels.items() if label.everywhere),
        context=spec,
        labels={name: _label(splits[0].labels[name], labels[name].unit) for name in labels},
    )


def divided(events: Events, split: Split) -> np.ndarray:
    """[E] int8, every event's split as `build` will have it: 0 train, 1 valid, 2 test."""
    order = _order(events)
    found = np.empty(len(order), np.int8)
    found[order] = _split(events, order, split)
    return found


def _order(events: Events) -> np.ndarray:
    return np.lexsort((events.item, events.position, events.list, events.time, events.user))


def _split(events: Events, order: np.ndarray, split: Split) -> np.ndarray:
    """Every event's split, in `order`; all events of an impression share the one of its last event.

    Were it that of the first, a click after the cut would be a label of training.
    """
    user, time, impression = (np.asarray(a)[order] for a in (events.user, events.time, events.list))
    given = None if events.split is None else events.split[order]
    unit = np.where(impression >= 0, impression, impression.max(initial=-1) + 1 + np.arange(len(user)))
    _, first, inverse = np.unique(unit, return_index=True, return_inverse=True)
    last = time[first]
    np.maximum.at(last, inverse, time)
    if given is not None:
        published = given[first]
        np.maximum.at(published, inverse, given)
    # By the place of the first event where two last ones share a second.
    units = np.lexsort((first, last, user[first]))
    found = np.zeros(len(first), np.int8)
    found[units] = split(user[first][units], last[units], None if given is None else published[units])
    return found[inverse]


def _group(user: np.ndarray, parts: np.ndarray, impression: np.ndarray, window: np.ndarray) -> np.ndarray:
    """A list number per event, ascending with the first event's place."""
    key = user.astype(np.int64) * 3 + parts
    by_key = np.argsort(key, kind="stable")
    _, first, inverse = np.unique(key[by_key], return_index=True, return_inverse=True)
    rank = np.empty(len(user), np.int64)
    rank[by_key] = np.arange(len(user)) - first[inverse]
    place = np.where(window > 0, rank // np.maximum(window, 1), 0)
    # Impressions first, then (user, split, place): numbers only need to be distinct before they are ranked.
    single = np.where(impression >= 0, -1, key * (place.max(initial=0) + 1) + place)
    _, first, inverse = np.unique(np.stack([impression, single]), axis=1, return_index=True, return_inverse=True)
    rank_of = np.empty(len(first), np.int64)
    rank_of[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank_of[inverse.reshape(-1)]


def _check_training(train: Lists, parts: np.ndarray) -> None:
    if not len(train.user):
        shares = ", ".join(
            f"{count} {name}" for name, count in zip(NAMES, np.bincount(parts, minlength=3), strict=True)
        )
        raise UserError(
            f"no list is left for training: lists.split makes {len(parts)} events {shares}; give more events, hold a "
            "smaller share out, or split another way"
        )


def _spread(chosen: np.ndarray, lists_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(events of a split by list, the first event of each list, [Q + 1] where each list starts)."""
    inside = np.flatnonzero(chosen)
    # Events of one impression may lie apart when another shares its second; a stable sort by list joins them.
    inside = inside[np.argsort(lists_of[inside], kind="stable")]
    _, first = np.unique(lists_of[inside], return_index=True)
    return inside, inside[first], np.append(first, len(inside)).astype(np.int64)


def _starts(keys: np.ndarray, users: int) -> np.ndarray:
    """[users + 1] where each user's remembered events start."""
    return np.searchsorted(keys, np.arange(users + 1, dtype=np.int64) * _WIDE).astype(np.int64)


def _remember(user: np.ndarray, item: np.ndarray, time: np.ndarray, positive: np.ndarray, parts: np.ndarray):
    """Per split: the remembered events' keys (user, time) and items, from no later split.

    One copy a split keeps a list's history one contiguous span also where splits interleave in time.
    """
    kept = [positive & (parts <= part) for part in range(3)]
    return [(user[k] * _WIDE + time[k], item[k].astype(np.int32)) for k in kept]


def _spans(user: np.ndarray, time: np.ndarray, keys: np.ndarray, last: int) -> np.ndarray:
    """[Q, 2]: the `last` newest of the user's remembered events with a smaller time."""
    stop = np.searchsorted(keys, user * _WIDE + time, side="left")
    begin = np.searchsorted(keys, user * _WIDE, side="left")
    return np.stack([np.maximum(begin, stop - last), stop], 1).astype(np.int64)


def _seen(
    user: np.ndarray, item: np.ndarray, parts: np.ndarray, users: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every user's items, sorted, with the earliest split each was met in."""
    order = np.lexsort((parts, item, user))
    key = (user.astype(np.int64) * _WIDE + item)[order]
    first = np.concatenate([[True], key[1:] != key[:-1]]) if len(key) else np.zeros(0, bool)
    kept = order[first]
    start = np.searchsorted(user[kept], np.arange(users + 1))
    return start.astype(np.int64), item[kept].astype(np.int32), parts[kept]


def _context(corpus: Corpus, order: np.ndarray, train: np.ndarray, names: tuple[str, ...], numbers: tuple[str, ...]):
    """The events' own columns in the order of `order`: spec, ids [E, C'] (0 = not met in training), features [E, F']."""
    events = corpus.events
    table = Table(np.zeros(0), {}, events.categories, events.numbers)
    ids, features, spec = side(table, Input(ids=names, numbers=numbers), "context", train[np.argsort(order)])
    return spec, ids[order], features[order]


def _label(values: np.ndarray, unit: str) -> LabelSpec:
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return LabelSpec(unit)
    return LabelSpec(unit, float(known.mean()), float(known.std()) or 1.0)
