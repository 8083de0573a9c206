"""What a later split holds although an earlier one has it: events, and items under another id."""

import numpy as np

from mobjrec.data.lists import NAMES
from mobjrec.types import Corpus, Events

SHOWN = 3  # examples of each kind


def leaks(corpus: Corpus, split: np.ndarray) -> list[str]:
    """A sentence, with its count and first examples, for each kind of leak between the splits; [] where there is none.

    split: [E], as `lists.divided` gives it. An event is a leak where one of the same user, item and time is in an
    earlier split; an item that an earlier split has not, where an item there has its text, upper case and white space
    aside. Items without a text are not compared.
    """
    return [*_events(corpus, split), *_texts(corpus, split)]


def _events(corpus: Corpus, split: np.ndarray) -> list[str]:
    events = corpus.events
    order = np.lexsort((split, events.time, events.item, events.user))
    other = np.ones(len(order), bool)
    other[1:] = np.any([np.diff(column[order]) != 0 for column in (events.user, events.item, events.time)], axis=0)
    first = order[np.maximum.accumulate(np.where(other, np.arange(len(order)), 0))]
    twice = np.flatnonzero(split[order] > split[first])
    if not len(twice):
        return []
    examples = [
        f"{_named(corpus, events, row)} ({NAMES[split[row]]}, and {NAMES[split[before]]})"
        for row, before in zip(order[twice[:SHOWN]], first[twice[:SHOWN]], strict=True)
    ]
    return [f"events of the same user, item and time as one of an earlier split: {len(twice)}; {', '.join(examples)}"]


def _named(corpus: Corpus, events: Events, row: int) -> str:
    user, item = corpus.users.id[events.user[row]], corpus.items.id[events.item[row]]
    return f"user {str(user)!r}, item {str(item)!r} at {events.time[row]}"


def _texts(corpus: Corpus, split: np.ndarray) -> list[str]:
    names = corpus.items.id
    earliest = np.full(len(names), len(NAMES), np.int8)
    np.minimum.at(earliest, corpus.events.item, split)
    met = np.flatnonzero(earliest < len(NAMES))
    if not corpus.items.text or len(np.unique(earliest[met])) < 2:
        return []
    holder: dict[str, int] = {}
    found = []
    # By split, so that whoever holds a text is of the earliest split that has it.
    for item in met[np.argsort(earliest[met], kind="stable")].tolist():
        text = " ".join(" ".join(column[item] for column in corpus.items.text.values()).lower().split())
        if text and earliest[holder.setdefault(text, item)] < earliest[item]:
            found.append((item, holder[text]))
    examples = [
        f"item {str(names[item])!r} ({NAMES[earliest[item]]}) and {str(names[before])!r} ({NAMES[earliest[before]]})"
        for item, before in found[:SHOWN]
    ]
    what = "items that no earlier split has, with the text of one that an earlier split has"
    return [f"{what}: {len(found)}; {', '.join(examples)}"] if found else []
