"""The commands about many preferences: `mobjrec sweep`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mobjrec import arguments
from mobjrec.arguments import Changes, ConfigFile
from mobjrec.errors import UserError

app = typer.Typer()


@app.command()
def sweep(
    config: ConfigFile,
    changes: Changes = None,
    preferences: Annotated[
        int | None, typer.Option(metavar="N", help="so many preferences, evenly over all; 11 by default")
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(help="a preference, click=1,satisfaction=2; to be repeated, in place of N")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="the folder of all runs; sweeps/<file name> by default")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="what measures an objective, click=ndcg@5; may be repeated")
    ] = None,
    wish: Annotated[str | None, typer.Option(help="name the run nearest to click=1,satisfaction=1")] = None,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="never several runs in one program: less memory, more time")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Train a config for many preferences and show the front of them; goes on where it stopped."""
    if preferences is not None and prefer:
        raise UserError(
            "--preferences and --prefer exclude each other; give a number of preferences or each one of them"
        )
    asked = [arguments.numbers(one) for one in prefer] if prefer else 11 if preferences is None else preferences
    wished = arguments.numbers(wish, "--wish")
    example = "NAME=METRIC; write click=ndcg@5"
    metrics: dict[str, str] = {}
    for one in metric or ():
        metrics |= arguments.pairs(one, "--metric", example)
    path, found = arguments.config(config, changes)
    from mobjrec import sweep as sweeping
    from mobjrec import swept

    if wished is not None:
        sweeping.shares(tuple(found.objectives), wished, "--wish")
    folder = run or Path("sweeps") / path.stem
    told = sweeping.run(found, folder, arguments.cache(), asked, metrics=metrics, one_by_one=one_by_one)
    if as_json:
        print(json.dumps(told if wished is None else told | {"nearest": swept.nearest_run(told, wished)}))
    else:
        arguments.shown(swept.table(told, folder, wished))
