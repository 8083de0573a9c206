"""Rows of a split and their candidates -> a Batch: each distinct text once, packed, in one of a few fixed sizes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mobjrec.data.packing import Packing, cells, lay, pack
from mobjrec.data.sizes import Size, rounded
from mobjrec.data.store import States, taken
from mobjrec.data.tokens import Ragged
from mobjrec.types import Batch, Dataset, Drawn, Lists, Side, SideSpec, Texts


class Feed(NamedTuple):
    """Everything batches are built from, memory-mapped where it is large.

    item_text: [N] int32, an item's row in item_tokens (equal texts share one), or None without item text
    item_tokens, profile_tokens (by user), event_tokens (by item, as a history names it): token ids without specials
    stored_items [texts, D], stored_users {split: [Q, D]}: encoder outputs where the encoder is frozen
    lower_items (by text), lower_users {split: by list}: what its lower layers make of the texts where only those are
    item_row, user_row: tokens that a text is cut to   item_width, user_width: tokens of a training batch's packed rows
    history: history vectors a list gets, 0 = none
    """

    dataset: Dataset
    users: SideSpec
    items: SideSpec
    user_ids: np.ndarray
    user_features: np.ndarray
    item_ids: np.ndarray
    item_features: np.ndarray
    item_text: np.ndarray | None = None
    item_tokens: Ragged | None = None
    profile_tokens: Ragged | None = None
    event_tokens: Ragged | None = None
    cls: int = 0
    sep: int = 0
    item_row: int = 0
    user_row: int = 0
    item_width: int = 0
    user_width: int = 0
    history: int = 0
    stored_items: np.ndarray | None = None
    stored_users: dict[int, np.ndarray] | None = None
    lower_items: States | None = None
    lower_users: dict[int, States] | None = None


class Packed(NamedTuple):
    """A side's distinct texts in a batch: where each lies, known by lengths alone, and how to read some of them.

    name: of each list or item text, before rows and slots are fixed   packing: None for stored vectors, one a row
    read: which [n] -> their token sequences, or their stored vectors [n, D]   lower: states of all, or None
    """

    name: np.ndarray
    packing: Packing | None = None
    lengths: np.ndarray | None = None
    width: int = 0
    read: Callable[[np.ndarray], Any] | None = None
    lower: States | None = None
    rows: int = 0
    slots: int = 0


def item_sequences(feed: Feed, texts: np.ndarray) -> Ragged:
    """[CLS] text [SEP] for these rows of item_tokens, cut at item_row."""
    tokens = feed.item_tokens
    lengths = item_lengths(feed, texts) - 2
    start = np.concatenate([[0], np.cumsum(lengths + 2)])
    flat = np.full(start[-1], feed.sep, np.int32)
    flat[start[:-1]] = feed.cls
    source = np.repeat(tokens.start[texts], lengths) + _within(lengths)
    flat[np.repeat(start[:-1] + 1, lengths) + _within(lengths)] = tokens.token[source]
    return Ragged(start, flat)


def item_lengths(feed: Feed, texts: np.ndarray) -> np.ndarray:
    """Tokens of each of `item_sequences`, none of them read."""
    return np.minimum(_lengths(feed.item_tokens, texts), feed.item_row - 2) + 2


def user_lengths(feed: Feed, user: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Tokens of each of `user_sequences`, none of them read."""
    total = np.zeros(len(user), np.int64)
    if feed.profile_tokens is not None:
        total += np.where(user >= 0, _lengths(feed.profile_tokens, user), 0)
    if feed.event_tokens is not None:
        events = spans[:, 1] - spans[:, 0]
        told = feed.dataset.history[np.repeat(spans[:, 0], events) + _within(events)]
        ends = np.concatenate([[0], np.cumsum(_lengths(feed.event_tokens, told))])
        stop = np.cumsum(events)
        total += ends[stop] - ends[stop - events]
    return np.minimum(total, feed.user_row - 2) + 2


def user_sequences(feed: Feed, user: np.ndarray, spans: np.ndarray, history: np.ndarray | None = None) -> Ragged:
    """[CLS] profile, history events newest first [SEP], cut at user_row: what is oldest goes first.

    user [n] rows of the users' table, -1 for none; spans [n, 2] of `history` (the dataset's, unless given).
    """
    items = feed.dataset.history if history is None else history
    sequences = []
    for who, (begin, stop) in zip(user.tolist(), spans.tolist(), strict=True):
        left = feed.user_row - 2
        parts = [np.array([feed.cls], np.int32)]
        if feed.profile_tokens is not None and who >= 0:
            parts.append(_row(feed.profile_tokens, who)[:left])
            left -= len(parts[-1])
        if feed.event_tokens is not None:
            for item in items[begin:stop][::-1].tolist():
                if left <= 0:
                    break
                parts.append(_row(feed.event_tokens, item)[:left])
                left -= len(parts[-1])
        parts.append(np.array([feed.sep], np.int32))
        sequences.append(np.concatenate(parts))
    start = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    return Ragged(start, np.concatenate(sequences) if sequences else np.zeros(0, np.int32))


