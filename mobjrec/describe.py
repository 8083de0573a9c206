"""`mobjrec data show CONFIG`: what is in the data, and one list as the model will see it."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text
from rich.tree import Tree as Branches

from mobjrec.data.show import show
from mobjrec.data.texts import divide, render
from mobjrec.data.tokens import Ragged
from mobjrec.parts import Parts

ITEMS = 5  # of the example list


def description(parts: Parts) -> Group:
    """Counts and rates as a tree, token lengths, and an example list."""
    found = show(parts.corpus, parts.dataset, examples=0)
    tree = Branches("data")
    for name, section in found.items():
        if name != "examples":
            grown(tree.add(name), section)
    return Group(tree, lengths(parts), *map(Text, parts.notes), example(parts))


def grown(branch: Branches, section: Any) -> None:
    """Nested mappings as branches; a mapping of plain values is one line."""
    for name, value in section.items():
        if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            grown(branch.add(str(name)), value)
        elif isinstance(value, Mapping):
            said = ", ".join(f"{key} {plain(v)}" for key, v in value.items())
            branch.add(f"{name}: {said}") if said else None
        else:
            branch.add(f"{name}: {plain(value)}")


def plain(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def lengths(parts: Parts) -> Grid:
    """Lengths in tokens of what the encoder reads, and what is cut or unknown."""
    grid = Grid(title="tokens", title_justify="left")
    for name in ("text", "texts", "mean", "95 %", "longest", "cut", "unknown"):
        grid.add_column(name, justify="left" if name == "text" else "right")
    for name, tokens in text_kinds(parts):
        sizes = np.diff(tokens.start)
        numbers = (f"{sizes.mean():.1f}", f"{np.quantile(sizes, 0.95):.0f}", str(sizes.max(initial=0)))
        grid.add_row(name, str(len(sizes)), *numbers, f"{tokens.cut:.1%}", f"{tokens.unknown:.1%}")
    return grid


def text_kinds(parts: Parts) -> Iterator[tuple[str, Ragged]]:
    """The kinds of text that are tokenised."""
    feed = parts.feed
    for name, tokens in (
        ("items", feed.item_tokens),
        ("user profiles", feed.profile_tokens),
        ("items as history names them", feed.event_tokens),
    ):
        if tokens is not None and len(tokens.start) > 1:
            yield name, tokens


def example(parts: Parts) -> Text:
    """The training list in the middle: its user's text and history, and its first items with labels."""
    dataset, lists = parts.dataset, parts.dataset.train
    row = len(lists.user) // 2
    user, (begin, stop) = int(lists.user[row]), lists.history[row]
    names = dataset.history[begin:stop][::-1]
    lines = [f"one training list: user {dataset.users.id[user]}, {stop - begin} remembered events"]
    profile, event = divide(parts.inputs["user"].text)
    if profile or event:
        told = str(render(profile, dataset.users, "model.user.text")[user]) if profile else ""
        every = render(event, dataset.items, "model.user.text") if event else np.array([])
        lines.append("  user text: " + told + "".join(str(every[item]) for item in names[: 2 * ITEMS] if event))
    if parts.inputs["user"].history:
        lines.append(
            "  history as item vectors, newest first: " + ", ".join(dataset.items.id[names[: 2 * ITEMS]].tolist())
        )
    items = render(parts.inputs["item"].text, dataset.items, "model.item.text") if parts.inputs["item"].text else None
    for place in range(lists.start[row], min(lists.start[row + 1], lists.start[row] + ITEMS)):
        item = int(lists.item[place])
        labels = ", ".join(f"{name} {values[place]:.4g}" for name, values in lists.labels.items())
        text = "" if items is None else f": {str(items[item])[:160]}"
        lines.append(f"  item {dataset.items.id[item]} ({labels}){text}")
    lines.append(f"  ... {lists.start[row + 1] - lists.start[row]} items in this list (nan: not observed)")
    return Text("\n".join(lines))
