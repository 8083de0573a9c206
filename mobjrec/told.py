"""What is told in place of a row of the corpus: items that it has not, and someone known only by what they did.

Words take the form that training saw: the template's, with nothing where a column is not known.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mobjrec.data.batching import reads_users
from mobjrec.data.sides import SIDE, SideColumns, item_table
from mobjrec.data.texts import STRINGS, columns_of, divide, render
from mobjrec.data.tokens import Ragged
from mobjrec.errors import UserError
from mobjrec.parts import Parts
from mobjrec.reading import bound
from mobjrec.types import Table


def told_items(parts: Parts, source: Any, named: bool = True) -> Table:
    """Items to rank as they are told: a Table as it stands; a file, frame or list of dicts as the run reads its items.

    The id's column is the one that the config's `data` names, "item" where it names none; with named=False it may be
    absent, and rows are then called 1, 2, ... Of the others those that the model reads are read, each as the kind of
    column that it was in training: what the text's template names must be there, ids and numbers that are absent are
    unknown, with a warning. UserError as for `item_table`, and where nothing that the model reads is there.
    """
    if isinstance(source, Table):
        return source
    settings = bound(parts.config, "data", parts.config.data, "data").arguments
    mapped, wanted, known = settings.get("item_columns", SIDE), parts.inputs["item"], parts.corpus.items
    needed = columns_of(wanted.text)
    reads = {*needed, *wanted.ids, *wanted.numbers}
    many = {name for name, category in known.categories.items() if np.diff(category.start).max(initial=0) > 1}
    columns = SideColumns(
        text=tuple(name for name in known.text if name in reads),
        categories=tuple(name for name in known.categories if name in reads),
        numbers=tuple(name for name in known.numbers if name in reads),
        several=tuple(reads & {*mapped.several, *many}),
    )
    return item_table(
        source,
        mapped.id or getattr(settings.get("columns"), "item", "item"),
        columns,
        settings.get("separator", "|"),
        settings.get("encoding", "utf-8"),
        settings.get("encoding_errors", "strict"),
        needed=needed,
        named=named,
    )


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
    row = np.array([feed.cls, *flat, feed.sep], np.int32)
    return Ragged(np.array([0, len(row)]), row)


def _alone(profile: str, told: Sequence[str]) -> str:
    """What was told, as the one column that a profile without a history names."""
    names = columns_of(profile)
    if len(names) != 1:
        raise UserError(
            f"model.user.text reads {', '.join(names) or 'no column'} of a user and no history, so words about what someone "
            "liked have no place in it; rank for a user's id"
        )
    return " ".join(told)
