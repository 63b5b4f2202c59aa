"""Execute lessons with papermill, one after another, and leave pages, an index and a summary.

build/
  index.html            every lesson with its promise, minutes and status, and the claims
  00_start_here.html    a page per lesson, readable without a network
  executed/*.ipynb      the executed notebooks
  claims.json           the claims ledger: a row a claim, with its parts
  summary.json          minutes, status, verdicts, machine, versions
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sftlab.course.ledger import RECORDS_VARIABLE, Record, profile_name, read_records
from sftlab.course.lessons import Lesson, choose_parameters, find_lessons
from sftlab.paths import NOTEBOOKS, cache_folder
from sftlab.profiles import find_profile, local_folder

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Failure(NamedTuple):
    """What stopped a notebook."""

    cell: int | None  # its number in the notebook, from 1; None when no cell is to blame
    traceback: str  # without terminal colours, or what papermill said


@dataclass
class Result:
    """The outcome of one notebook."""

    lesson: Lesson  # the notebook as committed
    parameters: Mapping[str, Any]  # that replaced its defaults
    status: str = "not run"  # or `passed`, `failed`, `interrupted`, `skipped`
    minutes: float = 0.0  # wall-clock, including the start of the kernel
    failure: Failure | None = None
    executed: Path | None = None  # the executed notebook, as far as it got
    page: Path | None = None  # its HTML page
    records: Mapping[str, Record] = field(default_factory=dict)  # of this run, by claim id

    @property
    def name(self) -> str:
        return self.lesson.name

    @property
    def profile(self) -> str:
        """The model it runs on."""
        return self.parameters.get("profile", self.lesson.defaults.get("profile", "tiny"))

    @property
    def surprises(self) -> list[Record]:
        """The records whose verdict is the opposite of what the lesson expects."""
        return [record for record in self.records.values() if record.surprise]

    @property
    def failing_surprises(self) -> list[Record]:
        """Those that fail a run: of a lesson as committed, on a model that ships with it."""
        defaults = {**self.lesson.defaults, "profile": self.profile}
        if any(defaults.get(name) != value for name, value in self.parameters.items()):
            return []
        return self.surprises if find_profile(self.profile).embedded else []


def run_notebooks(
    names: Sequence[str] = (),
    *,
    parameters: Mapping[str, Any] | None = None,
    folder: Path | str = "build",
    notebooks: Path = NOTEBOOKS,
    progress: bool = True,
) -> list[Result]:
    """Execute the lessons `names` (all of `notebooks` when empty) and write pages to `folder`.

    Names, parameters and the profile are checked before anything runs (ValueError). A lesson that
    is not named is skipped where `make real` has not fetched its model. A failing cell
    stops its notebook and is printed to stderr, as is a verdict that is the opposite of what the
    lesson expects; the others still run. Ctrl-C keeps what is finished and returns.
    """
    from sftlab.course import pages

    lessons = find_lessons(names, folder=notebooks)
    chosen = choose_parameters(lessons, parameters or {})
    for own in chosen.values():
        if "profile" in own:  # a lesson runs in a folder of its own, away from a relative path
            own["profile"] = profile_name(own["profile"])
    folder = Path(folder).resolve()
    (folder / "executed").mkdir(parents=True, exist_ok=True)
    results = [Result(lesson=lesson, parameters=chosen[lesson.name]) for lesson in lessons]
    for result in results:
        if progress:
            print(result.name, flush=True)
        model = find_profile(result.profile)
        if not names and model.fetched and local_folder(model) is None:
            result.status = "skipped"
        else:
            _execute(result, folder=folder, progress=progress)
        if result.executed:
            known = {one.name for one in results} | {page.stem for page in folder.glob("*.html")}
            title = result.lesson.title
            result.page = pages.write_page(result.executed, title, folder=folder, known=known)
        pages.write_index(results, folder=folder)
        pages.write_glossary(folder, known={page.stem for page in folder.glob("*.html")})
        if progress:
            why = f"in {result.minutes:.1f} minutes"
            why = "(`make real` fetches its model)" if result.status == "skipped" else why
            print(f"\n{result.status} {why}\n", flush=True)
        if failure := result.failure:
            print(f"{result.name}, cell {failure.cell}:\n{failure.traceback}", file=sys.stderr)
        for record in result.surprises:
            print(f"{result.name}: {record.surprise}\n", file=sys.stderr, flush=True)
        if result.status == "interrupted":
            break
    return results


def _execute(result: Result, *, folder: Path, progress: bool) -> None:
    """Execute one notebook with papermill in a process of its own, and fill `result`."""
    executed = folder / "executed" / f"{result.name}.ipynb"
    executed.unlink(missing_ok=True)
    scratch = folder / "work" / result.name  # the kernel's folder: a lesson may leave files there
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "papermill", str(result.lesson.path), str(executed)]
    command += ["--kernel", "python3", "--language", "python", "--cwd", str(scratch)]
    command += ["--parameters_yaml", json.dumps(dict(result.parameters))]
    # Otherwise the whole notebook with its figures is written before each cell.
    command += ["--no-request-save-on-cell-execute", "--log-level", "WARNING"]
    package = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]),
        "PYTHONIOENCODING": "utf-8",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel `python3` is that of this environment
        "SFTLAB_CACHE": str(cache_folder().resolve()),  # the kernel works in another folder
        RECORDS_VARIABLE: str(scratch / "records"),
    }
    if not find_profile(result.profile).on_hub:
        offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
        environment |= dict.fromkeys(offline, "1")
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    streams["errors"] = "replace"
    began, said = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="sftlab-", ignore_cleanup_errors=True) as temporary:
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
        # A session of its own: Ctrl-C reaches this process alone, which then ends papermill.
        process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        try:
            for line in process.stderr:  # each state of the bar is a line: "\r" ends one as well
                if not line.startswith("Executing"):
                    said += line
                elif progress:  # up to "]", behind which the kernel may have written
                    print(f"\r{line.partition(']')[0]}]", end="", file=sys.stderr, flush=True)
            result.status = "failed" if process.wait() else "passed"
        except KeyboardInterrupt:
            result.status = "interrupted"
            process.terminate()  # nbclient answers SIGTERM by ending its kernel
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=10)
        finally:
            process.kill()  # nothing where it has ended
    result.minutes = (time.monotonic() - began) / 60
    result.records = read_records(scratch / "records")
    result.executed = executed if executed.is_file() else None
    if result.status == "failed":
        result.failure = _failing_cell(result) or Failure(
            None, _ANSI.sub("", said or f"exit code {process.returncode}")
        )


def _failing_cell(result: Result) -> Failure | None:
    """The cell that raised, with its number in the committed notebook."""
    if result.executed is None:
        return None
    committed, executed = (
        json.loads(path.read_text(encoding="utf-8"))["cells"]
        for path in (result.lesson.path, result.executed)
    )
    ids = [cell["id"] for cell in committed]
    for cell in executed:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                traceback = _ANSI.sub("", "\n".join(output["traceback"]))
                return Failure(ids.index(cell["id"]) + 1, traceback)
    return None
