"""Rows of a split and their candidates -> a Batch: each distinct text once, packed, in one of a few fixed sizes."""

from typing import NamedTuple

import numpy as np

from mobjrec.data.packing import cells, lay, pack
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


class Size(NamedTuple):
    """Fixed shapes of one compiled batch: packed rows and slots a row, for users and items."""

    user_rows: int
    user_slots: int
    item_rows: int
    item_slots: int


class Packed(NamedTuple):
    """A side's distinct texts in a batch, before they are laid into rows."""

    name: np.ndarray
    texts: Texts | None
    rows: int
    slots: int
    tokens: int


def item_sequences(feed: Feed, texts: np.ndarray) -> Ragged:
    """[CLS] text [SEP] for these rows of item_tokens, cut at item_row."""
    tokens = feed.item_tokens
    lengths = np.minimum(np.diff(tokens.start)[texts], feed.item_row - 2)
    start = np.concatenate([[0], np.cumsum(lengths + 2)])
    flat = np.full(start[-1], feed.sep, np.int32)
    flat[start[:-1]] = feed.cls
    source = np.repeat(tokens.start[texts], lengths) + _within(lengths)
    flat[np.repeat(start[:-1] + 1, lengths) + _within(lengths)] = tokens.token[source]
    return Ragged(start, flat)


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


def longest_texts(feed: Feed) -> tuple[int, int]:
    """Tokens of the longest item text and, at most, of the longest user text in training."""
    items = 0 if feed.item_tokens is None else np.diff(feed.item_tokens.start).max(initial=0)
    lists, users = feed.dataset.train, np.zeros(len(feed.dataset.train.user), np.int64)
    if feed.profile_tokens is not None:
        users += np.diff(feed.profile_tokens.start)[lists.user]
    if feed.event_tokens is not None:
        told = np.concatenate([[0], np.cumsum(np.diff(feed.event_tokens.start)[feed.dataset.history])])
        users += told[lists.history[:, 1]] - told[lists.history[:, 0]]
    return int(items) + 2, int(users.max(initial=0)) + 2


def needs(feed: Feed, lists: Lists, rows: np.ndarray, drawn: Drawn) -> Size:
    """The rows and slots that this batch takes, unrounded."""
    users, items, _ = _texts(feed._replace(lower_items=None, lower_users=None), lists, rows, drawn)
    return Size(users.rows, users.slots, items.rows, items.slots)


def build(
    feed: Feed, lists: Lists, rows: np.ndarray, drawn: Drawn, sizes: tuple[Size, ...], multiple: int = 1
) -> tuple[Batch, dict[str, float]]:
    """The batch of these rows (-1: a padding list) in the smallest of `sizes` that holds it, and its numbers.

    Numbers: tokens (real), cells (of the packed rows), extra (1 where no size held it and a larger one was made).
    """
    users, items, history = _texts(feed, lists, rows, drawn)
    need = Size(users.rows, users.slots, items.rows, items.slots)
    size = next((s for s in sizes if all(n <= m for n, m in zip(need, s, strict=True))), None)
    extra = size is None
    if size is None:
        largest = sizes[-1] if sizes else need
        size = Size(*(max(n, m) for n, m in zip(need, largest, strict=True)))
        size = size._replace(user_rows=rounded(size.user_rows, multiple), item_rows=rounded(size.item_rows, multiple))
    user_texts = _lay(users, size.user_rows, size.user_slots)
    item_texts = _lay(items, size.item_rows, size.item_slots)
    cells = sum(t.slot.size for t in (user_texts, item_texts) if t is not None and t.slot is not None)
    labels, observed = labels_of(feed.dataset, lists, drawn)
    who = np.where(rows >= 0, lists.user[rows], -1)
    place = drawn.row
    logged = (place >= 0)[..., None]
    batch = Batch(
        user_texts=user_texts,
        item_texts=item_texts,
        users=_side(feed.user_ids, feed.user_features, who, _names(users, size.user_slots)),
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
    )
    return batch, {"tokens": users.tokens + items.tokens, "cells": cells, "extra": float(extra)}


def plan(needed: list[Size], multiple: int, most: int = 3) -> tuple[Size, ...]:
    """Up to `most` nested sizes that hold these draws with few padded rows: one more only while over 7 % are.

    multiple: rows are rounded up to it (devices times rows a chunk).
    """
    # A text more than ever seen fits too; stored vectors lie one a row.
    slots = [most if most <= 1 else rounded(most + 1, 2) for most in (max(s[i] for s in needed) for i in (1, 3))]
    rows = np.array([[rounded(s.user_rows, multiple), rounded(s.item_rows, multiple)] for s in needed])
    rows = rows[np.argsort(rows.sum(1), kind="stable")]
    tops = np.maximum.accumulate(rows, 0)
    ends = np.unique(np.linspace(1, len(rows), min(len(rows), 40)).astype(int)) - 1
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, -1): (0.0, ())}
    for count in range(1, most + 1):
        for end in ends:
            options = [
                (cost + float(tops[end].sum()) * (end - before), chain + (int(end),))
                for (c, before), (cost, chain) in best.items()
                if c == count - 1 and before < end
            ]
            if options:
                best[count, int(end)] = min(options)
    wanted = float(rows.sum())
    chosen = best[1, int(ends[-1])]
    for count in range(2, most + 1):
        option = best.get((count, int(ends[-1])))
        if option is not None and chosen[0] > ENOUGH * wanted:
            chosen = min(chosen, option)
    return tuple(Size(int(tops[e][0]), slots[0], int(tops[e][1]), slots[1]) for e in chosen[1])


