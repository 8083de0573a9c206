"""A strict YAML reader: plain data, the line of every key, and every trap of YAML 1.1 closed.

Only `true` and `false` are booleans, `1e-4` is a number, `012`, `1:30`, `1_000`, `off` and dates are text, every key is
text, a key given twice is a problem. Tags, merge keys and a second document are refused.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mobjrec.errors import UserError
from mobjrec.problems import KeyPath, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_VALUES = 50_000
MAX_REPEATED = 10_000

NULL = re.compile(r"|~|null")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
SPECIAL = {"true": True, "false": False, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}


class Document(NamedTuple):
    """What a YAML text says.

    value: dict, list, str, int, float, bool or None   places: {path: "file:line"} of every key and list entry
    problems: what is wrong; `value` then holds what could be read
    """

    value: Any
    places: dict[KeyPath, str]
    problems: list[Problem]


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser; depth is bounded while reading, tags are collected, scalars stay text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name and place)

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0
        self.values = 0
        self.tags: list[tuple[str, int]] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self.depth += 1
        self.values += 1
        if self.values > MAX_VALUES:
            raise _fault(f"more than {MAX_VALUES:,} keys and values", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise _fault(f"more than {MAX_DEPTH} levels inside each other", event.start_mark)
        if getattr(event, "tag", None) is not None:
            self.tags.append((event.tag, event.start_mark.line + 1))
            event.tag = None
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Walk(NamedTuple):
    """What is gathered on the way through the nodes."""

    source: str
    places: dict[KeyPath, str]
    problems: list[Problem]
    open: list[int]
    met: set[int]
    repeated: list[int]


def read(text: str, source: str) -> Document:
    """The plain data of one YAML document; `source` is how the text is called in messages.

    Never raises for a bad text: what is wrong stands in `problems`, and `value` is None where nothing could be read.
    """
    walk = _Walk(source, {}, [], [], set(), [])
    value = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        for tag, line in loader.tags:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            fault = f"the tag {shown} is not allowed; a config is plain data"
            walk.problems.append(Problem((), fault, f"{source}:{line}"))
        value = None if node is None else _value(node, (), walk)
    except yaml.YAMLError as error:
        walk.problems.append(_syntax(error, text, source))
    return Document(value, walk.places, walk.problems)


def file_text(path: Path) -> str:
    """The text of a config file, at most 1 MB of UTF-8 (a byte order mark is fine). UserError if it is not that."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: the config cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r} is not a path: {error}") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: the config is larger than {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: byte {error.start} is not UTF-8; save the config as UTF-8") from error


def scalar(text: str) -> Any:
    """What a plain (unquoted) scalar means. OverflowError for a number beyond float's range or 4,000 digits."""
    if text in SPECIAL:
        return SPECIAL[text]
    if NULL.fullmatch(text):
        return None
    if not FLOAT.fullmatch(text):
        return text
    whole = INTEGER.fullmatch(text)
    # Python turns no text of more than 4,300 digits into an int.
    if len(text) > 4000 or (not whole and math.isinf(float(text))):
        raise OverflowError
    return int(text) if whole else float(text)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _value(node: Any, path: KeyPath, walk: _Walk) -> Any:
    if id(node) in walk.open:
        raise _fault("an alias (*name) stands inside what it names", node.start_mark)
    if len(path) > MAX_DEPTH:
        raise _fault(f"more than {MAX_DEPTH} levels inside each other", node.start_mark)
    if id(node) in walk.met:
        walk.repeated.append(id(node))
        if len(walk.repeated) > MAX_REPEATED:
            raise _fault(f"aliases (*name) repeat more than {MAX_REPEATED:,} values", node.start_mark)
    walk.met.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, walk)
    walk.open.append(id(node))
    value = _mapping(node, path, walk) if isinstance(node, yaml.MappingNode) else _sequence(node, path, walk)
    walk.open.pop()
    return value


def _scalar(node: Any, path: KeyPath, walk: _Walk) -> Any:
    """The scalar's value; its text where that is a number that cannot be."""
    if node.style is not None:
        return node.value
    wanted = "a number" if node.value.lower() == ".nan" else "a number within range"
    try:
        if node.value.lower() != ".nan":
            return scalar(node.value)
    except OverflowError:
        pass
    walk.problems.append(Problem(path, f"found {node.value[:30]}; expected {wanted}", _place(node, walk)))
    return node.value


def _sequence(node: Any, path: KeyPath, walk: _Walk) -> list[Any]:
    values = []
    for index, entry in enumerate(node.value):
        walk.places[(*path, index)] = _place(entry, walk)
        values.append(_value(entry, (*path, index), walk))
    return values


def _mapping(node: Any, path: KeyPath, walk: _Walk) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, entry in node.value:
        if not isinstance(key, yaml.ScalarNode):
            walk.problems.append(Problem(path, "a key must be text, not a list or keys", _place(key, walk)))
            continue
        name, line = key.value, key.start_mark.line + 1
        if name == "<<" and key.style is None:
            text = "merge keys (<<) are not allowed; write the keys out"
            walk.problems.append(Problem((*path, name), text, _place(key, walk)))
            continue
        if name in values:
            lines_text = f"line {line} twice" if lines[name] == line else f"lines {lines[name]} and {line}"
            text = f"the key is given twice, on {lines_text}; keep one"
            walk.problems.append(Problem((*path, name), text, _place(key, walk)))
            continue
        lines[name] = line
        walk.places[(*path, name)] = _place(key, walk)
        values[name] = _value(entry, (*path, name), walk)
    return values


def _place(node: Any, walk: _Walk) -> str:
    return f"{walk.source}:{node.start_mark.line + 1}"


def _syntax(error: yaml.YAMLError, text: str, source: str) -> Problem:
    """A parser's complaint as one sentence with its line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        said = error.problem or error.context or "it cannot be read"
        if "'\\t'" in said:
            said = "a tab stands where only spaces may; indent with spaces"
        elif "mapping values are not allowed" in said:
            said = "a second `: ` on the line, or wrong indentation; text that holds `: ` needs quotes"
        return Problem((), f"this is not the YAML of a config: {said}", f"{source}:{line}")
    line = text.count("\n", 0, getattr(error, "position", 0)) + 1
    return Problem((), "a character that may not stand in YAML (a control character)", f"{source}:{line}")
