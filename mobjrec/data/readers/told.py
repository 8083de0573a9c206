"""What of a synthetic corpus' words reaches a model: read off its tokens, after templates, tokeniser and cutting."""

from typing import NamedTuple

import numpy as np

from mobjrec.data.batching import Feed
from mobjrec.data.readers.words import BAIT, QUALITY, topic_words
from mobjrec.data.tokens import Ragged, Tokenizer
from mobjrec.types import Input

KINDS = ("topic", "lure", "quality")
NEVER = np.iinfo(np.int64).max
OWN_WORDS = "a template says {!r} itself, so words no longer tell the item"


class Told(NamedTuple):
    """What a model reads of items [N] and of the remembered ones.

    item: [N, 3] bool, whether its text as a candidate, or as an item vector, names topic, lure and quality
    until: [N, 3] tokens of it that a user's text must hold until that is named there, NEVER where it is not
    length: [N] tokens that it takes in a user's text   room: [U] tokens of a user's text that are left for the history
    vectors: whether the history comes as item vectors, too
    """

    item: np.ndarray
    until: np.ndarray
    length: np.ndarray
    room: np.ndarray
    vectors: bool

    def remembered(self, item: np.ndarray, user: np.ndarray, who: np.ndarray) -> np.ndarray:
        """[M, 3] bool, what is named of remembered items [M], list by list, newest first; user [B], who [M] in 0 .. B-1."""
        taken = np.concatenate([[0], np.cumsum(self.length[item])])
        left = self.room[user][who] - (taken[:-1] - taken[np.searchsorted(who, who)])
        named = self.until[item] <= left[:, None]
        return named | self.item[item] if self.vectors else named


def told(
    feed: Feed, inputs: dict[str, Input], tokenizer: Tokenizer | None, remembered: str, levels: np.ndarray, topics: int
) -> Told | str:
    """What this model reads; a sentence where it reads something whose posterior is not known here.

    inputs: of "user" and "item"   remembered: the label whose positive events are the history   levels: [N, 3] the items'
    topic, lure and quality. A word counts as read when all its tokens are there and none of them is unknown.
    """
    user, item = inputs["user"], inputs["item"]
    count, never = len(levels), np.full((len(levels), 3), NEVER)
    if user.ids or user.numbers:
        return "the model reads ids of users, so training labels may tell it more of a user than the history does"
    if feed.item_tokens is None or tokenizer is None:
        return "the model reads no text of items, and the posterior is over their words"
    if (feed.event_tokens is not None or feed.history) and remembered != "click":
        return f"the history is of {remembered}, and the posterior is over remembered clicks"
    words = [(0, n, word) for n, group in enumerate(topic_words(topics)) for word in group]
    words += [
        (kind, n, word) for kind, one in ((1, BAIT), (2, QUALITY)) for n, group in enumerate(one) for word in group
    ]
    until = named(feed.item_tokens, feed.item_text, levels, words, tokenizer)
    event = never if feed.event_tokens is None else named(feed.event_tokens, np.arange(count), levels, words, tokenizer)
    for found in (until, event):
        if isinstance(found, str):
            return found
    seen = until <= feed.item_row - 2
    if (item.ids or item.numbers) and not seen.all():
        missing = " and ".join(kind for kind, known in zip(KINDS, seen.all(0), strict=True) if not known)
        return f"the model reads ids of items but not every word on their {missing}, which training labels may tell it"
    length = np.zeros(count, np.int64) if feed.event_tokens is None else np.diff(feed.event_tokens.start)
    room = np.full(len(feed.dataset.users.id), feed.user_row - 2)
    if feed.profile_tokens is not None:
        room = room - np.diff(feed.profile_tokens.start)
    return Told(seen, event, length, room, bool(feed.history))


def named(
    tokens: Ragged, row: np.ndarray, levels: np.ndarray, words: list[tuple[int, int, str]], tokenizer: Tokenizer
) -> np.ndarray | str:
    """[N, 3] tokens of item n's text, row[n], until its topic, lure and quality are named; NEVER where they are not.

    words: (kind, level, word). A sentence where a text names another level than the item's.
    """
    flat = np.asarray(tokens.token[: tokens.start[-1]])
    text = np.repeat(np.arange(len(tokens.start) - 1), np.diff(tokens.start))
    until = np.full((len(tokens.start) - 1, 3), NEVER)
    for (kind, level, word), ids in zip(words, tokenizer.encode_batch([word for _, _, word in words]), strict=True):
        if tokenizer.unknown in ids:
            continue
        at = occurrences(flat, ids)
        at = at[text[at] == text[at + len(ids) - 1]]
        if np.isin(row, text[at])[levels[:, kind] != level].any():
            return OWN_WORDS.format(word)
        np.minimum.at(until[:, kind], text[at], at + len(ids) - tokens.start[text[at]])
    return until[row]


def occurrences(flat: np.ndarray, ids: list[int]) -> np.ndarray:
    """Where the sequence `ids` begins in `flat`."""
    count = max(len(flat) - len(ids) + 1, 0)
    return np.flatnonzero(np.logical_and.reduce([flat[n : n + count] == one for n, one in enumerate(ids)]))
