"""The commands that train many times: `mobjrec sweep` over preferences, `mobjrec tune` over settings."""

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


@app.command()
def tune(
    config: ConfigFile,
    changes: Changes = None,
    trials: Annotated[int, typer.Option(metavar="N", help="so many in all, those there are counted")] = 20,
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=LOW..HIGH", help="what to change, also KEY=LOW..HIGH:log, KEY=A|B|C; to be repeated"),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="the same from a YAML file")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="validation metrics to raise, click/ndcg@5,utility:click/auc")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="the folder of all trials; tuned/<file name> by default")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of what is proposed; the config's own `seed` stays")] = 0,
    whole: Annotated[bool, typer.Option("--whole", help="end no trial early")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Search for settings (by default weights and learning rate) with Optuna; goes on where it stopped."""
    path, found = arguments.config(config, changes)
    from mobjrec import space as spaces
    from mobjrec import tune as tuning

    if space is not None and search:
        raise UserError("--space and --search exclude each other; write all of it into the file, or into options")
    asked = spaces.from_file(space) if space is not None else spaces.told(search) if search else None
    wanted = tuple(key.strip() for key in metrics.split(",")) if metrics is not None else ()
    folder = run or Path("tuned") / path.stem
    say = (lambda text: None) if as_json else lambda text: print(text, flush=True)
    told = tuning.run(
        found, folder, arguments.cache(), trials, space=asked, metrics=wanted, prune=not whole, seed=seed, say=say
    )
    print(json.dumps(told)) if as_json else arguments.shown(tuning.table(told, folder))
