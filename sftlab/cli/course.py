"""`sftlab run`, `lab`, `claims`, `cache` and `base`: the lessons, their runs and their models."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import typer
from rich.text import Text

from sftlab.cli.app import command, say, table

_COLOURS = {"supported": "green", "contradicted": "red", "inconclusive": "yellow"}


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

    if not names and not all_:
        raise ValueError("name the lessons to run, such as `sftlab run 00`, or say --all")
    if names and all_:
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
        say(f"Minutes recorded in {record(results)}")
    say(f"Open {(out / 'index.html').resolve()}")
    if any(result.status == "interrupted" for result in results):
        raise typer.Exit(130)
    if any(result.status != "passed" or result.failing_surprises for result in results):
        raise typer.Exit(1)


@command
def lab() -> None:
    from jupyterlab.labapp import main as open_lab

    from sftlab.paths import NOTEBOOKS

    folder = NOTEBOOKS
    if NOTEBOOKS.name == "_notebooks":
        folder = Path("sftlab-notebooks").resolve()
        kept = copy_lessons(NOTEBOOKS, folder)
        say(f"The lessons are in {folder}" + (f"; kept yours: {len(kept)}" if kept else ""))
    open_lab(
        [
            "--LabApp.news_url=None",  # JupyterLab asks for news and updates of its own accord
            "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
            str(folder),
        ]
    )


def copy_lessons(source: Path, target: Path) -> list[str]:
    """Copy the files of `source` that `target` lacks; returns the names that it had already."""
    kept = []

    def copy(file: str, place: str) -> None:
        if Path(place).exists():
            kept.append(Path(place).name)
        else:
            shutil.copyfile(file, place)

    shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)
    return sorted(kept)


@command
def claims(profile: str = "tiny", json_: bool = False) -> None:
    from sftlab.course import COLUMNS, between, in_unit, rows, stored_records

    found = rows(stored_records(profile))
    if json_:
        say([{name: row[name] for name in COLUMNS} for row in found])
        return
    measured, reasons = [], defaultdict(list)
    shown = table(
        {"header": "id", "no_wrap": True}, {"header": "claim", "ratio": 1},
        {"header": "from", "no_wrap": True}, {"header": "lesson", "no_wrap": True},
        {"header": "effect", "width": 23}, {"header": "seeds × items", "width": 7},
        {"header": "verdict", "width": 12}, padding=(0, 1), collapse_padding=True, expand=True,
    )  # fmt: skip
    for row in found:
        effect, runs, verdict = "", "", row["verdict"]
        if row["parts"]:
            measured.append(verdict)
            ends = between(row["low"], row["high"], row["unit"])
            effect = f"{in_unit(row['effect'], row['unit'])} ({ends})"
            runs = f"{row['seeds']} × {row['items']}"
        else:
            reasons[row["reason"]].append(row["id"])
        source, lesson = row["source"].replace(" ", ""), row["notebook"][:2]
        styled = Text(verdict, style=_COLOURS.get(verdict, "dim"))
        shown.add_row(row["id"], Text(row["claim"]), source, lesson, effect, runs, styled)
    counts = [f"{measured.count(verdict)} {verdict}" for verdict in _COLOURS if verdict in measured]
    counted = f": {', '.join(counts)}" if counts else ""
    say(shown, f"{len(measured)} of {len(found)} measured on {profile}{counted}")
    say(*(Text(f"{', '.join(ids)}: {reason}", style="dim") for reason, ids in reasons.items()))


@command
def cache(clear: bool = False) -> None:
    from sftlab.sweeps import runs_folder

    folder = runs_folder()
    runs = len(list(folder.glob("*/run.json")))
    size = sum(file.stat().st_size for file in folder.glob("*/*"))
    if clear:
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{runs:,} runs, {size / 1e6:.1f} MB, {'deleted from' if clear else 'in'} {folder}")


@command
def base(names: list[str] | None = None, card_only: bool = False) -> None:
    from sftlab.course import write_card
    from sftlab.paths import DATA
    from sftlab.show import plot_card
    from sftlab.world import EARLY, RECIPES, train_all

    if unknown := set(names or []) - set(RECIPES):
        raise ValueError(f"no recipe for {', '.join(unknown)}; there are: {', '.join(RECIPES)}")
    chosen = names or list(RECIPES)
    if not card_only:
        train_all(chosen)
    for name in [*chosen, *([EARLY[0]] if EARLY[1] in chosen else [])]:
        folder = DATA / "models" / name
        say(f"measuring {name}")
        measures = write_card(name, folder)
        missed = [f"{m.what} ({m.part})" for m in measures if m.met is False]
        say(f"{name}: " + (f"bars missed: {'; '.join(missed)}" if missed else "bars met"))
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        plot_card(card).save(folder / "journey.png")
