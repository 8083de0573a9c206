"""Which items a list ranks. A set shared by all lists of a batch is scored once, never gathered per list."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from mobjrec.errors import UserError
from mobjrec.types import Candidates, Dataset, Drawn, Lists

__all__ = ["as_logged", "catalogue", "in_batch", "popularity", "uniform"]


def as_logged(size: int | None = None) -> Candidates:
    """The items that were shown. Lists longer than `size` are sampled down to it, anew at each draw."""
    _check_size(size)

    def draw(dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn:
        return _padded(lists, logged(lists, rows, size or longest(lists), random))

    return draw


def uniform(negatives: int = 50, size: int | None = None) -> Candidates:
    """The list's own items and, for each list, `negatives` others drawn uniformly from the catalogue.

    A drawn item that the user met in this or an earlier split, or that stands in the list already, is masked. log_q of
    a drawn item is the log-probability to be drawn at all.
    """
    if negatives < 1:
        raise UserError(f"candidates.negatives is {negatives}; it must be at least 1")
    _check_size(size)

    def draw(dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn:
        own = _padded(lists, logged(lists, rows, size or longest(lists), random))
        catalogue = len(dataset.items.id)
        log_q = np.log(-np.expm1(negatives * np.log1p(-1 / max(catalogue, 2))))
        item = random.integers(0, catalogue, (len(rows), negatives), dtype=np.int32)
        twice = np.zeros_like(item, bool)
        by_item = np.argsort(item, 1, kind="stable")
        ordered = np.take_along_axis(item, by_item, 1)
        np.put_along_axis(twice, by_item[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
        kept = (rows >= 0)[:, None] & ~twice & ~_met(dataset, lists, rows, item, lists.split)
        return Drawn(
            item=np.concatenate([own.item, np.where(kept, item, -1)], 1),
            row=np.concatenate([own.row, np.full(item.shape, -1)], 1),
            where=np.concatenate([own.where, kept], 1),
            weights=np.ones((len(rows), own.item.shape[1] + negatives), np.float32),
            log_q=np.concatenate([own.log_q, np.full(item.shape, log_q, np.float32)], 1),
        )

    return draw


def in_batch(
    negatives: int = 0, size: int | None = None, power: float = 0.0, same: Literal["item", "text"] = "item"
) -> Candidates:
    """One set for all lists: the items of all of them, each once, and `negatives` more drawn from the catalogue.

    power: of an item's training events by which it is drawn: 0 uniformly (mixed negatives, Yang et al. 2020), 1 by
        popularity
    same: what makes a candidate a false negative of a list, masked there: "item", that its user met it in this or an
        earlier split; "text", also that all its text columns equal those of an item that the user met

    log_q is the log-probability that an item is in the set, by the batch's items or by the draw, every item counting
    one event more than it has: what `sampled_softmax` subtracts. UserError for less than 0 negatives, a size below 1, a
    power below 0.
    """
    if negatives < 0:
        raise UserError(f"candidates.negatives is {negatives}; it must be 0 or more")
    if not 0 <= power < np.inf:
        raise UserError(f"candidates.power is {power}; it must be 0 or more")
    if same not in ("item", "text"):
        raise UserError(f"candidates.same is {same!r}; it may be item or text")
    _check_size(size)
    shares, group = _once(_shares), _once(_texts)

    def draw(dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn:
        catalogue = len(dataset.items.id)
        shown, drawn = shares(dataset, power)
        own = logged(lists, rows, size or longest(lists), random)
        found = lists.item[own[own >= 0]]
        more = random.integers(0, catalogue, negatives, dtype=np.int32)
        if power:
            more = random.choice(catalogue, negatives, p=drawn).astype(np.int32)
        distinct = np.unique(np.concatenate([found, more]))
        # A catalogue that is smaller than all that a batch may hold bounds what is distinct.
        item = np.full(min(own.size + negatives, catalogue), -1, np.int32)
        item[: len(distinct)] = distinct
        absent = len(found) * np.log1p(-shown[distinct]) + negatives * np.log1p(-drawn[distinct])
        log_q = np.zeros(len(item), np.float32)
        log_q[: len(distinct)] = np.log(-np.expm1(absent))
        return _shared(dataset, lists, rows, own, item, log_q, lists.split, group(dataset) if same == "text" else None)

    return draw


def popularity(
    negatives: int = 256, size: int | None = None, power: float = 1.0, same: Literal["item", "text"] = "item"
) -> Candidates:
    """`in_batch` with negatives drawn by their training events to a power: 1, or 0.75 as in Mikolov et al. 2013.

    UserError as there, and for less than 1 negative.
    """
    if negatives < 1:
        raise UserError(f"candidates.negatives is {negatives}; it must be at least 1")
    return in_batch(negatives, size, power, same)


def catalogue(exclude: Literal["earlier", "train", "none"] = "earlier") -> Candidates:
    """Every item, one set for all lists.

    exclude: "earlier" masks what the user met in an earlier split (in training: in the user's other lists); "train"
    masks training's items only; "none" masks nothing.
    """

    def draw(dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn:
        item = np.arange(len(dataset.items.id), dtype=np.int32)
        own = logged(lists, rows, longest(lists), random)
        until = {"earlier": max(lists.split - 1, 0), "train": 0, "none": -1}[exclude]
        return _shared(dataset, lists, rows, own, item, np.zeros(len(item), np.float32), until)

    return draw


def within(draw: Candidates, where: str) -> Candidates:
    """The same draws. UserError for an item or row outside its table: past its end jax takes the last, numpy wraps."""

    def drawn(dataset: Dataset, lists: Lists, rows: np.ndarray, random: np.random.Generator) -> Drawn:
        found = draw(dataset, lists, rows, random)
        for name, values, size in (("item", found.item, len(dataset.items.id)), ("row", found.row, len(lists.item))):
            low, high = values.min(initial=-1), values.max(initial=-1)
            if low < -1 or high >= size:
                raise UserError(f"{where}: {name} {low if low < -1 else high} was drawn; there are {size}, from 0")
        return found

    return drawn


def _check_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise UserError(f"candidates.size is {size}; it must be at least 1, or null for all")


def longest(lists: Lists) -> int:
    """The most items in a list of this split; the fixed width L of its batches."""
    return int(np.diff(lists.start).max(initial=1))


def logged(lists: Lists, rows: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """[B, size] rows of `lists` that these lists hold, in their order, -1 for padding; longer lists sampled down."""
    start = lists.start[rows]
    count = np.where(rows >= 0, lists.start[rows + 1] - start, 0)
    place = np.broadcast_to(np.arange(size), (len(rows), size)).copy()
    for long in np.flatnonzero(count > size):
        place[long] = np.sort(random.choice(count[long], size, replace=False))
    return np.where(place < count[:, None], start[:, None] + place, -1)


def _padded(lists: Lists, own: np.ndarray) -> Drawn:
    where = own >= 0
    item = np.where(where, lists.item[own], -1).astype(np.int32)
    weights = np.where(where, lists.weights[own], 0.0).astype(np.float32)
    return Drawn(item, own, where, weights, np.zeros(own.shape, np.float32))


def _shared(
    dataset: Dataset,
    lists: Lists,
    rows: np.ndarray,
    own: np.ndarray,
    item: np.ndarray,
    log_q: np.ndarray,
    until: int,
    group: np.ndarray | None = None,
) -> Drawn:
    """The candidate set `item` [L], ascending but for padding, for all lists; the lists' own rows are found in it."""
    row = np.full((len(rows), len(item)), -1)
    real = int((item >= 0).sum())
    who, place = np.nonzero(own >= 0)
    row[who, np.searchsorted(item[:real], lists.item[own[who, place]])] = own[who, place]
    where = (rows >= 0)[:, None] & (item >= 0)[None, :]
    if until >= 0:
        where = where & ~_met_shared(dataset, lists, rows, item, until, group)
    where = where | (row >= 0)
    weights = np.where(row >= 0, lists.weights[row], 1.0).astype(np.float32)
    return Drawn(item[None], row, where, weights, log_q[None])


def _met(dataset: Dataset, lists: Lists, rows: np.ndarray, item: np.ndarray, until: int) -> np.ndarray:
    """[B, n] whether the list's user met the item [B, n] in a split up to `until`."""
    line, mine = _pairs(dataset, lists, rows, until)
    wide = len(dataset.items.id)
    known, asked = line * wide + mine, np.arange(len(rows))[:, None] * wide + item
    if not len(known):
        return np.zeros(item.shape, bool)
    return (item >= 0) & (known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked)


def _met_shared(
    dataset: Dataset, lists: Lists, rows: np.ndarray, item: np.ndarray, until: int, group: np.ndarray | None
) -> np.ndarray:
    """[B, L] whether the list's user met the item [L], or one of its group [items], in a split up to `until`."""
    line, mine = _pairs(dataset, lists, rows, until)
    kinds, place = np.unique(np.where(item >= 0, item if group is None else group[item], -1), return_inverse=True)
    mine = mine if group is None else group[mine]
    found = np.minimum(np.searchsorted(kinds, mine), len(kinds) - 1)
    inside = kinds[found] == mine
    met = np.zeros((len(rows), len(kinds)), bool)
    met[line[inside], found[inside]] = True
    return met[:, place]


def _pairs(dataset: Dataset, lists: Lists, rows: np.ndarray, until: int) -> tuple[np.ndarray, np.ndarray]:
    """(line [n], item [n]) of all that the lists' users met in a split up to `until`, in rising order."""
    start, seen, split = dataset.seen
    user = lists.user[rows]
    count = np.where(rows >= 0, start[user + 1] - start[user], 0)
    line = np.repeat(np.arange(len(rows)), count)
    place = np.arange(len(line)) - np.repeat(np.cumsum(count) - count - start[user], count)
    kept = split[place] <= until
    return line[kept], seen[place[kept]].astype(np.int64)


def _shares(dataset: Dataset, power: float) -> tuple[np.ndarray, np.ndarray]:
    """([items] each item's share of training events, its share of what is drawn), with one event more than it has."""
    counts = np.bincount(dataset.train.item, minlength=len(dataset.items.id)) + 1.0
    raised = counts**power
    # Just below 1, so that the logarithm of what is left is finite in a catalogue of one.
    return tuple(np.minimum(one / one.sum(), 1 - 1e-12) for one in (counts, raised))


def _texts(dataset: Dataset) -> np.ndarray:
    """[items] a number that items share whose text columns are all equal; an item without any text has its own."""
    columns = [np.unique(column, return_inverse=True)[1] for column in dataset.items.text.values()]
    blank = np.array([column == "" for column in dataset.items.text.values()]).all(0) if columns else True
    own = np.where(blank, np.arange(len(dataset.items.id)), -1)
    return np.unique(np.stack([own, *columns]), axis=1, return_inverse=True)[1]


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called again only for another dataset: a draw a step must not count the whole table each time."""
    kept: list[Any] = [None, None]

    def call(dataset: Dataset, *rest: Any) -> Any:
        if kept[0] is not dataset.items:
            kept[:] = dataset.items, function(dataset, *rest)
        return kept[1]

    return call
