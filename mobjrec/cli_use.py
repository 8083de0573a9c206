"""The commands that take a trained run elsewhere: `mobjrec export`, and over many pairs: `mobjrec score`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mobjrec import arguments
from mobjrec.arguments import RunFolder
from mobjrec.errors import UserError, meant

app = typer.Typer()
FORMATS = ("stablehlo", "sentence-transformers")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="a new folder", metavar="FOLDER")],
    format: Annotated[str, typer.Option(help="stablehlo, or sentence-transformers: the text encoder alone")] = FORMATS[
        0
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="large matrices in 8 bits; measures the test split with and without")
    ] = False,
) -> None:
    """Write a trained run as a folder that opens without mobjrec."""
    if format not in FORMATS:
        raise UserError(f"--format {format}: there are {', '.join(FORMATS)}{meant(format, FORMATS)}")
    if int8 and format != FORMATS[0]:
        raise UserError(f"--int8 is for --format {FORMATS[0]}; {format} reads floating-point weights alone")
    from mobjrec import cost, export, hugging
    from mobjrec.rank import load

    trained = load(run, arguments.cache())
    sizes = export.write(trained, out, int8) if format == FORMATS[0] else hugging.write(trained, out)
    arguments.shown(export.listed(out, sizes))
    if int8:
        arguments.shown(cost.table(cost.measured(trained)))


@app.command()
def score(
    run: RunFolder,
    pairs: Annotated[
        Path, typer.Argument(help="a Parquet file with the columns user and item", metavar="PAIRS.parquet")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the Parquet file to write", metavar="OUT.parquet")],
    prefer: Annotated[str | None, typer.Option(help="click=0.7,satisfied=0.3")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Score pairs of users and items: the file with a column for each objective, and the utility."""
    from mobjrec.pairs import scored
    from mobjrec.rank import load

    rows = scored(load(run, arguments.cache()), pairs, out, arguments.numbers(prefer))
    print(json.dumps({"rows": rows, "out": str(out)}) if as_json else f"{out}: {rows} pairs scored")
