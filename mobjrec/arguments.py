"""What commands share: arguments and options, and what they mean."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mobjrec.errors import UserError

ConfigFile = Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped config", metavar="CONFIG")]
Changes = Annotated[list[str] | None, typer.Argument(help="settings to change: a.b.c=value", metavar="[KEY=VALUE]...")]
RunFolder = Annotated[Path, typer.Argument(help="a run folder", metavar="RUN")]


def config(name: str, changes: list[str] | None) -> tuple[Path, Any]:
    """The file and the settled config that a name and changes mean."""
    from mobjrec import shipped
    from mobjrec.defaults import load

    path = shipped.config(name)
    return path, load(path, changes or ())


def cache() -> Path:
    """Where what is made of data is kept."""
    from mobjrec.data.download import cache_folder

    return cache_folder()


def pairs(text: str, option: str, example: str) -> dict[str, str]:
    """{NAME: VALUE} of "NAME=VALUE,NAME=VALUE". UserError for other forms and a name that comes twice."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if name in found:
            raise UserError(f"{option} {text}: {name} is given twice; keep one")
        if not (name and equals and value):
            raise UserError(f"{option} {text}: {pair!r} is not {example}")
        found[name] = value
    return found


def numbers(text: str | None, option: str = "--prefer") -> dict[str, float] | None:
    """{NAME: NUMBER} of "click=0.7,satisfied=0.3"; None for None. UserError for other forms."""
    if text is None:
        return None
    example, found = "NAME=NUMBER; write click=0.7,satisfied=0.3", {}
    for name, value in pairs(text, option, example).items():
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"{option} {text}: {name + '=' + value!r} is not {example}") from None
    return found


def shown(what: Any) -> None:
    """Print what rich can."""
    from rich.console import Console

    # What is not to be wrapped is not to be cut either.
    Console().print(what, crop=False)
