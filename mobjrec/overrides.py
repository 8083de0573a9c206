"""Dotted overrides, `batch.lists=128`: the value is parsed by the YAML reader."""

from collections.abc import Sequence
from typing import Any

from mobjrec.problems import KeyPath, Problem, dotted, found, nearest
from mobjrec.yaml_reader import read

# Of these keys, where they stand side by side, one is given.
EXCLUSIVE = ("minutes", "epochs", "steps")
PACES = ((), ("evaluate", "every"), ("save", "every"))


def override(
    value: dict[str, Any],
    overrides: Sequence[str],
    *,
    roots: Sequence[str],
    places: dict[KeyPath, str],
    problems: list[Problem],
) -> None:
    """Write each `a.b=value` into `value` and the override itself into `places`; what is wrong goes to `problems`.

    roots: the first keys that there are. Keys below them are made on the way; a key given twice is a problem. One of the
    keys that exclude each other sets the others to null, but for those that are overridden themselves.
    """
    seen: set[str] = set()
    given = {tuple(text.partition("=")[0].strip().split(".")) for text in overrides}
    for text in overrides:
        place = f"override `{text if len(text) <= 80 else text[:77] + '...'}`"
        name, equals, right = text.partition("=")
        path = tuple(name.strip().split("."))
        document = read(right, place)
        if not equals or not all(path):
            fault = "expected KEY=VALUE, such as batch.lists=128"
        elif path[0] not in roots:
            fault = f"{path[0]} is not a key of a config" + nearest(path[0], roots)
        elif name in seen:
            fault = f"{name} is overridden twice; keep one"
        elif document.problems:
            # A template, most likely.
            quoted = f"; text that begins with a brace is quoted: {name.strip()}='\"...\"'" if right[:1] == "{" else ""
            fault = document.problems[0].text + quoted
        elif document.value is None and right.strip() not in ("null", "~"):
            fault = 'there is no value; write null, or "" for an empty text'
        else:
            fault = _put(value, path, document.value)
            stale = [old for old in places if old[: len(path)] == path]
            for old in stale:
                del places[old]
            places[path] = place
            if not fault and document.value is not None:
                _unset_others(value, path, given)
        seen.add(name)
        if fault:
            problems.append(Problem((), fault, place))


def _unset_others(value: dict[str, Any], path: tuple[str, ...], given: set[tuple[str, ...]]) -> None:
    """Null for what the key at this path excludes, if the config has it and no override gives it."""
    *above, last = path
    if last not in EXCLUSIVE or tuple(above) not in PACES:
        return
    for key in above:
        value = value[key]
    value |= {key: None for key in EXCLUSIVE if key != last and key in value and (*above, key) not in given}


def _put(value: dict[str, Any], path: tuple[str, ...], new: Any) -> str:
    """Set the value at the path, making keys on the way. Returns what is in the way, "" for nothing."""
    for depth, key in enumerate(path[:-1]):
        if value.get(key) is None:
            value[key] = {}
        value = value[key]
        if not isinstance(value, dict):
            above = dotted(path[: depth + 1])
            return f"{above} is {found(value)}, so nothing stands below it; override {above} as a whole"
    value[path[-1]] = new
    return ""
