"""`sftlab validate`: whether a file of examples can be trained on."""

from pathlib import Path
from typing import Annotated

import typer


def validate(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV, TSV or Parquet.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, for programs.")
    ] = False,
    good: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the good rows here, as JSONL.")
    ] = None,
    bad: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the bad rows here, each with its problems."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many problems to show.")] = 20,
) -> None:
    """Check a file of examples, row by row, and tell what is wrong and how to mend it.

    \b
    For example:
      sftlab validate my.jsonl
      sftlab validate my.jsonl --good clean.jsonl --bad rejected.jsonl
      sftlab validate my.csv --json

    Rows may have messages, conversations (ShareGPT), prompt and completion, or instruction, input
    and output. The exit code is 0 when all is well, 1 when something is wrong, 2 when the file
    can't be read at all.
    """
    from sftlab.data import validate as check

    report = check(file, limit=limit, good=good, bad=bad)
    if as_json:
        import json

        typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(1)
