"""From a block of the config to a bound callable.

The function is found by Python's name lookup, its settings are checked against its annotated signature, and its
defaults are written down.

A short name is looked up in the `__all__` of the seam's room (`ml-100k` is `ml_100k` there); `module:name` is an import
path, the current folder included. Nothing is registered, and no room is imported before one of its names is asked for.

Where settings say something about others (weights of a folder about sizes, a label about its head), a function
`NAME_settled(settings, given) -> {setting: value}` may stand beside NAME: settings are plain and complete, `given` the
names of those that the config gives; what it returns takes their place, None being left out as not known here. A
ValueError of its is a problem of the block. So a dump holds what is in force.

What a factory refuses is a problem of the setting that its ValueError begins with, see trial.py.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mobjrec.config import Block, Config, plain, validated
from mobjrec.errors import UserError
from mobjrec.fitting import MISSING, Fit, expected_of, fit, recorded
from mobjrec.lookup import THEMSELVES, lookup, seam_of, settled_by, short_name
from mobjrec.problems import KeyPath, Problem, closest, found, nearest, report
from mobjrec.trial import Trial, complaints, pruned, tried
from mobjrec.types import PerObjective

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
    function: that is called   optional: arguments with a default
    known: False where a setting is left out because what decides it is not here
    """

    call: Callable[..., Any]
    arguments: dict[str, Any]
    block: Block
    function: Callable[..., Any]
    optional: frozenset[str]
    known: bool


class Scope(NamedTuple):
    """What holds for a whole block: the objectives' order, how nested blocks are built, what went wrong so far.

    objectives: None where they are not known   trial: None = nested blocks are not built
    """

    objectives: tuple[str, ...] | None
    trial: Trial | None
    problems: list[Problem]


def bind(seam: str, block: Block | Mapping[str, Any] | str, *, where: str, objectives: tuple[str, ...] = ()) -> Bound:
    """The function that a block names, its settings checked and nested blocks built.

    where: the block's dotted path, for messages   objectives: their names, in the order of [K]
    UserError lists everything that is wrong in the block. `call` turns the function's ValueError into a UserError that
    begins with `where`.
    """
    scope = Scope(objectives, BUILD, [])
    given = plain(block) if isinstance(block, Block) else block
    bound = _bound(seam, given, tuple(where.split(".")), scope)
    if bound is None or scope.problems:
        raise report(scope.problems, {})
    return bound


def complete(config: Config) -> Config:
    """The same config with every default of every function it names written in; complete(complete(c)) = complete(c).

    Nothing is built; read is what a NAME_settled looks at. UserError lists all that is wrong in any block, with its line.
    """
    problems: list[Problem] = []
    data = plain(config)
    blocks = bounds(data, problems)
    if problems:
        raise report(problems, config.places)
    return validated(written_in(data, blocks), config.places)


def bounds(data: Mapping[str, Any], problems: list[Problem], trial: Trial | None = None) -> dict[KeyPath, Bound]:
    """The blocks of a config's plain data that could be bound, by path; what is wrong in any goes to `problems`.

    data: may lack keys and hold wrong ones: those are passed over, their path being in `problems` already
    """
    objectives = data.get("objectives")
    names = tuple(objectives) if isinstance(objectives, Mapping) and objectives else None
    scope, found = Scope(names, trial, problems), {}
    for path, seam, given in places_of_blocks(data):
        if not isinstance(given, Mapping) or not isinstance(given.get("use"), str) or not given["use"]:
            continue
        bound = _bound(seam, given, path, scope)
        if bound is not None:
            found[path] = bound
    return found


def written_in(data: dict[str, Any], blocks: Mapping[KeyPath, Bound]) -> dict[str, Any]:
    """The data with these blocks complete."""
    for path, bound in blocks.items():
        *above, last = path
        functools.reduce(lambda at, key: at[key], above, data)[last] = plain(bound.block)
    return data


