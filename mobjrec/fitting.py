"""Plain data against an annotation: the value a function gets, and the complete plain data that stands for it.

Leaves (int, float, bool, str, Path and Annotated forms of them) are pydantic's in strict JSON mode; the rest is a walk
over unions, tuples, lists, dicts, Literals and NamedTuples (keys with defaults). An annotation that is a seam takes a
nested block, `Any` any plain data. `PerObjective` takes a number per objective name; it is told from any other
`tuple[float, ...]` by the identity of the alias: an argument is annotated with that very name, or that `| None`.
"""

import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Annotated, Any, ForwardRef, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mobjrec.lookup import SEAMS
from mobjrec.problems import KeyPath, Problem, found, nearest
from mobjrec.types import PerObjective

MISSING: Any = object()
LEAVES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
NestedFit = Callable[[str, Any, KeyPath, list[Problem]], "Fit | None"]


class Fit(NamedTuple):
    """A value as the function gets it, and as plain data, complete."""

    value: Any
    plain: Any


class _Way(NamedTuple):
    """What goes along unchanged while an annotation is walked."""

    objectives: tuple[str, ...] | None
    nested: NestedFit
    empty: Any


def fit(
    annotation: Any,
    value: Any,
    at: KeyPath,
    problems: list[Problem],
    objectives: tuple[str, ...] | None,
    nested: NestedFit,
    empty: Any = MISSING,
) -> Fit | None:
    """The value for an argument with this annotation, or None after noting in `problems` what does not fit.

    objectives: their names in order, None where they are not known: any will do then
    nested: (seam, block, path, problems) -> Fit of a nested block
    empty: () where the argument's default is (): `{}` then means it for a PerObjective, "not given by name"
    """
    return _fit(annotation, value, at, problems, _Way(objectives, nested, empty))


