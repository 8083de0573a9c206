"""`mobjrec data show`: what is in a corpus, and, of a config, its lists and one of them as the model will see it."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text
from rich.tree import Tree as Branches

from mobjrec.config import Config
from mobjrec.data.batching import Feed
from mobjrec.data.show import show
from mobjrec.data.texts import divide, render
from mobjrec.data.tokens import Ragged, Tokenizer
from mobjrec.defaults import settled
from mobjrec.errors import UserError
from mobjrec.overrides import override
from mobjrec.parts import doubts_of, feed_of
from mobjrec.problems import Problem, report
from mobjrec.reading import bound, data_of, inputs_of, objectives_of, warn_of
from mobjrec.resolve import bind
from mobjrec.types import Dataset, Input, Table

ITEMS = 5  # of the example list


def described(config: Config, cache: Path) -> Group:
    """Of a config: counts and rates as a tree, token lengths, what is doubtful, and an example list.

    No model is built; where the tokenizer's weights are not here, a sentence says so in place of the lengths.
    """
    config = settled(config)
    objectives = objectives_of(config)
    corpus, dataset, leaks = data_of(config, objectives)
    warn_of(config, objectives, dataset)
    inputs, missing, cut = inputs_of(config), _missing(config), {}
    shown = [tree(show(corpus, dataset))]
    if missing:
        shown.append(Text(f"no token lengths: {missing}"))
    else:
        tokenizer, feed = feed_of(config, corpus, dataset, inputs, cache)
        if tokenizer is not None:
            rooms = {"user": feed.user_row - 2, "item": feed.item_row - 2}  # [CLS], [SEP]
            cut = {own: partial(shortened, room=room, tokenizer=tokenizer) for own, room in rooms.items()}
        shown += [lengths(feed)] if any(text_kinds(feed)) else []
        leaks = [*leaks, *doubts_of(feed)]
    return Group(*shown, *map(Text, leaks), example(dataset, inputs, cut))


def named(name: str, changes: Sequence[str]) -> Group | None:
    """Of a corpus by its reader's name alone, with changes such as data.users=50: counts, rates and lengths of text.

    None where there is no such reader. UserError where it cannot be read.
    """
    data: dict[str, Any] = {"data": {"use": name}}
    problems: list[Problem] = []
    override(data, changes, roots=("data",), places={}, problems=problems)
    if problems:
        raise report(problems, {})
    if not _is_reader(name):
        return None
    return Group(tree(show(bind("data", data["data"], where="data").call())))


def _is_reader(name: str) -> bool:
    try:
        bind("data", name, where="data")
    except UserError:
        return False
    return True


def _missing(config: Config) -> str:
    """Why a tokenizer of weights that one has to get is not there, "" where it is."""
    block = config.tokenizer
    if block is None or block.use != "pretrained":
        return ""
    try:
        bound(config, "tokenizer", block, "tokenizer").call()(np.array([""], np.dtypes.StringDType()))
    except UserError as error:
        return str(error)
    return ""


def tree(found: Mapping[str, Any]) -> Branches:
    """What data/show.py finds."""
    root = Branches("data")
    for name, section in found.items():
        grown(root.add(name), section)
    return root


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


def lengths(feed: Feed) -> Grid:
    """Lengths in tokens of what the encoder reads, and what is cut or unknown."""
    grid = Grid(title="tokens", title_justify="left")
    for name in ("text", "texts", "mean", "95 %", "longest", "cut", "unknown"):
        grid.add_column(name, justify="left" if name == "text" else "right")
    for name, tokens in text_kinds(feed):
        sizes = np.diff(tokens.start)
        numbers = (f"{sizes.mean():.1f}", f"{np.quantile(sizes, 0.95):.0f}", str(sizes.max(initial=0)))
        grid.add_row(name, str(len(sizes)), *numbers, f"{tokens.cut:.1%}", f"{tokens.unknown:.1%}")
    return grid


def text_kinds(feed: Feed) -> Iterator[tuple[str, Ragged]]:
    """The kinds of text that are tokenised."""
    for name, tokens in (
        ("items", feed.item_tokens),
        ("user profiles", feed.profile_tokens),
        ("items as history names them", feed.event_tokens),
    ):
        if tokens is not None and len(tokens.start) > 1:
            yield name, tokens


def joined(texts: Sequence[str]) -> str:
    """Texts one after the other, a space where they would run into each other: tokens never reach over such a joint."""
    kept = [text for text in texts if text]
    gaps = ["" if a[-1].isspace() or b[0].isspace() else " " for a, b in pairwise(kept)]
    return "".join(map(str.__add__, kept, [*gaps, ""]))


def shortened(text: str, room: int, tokenizer: Tokenizer) -> str:
    """The text's words that fit into `room` tokens, and "..." where they are not all."""
    words = text.split(" ")

    def taken(count: int) -> int:
        return len(tokenizer.encode_batch([" ".join(words[:count])])[0])

    count = bisect_right(range(len(words) + 1), room, key=taken) - 1
    return text if count == len(words) else " ".join(words[:count]) + " ..."


def columns(table: Table, given: Input, own: str, row: int) -> str:
    """The categories and numbers that the model reads of a row beside its id, ", "-joined; "" where it reads none."""
    said = []
    for name in given.ids:
        if name != own:
            column = table.categories[name]
            values = column.names[column.value[column.start[row] : column.start[row + 1]]].tolist()
            said.append(f"{name} {' | '.join(values) or 'none'}")
    return ", ".join([*said, *(f"{name} {table.numbers[name][row]:.4g}" for name in given.numbers)])


def example(dataset: Dataset, inputs: Mapping[str, Input], cut: Mapping[str, Callable[[str], str]]) -> Text:
    """The training list in the middle: what is read of its user and history, and of its first items, with labels.

    cut: what is left of a text of "user" and "item" in its row of tokens; without it the first of it is shown
    """
    lists = dataset.train
    row = len(lists.user) // 2
    user, (begin, stop) = int(lists.user[row]), lists.history[row]
    names = dataset.history[begin:stop][::-1]
    lines = [f"one training list: user {dataset.users.id[user]}, {stop - begin} remembered events"]
    more = columns(dataset.users, inputs["user"], "user", user)
    lines += [f"  user columns: {more}"] if more else []
    profile, event = divide(inputs["user"].text)
    shown = names if "user" in cut else names[: 2 * ITEMS]
    if profile or event:
        told = str(render(profile, dataset.users, "model.user.text")[user]) if profile else ""
        every = render(event, dataset.items, "model.user.text") if event else np.array([])
        text = joined([told, *(str(every[item]) for item in shown if event)])
        lines.append("  user text: " + cut.get("user", str)(text))
    if inputs["user"].history:
        lines.append(
            "  history as item vectors, newest first: " + ", ".join(dataset.items.id[names[: 2 * ITEMS]].tolist())
        )
    items = render(inputs["item"].text, dataset.items, "model.item.text") if inputs["item"].text else None
    for place in range(lists.start[row], min(lists.start[row + 1], lists.start[row] + ITEMS)):
        item = int(lists.item[place])
        labels = ", ".join(f"{name} {values[place]:.4g}" for name, values in lists.labels.items())
        text = "" if items is None else ": " + cut.get("item", lambda text: text[:160])(str(items[item]))
        more = columns(dataset.items, inputs["item"], "item", item)
        lines.append(f"  item {dataset.items.id[item]} ({labels}){f' [{more}]' if more else ''}{text}")
    lines.append(f"  ... {lists.start[row + 1] - lists.start[row]} items in this list (nan: not observed)")
    return Text("\n".join(lines))
