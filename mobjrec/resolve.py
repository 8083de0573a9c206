"""From a block of the config to a bound callable.

The function is found by Python's name lookup, its settings are checked against its annotated signature, and its
defaults are written down.

A short name is looked up in the `__all__` of the seam's room (`ml-100k` is `ml_100k` there); `module:name` is an import
path, the current folder included. Nothing is registered, and no room is imported before one of its names is asked for.

Where settings say something about others (weights of a folder about sizes, a label about its head), a function
`NAME_settled(settings, given) -> {setting: value}` may stand beside NAME: settings are plain and complete, `given` the
names of those that the config gives; what it returns takes their place, None being left out as not known here. A
ValueError of its is a problem of the block. So a dump holds what is in force.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mobjrec.config import Block, Config, plain, validated
from mobjrec.errors import UserError
from mobjrec.fitting import MISSING, Fit, expected_of, fit, recorded
from mobjrec.lookup import THEMSELVES, lookup, seam_of, settled_by, short_name
from mobjrec.problems import KeyPath, Problem, found, nearest, report

# What the caller of a bound function hands over, by seam: a config cannot set it.
SUPPLIED = {
    "model": ("spec", "heads"),
    "optimizer": ("steps",),
    "Loss": ("scores", "labels", "where", "weights"),
    "Metric": ("scores", "labels", "where"),
}


class Bound(NamedTuple):
    """A function of a room with its settings.

    call: what the caller supplies by position -> the seam's value; for a loss or metric the function itself, bound
    arguments: every setting as the function gets it, defaults too   block: the same as plain data, complete
    """

    call: Callable[..., Any]
    arguments: dict[str, Any]
    block: Block


class Scope(NamedTuple):
    """What holds for a whole block: the objectives' order, whether nested blocks are built, what went wrong so far."""

    objectives: tuple[str, ...]
    build: bool
    problems: list[Problem]


def bind(seam: str, block: Block | Mapping[str, Any] | str, *, where: str, objectives: tuple[str, ...] = ()) -> Bound:
    """The function that a block names, its settings checked and nested blocks built.

    where: the block's dotted path, for messages   objectives: their names, in the order of [K]
    UserError lists everything that is wrong in the block. `call` turns the function's ValueError into a UserError that
    begins with `where`.
    """
    scope = Scope(objectives, True, [])
    given = plain(block) if isinstance(block, Block) else block
    bound = _bound(seam, given, tuple(where.split(".")), scope)
    if bound is None or scope.problems:
        raise report(scope.problems, {})
    return bound


def complete(config: Config) -> Config:
    """The same config with every default of every function it names written in; complete(complete(c)) = complete(c).

    Nothing is built; read is what a NAME_settled looks at. UserError lists all that is wrong in any block, with its line.
    """
    scope = Scope(tuple(config.objectives), False, [])
    data = plain(config)
    for path, seam in _blocks(config):
        *above, last = path
        room = functools.reduce(lambda at, key: at[key], above, data)
        bound = _bound(seam, room[last], path, scope)
        if bound is not None:
            room[last] = plain(bound.block)
    if scope.problems:
        raise report(scope.problems, config.places)
    return validated(data, config.places)


def _blocks(config: Config) -> list[tuple[KeyPath, str]]:
    """Where blocks stand in a config, and the seam of each."""
    places: list[tuple[KeyPath, str]] = [(("data",), "data")]
    places += [(("labels", name), "label") for name in config.labels]
    places += [(("tokenizer",), "tokenizer")] if config.tokenizer is not None else []
    places += [(("lists", "split"), "split"), (("candidates",), "candidates"), (("model",), "model")]
    places += [(("objectives", name), "objective") for name in config.objectives]
    places += [(("weighting",), "weighting"), (("optimizer",), "optimizer")]
    places += [(("evaluate", "candidates"), "candidates")] if config.evaluate.candidates is not None else []
    return places


def _bound(seam: str, given: Any, path: KeyPath, scope: Scope) -> Bound | None:
    """The bound function, or None where a problem was noted."""
    given = {"use": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping) or not isinstance(given.get("use"), str):
        form = "a function and its settings, {use: NAME, ...}"
        scope.problems.append(Problem(path, f"found {found(given)}; expected {form}"))
        return None
    use = given["use"]
    try:
        function = lookup(seam, use)
        hints = _hints(function, use, SUPPLIED.get(seam, ()))
    except UserError as error:
        scope.problems.append(Problem((*path, "use"), str(error)))
        return None
    settings = {key: value for key, value in given.items() if key != "use"}
    before = len(scope.problems)
    scope.problems.extend(_unknown(seam, use, settings, hints, path))
    fits = {name: _setting(use, name, *hint, settings, path, scope) for name, hint in hints.items()}
    if len(scope.problems) > before:
        return None
    for name, value in _settled(seam, use, settings, fits, path, scope).items():
        fits[name] = None if value is None else _setting(use, name, *hints[name], {name: value}, path, scope)
    if len(scope.problems) > before:
        return None
    kept = {name: one for name, one in fits.items() if one is not None}
    arguments = {name: one.value for name, one in kept.items()}
    block = Block.model_validate({"use": use} | {name: one.plain for name, one in kept.items()})
    return Bound(_called(seam, function, arguments, path), arguments, block)


