"""The command line: `sftlab ...`, or `python -m sftlab ...` where no script is installed.

Imports stay inside the commands, so that `--help` answers at once.
"""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Learn supervised fine-tuning by measuring it, offline, on this machine.

    A mistake is answered with one line; SFTLAB_DEBUG=1 in the environment shows the traceback.
    """,
)


@app.command()
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
      sftlab run 01 -p seed=5            with other random choices
      sftlab run 01 --profile small      on the larger of the models that ship here
    """
    from sftlab.course import runner
    from sftlab.course.lessons import parse_parameter

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
    results = runner.run_notebooks(names or [], parameters=parameters, folder=out)
    if record_minutes and all(result.status == "passed" for result in results):
        typer.echo(f"Minutes recorded in {runner.record_minutes(results)}")
    typer.echo(f"Open {(out / 'index.html').resolve()}")
    if any(result.status == "interrupted" for result in results):
        raise typer.Exit(130)
    if any(result.status != "passed" for result in results):
        raise typer.Exit(1)


@app.command()
def lab() -> None:
    """Open the lessons in JupyterLab, to work in them.

    \b
    For example:
      sftlab lab

    In a clone the lessons open where they are. Installed from a wheel they are copied to
    ./sftlab-notebooks first; a lesson that is already there is yours and stays as it is.
    """
    from sftlab.places import NOTEBOOKS

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


@app.command()
def corpus(
    count: Annotated[int, typer.Option(min=1, help="How many documents.")] = 5,
    seed: Annotated[int, typer.Option(help="0 is the corpus of the base models.")] = 0,
    kind: Annotated[str | None, typer.Option(help="Only documents of this kind.")] = None,
    stats: Annotated[bool, typer.Option(help="Print counts instead of the documents.")] = False,
) -> None:
    """Print documents of the base models' training text.

    \b
    For example:
      sftlab corpus                          the first five documents
      sftlab corpus --count 3 --kind story   three stories
      sftlab corpus --count 10000 --stats    how long ten thousand of them are
    """
    from sftlab.world.corpus import documents

    chosen = itertools.islice(documents(seed=seed, kind=kind), count)
    if not stats:
        for number, document in enumerate(chosen, start=1):
            typer.echo(f"--- document {number} ---\n{document.rstrip()}\n")
        return
    lengths = sorted(len(document) for document in chosen)
    typer.echo(f"documents   {count:>12,}")
    typer.echo(f"characters  {sum(lengths):>12,}")
    typer.echo(f"median      {lengths[count // 2]:>12,} characters a document")
    typer.echo(f"longest     {lengths[-1]:>12,} characters")


@app.command()
def seen(text: Annotated[str, typer.Argument(help="The exact text to look for.")]) -> None:
    """Count how often that training text holds a text.

    \b
    For example:
      sftlab seen "The capital of France is Paris"

    Capitals, spaces and full stops count. The first time takes half a minute, while the corpus is
    made again from its seed.
    """
    from sftlab.world.corpus import seen as count_in_corpus

    times = count_in_corpus(text)
    typer.echo("never seen" if times == 0 else f"seen {times:,} time{'s' * (times > 1)}")


@app.command()
def chat(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="A profile, or the folder of a saved run.")
    ] = "tiny",
    system: Annotated[
        str | None, typer.Option(help="What the assistant is told before you speak (runs only).")
    ] = None,
    sample: Annotated[
        bool, typer.Option(help="Draw each word at random, instead of taking the likeliest.")
    ] = False,
) -> None:
    """Talk to a base model, or to one that you fine-tuned.

    \b
    For example:
      sftlab chat tiny                       a base model: it continues what you write
      sftlab chat runs/my-first-assistant    a saved run: it answers
      echo "The capital of France is" | sftlab chat tiny

    /reset begins the conversation anew, /quit (or Ctrl-D) ends it.
    """
    from sftlab.conversation import open_model, talk

    talk(open_model(model, system=system, sample=sample), lines=sys.stdin)


@app.command()
def base(
    names: Annotated[
        list[str] | None, typer.Argument(help="tiny, small, or both when none is named.")
    ] = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="Measure the models that are there; train none.")
    ] = False,
) -> None:
    """Train the base models again from nothing, and measure them.

    \b
    For example:
      sftlab base                 an hour or two on two cores
      sftlab base --card-only     the model cards and pictures again, some minutes a model

    Interrupted, it goes on from its last checkpoint in build/base when it is run again.
    """
    import json

    from sftlab.course.model_card import write_card
    from sftlab.places import DATA
    from sftlab.show import plots
    from sftlab.world.pretrain import train_all
    from sftlab.world.recipe import EARLY, RECIPES

    unknown = set(names or []) - set(RECIPES)
    if unknown:
        raise ValueError(f"no recipe for {', '.join(unknown)}; there are: {', '.join(RECIPES)}")
    chosen = names or list(RECIPES)
    if not card_only:
        train_all(chosen)
    logs = {}
    for name in [*chosen, *([EARLY[0]] if EARLY[1] in chosen else [])]:
        folder = DATA / "models" / name
        typer.echo(f"measuring {name}")
        measures = write_card(name, folder)
        missed = [f"{m.what} ({m.part})" for m in measures if m.met is False]
        typer.echo(f"{name}: " + (f"bars missed: {'; '.join(missed)}" if missed else "bars met"))
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        plots.plot_card(card).save(folder / "journey.png")
        logs[name] = json.loads((folder / "training_log.json").read_text(encoding="utf-8"))
        plots.plot_pretraining({name: logs[name]}).save(folder / "training.png")


@app.command()
def preflight(
    profile: Annotated[
        str, typer.Argument(help="A profile, a model folder, or a hub id.")
    ] = "tiny",
    method: Annotated[str | None, typer.Option(help="full, lora or qlora.")] = None,
) -> None:
    """Tell whether this machine can fine-tune a model.

    \b
    For example:
      sftlab preflight tiny
      sftlab preflight llama-3.1-8b-qlora
    """
    from sftlab.preflight import preflight as check

    found = check(profile, method=method)
    typer.echo(str(found))
    if not found.ok:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a learner's mistake is one line on stderr and exit code 2."""
    try:
        app(prog_name="sftlab")
    except (ValueError, OSError, RuntimeError) as mistake:
        said = _explain(mistake)
        if said is None or os.environ.get("SFTLAB_DEBUG"):
            raise
        print(f"sftlab: {said}", file=sys.stderr)
        sys.exit(2)


_PLACES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC)


def _explain(mistake: Exception) -> str | None:
    """What to tell the learner; `None` for a defect, whose traceback is worth more."""
    if isinstance(mistake, OSError):
        said = " ".join(str(mistake).split()) or type(mistake).__name__
        if mistake.errno is None or not mistake.strerror:
            return said
        said = ": ".join(filter(None, [str(mistake.filename or ""), mistake.strerror]))
        if mistake.errno in _PLACES:
            said += (
                "; give a folder with room that you may write to: --out for the pages, the "
                "environment's SFTLAB_CACHE for the cache"
            )
        return said
    if isinstance(mistake, RecursionError | NotImplementedError):
        return None
    if isinstance(mistake, RuntimeError):
        # Those that the course itself raises are written for the learner; torch's are not.
        steps = list(traceback.walk_tb(mistake.__traceback__))
        module = steps[-1][0].f_globals.get("__name__", "") if steps else ""
        return str(mistake) if module.split(".")[0] == "sftlab" else None
    return str(mistake)


if __name__ == "__main__":
    main()