def places_of_blocks(data: Mapping[str, Any]) -> list[tuple[KeyPath, str, Any]]:
    """Where blocks stand in a config's plain data, the seam of each, and what stands there."""

    def below(key: str) -> Mapping[str, Any]:
        return data[key] if isinstance(data.get(key), Mapping) else {}

    return [
        (("data",), "data", data.get("data")),
        *((("labels", name), "label", block) for name, block in below("labels").items()),
        (("tokenizer",), "tokenizer", data.get("tokenizer")),
        (("lists", "split"), "split", below("lists").get("split")),
        (("candidates",), "candidates", data.get("candidates")),
        (("model",), "model", data.get("model")),
        *((("objectives", name), "objective", block) for name, block in below("objectives").items()),
        (("weighting",), "weighting", data.get("weighting")),
        (("preference",), "preference", data.get("preference")),
        (("optimizer",), "optimizer", data.get("optimizer")),
        (("evaluate", "candidates"), "candidates", below("evaluate").get("candidates")),
    ]


BUILD = Trial(make=lambda seam, function, arguments: function(**arguments))


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
    problems = scope.problems
    problems.extend(_unknown(seam, use, settings, hints, path))
    fits = {name: _setting(use, name, *hint, settings, path, scope) for name, hint in hints.items()}
    right = {name: value for name, value in settings.items() if fits.get(name) is not None}
    fits |= _misspelt(hints, settings, scope)
    if not all(fits.values()) and not _mended(use, fits, hints, settings, path, scope):
        return None
    known = True
    for name, value in _settled(seam, use, right, fits, path, scope).items():
        fits[name] = None if value is None else _setting(use, name, *hints[name], {name: value}, path, scope)
        known = known and fits[name] is not None
    kept = {name: one for name, one in fits.items() if one is not None}
    arguments = {name: one.value for name, one in kept.items()}
    block = Block.model_validate({"use": use} | {name: one.plain for name, one in kept.items()})
    optional = frozenset(name for name, (_, default) in hints.items() if default is not MISSING)
    return Bound(_called(seam, function, arguments, path), arguments, block, function, optional, known)


def _misspelt(hints: Mapping[str, tuple[Any, Any]], settings: Mapping[str, Any], scope: Scope) -> dict[str, Fit]:
    """Stand-ins for pieces that seem to be there under a wrong name: that they are missing is no complaint of its own."""
    if scope.trial is None or scope.trial.stand_in is None:
        return {}
    near = {closest(key, hints) for key in settings if key not in hints} & (hints.keys() - settings.keys())
    seams = {name: seam_of(hints[name][0]) for name in near}
    return {name: Fit(scope.trial.stand_in(seam), None) for name, seam in seams.items() if seam is not None}


def _mended(
    use: str,
    fits: dict[str, Fit | None],
    hints: Mapping[str, tuple[Any, Any]],
    settings: Mapping[str, Any],
    path: KeyPath,
    scope: Scope,
) -> bool:
    """Put what is right of a wrong setting, a stand-in or its default in its place; whether the function can be called."""
    if scope.trial is None or scope.trial.stand_in is None:
        return False
    for name in [name for name, one in fits.items() if one is None]:
        annotation, default = hints[name]
        seam = seam_of(annotation)
        if seam is not None and (name in settings or default is MISSING):
            made = (scope.trial.right or {}).get((*path, name))
            fits[name] = Fit(scope.trial.stand_in(seam) if made is None else made, None)
        elif isinstance(settings.get(name), Mapping):
            right = pruned(settings[name], (*path, name), scope.problems)
            if annotation is PerObjective and scope.objectives:
                right = {one: right.get(one, 1.0) for one in scope.objectives}
            fits[name] = fit(annotation, right, (*path, name), [], scope.objectives, lambda *_: None)
        if fits[name] is None and default is not MISSING:
            fits[name] = _setting(use, name, annotation, default, {}, path, scope)
    return all(fits.values())


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
        scope.problems.extend(complaints(error, settings, path))
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
    before = len(scope.problems)
    bound = _bound(seam, value, at, scope)
    if bound is None:
        return None
    block = plain(bound.block)
    if scope.trial is None:
        return Fit(bound.call if seam in THEMSELVES else None, block)
    if scope.trial.stand_in is not None and not bound.known:
        return Fit(scope.trial.stand_in(seam), block)
    if scope.trial is BUILD and seam in THEMSELVES:
        return Fit(bound.call, block)
    make = functools.partial(scope.trial.make, seam, bound.function)
    made = tried(make, bound.arguments, bound.optional, block, at, scope.problems)
    if len(scope.problems) == before:
        return Fit(made, block)
    if scope.trial.right is not None and made is not None:
        scope.trial.right[at] = made
    return None