def _settled(
    seam: str, use: str, settings: Mapping[str, Any], fits: Mapping[str, Fit | None], path: KeyPath, scope: Scope
) -> dict[str, Any]:
    """What settings say about others, {} where nothing or a problem was noted."""
    settle = settled_by(seam, use)
    if settle is None:
        return {}
    try:
        return settle({name: one.plain for name, one in fits.items() if one is not None}, frozenset(settings))
    except (ValueError, UserError) as error:
        scope.problems.append(Problem(path, str(error)))
        return {}


def _called(seam: str, function: Callable[..., Any], arguments: dict[str, Any], path: KeyPath) -> Callable[..., Any]:
    if seam in THEMSELVES:
        return functools.partial(function, **arguments) if arguments else function

    def call(*supplied: Any) -> Any:
        given = dict(zip(SUPPLIED.get(seam, ()), supplied, strict=True))
        try:
            return function(**given, **arguments)
        except ValueError as error:
            raise UserError(f"{'.'.join(map(str, path))}: {error}") from error

    return call


def _hints(function: Callable[..., Any], use: str, supplied: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Annotation and default (MISSING if none) of each argument that a config may set, in the signature's order."""
    try:
        # Not get_type_hints, which rebuilds `tuple[float, ...]`: PerObjective is known by identity.
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception as error:
        raise UserError(f"the signature of {use} cannot be read ({error}); wrap it in an annotated function") from error
    lacking = [name for name in supplied if name not in {one.name for one in parameters}]
    if lacking:
        raise UserError(f"{use} has no argument {' and '.join(lacking)}, which the run supplies")
    hints = {}
    for one in parameters:
        if one.name in supplied or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if one.annotation is one.empty or one.kind is one.POSITIONAL_ONLY:
            why = "has no annotation" if one.annotation is one.empty else "cannot be given by name"
            text = f"the argument {one.name} of {use} {why}, so a setting cannot be checked"
            raise UserError(f"{text}; wrap {use} in a function of your own with annotated arguments")
        hints[one.name] = (one.annotation, MISSING if one.default is one.empty else one.default)
    return hints


def _unknown(
    seam: str, use: str, settings: Mapping[str, Any], hints: Mapping[str, Any], path: KeyPath
) -> list[Problem]:
    """The settings that the function does not have."""
    problems = []
    for key in settings:
        if key in SUPPLIED.get(seam, ()):
            problems.append(Problem((*path, key), f"{key} of {use} is supplied by the run; a config cannot set it"))
        elif key not in hints:
            hint = nearest(key, hints, what=f"settings of {use}") or f"; {use} has no settings"
            problems.append(Problem((*path, key), f"{use} has no such setting{hint}"))
    return problems


def _setting(
    use: str, name: str, annotation: Any, default: Any, settings: Mapping[str, Any], path: KeyPath, scope: Scope
) -> Fit | None:
    """The value of one argument, given or by default; None where there is none or a problem was noted."""

    def nested(seam: str, value: Any, at: KeyPath, problems: list[Problem]) -> Fit | None:
        return _nested(seam, value, at, scope._replace(problems=problems))

    at = (*path, name)
    if name in settings:
        allowed = default if default == () else MISSING
        return fit(annotation, settings[name], at, scope.problems, scope.objectives, nested, allowed)
    if default is MISSING:
        text = f"the key is missing; {use} needs it: {expected_of(annotation)}"
        scope.problems.append(Problem(at, text))
        return None
    return _default(use, name, annotation, default, at, scope, nested)


def _default(
    use: str, name: str, annotation: Any, default: Any, at: KeyPath, scope: Scope, nested: Callable[..., Fit | None]
) -> Fit | None:
    """A default as if the config had given it: what is written down is what is called."""
    problems: list[Problem] = []
    try:
        seam = seam_of(annotation)
        value = recorded(annotation, default, scope.objectives, lambda function: short_name(seam, function))
    except ValueError as error:
        fault = str(error)
    else:
        one = fit(annotation, value, at, problems, scope.objectives, nested, default if default == () else MISSING)
        if one is not None and not problems:
            return one
        fault = problems[0].text if problems else "it does not fit its annotation"
    text = f"the default of {name} in {use} cannot be written to a config ({fault}); give {name} or mend its signature"
    scope.problems.append(Problem(at, text))
    return None


def _nested(seam: str, value: Any, at: KeyPath, scope: Scope) -> Fit | None:
    """A block inside a block: the function itself for a loss or metric, what the factory makes for all others."""
    bound = _bound(seam, value, at, scope)
    if bound is None:
        return None
    block = plain(bound.block)
    if seam in THEMSELVES:
        return Fit(bound.call, block)
    try:
        return Fit(bound.call() if scope.build else None, block)
    except UserError as error:
        scope.problems.append(Problem(at, str(error).removeprefix(".".join(map(str, at)) + ": ")))
        return None