def reads_users(feed: Feed) -> bool:
    """Whether users have a text."""
    return feed.profile_tokens is not None or feed.event_tokens is not None


def remembered(feed: Feed, spans: np.ndarray) -> np.ndarray | None:
    """[B, H] items of these spans [B, 2] of the dataset's history, newest first, -1 for none; None where H is 0."""
    if not feed.history:
        return None
    place = spans[:, 1:] - 1 - np.arange(feed.history)
    inside = place >= spans[:, :1]
    if not inside.any():
        return np.full(place.shape, -1)
    return np.where(inside, feed.dataset.history[np.where(inside, place, 0)], -1)


def needs(feed: Feed, lists: Lists, rows: np.ndarray, drawn: Drawn) -> Size:
    """The rows and slots that this batch takes, unrounded."""
    users, items, _ = _texts(feed, lists, rows, drawn)
    return Size(users.rows, users.slots, items.rows, items.slots)


def build(
    feed: Feed,
    lists: Lists,
    rows: np.ndarray,
    drawn: Drawn,
    sizes: tuple[Size, ...],
    multiple: int = 1,
    part: tuple[int, int] = (0, 1),
) -> tuple[Batch, dict[str, float]]:
    """The batch of these rows (-1: a padding list) in the smallest of `sizes` that holds it, and its numbers.

    part: (n, of): only the n-th of so many equal parts of all axes that devices share. Texts are named over the whole
    batch by their lengths; tokens, vectors, labels and context are read of the part alone.
    Numbers, of the whole batch: tokens (real), cells (of the packed rows), extra (1 where no size held it and a larger
    one was made).
    """
    users, items, history = _texts(feed, lists, rows, drawn)
    need = Size(users.rows, users.slots, items.rows, items.slots)
    size = next((s for s in sizes if all(n <= m for n, m in zip(need, s, strict=True))), None)
    extra = size is None
    if size is None:
        largest = sizes[-1] if sizes else need
        size = Size(*(max(n, m) for n, m in zip(need, largest, strict=True)))
        size = size._replace(user_rows=rounded(size.user_rows, multiple), item_rows=rounded(size.item_rows, multiple))
    numbers = {
        "tokens": sum(int(side.lengths.sum()) for side in (users, items) if side.lengths is not None),
        "cells": users.width * size.user_rows + items.width * size.item_rows,
        "extra": float(extra),
    }
    user_texts = _lay(users, size.user_rows, size.user_slots, part)
    item_texts = _lay(items, size.item_rows, size.item_slots, part)
    names = _names(users, size.user_slots)
    if part[1] > 1:
        own = _own(len(rows), part)
        names = None if names is None else names[own]
        history = None if history is None else history[own]
        # One candidate set for all lists goes to every device whole.
        drawn = Drawn(*(array if len(array) < len(rows) else array[own] for array in drawn))
        rows = rows[own]
    labels, observed = labels_of(feed.dataset, lists, drawn)
    who = np.where(rows >= 0, lists.user[rows], -1)
    place = drawn.row
    logged = (place >= 0)[..., None]
    batch = Batch(
        user_texts=user_texts,
        item_texts=item_texts,
        users=_side(feed.user_ids, feed.user_features, who, names),
        history=None
        if history is None
        else _side(feed.item_ids, feed.item_features, history, _names(items, size.item_slots, _text_of(feed, history))),
        history_where=None if history is None else history >= 0,
        items=_side(
            feed.item_ids, feed.item_features, drawn.item, _names(items, size.item_slots, _text_of(feed, drawn.item))
        ),
        context=np.where(logged, lists.context[place], 0).astype(np.float32),
        context_ids=np.where(logged, lists.context_ids[place], 0).astype(np.int32),
        labels=labels,
        observed=observed,
        where=drawn.where,
        weights=drawn.weights,
        log_q=drawn.log_q,
        row=rows.astype(np.int32),
        position=None if lists.position is None else np.where(place >= 0, lists.position[place], -1).astype(np.int32),
    )
    return batch, numbers


def _texts(feed: Feed, lists: Lists, rows: np.ndarray, drawn: Drawn) -> tuple[Packed, Packed, np.ndarray | None]:
    """The distinct texts of both sides and the history's items [B, H], newest first, -1 for none."""
    history = remembered(feed, np.where((rows >= 0)[:, None], lists.history[rows], 0))
    return _user_texts(feed, lists, rows), _item_texts(feed, drawn, history), history


def _user_texts(feed: Feed, lists: Lists, rows: np.ndarray) -> Packed:
    if not reads_users(feed):
        return Packed(np.full(len(rows), -1))
    real = rows[rows >= 0]
    if feed.stored_users is not None:
        name = np.where(rows >= 0, np.cumsum(rows >= 0) - 1, -1)
        vectors = feed.stored_users[lists.split]
        return Packed(name, read=lambda which: vectors[real[which]], rows=len(real), slots=1)
    keys = np.concatenate([lists.user[real][:, None], lists.history[real]], 1)
    distinct, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    name = np.full(len(rows), -1)
    name[rows >= 0] = inverse.reshape(-1)
    lower = None if feed.lower_users is None else _of(feed.lower_users[lists.split], real[first])
    return _packed(
        name,
        user_lengths(feed, distinct[:, 0], distinct[:, 1:]),
        lambda which: user_sequences(feed, distinct[which, 0], distinct[which, 1:]),
        feed.user_width or feed.user_row,
        lower,
    )


