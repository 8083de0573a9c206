"""A corpus that makes itself, with a known optimum: clicks and satisfaction pull in directions at a chosen angle."""

import numpy as np

from mobjrec.data.readers.oracle import Law, oracle_of
from mobjrec.data.readers.words import BAIT, FILLER, QUALITY, topic_words
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Events, Table

STRINGS = np.dtypes.StringDType()
BEGIN = 1_700_000_000  # unix seconds of the first list
APART = 30  # seconds from a list to the next
LATE = 0.85  # cold users and items appear after this share of the time


def synthetic(
    users: int = 1000,
    items: int = 504,
    lists_per_user: int = 8,
    list_size: int = 12,
    topics: int = 8,
    conflict: float = 0.25,
    position_bias: float = 0.0,
    missing: float = 0.0,
    cold_users: float = 0.0,
    cold_items: float = 0.0,
    noise: float = 0.5,
    seed: int = 0,
) -> Corpus:
    """Impression lists of users with two favourite topics over items with a topic, a lure and a quality, all three told by
    the items' words.

    click ~ Bernoulli(sigmoid(x) exposure(position)), x high for favourite topics and lurid items. satisfaction, after a
    click only, ~ Normal(3 + z, noise) stars, z at the angle arccos(1 - 2 conflict) to x: 0 orders items as clicks do, 0.5 by
    quality alone, 1 the other way round. position_bias: exposure 1 / rank^position_bias   missing: share of both
    labels that is not observed   cold_users, cold_items: shares that appear in the last 15 % of the time only.
    `Corpus.best` is the oracle of readers/oracle.py. The same settings give the same bits.

    UserError for shares outside [0, 1] and sizes that cannot be filled.
    """
    shares = {"conflict": conflict, "missing": missing, "cold_users": cold_users, "cold_items": cold_items}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"data.{name} is {share}; it must be in [0, 1]")
    warm = items - int(round(cold_items * items))
    if min(users, lists_per_user, list_size) < 1 or topics < 2 or warm < list_size or noise < 0 or position_bias < 0:
        raise UserError(
            f"data: {users} users, {warm} items from the start, lists of {list_size}, {topics} topics cannot be filled; "
            "there must be at least 1 user, 2 topics and as many items from the start as a list shows"
        )
    random = [np.random.default_rng(np.random.SeedSequence([seed, n])) for n in range(5)]
    law = Law(topics, conflict, noise, position_bias, list_size)

    # A full grid of topics, lures and qualities, so that every kind of user clicks at the same rate.
    order = random[0].permutation(items)
    grid = np.empty(items, np.int64)
    grid[order] = np.arange(items)
    topic, lure, quality = grid % topics, grid // topics % 3, grid // (3 * topics) % 3
    kinds = random[1].integers(0, law.kinds, users)
    cold_user = np.arange(users) >= users - int(round(cold_users * users))

    user, time = _visits(users, lists_per_user, cold_user, random[2])
    shown = _shown(len(user), list_size, items, warm, time, random[2])
    click, satisfaction = _feedback(law, kinds[user], topic[shown], lure[shown], quality[shown], random[3])
    gone = random[4].random((2, *shown.shape)) < missing
    events = Events(
        user=np.repeat(user, list_size).astype(np.int32),
        item=shown.reshape(-1).astype(np.int32),
        time=np.repeat(time, list_size),
        list=np.repeat(np.arange(len(user)), list_size),
        position=np.tile(np.arange(list_size, dtype=np.int32), len(user)),
        split=None,
        feedback={
            "click": np.where(gone[0], np.nan, click).reshape(-1).astype(np.float32),
            "satisfaction": np.where(gone[1], np.nan, satisfaction).reshape(-1).astype(np.float32),
        },
        categories={},
        numbers={},
    )
    title, description = _texts(topic, lure, quality, topics, random[0])
    return Corpus(
        users=Table(_names("u", users), {}, {}, {}),
        items=Table(_names("i", items), {"title": title, "description": description}, {}, {}),
        events=events,
        units={"satisfaction": "stars"},
        best=oracle_of(law, kinds, topic, lure, quality),
    )


def _visits(users: int, each: int, cold: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Users and times of all lists, in time order; a cold user's all lie in the last part of the time."""
    user = np.repeat(np.arange(users), each)
    when = random.random(len(user))
    when = np.where(cold[user], LATE + (1 - LATE) * when, when)
    order = np.argsort(when, kind="stable")
    return user[order], BEGIN + APART * np.arange(len(user), dtype=np.int64)


def _shown(lists: int, size: int, items: int, warm: int, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[lists, size] distinct items a list, uniform over those that have appeared."""
    late = np.arange(lists) >= LATE * lists
    top = np.where(late, items, warm)[:, None]
    shown = (random.random((lists, size)) * top).astype(np.int64)
    while True:
        ordered = np.sort(shown, 1)
        twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1))
        if not len(twice):
            return shown
        shown[twice] = (random.random((len(twice), size)) * top[twice]).astype(np.int64)


def _feedback(law: Law, kind, topic, lure, quality, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    chance = law.click(kind[:, None], topic, lure) * law.exposure()
    click = random.random(chance.shape) < chance
    stars = law.stars(kind[:, None], topic, lure, quality) + law.noise * random.standard_normal(chance.shape)
    return click.astype(np.float64), np.where(click, stars, np.nan)


def _texts(topic, lure, quality, topics: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Titles of four topic words; descriptions of two more, a word each for lure and quality, and filler."""
    words = topic_words(topics)
    titles, descriptions = [], []
    for t, b, q in zip(topic.tolist(), lure.tolist(), quality.tolist(), strict=True):
        said = random.permutation(len(words[t]))[:6]
        titles.append(" ".join(words[t][n] for n in said[:4]))
        parts = [words[t][n] for n in said[4:]]
        parts += [group[level][random.integers(len(group[level]))] for group, level in ((BAIT, b), (QUALITY, q))]
        parts += [FILLER[n] for n in random.integers(0, len(FILLER), 2)]
        descriptions.append(" ".join(parts[n] for n in random.permutation(len(parts))))
    return np.array(titles, STRINGS), np.array(descriptions, STRINGS)


def _names(letter: str, count: int) -> np.ndarray:
    return np.array([f"{letter}{n}" for n in range(count)], STRINGS)