def _fit(annotation: Any, value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    origin = get_origin(annotation)
    if annotation is PerObjective:
        return _per_objective(value, at, problems, way)
    if isinstance(annotation, type) and annotation in SEAMS:
        return way.nested(SEAMS[annotation], value, at, problems)
    if origin in (types.UnionType, Union):
        return _union(annotation, value, at, problems, way)
    if annotation in (None, type(None)):
        return Fit(None, None) if value is None else _misfit(annotation, value, at, problems)
    if origin is Literal:
        chosen = [one for one in get_args(annotation) if type(one) is type(value) and one == value]
        return Fit(chosen[0], chosen[0]) if chosen else _misfit(annotation, value, at, problems)
    if _is_named_tuple(annotation):
        return _named_tuple(annotation, value, at, problems, way)
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return _sequence(annotation, value, at, problems, way)
    if annotation is dict or origin in (dict, Mapping):
        return _mapping(annotation, value, at, problems, way)
    if getattr(annotation, "__name__", "") == "Array":
        return "nothing: an array is given in Python, or by the objective of this name"
    if annotation is Any:
        return Fit(value, value)
    if annotation in LEAVES or (origin is Annotated and annotation.__origin__ in LEAVES):
        return _leaf(annotation, value, at, problems)
    problems.append(Problem(at, f"a config cannot give a value of type {_name(annotation)}"))
    return None


def expected_of(annotation: Any) -> str:
    """What an annotation takes, in words."""
    origin = get_origin(annotation)
    if annotation is PerObjective:
        return "a number per objective, {NAME: NUMBER, ...}"
    if isinstance(annotation, type) and annotation in SEAMS:
        return f"{{use: NAME, ...}} ({SEAMS[annotation]})"
    if origin in (types.UnionType, Union):
        return " or ".join(dict.fromkeys(map(expected_of, get_args(annotation))))
    if annotation in (None, type(None)):
        return "null"
    if origin is Literal:
        return " or ".join(json.dumps(one) for one in get_args(annotation))
    if annotation is Any:
        return "plain data"
    if _is_named_tuple(annotation):
        return "{" + ", ".join(f"{name}: ..." for name in annotation._fields) + "}"
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        parts = [one for one in get_args(annotation) if one is not Ellipsis]
        if origin is tuple and Ellipsis not in get_args(annotation):
            return "a list [" + ", ".join(map(expected_of, parts)) + "]"
        return "a list" + "".join(f", each entry {expected_of(one)}" for one in parts)
    if annotation is dict or origin in (dict, Mapping):
        return "keys and values" + (f", each {expected_of(get_args(annotation)[1])}" if get_args(annotation) else "")
    if origin is Annotated:
        return expected_of(annotation.__origin__)
    return LEAVES.get(annotation, f"a value of type {_name(annotation)}")


def recorded(
    annotation: Any, default: Any, objectives: tuple[str, ...] | None, name_of: Callable[[Callable[..., Any]], str]
) -> Any:
    """A default as plain data. name_of: what a config calls a function. ValueError for what a config cannot hold."""
    if default is None or isinstance(default, bool | int | float | str):
        if isinstance(default, float) and default != default:
            raise ValueError("NaN is no setting")
        return default
    if isinstance(default, PurePath):
        return str(default)
    members = get_args(annotation) if get_origin(annotation) in (types.UnionType, Union) else (annotation,)
    if any(one is PerObjective for one in members) and isinstance(default, tuple):
        return dict(zip(objectives or map(str, range(len(default))), default, strict=True)) if default else {}
    if isinstance(default, partial):
        use = recorded(annotation, default.func, objectives, name_of)
        keywords = {name: recorded(None, one, objectives, name_of) for name, one in default.keywords.items()}
        return use | keywords
    if inspect.isroutine(default) and any(one in SEAMS for one in members if isinstance(one, type)):
        return {"use": name_of(default)}
    if isinstance(default, tuple) and hasattr(default, "_asdict") and type(default) not in SEAMS:
        kinds = _fields(type(default))
        parts = default._asdict().items()
        return {name: recorded(kinds[name], one, objectives, name_of) for name, one in parts}
    if isinstance(default, tuple | list):
        return [recorded(None, one, objectives, name_of) for one in default]
    if isinstance(default, Mapping):
        return {str(key): recorded(None, one, objectives, name_of) for key, one in default.items()}
    raise ValueError(f"a value of type {type(default).__name__}, already built")


def _misfit(annotation: Any, value: Any, at: KeyPath, problems: list[Problem]) -> None:
    hint = ""
    if isinstance(value, str):
        members = get_args(annotation) if get_origin(annotation) in (types.UnionType, Union) else (annotation,)
        words = [one for kind in members if get_origin(kind) is Literal for one in get_args(kind)]
        hint = nearest(value, map(str, words), what="it")
        hint = hint if "did you mean" in hint else ""
    problems.append(Problem(at, f"found {found(value)}; expected {expected_of(annotation)}{hint}"))


def _per_objective(value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    if value == {} and way.empty == ():
        return Fit((), {})
    if not isinstance(value, Mapping):
        return _misfit(PerObjective, value, at, problems)
    before, objectives = len(problems), tuple(value) if way.objectives is None else way.objectives
    for name in value:
        if name not in objectives:
            text = f"there is no objective {name}{nearest(name, objectives, what='objectives')}"
            problems.append(Problem((*at, name), text))
    lacking = [name for name in objectives if name not in value]
    if lacking:
        text = f"no number for {', '.join(lacking)}; expected one for each objective ({', '.join(objectives)})"
        problems.append(Problem(at, text))
    parts = {name: _leaf(float, value[name], (*at, name), problems) for name in objectives if name in value}
    if len(problems) > before:
        return None
    numbers = {name: one.value for name, one in parts.items() if one is not None}
    return Fit(tuple(numbers.values()), numbers)


def _union(annotation: Any, value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    """The first member that fits. If none does, the problem of the one that was meant, where that is clear."""
    tried: list[tuple[Any, list[Problem]]] = []
    for member in get_args(annotation):
        own: list[Problem] = []
        one = _fit(member, value, at, own, way)
        if one is not None and not own:
            return one
        tried.append((member, own))
    meant = [own for member, own in tried if member is not type(None) and _speaks_of(member, value)]
    if len(meant) == 1 and value is not None:
        problems.extend(meant[0])
        return None
    return _misfit(annotation, value, at, problems)


def _speaks_of(member: Any, value: Any) -> bool:
    """Whether the value has the form that the member takes, so that only its content can be wrong."""
    if isinstance(value, Mapping):
        keyed = member is dict or get_origin(member) in (dict, Mapping) or _is_named_tuple(member)
        return keyed or member is PerObjective or (isinstance(member, type) and member in SEAMS)
    if isinstance(value, str):
        return isinstance(member, type) and member in SEAMS
    listed = member in (tuple, list) or get_origin(member) in (tuple, list, Sequence)
    return isinstance(value, list | tuple) and listed and member is not PerObjective


def _named_tuple(kind: Any, value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    if not isinstance(value, Mapping):
        return _misfit(kind, value, at, problems)
    hints = _fields(kind)
    before = len(problems)
    for key in value:
        if key not in kind._fields:
            text = f"this is not a key here{nearest(key, kind._fields)}"
            problems.append(Problem((*at, key), text))
    parts: dict[str, Fit] = {}
    for name in kind._fields:
        if name in value:
            one = _fit(hints[name], value[name], (*at, name), problems, way)
        elif name in kind._field_defaults:
            one = _field_default(kind, name, hints[name], at, problems, way)
        else:
            one = None
            problems.append(Problem((*at, name), f"the key is missing: {expected_of(hints[name])}"))
        if one is not None:
            parts[name] = one
    if len(problems) > before:
        return None
    values = {name: one.value for name, one in parts.items()}
    return Fit(kind(**values), {name: one.plain for name, one in parts.items()})


def _field_default(kind: Any, name: str, hint: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    try:
        plain = recorded(hint, kind._field_defaults[name], way.objectives, lambda function: function.__name__)
    except ValueError as error:
        problems.append(Problem((*at, name), f"the default of {name} in {kind.__name__} cannot be written ({error})"))
        return None
    return _fit(hint, plain, (*at, name), problems, way)


def _sequence(annotation: Any, value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    if not isinstance(value, list | tuple):
        return _misfit(annotation, value, at, problems)
    kinds = get_args(annotation)
    if get_origin(annotation) is tuple and Ellipsis not in kinds:
        if len(kinds) != len(value):
            return _misfit(annotation, value, at, problems)
        each = kinds
    else:
        each = (kinds[0] if kinds else str,) * len(value)
    before = len(problems)
    parts = [
        _fit(kind, one, (*at, index), problems, way) for index, (kind, one) in enumerate(zip(each, value, strict=True))
    ]
    if len(problems) > before:
        return None
    kept = [one for one in parts if one is not None]
    built = list if annotation is list or get_origin(annotation) is list else tuple
    return Fit(built(one.value for one in kept), [one.plain for one in kept])


def _mapping(annotation: Any, value: Any, at: KeyPath, problems: list[Problem], way: _Way) -> Fit | None:
    if not isinstance(value, Mapping):
        return _misfit(annotation, value, at, problems)
    key_kind, kind = get_args(annotation) or (str, str)
    before = len(problems)
    for key in value:
        _fit(key_kind, key, (*at, key), problems, way)
    parts = {key: _fit(kind, one, (*at, key), problems, way) for key, one in value.items()}
    if len(problems) > before:
        return None
    kept = {key: one for key, one in parts.items() if one is not None}
    return Fit({key: one.value for key, one in kept.items()}, {key: one.plain for key, one in kept.items()})


def _leaf(annotation: Any, value: Any, at: KeyPath, problems: list[Problem]) -> Fit | None:
    base = annotation.__origin__ if get_origin(annotation) is Annotated else annotation
    if isinstance(value, Mapping | list | tuple) or (base is Path and (value == "" or "\0" in str(value))):
        return _misfit(annotation, value, at, problems)
    try:
        checked = _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"].endswith(("_type", "_from_float")):
            return _misfit(annotation, value, at, problems)
        problems.append(Problem(at, f"found {found(value)}; {first['msg'].removeprefix('Input ')}"))
        return None
    return Fit(checked, value if base is Path else checked)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def _fields(kind: Any) -> dict[str, Any]:
    """The annotations of a NamedTuple, the very objects that stand there where they are not text."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name] if isinstance(one, ForwardRef) else one for name, one in kind.__annotations__.items()}


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))
