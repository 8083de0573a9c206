"""What the best possible ranker of a synthetic corpus would say, by Bayes over all kinds of user."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mobjrec.data.batching import Feed
from mobjrec.data.readers.told import Told, told
from mobjrec.data.tokens import Tokenizer
from mobjrec.types import Dataset, Input, Lists

# Click logit: favourite topic, second favourite, others; and by lure. Chosen so that a list of 12 has about 3 clicks.
MATCH = np.array([2.6, 1.4, -1.2])
LURE = np.array([-1.0, 0.0, 1.0])
BASE = -1.6
BLOCK = 4096  # lists at once: memory is lists times kinds of user
QUALITY = np.array([-1.2247449, 0.0, 1.2247449])  # mean 0, deviation 1 over the levels


class Oracle(NamedTuple):
    """best, truth: (dataset, lists, rows [B], items [B, L], -1 = padding) -> {"click", "satisfaction": [B, L] float64}.

    best: posterior means given the remembered clicks and the items' words; a fifth argument is what of them the model
    reads, without it all   truth: the means given everything hidden   told: (feed, inputs, tokenizer, label that the
    history remembers) -> that argument, or a sentence why this model's posterior is not known
    What stands under the padding means nothing.
    """

    best: Callable[..., dict[str, np.ndarray]]
    truth: Callable[..., dict[str, np.ndarray]]
    told: Callable[[Feed, dict[str, Input], Tokenizer | None, str], Told | str]


class Law(NamedTuple):
    """How feedback comes about. A user's kind k is an ordered pair of different topics, (favourite, second), all
    equally likely: there are topics (topics - 1) of them.
    """

    topics: int
    conflict: float
    noise: float
    position_bias: float
    list_size: int

    @property
    def kinds(self) -> int:
        return self.topics * (self.topics - 1)

    def utility(self, kind: np.ndarray, topic: np.ndarray, lure: np.ndarray) -> np.ndarray:
        """The click logit x."""
        favourite, second = kind // (self.topics - 1), kind % (self.topics - 1)
        second = second + (second >= favourite)
        fit = np.where(topic == favourite, MATCH[0], np.where(topic == second, MATCH[1], MATCH[2]))
        return BASE + fit + LURE[lure]

    def click(self, kind: np.ndarray, topic: np.ndarray, lure: np.ndarray) -> np.ndarray:
        """P(click | kind, item, examined)."""
        return 1.0 / (1.0 + np.exp(-self.utility(kind, topic, lure)))

    def exposure(self) -> np.ndarray:
        """P(examined) by position [list_size]."""
        return (1.0 + np.arange(self.list_size)) ** -self.position_bias

    def stars(self, kind: np.ndarray, topic: np.ndarray, lure: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """E[satisfaction | kind, item, clicked] = 3 + cos(angle) (x standardised) + sin(angle) quality."""
        mean, deviation = self.moments()
        cosine = 1.0 - 2.0 * self.conflict
        sine = np.sqrt(max(1.0 - cosine**2, 0.0))
        return 3.0 + cosine * (self.utility(kind, topic, lure) - mean) / deviation + sine * QUALITY[quality]

    def moments(self) -> tuple[float, float]:
        """Mean and deviation of x over the grid of items; the same for every kind."""
        topic, lure = np.divmod(np.arange(3 * self.topics), 3)
        x = self.utility(np.zeros(1, int), topic, lure)
        return float(x.mean()), float(x.std())


def oracle_of(law: Law, kinds: np.ndarray, topic: np.ndarray, lure: np.ndarray, quality: np.ndarray) -> Oracle:
    """The oracle of a corpus with these hidden values of users [U] and items [N].

    An item's words name topic, lure and quality: what a model reads of them is known, and what it does not read
    (descriptions, words that are cut) is averaged over, all levels being equally many. A user shows in the remembered
    clicks only: what was shown and not clicked is invisible, and so is the number of lists. Lists show items
    uniformly, whoever looks, and all kinds click at one rate (topics and lures form a full grid: sum_i p_k(i) is the
    same for all k), so the number of clicks says nothing. A remembered click falls on item i with
    probability p_k(i) / sum_j p_k(j), hence

        P(k | clicks h_1 .. h_n) ~ prod_j p_k(h_j)  for the newest n, whatever n,

    in which exposure by position and labels missing at random cancel. The best prediction of a click is
    sum_k P(k | h) p_k(i) times the mean exposure. Satisfaction is observed after a click, which speaks of k too:
    E[stars | h, i, click] = sum_k P(k | h) p_k(i) s_k(i) / sum_k P(k | h) p_k(i).

    Exact for independent impressions, and for a model to whom an item is what its words name: not counted is what
    training labels say of the one item that has a certain title. Two things are left out, too small to tell from zero
    in the ten decile means of 2.6 million test labels: items of one list differ (order list_size / items), and the grid
    is full only where `items`, and those there from the start, are a multiple of 3 topics.
    """
    every = np.arange(law.kinds)
    levels = np.stack([topic, lure, quality], 1)
    most = np.array([law.topics, 3, 3])
    grid_topic, grid_lure = np.divmod(np.arange(3 * law.topics), 3)
    click = law.click(every[:, None], grid_topic, grid_lure)
    stars = np.stack([law.stars(every[:, None], grid_topic, grid_lure, np.full(1, q)) for q in range(3)], -1)
    sizes = law.kinds, law.topics, 3
    chance = _or_unknown(click.reshape(sizes), 1, 2).reshape(law.kinds, -1)  # [kinds, (topics + 1) 4]
    both = _or_unknown((click[..., None] * stars).reshape(*sizes, 3), 1, 2, 3).reshape(*chance.shape, 4)
    logs, seen = np.log(chance), float(law.exposure().mean())

    def posterior(dataset: Dataset, lists: Lists, rows: np.ndarray, read: Told | None) -> np.ndarray:
        """P(kind | remembered clicks), [B, kinds]."""
        spans = lists.history[rows]
        lengths = spans[:, 1] - spans[:, 0]
        who = np.repeat(np.arange(len(rows)), lengths)
        newest = np.repeat(spans[:, 1] - 1 + np.cumsum(lengths) - lengths, lengths) - np.arange(lengths.sum())
        item = dataset.history[newest]
        level = levels[item]
        if read is not None:
            level = np.where(read.remembered(item, lists.user[rows], who), level, most)
        counts = np.zeros((len(rows), chance.shape[1]))
        np.add.at(counts, (who, 4 * level[:, 0] + level[:, 1]), 1.0)
        weight = counts @ logs.T
        weight = np.exp(weight - weight.max(1, keepdims=True))
        return weight / weight.sum(1, keepdims=True)

    def means(belief: np.ndarray, item: np.ndarray, read: Told | None = None) -> dict[str, np.ndarray]:
        level = levels if read is None else np.where(read.item, levels, most)
        level = level[np.maximum(item, 0)]
        cell = 4 * level[..., 0] + level[..., 1]
        clicked = belief @ chance
        satisfied = np.einsum("bk,kcq->bcq", belief, both, optimize=True) / clicked[..., None]
        rows = np.arange(len(item))[:, None]
        return {"click": seen * clicked[rows, cell], "satisfaction": satisfied[rows, cell, level[..., 2]]}

    def best(
        dataset: Dataset, lists: Lists, rows: np.ndarray, item: np.ndarray, read: Told | None = None
    ) -> dict[str, np.ndarray]:
        return means(posterior(dataset, lists, rows, read), item, read)

    def truth(dataset: Dataset, lists: Lists, rows: np.ndarray, item: np.ndarray) -> dict[str, np.ndarray]:
        return means(np.eye(law.kinds)[kinds[lists.user[rows]]], item)

    def reads(feed: Feed, inputs: dict[str, Input], tokenizer: Tokenizer | None, remembered: str) -> Told | str:
        return told(feed, inputs, tokenizer, remembered, levels, law.topics)

    return Oracle(best, truth, reads)


def _or_unknown(grid: np.ndarray, *axes: int) -> np.ndarray:
    """The grid with one entry more along these axes: the mean, for a level that is not told."""
    for axis in axes:
        grid = np.concatenate([grid, grid.mean(axis, keepdims=True)], axis)
    return grid


def trade_off(
    oracle: Oracle, dataset: Dataset, lists: Lists, shares: np.ndarray, top: int = 3, read: Told | None = None
) -> list[tuple[float, float]]:
    """The best reachable (click, satisfaction) of what is shown first, one point for each share.

    shares [n] in [0, 1]: of click in the mixture of the two posterior means, standardised over all lists' items. A
    point is the mean over lists and their first `top` items of those means: click rate by the mean exposure, and
    stars where clicked. Sorting by the mixture maximises its sum over the first items, so no ranker that reads the
    same lies beyond.
    """
    size = int(np.diff(lists.start).max())
    place = lists.start[:-1, None] + np.arange(size)
    inside = place < lists.start[1:, None]
    item = np.where(inside, lists.item[np.minimum(place, len(lists.item) - 1)], -1)
    blocks = np.array_split(np.arange(len(item)), max(len(item) // BLOCK, 1))
    parts = [oracle.best(dataset, lists, rows, item[rows], read) for rows in blocks]
    means = {name: np.concatenate([part[name] for part in parts]) for name in ("click", "satisfaction")}
    scaled = {name: (m - m[inside].mean()) / m[inside].std() for name, m in means.items()}
    found = []
    for share in shares:
        score = np.where(inside, share * scaled["click"] + (1 - share) * scaled["satisfaction"], -np.inf)
        first = np.argsort(-score, 1, kind="stable")[:, :top]
        shown = np.take_along_axis(inside, first, 1)
        click, satisfaction = (float(np.take_along_axis(m, first, 1)[shown].mean()) for m in means.values())
        found.append((click, satisfaction))
    return found
