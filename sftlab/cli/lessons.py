"""`sftlab run` and `sftlab lab`: the lessons, from top to bottom or to work in."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


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
