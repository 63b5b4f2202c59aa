"""Execute lessons and leave what a reader wants: pages, an index, a summary.

    build/
      index.html            every lesson with its promise, minutes and status
      00_start_here.html    a page per lesson, readable without a network
      executed/*.ipynb      the executed notebooks
      claims.json           the claims ledger: a row a claim, with parts, profile and parameters
      summary.json          minutes, status, machine, versions

Each notebook runs in a process of its own (`execution.py`), one after another, so that its minutes
are its own.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftlab.course.execution import Result, execute
from sftlab.course.lessons import choose_parameters, find_lessons
from sftlab.course.records import Record
from sftlab.paths import DATA, NOTEBOOKS
from sftlab.profiles import find_profile


def run_notebooks(
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    folder: Path | str = "build",
    notebooks: Path = NOTEBOOKS,
    progress: bool = True,
) -> list[Result]:
    """Execute the lessons `names` (all of `notebooks` when empty) and write pages to `folder`.

    Names, parameters and the profile are checked before anything runs. A failing cell stops its
    notebook and is printed to stderr, as is a verdict that is the opposite of what the lesson
    expects; the others still run. Ctrl-C stops what is running, keeps what is finished and returns.
    Raises `UnknownLessonError`, `UnknownParameterError` or `UnknownProfileError`, all of them
    ValueErrors.
    """
    from sftlab.course import index, pages

    lessons = find_lessons(names, folder=notebooks)
    parameters = dict(parameters or {})
    if "profile" in parameters:
        profile = find_profile(parameters["profile"])
        if not profile.embedded and not profile.on_hub:
            # A lesson runs in a folder of its own, where a relative path would lead elsewhere.
            parameters["profile"] = str(Path(profile.source).resolve())
    chosen = choose_parameters(lessons, parameters)
    folder = Path(folder).resolve()
    (folder / "executed").mkdir(parents=True, exist_ok=True)
    results = [Result(lesson=lesson, parameters=chosen[lesson.name]) for lesson in lessons]
    with _Bar(shown=progress) as bar:
        for result in results:
            execute(result, folder=folder, on_cell=bar.cells_of(result.name))
            if result.executed:
                result.page = pages.write_page(
                    result.executed,
                    title=result.lesson.title,
                    folder=folder,
                    lessons={r.name for r in results} | {p.stem for p in folder.glob("*.html")},
                )
            bar.finish(result)
            index.write_index(results, folder=folder, notebooks=notebooks)
            if result.status == "interrupted":
                break
    return results


def recorded_minutes(name: str) -> float | None:
    """Minutes that lesson `name` took when the course was last recorded; `None` if it was not."""
    file = DATA / "minutes.json"
    if not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8")).get(name)


def record_minutes(results: Sequence[Result], *, file: Path | None = None) -> Path:
    """Write the minutes of `results` to `data/minutes.json`, which the lessons read.

    Raises ValueError when one did not pass: half a run measures nothing.
    """
    stopped = [result.name for result in results if result.status != "passed"]
    if stopped:
        raise ValueError(f"minutes not recorded: {', '.join(stopped)} did not pass; run it again")
    file = file or DATA / "minutes.json"
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    before.update({result.name: round(result.minutes, 2) for result in results})
    before["machine"] = f"{os.cpu_count()} cores"
    file.write_text(json.dumps(before, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return file


class _Bar:
    """One progress bar: the lesson, cell k of n, time elapsed; a line for each lesson done."""

    def __init__(self, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        self.console = Console(quiet=not shown)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("cell {task.completed:.0f} of {task.total:.0f}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "_Bar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def cells_of(self, name: str) -> Callable[[int, int], None]:
        """What to call with `(k, n)` when cell k of the n of a lesson starts."""

        def cell(number: int, of: int) -> None:
            if name not in self.tasks:
                self.tasks[name] = self.bar.add_task(name, total=of)
            self.bar.update(self.tasks[name], completed=number)

        return cell

    def finish(self, result: Result) -> None:
        if result.name in self.tasks:
            self.bar.remove_task(self.tasks.pop(result.name))
        self.console.print(f"{result.status:<12}{result.name:<28}{result.minutes:5.1f} min")
        for record in result.surprises:
            # Never silent: without a bar this is all that a run says.
            print(_told(record, result), file=sys.stderr, flush=True)
        if failure := result.failure:
            where = f"cell {failure.cell}" if failure.cell else "no cell"
            indented = "\n".join(f"    {line}" for line in failure.source.splitlines())
            print(
                f"\n{result.name}: {where} failed\n\n{indented}\n\n{failure.traceback}\n",
                file=sys.stderr,
                flush=True,
            )


def _told(record: Record, result: Result) -> str:
    """A verdict that is the opposite of what the lesson expects, for the terminal."""
    if record in result.failing_surprises:
        return f"\n{result.name}: {record.surprise}\n"
    changed = {name: value for name, value in result.parameters.items() if name != "profile"}
    on = ", ".join([record.profile, *(f"{name}={value}" for name, value in changed.items())])
    return f"\n{result.name}, on {on} (reported only): {record.surprise}\n"
