"""What is told in place of a row of the corpus: items that it has not, and someone known only by what they did.

Words take the form that training saw: the template's, with nothing where a column is not known.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mobjrec import notes
from mobjrec.data.batching import reads_users
from mobjrec.data.files import opened
from mobjrec.data.sides import SIDE, SideColumns, item_table
from mobjrec.data.texts import STRINGS, columns_of, divide, render
from mobjrec.data.tokens import Ragged, ragged
from mobjrec.errors import UserError
from mobjrec.parts import Parts
from mobjrec.problems import nearest
from mobjrec.reading import bound
from mobjrec.types import Table


def told_items(
    parts: Parts, source: Any, known: Mapping[str, int] = MappingProxyType({}), named: bool = True
) -> tuple[Table, np.ndarray]:
    """Items to rank as they are told, and which [N] of the corpus' items each is, -1 = none of them.

    A Table as it stands; a file, frame or list of dicts as the run reads its items. The id's column is the one that the
    config's `data` names, "item" where it names none; with named=False it may be absent, and rows are then called 1, 2,
    ..., none of the corpus'. Of the others those that the model reads are read, each as the kind of column that it was in
    training: what the text's template names must be there, ids and numbers that are absent are unknown, with a warning.
    Where all ids are the corpus' no other column is read.

    known: {id: its row} of the corpus   UserError as for `item_table`, and where nothing that the model reads is there.
    """
    if isinstance(source, Table):
        return source, _which(source, known)
    settings = bound(parts.config, "data", parts.config.data, "data").arguments
    mapped, wanted, items = settings.get("item_columns", SIDE), parts.inputs["item"], parts.corpus.items
    needed = columns_of(wanted.text)
    reads = {*needed, *wanted.ids, *wanted.numbers}
    many = {name for name, category in items.categories.items() if np.diff(category.start).max(initial=0) > 1}
    columns = SideColumns(
        text=tuple(name for name in items.text if name in reads),
        categories=tuple(name for name in items.categories if name in reads),
        numbers=tuple(name for name in items.numbers if name in reads),
        several=tuple(reads & {*mapped.several, *many}),
    )
    file = opened(source, Path(), settings.get("encoding", "utf-8"), settings.get("encoding_errors", "strict"))
    own = mapped.id or getattr(settings.get("columns"), "item", "item")
    if own in file.schema.names and known:
        table = item_table(file, own, SideColumns(own, (), (), ()))
        which = _which(table, known)
        if (which >= 0).all():
            return table, which
    table = item_table(file, own, columns, settings.get("separator", "|"), needed=needed, named=named)
    return table, _which(table, known if own in file.schema.names else {})


def _which(table: Table, known: Mapping[str, int]) -> np.ndarray:
    return np.array([known.get(name, -1) for name in table.id.tolist()], np.int64)


def formed(template: str, told: Sequence[str], where: str) -> np.ndarray:
    """Texts [n] of a template: its first column says what was told, the others are empty as in a row with gaps."""
    names, blank = columns_of(template), np.full(len(told), "", STRINGS)
    columns = dict.fromkeys(names, blank) | dict.fromkeys(names[:1], np.array(list(told), STRINGS))
    return render(template, Table(blank, columns, {}, {}), where)


def someone(parts: Parts, liked: np.ndarray, told: Sequence[str] | None) -> Ragged | None:
    """The user's text of someone without an id: the profile with nothing known, then one event an item or told text.

    liked: rows of items, newest first   told: what someone did, newest first, in place of `liked`
    As `user_sequences` lays out the users of the corpus. None where the model reads no text of users. UserError where
    words have no place in the text.
    """
    feed, (profile, event) = parts.feed, divide(parts.inputs["user"].text)
    if not reads_users(feed):
        return None
    known, events = "", []
    if feed.event_tokens is None and told is not None:
        known = _alone(profile, told)
    elif told is not None:
        events = parts.tokenizer.encode_batch(formed(event, told, "model.user.text").tolist())
    elif feed.event_tokens is not None:
        tokens = feed.event_tokens
        events = [tokens.token[tokens.start[row] : tokens.start[row + 1]] for row in liked.tolist()]
    head = []
    if feed.profile_tokens is not None:
        (head,) = parts.tokenizer.encode_batch(formed(profile, [known], "model.user.text").tolist())
    flat = [*head, *(token for one in events for token in one)][: feed.user_row - 2]
    return ragged([[feed.cls, *flat, feed.sep]])


def _alone(profile: str, told: Sequence[str]) -> str:
    """What was told, as the one column that a profile without a history names."""
    names = columns_of(profile)
    if len(names) != 1:
        raise UserError(
            f"model.user.text reads {', '.join(names) or 'no column'} of a user and no history, so words about what someone "
            "liked have no place in it; rank for a user's id"
        )
    return " ".join(told)


@notes.shown()
def told_texts(parts: Parts, text: Any) -> list[str]:
    """What someone did, one text an event. UserError for what is no text or says nothing; a note where no word is known."""
    told = [text] if isinstance(text, str) else list(text) if isinstance(text, Iterable) else [text]
    if not told:
        raise UserError("text is empty; tell what someone did, one text an event")
    for number, one in enumerate(told, 1):
        if not isinstance(one, str):
            raise UserError(f"text {number} is {one!r:.60}; expected words")
        if not one.strip():
            raise UserError(f"text {number} is empty; tell what someone did, one text an event")
        try:
            one.encode()
        except UnicodeEncodeError:
            raise UserError(f"text {number} holds half a character (a lone surrogate): {one!r:.60}") from None
    if parts.tokenizer is not None:
        pieces = [token for one in parts.tokenizer.encode_batch(told) for token in one]
        if set(pieces) <= {parts.tokenizer.unknown}:
            warnings.warn(
                "no word of the text is known to the tokeniser, so the model reads nothing in it", stacklevel=4
            )
    return told


def checked_preference(parts: Parts, prefer: dict[str, float] | None) -> dict[str, float]:
    """The preference by objective name, 0 for those not named. UserError for unknown names or numbers below 0."""
    names = list(parts.objectives)
    if prefer is None:
        return dict.fromkeys(names, 1.0)
    if not isinstance(prefer, Mapping) or not all(isinstance(value, Real) for value in prefer.values()):
        raise UserError(f"prefer is {prefer!r:.80}; give {{objective: number}} for {', '.join(names)}")
    for name in prefer:
        if name not in names:
            raise UserError(f"prefer: there is no objective {name}{nearest(name, names, what='objectives')}")
    if not all(0 <= value < math.inf for value in prefer.values()) or not any(prefer.values()):
        raise UserError(f"prefer is {prefer}; give finite numbers from 0 up, not all 0, for {', '.join(names)}")
    return {name: prefer.get(name, 0.0) for name in names}


def shown(parts: Parts, table: Table) -> np.ndarray:
    """A text to show for each item: what its template says, else its first text column, else nothing."""
    if parts.inputs["item"].text:
        return render(parts.inputs["item"].text, table, "model.item.text")
    return next(iter(table.text.values()), np.full(len(table.id), "", STRINGS))
