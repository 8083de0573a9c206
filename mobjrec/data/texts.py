"""Templates over a table's columns -> one text per row."""

from itertools import pairwise
from string import Formatter

import numpy as np

from mobjrec.errors import UserError, meant
from mobjrec.types import Category, Table

STRINGS = np.dtypes.StringDType()
_HISTORY = "{history."


def divide(template: str) -> tuple[str, str]:
    """A user's template as (profile, event): from the first "{history.COLUMN}" on it is repeated per history event."""
    place = template.find(_HISTORY)
    if place < 0:
        return template, ""
    return template[:place], template[place:].replace(_HISTORY, "{")


def columns_of(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once, as they come. ValueError for one that cannot be read."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


def check_template(template: str) -> None:
    """ValueError for a template that cannot be read."""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template ({error}); write columns as {{title}}") from None
    for _, name, form, conversion in pieces:
        if name is not None and not name:
            raise ValueError(f"{template!r} has braces without a column; write columns as {{title}}")
        if form or conversion:
            raise ValueError(f"{{{name}}} in {template!r} carries a format; name the column alone")


def render(template: str, table: Table, where: str) -> np.ndarray:
    """The texts [N] of a table: text columns as they stand, categories joined by ", ", numbers shortest; missing is "".

    where: the config key, for errors. UserError for an unknown column or a template that cannot be read.
    """
    try:
        check_template(template)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    texts = np.full(len(table.id), "", STRINGS)
    for literal, name, _, _ in Formatter().parse(template):
        texts = np.strings.add(texts, np.array(literal, STRINGS))
        if name is not None:
            texts = np.strings.add(texts, _column(name, table, where))
    return texts


def _column(name: str, table: Table, where: str) -> np.ndarray:
    if name in table.text:
        return table.text[name]
    if name in table.categories:
        return _joined(table.categories[name])
    if name in table.numbers:
        numbers = table.numbers[name]
        return np.array([f"{n:.6g}" if np.isfinite(n) else "" for n in numbers.tolist()], STRINGS)
    known = [*table.text, *table.categories, *table.numbers]
    raise UserError(f"{where}: no column {name}; there are {', '.join(known) or 'none'}{meant(name, known)}")


def _joined(category: Category) -> np.ndarray:
    names, value, start = category.names.tolist(), category.value.tolist(), category.start.tolist()
    rows = pairwise(start)
    return np.array([", ".join(names[v] for v in value[a:b]) for a, b in rows], STRINGS)
