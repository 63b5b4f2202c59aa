"""`sftlab run`, `lab`, `claims` and `cache`: the lessons, and what is kept of their runs."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100
_COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}


def console() -> Console:
    """The terminal, at most 100 columns wide; a file or a pipe has no width and gets 100."""
    found = Console()
    return Console(width=min(WIDTH, found.width) if found.is_terminal else WIDTH)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Lessons, by name or number. See also --all.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every lesson, in order.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--parameter", metavar="NAME=VALUE", help="Set a parameter of the lessons."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="The model to run on: tiny, small, a folder, or a hub id."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pages.")] = Path("build"),
    record_minutes: Annotated[
        bool, typer.Option("--record-minutes", help="Keep the minutes for the lessons to show.")
    ] = False,
) -> None:
    """Run lessons from top to bottom and write a page for each.

    \b
    For example:
      sftlab run 00                      the first lesson
      sftlab run --all                   the whole course
      sftlab run 01 -p seeds=3           with fewer repetitions
      sftlab run 01 --profile small      on the larger of the models that ship here

    The exit code is 1 when a lesson fails, or when it was run as it stands on a model that ships
    here and a claim comes out as the opposite of what the lesson expects.
    """
    from sftlab.course import parse_parameter, run_notebooks
    from sftlab.course import record_minutes as record

    if not names and not every:
        raise ValueError("name the lessons to run, such as `sftlab run 00`, or say --all")
    if names and every:
        raise ValueError("name lessons or say --all, not both")
    parameters = dict(parse_parameter(text) for text in parameter or [])
    if profile is not None:
        parameters["profile"] = profile
    changed = [name for name, value in parameters.items() if (name, value) != ("profile", "tiny")]
    if record_minutes and changed:
        raise ValueError(
            "--record-minutes keeps the minutes of the lessons as they stand, on the profile tiny; "
            f"run them without {', '.join(changed)}, or leave the option out"
        )
    results = run_notebooks(names or [], parameters=parameters, folder=out)
    if record_minutes and all(result.status == "passed" for result in results):
        typer.echo(f"Minutes recorded in {record(results)}")
    typer.echo(f"Open {(out / 'index.html').resolve()}")
    if any(result.status == "interrupted" for result in results):
        raise typer.Exit(130)
    if any(result.status != "passed" or result.failing_surprises for result in results):
        raise typer.Exit(1)


def lab() -> None:
    """Open the lessons in JupyterLab, to work in them.

    \b
    For example:
      sftlab lab

    In a clone the lessons open where they are. Installed from a wheel they are copied to
    ./sftlab-notebooks first; a lesson that is already there is yours and stays as it is.
    """
    from sftlab.paths import NOTEBOOKS

    folder = NOTEBOOKS
    if NOTEBOOKS.name == "_notebooks":
        folder = Path("sftlab-notebooks").resolve()
        kept = copy_lessons(NOTEBOOKS, folder)
        typer.echo(f"The lessons are in {folder}" + (f"; kept yours: {len(kept)}" if kept else ""))
    quiet = [
        "--LabApp.news_url=None",  # JupyterLab asks for news and updates of its own accord
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    command = [sys.executable, "-m", "jupyterlab", *quiet, str(folder)]
    raise typer.Exit(_call_patiently(command))


def _call_patiently(command: list[str]) -> int:
    """Run a program to its own end, also after Ctrl-C; returns its exit code.

    Ctrl-C reaches both processes. JupyterLab then asks whether to stop and saves what is open;
    `subprocess.call` would kill it after a quarter of a second.
    """
    # A handler of Python's, unlike SIG_IGN, isn't passed on: the program gets the default.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.Popen(command).wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code  # ended by a signal, in the way of shells


def copy_lessons(source: Path, target: Path) -> list[str]:
    """Copy the files of `source` that `target` lacks; returns the names that it had already."""
    target.mkdir(parents=True, exist_ok=True)
    kept = []
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(exist_ok=True)
        elif place.exists():
            kept.append(place.name)
        else:
            shutil.copyfile(file, place)
    return kept


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
        found = rows(stored_records(profile))
        typer.echo(json.dumps([{k: row[k] for k in COLUMNS} for row in found], indent=2))
        return
    _print_claims(rows(stored_records(profile)), profile)


def _print_claims(rows: list[dict], profile: str) -> None:
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
            effect, runs, Text(row["verdict"], style=_COLOURS.get(row["verdict"], "dim")),
        )  # fmt: skip
    out = console()
    out.print(table)
    measured = [row["verdict"] for row in rows if row["parts"]]
    counts = [f"{measured.count(verdict)} {verdict}" for verdict in _COLOURS if verdict in measured]
    counted = f": {', '.join(counts)}" if counts else ""
    typer.echo(f"{len(measured)} of {len(rows)} measured on {profile}{counted}")
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row["parts"]:
            reasons.setdefault(row["reason"], []).append(row["id"])
    for reason, ids in reasons.items():
        out.print(Text(f"{', '.join(ids)}: {reason}"), style="dim")


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
    console().print(table)
