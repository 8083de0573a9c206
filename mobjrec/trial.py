"""What a factory refuses, as problems of a config's keys, so that one does not hide another.

A ValueError that begins with a setting's name (`k is 0; ...`, `user.text names ...`) is a problem of that key, any other
one of the block. Its lines are a problem each.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mobjrec.errors import UserError
from mobjrec.problems import KeyPath, Problem, dotted


class Trial(NamedTuple):
    """How nested blocks are made.

    make: (seam, function, arguments) -> the nested value; a ValueError is a problem of the block
    stand_in: seam -> what is taken where a nested block is wrong or cannot be known here, so that the rest is checked;
        None where a wrong one is the end
    right: what could be made of a wrong one, by its path: taken before a stand-in
    """

    make: Callable[[str, Callable[..., Any], dict[str, Any]], Any]
    stand_in: Callable[[str], Any] | None = None
    right: dict[KeyPath, Any] | None = None


def tried(
    make: Callable[[dict[str, Any]], Any],
    arguments: Mapping[str, Any],
    optional: frozenset[str],
    settings: Mapping[str, Any],
    path: KeyPath,
    problems: list[Problem],
) -> Any:
    """What `make` returns for the arguments; None where it refuses them, which goes to `problems`.

    Arguments that it names are then left out, if they are `optional`, and the rest is tried. A complaint about what was
    wrong before may follow from that and is passed over. settings: the block as plain data   path: of the block
    """
    arguments, before = dict(arguments), list(problems)
    while True:
        try:
            return make(arguments)
        except (ValueError, UserError) as error:
            named = complaints(error, settings, path)
        for one in named:
            if not touched(one.path, before) and all(one.path != other.path for other in problems):
                problems.append(one)
        dropped = {one.path[len(path)] for one in named if len(one.path) > len(path)} & optional & arguments.keys()
        if not dropped:
            return None
        arguments = {name: value for name, value in arguments.items() if name not in dropped}


def complaints(error: Exception, settings: Mapping[str, Any], path: KeyPath) -> list[Problem]:
    """What an error says of the block at `path`, each line at the key that it begins with."""
    lines = str(error).split("\n") if isinstance(error, ValueError) else [str(error)]
    # Some speak of their block by name already.
    lines = [line.removeprefix(f"{dotted(path)}: ").removeprefix(f"{path[-1]}.") for line in lines]
    return [Problem((*path, *_blamed(line, settings)), line) for line in lines]


def touched(path: KeyPath, problems: Sequence[Problem]) -> bool:
    """Whether a problem is noted at this key, above it or below."""
    return any(one.path[: len(path)] == path[: len(one.path)] for one in problems if one.path)


def pruned(value: Any, at: KeyPath, problems: Sequence[Problem]) -> Any:
    """The value that stands at a path without the keys at which a problem is noted."""
    if not isinstance(value, Mapping):
        return value
    wrong = {one.path for one in problems}
    return {key: pruned(one, (*at, key), problems) for key, one in value.items() if (*at, key) not in wrong}


def _blamed(text: str, settings: Any) -> KeyPath:
    """The key that a complaint begins with, () where it names none."""
    path: KeyPath = ()
    for part in re.split(r"[^\w.]", text, maxsplit=1)[0].split("."):
        if not isinstance(settings, Mapping) or part not in settings:
            break
        path, settings = (*path, part), settings[part]
    return path
