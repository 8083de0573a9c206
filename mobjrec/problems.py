"""What is wrong with a config, in words: all of it in one error, each with place, key and the nearest right key."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

from mobjrec.errors import UserError, closest

KeyPath = tuple[str | int, ...]


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "keys and values",
    "dict_type": "keys and values",
    "too_short": "at least one entry",
    "string_pattern_mismatch": "a name of letters, digits and _",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "literal_error": "{expected}",
}


class Problem(NamedTuple):
    """One thing wrong with a config.

    path: of the key, () for the whole file   text: what was found and expected
    place: "file:line", "" = that of the path or of the nearest key above it
    """

    path: KeyPath
    text: str
    place: str = ""


def report(
    problems: Sequence[Problem], places: Mapping[KeyPath, str], head: str = "the config has {} problems:"
) -> UserError:
    """One error that lists every problem once: place, dotted key, what was found and expected; in the file's order."""
    ordered = sorted(problems, key=lambda problem: _number(_place(problem, places)))
    lines = list(dict.fromkeys(_line(problem, places) for problem in ordered))
    if len(lines) == 1:
        return UserError(lines[0])
    return UserError("\n  ".join([head.format(len(lines)), *lines]))


def found(value: Any) -> str:
    """A value in words, short, for a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return "text " + json.dumps(text, ensure_ascii=not text.isprintable())
    if isinstance(value, Mapping):
        return f"the keys {', '.join(str(key)[:40] for key in list(value)[:8])}" if value else "no keys ({})"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    return repr(value) if isinstance(value, int | float) else f"a value of type {type(value).__name__}"


def nearest(name: str | int, names: Iterable[str], *, what: str = "keys") -> str:
    """A hint to hang on a message: the closest of `names`, or all of them; "" where there are none."""
    names = list(names)
    close = closest(str(name), names)
    if close:
        return f"; did you mean `{close}`?"
    return f"; {what} are {', '.join(names)}" if names else ""


def dotted(path: KeyPath) -> str:
    """A key path as it is written in an override: `model.encoder.layers`."""
    return ".".join(map(str, path))


def misfits(errors: Iterable[Any], root: type) -> list[Problem]:
    """pydantic's findings (`ValidationError.errors()`) about its model `root`, in our words."""
    errors = list(errors)
    # A misspelt key that was meant for the absent one is told of already.
    return [_misfit(one, root) for one in errors if not any(_meant(other, one, root) for other in errors)]


def _meant(other: Any, one: Any, root: type) -> bool:
    """Whether `other` is a misspelt key for one of those of which `one` found none."""
    if one["type"] != "one_of" or other["type"] != "extra_forbidden" or one["loc"][:-1] != other["loc"][:-1]:
        return False
    return closest(str(other["loc"][-1]), _at(other["loc"][:-1], root).model_fields) in one["ctx"]["none_of"]


def _misfit(error: Any, root: type) -> Problem:
    path = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "missing":
        which = ": which function? {use: NAME, ...}" if path[-1] == "use" else ""
        return Problem(path, "the key is missing" + which)
    if error["type"] == "extra_forbidden":
        return Problem(path, f"this is not a key here{nearest(path[-1], _at(path[:-1], root).model_fields)}")
    if error["type"] == "one_of":
        return Problem(path[:-1] if len(path) > 1 else path, error["msg"])
    expected = EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    if expected == "keys and values" and "use" in getattr(_at(path, root), "model_fields", ()):
        expected = "a function and its settings, {use: NAME, ...}"
    return Problem(path, f"found {found(error['input'])}; expected {expected}")


def _line(problem: Problem, places: Mapping[KeyPath, str]) -> str:
    parts = _place(problem, places), dotted(problem.path), problem.text
    return ": ".join(part for part in parts if part)


def _place(problem: Problem, places: Mapping[KeyPath, str]) -> str:
    place, path = problem.place, problem.path
    while not place and path:
        place, path = places.get(path, ""), path[:-1]
    return place


def _number(place: str) -> int:
    """The line of a place in a file; what is missing or no file's (an override) comes after all lines."""
    line = place.rpartition(":")[2]
    return int(line) if line.isdecimal() and not place.startswith("override") else sys.maxsize


def _at(path: KeyPath, root: type) -> Any:
    """The type that stands at a path of the config; None below a block."""
    kind: Any = root
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif part in getattr(kind, "model_fields", ()):
            kind = kind.model_fields[part].annotation
            kind = get_args(kind)[0] if get_origin(kind) is UnionType else kind
        else:
            return None
    return kind
