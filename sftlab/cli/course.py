"""`sftlab run`, `lab`, `claims`, `cache` and `base`: the lessons, their runs and their models;
`site`, `slides` and `kit`: what is published of them; `progress` and `class`: what learners did."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import typer

from sftlab.cli.app import command, new_file


@command
def run(
    names: list[str] | None = None,
    all_: bool = False,
    parameter: list[str] | None = None,
    profile: str | None = None,
    out: Path = Path("build"),
    record_minutes: bool = False,
) -> None:
    from sftlab.course import parse_parameter, run_notebooks
    from sftlab.course import record_minutes as record

    if bool(names) == all_:
        raise ValueError("name the lessons to run, such as `sftlab run 00`, or say --all")
    parameters = dict(parse_parameter(text) for text in parameter or [])
    if profile is not None:
        parameters["profile"] = profile
    if record_minutes and parameters.get("profile", "tiny") != "tiny":
        raise ValueError("--record-minutes is for the profile tiny, whose minutes the lessons show")
    results = run_notebooks(names or [], parameters=parameters, folder=out)
    results = [result for result in results if result.status != "skipped"]
    if record_minutes and all(result.status == "passed" for result in results):
        print(f"Minutes recorded in {record(results)}")
    print(f"Open {(out / 'index.html').resolve()}")
    if any(result.status == "interrupted" for result in results):
        raise typer.Exit(130)
    if any(result.status != "passed" or result.failing_surprises for result in results):
        raise typer.Exit(1)


@command
def lab() -> None:
    from jupyterlab.labapp import main as open_lab

    from sftlab.paths import NOTEBOOKS, RECIPES

    folder = NOTEBOOKS.parent  # the lessons link to recipes beside them
    if NOTEBOOKS.name == "_notebooks":  # of a wheel: work on a copy, which later calls leave alone
        folder = Path("sftlab-course").resolve()
        if not folder.is_dir():
            shutil.copytree(RECIPES, folder / "recipes")
            shutil.copytree(NOTEBOOKS, folder / "notebooks")
    open_lab(
        [
            "--LabApp.news_url=None",  # JupyterLab asks for news and updates of its own accord
            "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
            "--LabApp.default_url=/lab/tree/notebooks",
            str(folder),
        ]
    )


@command
def site(out: Path = Path("build")) -> None:
    from sftlab.site import build_site

    print(f"Open {build_site(out).resolve()}")


@command
def slides(
    names: list[str] | None = None,
    from_: Path = Path("build"),
    out: Path = Path("build/site/slides"),
    pdf: bool = False,
) -> None:
    from sftlab.course import find_lessons
    from sftlab.site import write_deck, write_pdf

    executed = [from_ / "executed" / f"{one.name}.ipynb" for one in find_lessons(names or [])]
    for notebook in executed if names else filter(Path.is_file, executed):
        deck = write_deck(notebook, out)
        print(f"Open {(write_pdf(deck) if pdf else deck).resolve()}", flush=True)
    if not any(map(Path.is_file, executed)):
        raise ValueError(f"no executed lesson in {from_ / 'executed'}; make them: sftlab run --all")


@command
def claims(profile: str = "tiny") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from sftlab.course import between, in_unit, rows, stored_records

    found = rows(stored_records(profile))
    head = ("id", "claim", "lesson", "effect", "first expected", "verdict")
    shown = Table(*head, box=box.SIMPLE_HEAD)
    for row in found:
        effect = row["reason"]
        if row["parts"]:
            ends = between(row["low"], row["high"], row["unit"])
            effect = f"{in_unit(row['effect'], row['unit'])} ({ends})"
        cells = (row["id"], row["claim"], row["notebook"][:2], effect, row["expected"])
        shown.add_row(*cells, row["verdict"])
    Console(markup=False, width=None if sys.stdout.isatty() else 100).print(shown)
    for verdict, count in Counter(row["verdict"] for row in found).items():
        print(f"{count} {verdict}")


@command
def cache(clear: bool = False) -> None:
    from sftlab.sweeps import runs_folder, stored_runs

    runs, folder = stored_runs(), runs_folder()
    size = sum(file.stat().st_size for run in runs for file in run.glob("*"))
    for run in runs if clear else ():
        shutil.rmtree(run, ignore_errors=True)
    print(f"{len(runs):,} runs, {size / 1e6:.1f} MB, {'deleted from' if clear else 'in'} {folder}")


@command
def progress(action: str = "show", out: Path | None = None) -> None:
    from sftlab.course import progress_folder

    mark, file = (progress_folder() / name for name in ("on", "progress.jsonl"))
    if action not in ("on", "off", "show", "delete") or (out and action != "show"):
        raise ValueError(f"say on, off, show or delete, and --out with show alone; got {action!r}")
    if action == "on":
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    elif action != "show":
        mark.unlink(missing_ok=True)
    if action == "delete":
        file.unlink(missing_ok=True)
    if out:
        shutil.copyfile(file, new_file(out))
    elif action == "show" and file.is_file():
        class_([file])
    state = "on" if mark.is_file() else "off; `sftlab progress on` starts it"
    print(f"Progress is {state}. {'Kept' if file.is_file() else 'Nothing is kept yet'} in {file}")


@command
def class_(files: list[Path], names: bool = False, out: Path | None = None) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from sftlab.exercises import class_report

    page = new_file(out) if out else None
    report = class_report(files, names=names)
    Console(width=None if sys.stdout.isatty() else 100).print(Markdown(report.markdown))
    if page:
        page.write_text(report.html, encoding="utf-8")
        print(f"Open {page.resolve()}")


@command
def kit(out: Path = Path("kit"), wheel: Path | None = None) -> None:
    from sftlab.site import write_kit

    print(f"Read {write_kit(new_file(out), wheel=wheel).resolve() / 'teaching.md'}")


@command
def base(names: list[str] | None = None, card_only: bool = False) -> None:
    from sftlab.course import write_card
    from sftlab.paths import DATA
    from sftlab.show import plot_card
    from sftlab.world import EARLY, RECIPES, train_all

    chosen = names or list(RECIPES)
    if unknown := set(chosen) - set(RECIPES):
        raise ValueError(f"no recipe for {', '.join(unknown)}; there are: {', '.join(RECIPES)}")
    if not card_only:
        train_all(chosen)
    for name in [*chosen, *([EARLY[0]] if EARLY[1] in chosen else [])]:
        folder = DATA / "models" / name
        print(f"measuring {name}")
        measures = write_card(name, folder)
        missed = [f"{m.what} ({m.part})" for m in measures if m.met is False]
        print(f"{name}: " + (f"bars missed: {'; '.join(missed)}" if missed else "bars met"))
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        plot_card(card).save(folder / "journey.png")