def _item_texts(feed: Feed, drawn: Drawn, history: np.ndarray | None) -> Packed:
    if feed.item_text is None:
        return Packed(np.zeros(0, int))
    items = drawn.item.reshape(-1) if history is None else np.concatenate([drawn.item.reshape(-1), history.reshape(-1)])
    texts = np.unique(feed.item_text[items[items >= 0]])
    name = np.full(int(feed.item_text.max()) + 1, -1)
    name[texts] = np.arange(len(texts))
    if feed.stored_items is not None:
        return Packed(name, read=lambda which: feed.stored_items[texts[which]], rows=len(texts), slots=1)
    return _packed(
        name,
        item_lengths(feed, texts),
        lambda which: item_sequences(feed, texts[which]),
        feed.item_width or feed.item_row,
        None if feed.lower_items is None else _of(feed.lower_items, texts),
    )


def _of(states: States, texts: np.ndarray) -> States:
    return states._replace(begin=states.begin[texts])


def _packed(
    name: np.ndarray, lengths: np.ndarray, read: Callable[[np.ndarray], Ragged], width: int, lower: States | None
) -> Packed:
    """Texts dealt to as many rows as they take; `name` then counts texts, and rows and slots are looked up later."""
    packing = pack(lengths, width)
    # Slots are not fixed yet: the place is kept as row and slot, and becomes a name once the size is known.
    place = np.append(packing.row * _MANY + packing.slot, -1)
    return Packed(place[name], packing, lengths, width, read, lower, packing.rows, packing.slots)


_MANY = 1 << 20  # more slots than a row can have


def _own(count: int, part: tuple[int, int]) -> slice:
    """The part's places of an axis."""
    each = count // part[1]
    return slice(part[0] * each, (part[0] + 1) * each)


def _lay(packed: Packed, rows: int, slots: int, part: tuple[int, int]) -> Texts | None:
    """The part's packed rows, of `rows` in all, with `slots` slots each."""
    if packed.read is None:
        return None
    own = _own(rows, part)
    count = own.stop - own.start
    if packed.packing is None:
        vectors = packed.read(np.arange(own.start, min(own.stop, packed.rows)))
        more = [(0, count - len(vectors)), (0, slots - 1)]
        used = np.pad(np.ones((len(vectors), 1), bool), more)
        return Texts(None, None, None, used, vector=np.pad(vectors[:, None].astype(np.float32), [*more, (0, 0)]))
    packing = packed.packing
    which = np.flatnonzero((packing.row >= own.start) & (packing.row < own.stop))
    lengths = packed.lengths[which]
    mine = Packing(packing.row[which] - own.start, packing.slot[which], packing.offset[which], count, slots)
    texts = lay(packed.read(which).token, lengths, mine, count, slots, packed.width)
    if packed.lower is None:
        return texts
    places = cells(packed.lower.begin[which], lengths, mine, count, packed.width)
    return texts._replace(hidden=taken(packed.lower.states, places))


def _names(packed: Packed, slots: int, of: np.ndarray | None = None) -> np.ndarray | None:
    """Names row * slots + slot in the final layout; `of` picks texts (items), otherwise one per list (users)."""
    if packed.read is None:
        return None
    place = packed.name if of is None else np.where(of >= 0, packed.name[of], -1)
    if packed.packing is not None:
        place = np.where(place >= 0, place // _MANY * slots + place % _MANY, -1)
    else:
        place = np.where(place >= 0, place * slots, -1)
    return place.astype(np.int32)


def _text_of(feed: Feed, items: np.ndarray) -> np.ndarray | None:
    return None if feed.item_text is None else np.where(items >= 0, feed.item_text[items], -1)


def _side(ids: np.ndarray, features: np.ndarray, who: np.ndarray, text: np.ndarray | None) -> Side:
    real = (who >= 0)[..., None]
    return Side(text, np.where(real, ids[who], 0).astype(np.int32), np.where(real, features[who], 0).astype(np.float32))


def labels_of(dataset: Dataset, lists: Lists, drawn: Drawn) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels [B, L], 0 where not observed, and where they are; a drawn item is an observed 0 of labels known everywhere."""
    labels, observed = {}, {}
    for name, column in lists.labels.items():
        value = np.where(drawn.row >= 0, column[drawn.row], 0.0 if name in dataset.everywhere else np.nan)
        observed[name] = np.isfinite(value) & drawn.where
        labels[name] = np.where(observed[name], value, 0.0).astype(np.float32)
    return labels, observed


def _row(ragged: Ragged, row: int) -> np.ndarray:
    return ragged.token[ragged.start[row] : ragged.start[row + 1]]


def _lengths(ragged: Ragged, rows: np.ndarray) -> np.ndarray:
    return ragged.start[rows + 1] - ragged.start[rows]


def _within(lengths: np.ndarray) -> np.ndarray:
    """0 .. length - 1 for each length, one after the other."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
