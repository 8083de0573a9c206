"""A corpus that makes itself, with a known optimum: clicks and satisfaction pull in directions at a chosen angle."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mobjrec.data.readers.oracle import Law, oracle_of
from mobjrec.data.readers.words import BAIT, FILLER, QUALITY, topic_words
from mobjrec.errors import UserError
from mobjrec.types import Corpus, Events, Table

STRINGS = np.dtypes.StringDType()
BEGIN = 1_700_000_000  # unix seconds of the first list
APART = 30  # seconds from a list to the next
LARGE = 1e9
RANGES = {
    **dict.fromkeys(("conflict", "missing", "cold_users", "cold_items"), (0, 1)),
    **dict.fromkeys(("noise", "position_bias", "filler"), (0, LARGE)),
    **dict.fromkeys(("users", "items", "lists_per_user", "list_size"), (1, LARGE)),
    "topics": (2, LARGE),
}
LATE = 0.85  # cold users and items appear after this share of the lists


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
    filler: int = 0,
    seed: int = 0,
) -> Corpus:
    """Impression lists of users with two favourite topics over items with a topic, a lure and a quality, told by the
    items' words.

    click ~ Bernoulli(sigmoid(x) exposure(position)), x high for favourite topics and lurid items. satisfaction, after a
    click only, ~ Normal(3 + z, noise) stars, z at the angle arccos(1 - 2 conflict) to x: 0 orders items as clicks do,
    0.5 by quality alone, 1 the other way round. position_bias: exposure 1 / rank^position_bias   missing: share of both
    labels that is not observed   cold_users, cold_items: shares, the last rows, that appear in the last 15 % of the
    lists only; where they are many, cold users have fewer than `lists_per_user` each.   filler: a description has up to
    so many more words that mean nothing, uniform from 0
    `Corpus.best` is the oracle of readers/oracle.py. The same settings give the same bits.

    UserError for shares outside [0, 1], sizes that cannot be filled, and more cold users than the last 15 % holds.
    """
    sizes = {"users": users, "items": items, "lists_per_user": lists_per_user, "list_size": list_size, "topics": topics}
    shares = {"conflict": conflict, "missing": missing, "cold_users": cold_users, "cold_items": cold_items}
    faults = _faults(sizes | shares | {"noise": noise, "position_bias": position_bias, "filler": filler})
    if faults:
        raise UserError("\n".join(faults))
    warm, late = items - round(cold_items * items), round(cold_users * users)
    random = [np.random.default_rng(np.random.SeedSequence([seed, n])) for n in range(6)]
    law = Law(topics, conflict, noise, position_bias, list_size)

    # A full grid of topics, lures and qualities, so that every kind of user clicks at the same rate, before and after
    # the cold items appear.
    grid = np.concatenate([random[0].permutation(warm), warm + random[0].permutation(items - warm)])
    topic, lure, quality = grid % topics, grid // topics % 3, grid // (3 * topics) % 3
    kinds = random[1].integers(0, law.kinds, users)

    user, time = _visits(users - late, late, lists_per_user, random[2])
    shown = _shown(len(user), list_size, warm, items, random[2])
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
    if filler:
        description = _longer(description, filler, random[5])
    return Corpus(
        users=Table(_names("u", users), {}, {}, {}),
        items=Table(_names("i", items), {"title": title, "description": description}, {}, {}),
        events=events,
        units={"satisfaction": "stars"},
        best=oracle_of(law, kinds, topic, lure, quality),
    )


def synthetic_settled(settings: Mapping[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """Nothing; ValueError for settings that make no corpus, before one is made."""
    faults = _faults(settings)
    if faults:
        raise ValueError("\n".join(faults))
    return {}


def _faults(settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that is out of its range, and for sizes that cannot be filled."""
    wrong = [name for name, (least, most) in RANGES.items() if not least <= settings[name] <= most]
    if wrong:
        ranges = {name: "[{:g}, {:g}]".format(*RANGES[name]) for name in wrong}
        return [f"data.{name} is {settings[name]}; it must be in {ranges[name]}" for name in wrong]
    items, list_size, each = settings["items"], settings["list_size"], settings["lists_per_user"]
    users, late = settings["users"], round(settings["cold_users"] * settings["users"])
    warm, faults = items - round(settings["cold_items"] * items), []
    if warm < list_size:
        faults.append(
            f"data.list_size: a list shows {list_size} different items, but {warm} of {items} are there from the start; "
            "raise data.items or lower data.list_size or data.cold_items"
        )
    if late and not _lists_of_cold(users - late, late, each):
        faults.append(
            f"data.cold_users: {late} of {users} users do not fit into the last {1 - LATE:.0%} of the lists; "
            "lower it or raise data.lists_per_user"
        )
    return faults


def _lists_of_cold(warm: int, cold: int, each: int) -> int:
    """The most lists a cold user can have such that those of all lie in the last part of the time; 0 = none."""
    fits = (n for n in range(each, 0, -1) if cold * n <= _late(warm * each + cold * n))
    return next(fits, 0)


def _late(lists: int) -> int:
    """How many of so many lists lie in the last part of the time."""
    return lists - int(np.ceil(LATE * lists))


def _visits(warm: int, cold: int, each: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Users and times of all lists, in time order; cold users, the last rows, come in the last part only."""
    few = np.repeat(warm + np.arange(cold), _lists_of_cold(warm, cold, each) if cold else 0)
    many = random.permutation(np.repeat(np.arange(warm), each))
    total = len(few) + len(many)
    early = total - _late(total)
    user = np.concatenate([many[:early], random.permutation(np.concatenate([many[early:], few]))])
    return user, BEGIN + APART * np.arange(total, dtype=np.int64)


def _shown(lists: int, size: int, warm: int, items: int, random: np.random.Generator) -> np.ndarray:
    """[lists, size] distinct items a list, uniform over those that have appeared."""
    top = np.where(np.arange(lists) >= lists - _late(lists), items, warm)
    shown = (random.random((lists, size)) * top[:, None]).astype(np.int64)
    rows = np.arange(lists)
    while len(rows):
        order = np.argsort(shown[rows], 1, kind="stable")
        ordered = np.take_along_axis(shown[rows], order, 1)
        row, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
        # Only repetitions are drawn anew. The rule treats all items alike, so every sequence of distinct items stays
        # equally likely, and lists as long as the catalogue end too.
        shown[rows[row], order[row, place + 1]] = (random.random(len(row)) * top[rows[row]]).astype(np.int64)
        rows = rows[np.unique(row)]
    return shown


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


def _longer(texts: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """The texts with up to so many words more that mean nothing."""
    counts = random.integers(0, most + 1, len(texts))
    more = [" ".join(FILLER[n] for n in random.integers(0, len(FILLER), count)) for count in counts.tolist()]
    return np.array([f"{text} {added}".strip() for text, added in zip(texts.tolist(), more, strict=True)], STRINGS)


def _names(letter: str, count: int) -> np.ndarray:
    return np.array([f"{letter}{n}" for n in range(count)], STRINGS)
