"""Python's own name lookup, with sentences for what can go wrong: a short name in a seam's room, or `module:name`."""

import importlib
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mobjrec.errors import UserError
from mobjrec.problems import nearest
from mobjrec.types import Candidates, Corpus, Encoder, Labels, Loss, Metric, Model, Objective, Scorer, Weighting

# Where the short names of a seam are looked up.
ROOMS = {
    "data": "mobjrec.data.readers",
    "label": "mobjrec.data.labels",
    "split": "mobjrec.data.splits",
    "candidates": "mobjrec.data.candidates",
    "tokenizer": "mobjrec.data.tokens",
    "model": "mobjrec.models",
    "Encoder": "mobjrec.models",
    "Scorer": "mobjrec.models",
    "objective": "mobjrec.objectives",
    "Loss": "mobjrec.losses",
    "Metric": "mobjrec.metrics",
    "weighting": "mobjrec.weightings",
    "preference": "mobjrec.preferences",
    "optimizer": "mobjrec.optimizers",
}
# Annotations that take a nested block, and what a factory of another seam says that it returns.
SEAMS: dict[Any, str] = {
    Encoder: "Encoder",
    Scorer: "Scorer",
    Loss: "Loss",
    Metric: "Metric",
    Candidates: "candidates",
    Objective: "objective",
    Weighting: "weighting",
    Model: "model",
    Corpus: "data",
    Labels: "label",
}
# Seams whose functions are the thing itself; all others are factories of it.
THEMSELVES = ("Loss", "Metric")
PATH = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def lookup(seam: str, use: str) -> Callable[..., Any]:
    """The function that `use` names for a seam. UserError says what is not there and what is."""
    if seam not in ROOMS:
        raise ValueError(f"there is no seam {seam!r}; seams are {', '.join(ROOMS)}")
    function = _imported(use) if ":" in use else _in_room(seam, use)
    made = _returns(function)
    if made not in (None, seam):
        raise UserError(f"{use} makes `{made}`, but `{seam}` belongs here{_hint(use, seam)}")
    return function


def settled_by(seam: str, use: str) -> Callable[..., Any] | None:
    """The function NAME_settled that stands beside the one that `use` names, None where there is none."""
    function = lookup(seam, use)
    return getattr(sys.modules[function.__module__], f"{function.__name__}_settled", None)


def _in_room(seam: str, use: str) -> Callable[..., Any]:
    name = use.replace("-", "_")
    room = _module(ROOMS[seam])
    function = getattr(room, name, None) if name in getattr(room, "__all__", ()) else None
    if function is None or inspect.isclass(function) or not callable(function):
        raise UserError(f'there is no {seam} {use!r}{_hint(name, seam)} ("module:name" is one of your own)')
    return function


def _hint(name: str, seam: str) -> str:
    return nearest(name, names(seam), what="names") or f"; {ROOMS[seam]} has none"


def names(seam: str) -> list[str]:
    """The short names of a seam, sorted."""
    room = _module(ROOMS[seam])
    functions = {name: getattr(room, name, None) for name in getattr(room, "__all__", ())}
    usable = {name: one for name, one in functions.items() if callable(one) and not inspect.isclass(one)}
    made = (None,) if seam in THEMSELVES else (None, seam)
    return sorted(name for name, one in usable.items() if _returns(one) in made)


def short_name(seam: str | None, function: Callable[..., Any]) -> str:
    """How a config calls a function: its name in the seam's room, else its import path."""
    name = getattr(function, "__name__", "")
    if seam is not None:
        room = _module(ROOMS[seam])
        if name in getattr(room, "__all__", ()) and getattr(room, name, None) is function:
            return name
    return f"{function.__module__}:{name}"


def seam_of(annotation: Any) -> str | None:
    """The seam that an annotation, or one part of its union, stands for; None if it takes no nested block."""
    members = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    found = [SEAMS[one] for one in members if isinstance(one, type) and one in SEAMS]
    return found[0] if found else None


UNIONS = (types.UnionType, Union)


def _returns(function: Callable[..., Any]) -> str | None:
    """The seam that a factory says it makes; None for a loss, a metric, and what says nothing."""
    try:
        returned = get_type_hints(function).get("return")
    except Exception:
        return None
    return SEAMS.get(returned) if isinstance(returned, type) else None


def _imported(use: str) -> Callable[..., Any]:
    match = PATH.fullmatch(use)
    if match is None:
        raise UserError(f'found {use!r}; expected a short name or "module:name"')
    module, name = match["module"], match["name"]
    if name.startswith("_"):
        raise UserError(f"{name} of {module} is not public: its name begins with _")
    found = _module(module)
    function = getattr(found, name, None)
    if function is None:
        public = [key for key, one in vars(found).items() if callable(one) and not key.startswith("_")]
        raise UserError(f"{_file(found, module)} has no function {name}" + nearest(name, public, what="its names"))
    if inspect.isclass(function) or not callable(function):
        raise UserError(f"{use} is not a function; name one that returns what belongs here")
    return function


def _module(name: str) -> types.ModuleType:
    """The imported module. UserError if it is not there, or names the file and line that raised."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        # Last, so that no file of the user's stands in for a module of Python or of a library.
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            files = [path.stem for path in Path.cwd().glob("*.py")] if "." not in name else []
            hint = nearest(name, files, what="files here")
            raise UserError(f"there is no module {name}, here or installed{hint}") from error
        raise UserError(_raised(name, error)) from error
    except (Exception, SystemExit) as error:
        raise UserError(_raised(name, error)) from error


def _raised(name: str, error: BaseException) -> str:
    """Where and why the import of a module failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename or name}:{error.lineno} is not Python: {error.msg}"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    here = frames[-1] if len(frames) > 1 else None
    place = f"{here.filename}:{here.lineno}" if here is not None else name
    return f"the import of {name} failed at {place}: {type(error).__name__}: {error}"


def _file(module: types.ModuleType, name: str) -> str:
    return getattr(module, "__file__", None) or name
