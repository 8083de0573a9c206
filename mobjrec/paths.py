"""Where the files lie that a config names: beside the config's own file, else below the working directory.

A settled config holds absolute paths, so what was printed or trained works from any folder.
"""

import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from mobjrec.errors import UserError
from mobjrec.lookup import lookup
from mobjrec.problems import KeyPath

# Weights that are no folder: from scratch, and those that `mobjrec data get` puts in place.
NAMED = ("", "minilm")


def located(data: Mapping[str, Any], places: Mapping[KeyPath, str]) -> dict[str, Any]:
    """A config's plain data with absolute paths: settings of `data` annotated Path, and folders of `weights` that exist.

    places: "file:line" by key path; what stands in no file, an override or a mapping, counts from the working directory.
    What is no path, or may not be, stays for those who check it.
    """
    found = dict(data)
    block = data.get("data")
    if isinstance(block, Mapping):
        paths = {name: block.get(name, default) for name, default in _paths(block.get("use")).items()}
        settings = {name: one.default for name, one in _parameters(block.get("use")).items()} | dict(block)
        named = [value for name, value in settings.items() if isinstance(value, str) and name not in ("use", *paths)]
        found["data"] = dict(block) | {
            name: _absolute(str(value), folders(places, ("data", name)), named)
            for name, value in paths.items()
            if isinstance(value, str | Path) and str(value) and "\0" not in str(value)
        }
    for key in ("model", "tokenizer"):
        if isinstance(data.get(key), Mapping):
            found[key] = _weighed(data[key], (key,), places)
    return found


def folders(places: Mapping[KeyPath, str], path: KeyPath) -> tuple[Path, ...]:
    """The folders that a setting's path counts from, the first where it exists: that of its file, the working directory."""
    place = next((places[path[:length]] for length in range(len(path), 0, -1) if path[:length] in places), "")
    file, _, line = place.rpartition(":")
    return (Path(file).parent, Path()) if file and line.isdigit() else (Path(),)


def _absolute(value: str, bases: Iterable[Path], named: list[str]) -> str:
    """The path from the first base where it is there, else from the last."""
    path = ""
    for base in bases:
        path = os.path.abspath(base / value)
        # A config's own folder is always there: it is meant where a file lies in it that the block names.
        own = os.path.normpath(value) == "."
        if any(os.path.isfile(os.path.join(path, name)) for name in named) if own and named else os.path.exists(path):
            return path
    return path


def _weighed(block: Mapping[str, Any], path: KeyPath, places: Mapping[KeyPath, str]) -> dict[str, Any]:
    """The block with the folders of `weights` in it, at any depth, absolute where they exist."""
    found = {}
    for name, value in block.items():
        if isinstance(value, Mapping):
            value = _weighed(value, (*path, name), places)
        elif name == "weights" and isinstance(value, str) and value not in NAMED and "\0" not in value:
            whole = _absolute(value, folders(places, (*path, name)), [])
            value = whole if os.path.isdir(whole) else value
        found[name] = value
    return found


def _paths(use: Any) -> dict[str, Any]:
    """{argument: default} of a reader's arguments that are paths."""
    return {name: one.default for name, one in _parameters(use).items() if _is_path(one.annotation)}


def _parameters(use: Any) -> Mapping[str, inspect.Parameter]:
    """A reader's parameters; none where there is no such reader, which others tell."""
    try:
        return inspect.signature(lookup("data", use), eval_str=True).parameters if isinstance(use, str) else {}
    except (UserError, ValueError, TypeError, NameError):
        return {}


def _is_path(annotation: Any) -> bool:
    members = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    return Path in members
