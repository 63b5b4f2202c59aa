"""`sftlab claims` and `sftlab cache`: what was measured, and what is kept of it."""

from typing import Annotated

import typer

WIDTH = 100
COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}


def claims(
    profile: Annotated[
        str, typer.Option(help="The model that the claims were measured on.")
    ] = "tiny",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every column of every claim, for programs.")
    ] = False,
) -> None:
    """Print the claims of the articles with what the lessons measured on this machine.

    \b
    For example:
      sftlab claims                    the table
      sftlab claims --profile small    as measured on another model
      sftlab claims --json             the same for programs: null where nothing is measured

    A lesson enters its claims when it runs, here or in JupyterLab.
    """
    from sftlab.course import COLUMNS, rows, stored_records

    if as_json:
        import json

        found = rows(stored_records(profile))
        typer.echo(json.dumps([{k: row[k] for k in COLUMNS} for row in found], indent=2))
        return
    _print_claims(rows(stored_records(profile)), profile)


def _print_claims(rows: list[dict], profile: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from sftlab.course import between, in_unit

    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True, expand=True
    )
    table.add_column("id", no_wrap=True)
    table.add_column("claim", ratio=1)
    table.add_column("from", no_wrap=True)
    table.add_column("lesson", no_wrap=True)
    table.add_column("effect", width=23)
    table.add_column("seeds × items", width=7)
    table.add_column("verdict", width=12)
    for row in rows:
        effect, runs = "", ""
        if row["parts"]:
            ends = between(row["low"], row["high"], row["unit"])
            effect = f"{in_unit(row['effect'], row['unit'])} ({ends})"
            runs = f"{row['seeds']} × {row['items']}"
        table.add_row(
            row["id"], Text(row["claim"]), row["source"].replace(" ", ""), row["notebook"][:2],
            effect, runs, Text(row["verdict"], style=COLOURS.get(row["verdict"], "dim")),
        )  # fmt: skip
    console = _console()
    console.print(table)
    measured = [row["verdict"] for row in rows if row["parts"]]
    counts = [f"{measured.count(verdict)} {verdict}" for verdict in COLOURS if verdict in measured]
    told = f": {', '.join(counts)}" if counts else ""
    typer.echo(f"{len(measured)} of {len(rows)} measured on {profile}{told}")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row["parts"]:
            reasons.setdefault(row["reason"], []).append(row["id"])
    for reason, ids in reasons.items():
        console.print(Text(f"{', '.join(ids)}: {reason}"), style="dim")


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete the runs that are kept.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="With --clear: only runs older than this."),
    ] = None,
) -> None:
    """Show the runs that sweeps keep, so that nothing is trained twice; or delete them.

    \b
    For example:
      sftlab cache                            what is kept, and how large it is
      sftlab cache --clear                    delete all of it
      sftlab cache --clear --older-than 30    delete what is older than a month

    What is deleted is trained again when a lesson needs it. Recorded claims stay.
    """
    from sftlab import sweeps

    if older_than is not None and not clear:
        raise ValueError("--older-than says what to delete: write --clear as well")
    before = sweeps.stored()
    if clear:
        removed = sweeps.clear(older_than_days=older_than)
        freed = int(before["bytes"].sum()) - int(sweeps.stored()["bytes"].sum())
        typer.echo(f"{_runs(removed)} deleted, {freed / 1e6:.1f} MB freed")
        return
    if len(before) == 0:
        typer.echo("no runs are kept; a lesson that sweeps fills this")
        return
    _print_runs(before)
    kept = f"{_runs(len(before))}, {before['bytes'].sum() / 1e6:.1f} MB"
    typer.echo(f"{kept}, {before['seconds'].sum() / 60:.1f} minutes of work")


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"


def _print_runs(frame) -> None:
    """One line for the runs that share profile, settings and measures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("profile", "settings", "measures"):
        table.add_column(name, overflow="fold")
    for name in ("runs", "seconds", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("newest", no_wrap=True)
    kinds = ["profile", "settings", "measures"]
    for kind, runs in frame.groupby(kinds, sort=False, dropna=False):
        table.add_row(
            *(Text(str(value)) for value in kind),
            f"{len(runs):,}",
            f"{runs['seconds'].sum():.1f}",
            f"{runs['bytes'].sum() / 1e6:.1f}",
            f"{runs['when'].max():%Y-%m-%d %H:%M}",
        )
    _console().print(table)


def _console():
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width: rich would take 80
        return Console(width=WIDTH)
    return Console(width=min(WIDTH, console.width))