def packed_width(row: int, longest: int) -> int:
    """Tokens of a packed row: `row` halved while the longest text fits and NARROW are left, so that little stays empty."""
    while row % 2 == 0 and row // 2 >= max(longest, NARROW):
        row //= 2
    return row


def rounded(count: int, multiple: int) -> int:
    """`count` rounded up to a multiple, at least one of it."""
    return max(1, -(-count // multiple)) * multiple


def _texts(feed: Feed, lists: Lists, rows: np.ndarray, drawn: Drawn) -> tuple[Packed, Packed, np.ndarray | None]:
    """The distinct texts of both sides and the history's items [B, H], newest first, -1 for none."""
    history = remembered(feed, np.where((rows >= 0)[:, None], lists.history[rows], 0))
    return _user_texts(feed, lists, rows), _item_texts(feed, drawn, history), history


def _user_texts(feed: Feed, lists: Lists, rows: np.ndarray) -> Packed:
    none = Packed(np.full(len(rows), -1), None, 0, 0, 0)
    if not reads_users(feed):
        return none
    real = rows[rows >= 0]
    if feed.stored_users is not None:
        name = np.where(rows >= 0, np.cumsum(rows >= 0) - 1, -1)
        return Packed(name, _stored(feed.stored_users[lists.split][real]), len(real), 1, 0)
    keys = np.concatenate([lists.user[real][:, None], lists.history[real]], 1)
    distinct, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    name = np.full(len(rows), -1)
    name[rows >= 0] = inverse.reshape(-1)
    lower = None if feed.lower_users is None else _of(feed.lower_users[lists.split], real[first])
    return _packed(name, user_sequences(feed, distinct[:, 0], distinct[:, 1:]), feed.user_width or feed.user_row, lower)


def _item_texts(feed: Feed, drawn: Drawn, history: np.ndarray | None) -> Packed:
    if feed.item_text is None:
        return Packed(np.zeros(0, int), None, 0, 0, 0)
    items = drawn.item.reshape(-1) if history is None else np.concatenate([drawn.item.reshape(-1), history.reshape(-1)])
    texts = np.unique(feed.item_text[items[items >= 0]])
    name = np.full(int(feed.item_text.max()) + 1, -1)
    name[texts] = np.arange(len(texts))
    if feed.stored_items is not None:
        return Packed(name, _stored(feed.stored_items[texts]), len(texts), 1, 0)
    lower = None if feed.lower_items is None else _of(feed.lower_items, texts)
    return _packed(name, item_sequences(feed, texts), feed.item_width or feed.item_row, lower)


def _of(states: States, texts: np.ndarray) -> States:
    return states._replace(begin=states.begin[texts])


def _packed(name: np.ndarray, sequences: Ragged, row_length: int, lower: States | None = None) -> Packed:
    """Texts packed into as many rows as they take; `name` then counts texts, and rows and slots are looked up later."""
    lengths = np.diff(sequences.start)
    packing = pack(lengths, row_length)
    # Slots are not fixed yet: the place is kept as row and slot, and becomes a name once the size is known.
    place = np.append(packing.row * _MANY + packing.slot, -1)
    rows = max(packing.rows, 1)
    texts = lay(sequences.token, lengths, packing, rows, max(packing.slots, 1), row_length)
    if lower is not None:
        texts = texts._replace(hidden=taken(lower.states, cells(lower.begin, lengths, packing, rows, row_length)))
    return Packed(place[name], texts, packing.rows, packing.slots, int(lengths.sum()))


# A further size is a further compilation, 10 s and more for a BERT: none is added while rows are this near to the need.
ENOUGH = 1.07
# Shorter packed rows hold too few texts to fill well.
NARROW = 64
_MANY = 1 << 20  # more slots than a row can have


def _stored(vectors: np.ndarray) -> Texts:
    return Texts(None, None, None, np.ones((len(vectors), 1), bool), vector=vectors[:, None].astype(np.float32))


def _lay(packed: Packed, rows: int, slots: int) -> Texts | None:
    """The texts padded to `rows` rows and `slots` slots."""
    if packed.texts is None:
        return None

    def grow(array: np.ndarray | None, wide: bool) -> np.ndarray | None:
        if array is None:
            return None
        more = [(0, rows - len(array))] + [(0, slots - array.shape[1] if wide else 0)] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, more)

    texts = packed.texts
    return Texts(
        grow(texts.tokens, False),
        grow(texts.position, False),
        grow(texts.slot, False),
        grow(texts.used, True),
        grow(texts.hidden, False),
        grow(texts.vector, True),
    )


def _names(packed: Packed, slots: int, of: np.ndarray | None = None) -> np.ndarray | None:
    """Names row * slots + slot in the final layout; `of` picks texts (items), otherwise one per list (users)."""
    if packed.texts is None:
        return None
    place = packed.name if of is None else np.where(of >= 0, packed.name[of], -1)
    if packed.texts.vector is None:
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


def _within(lengths: np.ndarray) -> np.ndarray:
    """0 .. length - 1 for each length, one after the other."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
