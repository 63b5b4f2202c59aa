"""One notebook in one process: start it, follow it cell by cell, and say what became of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftlab.course.lessons import Lesson
from sftlab.course.records import RECORDS_VARIABLE, Record, StaleRecordError, read_records
from sftlab.course.worker import MARK
from sftlab.profiles import find_profile

OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
"""What keeps the libraries from asking a hub. They read it when they are imported."""


@dataclass
class Failure:
    """What stopped a notebook."""

    cell: int | None
    """Number of the cell in the notebook, from 1; `None` when no cell is to blame."""
    source: str
    """The cell's code."""
    traceback: str
    """Its traceback without terminal colours, or what is known instead."""


@dataclass
class Result:
    """What became of one notebook."""

    lesson: Lesson
    """The notebook as committed."""
    parameters: Mapping[str, Any]
    """The parameters that replaced its defaults."""
    status: str = "not run"
    """`passed`, `failed`, `interrupted` or `not run`."""
    minutes: float = 0.0
    """Wall-clock minutes, the start of the kernel included."""
    cells: int = 0
    """Number of cells executed or begun."""
    failure: Failure | None = None
    """Where and why it stopped, when it failed."""
    executed: Path | None = None
    """The executed notebook, as far as it came."""
    page: Path | None = None
    """Its HTML page."""
    records: Mapping[str, Record | StaleRecordError] = field(default_factory=dict)
    """Claim id -> what this run recorded for it."""

    @property
    def name(self) -> str:
        return self.lesson.name

    @property
    def profile(self) -> str:
        """The model it runs on."""
        return self.parameters.get("profile", self.lesson.defaults.get("profile", "tiny"))

    @property
    def as_committed(self) -> bool:
        """Whether every parameter but the profile has its default."""
        defaults = {**self.lesson.defaults, "profile": self.profile}
        return all(defaults.get(name) == value for name, value in self.parameters.items())

    @property
    def surprises(self) -> list[Record]:
        """The records whose verdict is the opposite of what the lesson expects."""
        return [r for r in self.records.values() if isinstance(r, Record) and r.surprise]

    @property
    def failing_surprises(self) -> list[Record]:
        """Those that fail a run: of a lesson as committed, on a model that ships with the course.

        With other parameters, or on another model, the lesson promised nothing.
        """
        if not self.as_committed:
            return []
        return [r for r in self.surprises if find_profile(r.profile).embedded]


def execute(
    result: Result,
    *,
    folder: Path,
    on_cell: Callable[[int, int], None],
) -> None:
    """Execute one notebook in a process of its own and fill `result`.

    `on_cell(k, n)` is called when cell k of n starts. Raises nothing: Ctrl-C and failures end up in
    `result.status`.
    """
    executed = folder / "executed" / f"{result.name}.ipynb"
    executed.unlink(missing_ok=True)
    scratch = folder / "work" / result.name  # the kernel's folder: a lesson may leave files there
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    job = scratch / "job.json"
    job.write_text(
        json.dumps(
            {
                "notebook": str(result.lesson.path.resolve()),
                "output": str(executed),
                "parameters": dict(result.parameters),
                "scratch": str(scratch),
            }
        ),
        encoding="utf-8",
    )
    began = time.monotonic()
    records = scratch / "records"
    try:
        environment = _environment(result, records)
        # A kernel is ended without a chance to remove what its sweeps left there.
        with tempfile.TemporaryDirectory(prefix="sftlab-", ignore_cleanup_errors=True) as temporary:
            environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
            event = _watch(job, environment, scratch, result, on_cell)
    except KeyboardInterrupt:
        result.status = "interrupted"
    else:
        result.status = "passed" if event.get("finished") else "failed"
        if found := event.get("failed"):
            result.failure = Failure(**found)
        elif result.status == "failed":
            died = event.get("died") or "the process ended early"
            result.failure = Failure(None, "", f"{died}\n(it had begun {result.cells} cells)")
    result.minutes = (time.monotonic() - began) / 60
    result.records = read_records(records)
    if executed.is_file() and keep_last_states(executed):
        result.executed = executed


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()  # nbclient answers SIGTERM by ending its kernel
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def keep_last_states(executed: Path) -> bool:
    """Leave of every progress bar in an executed notebook what a terminal would show at the end.

    A bar goes back to the start of its line for each new state, and every state is an output: a
    page, or a site that shows notebooks, would print them all. `False` when the file is no
    notebook, as when its process was ended while writing it.
    """
    import nbformat
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    try:
        notebook = nbformat.read(executed, as_version=4)
    except ValueError:
        return False
    coalesce = CoalesceStreamsPreprocessor()
    for index, cell in enumerate(notebook.cells):
        coalesce.preprocess_cell(cell, {}, index)
    nbformat.write(notebook, executed)
    return True


def _watch(
    job: Path,
    environment: dict[str, str],
    scratch: Path,
    result: Result,
    on_cell: Callable[[int, int], None],
) -> dict[str, Any]:
    """Start the worker, pass on its events, return the last one."""
    last: dict[str, Any] = {}
    log = scratch / "log.txt"
    with log.open("w", encoding="utf-8") as errors:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the worker.
        process = subprocess.Popen(
            [sys.executable, "-m", "sftlab.course.worker", str(job)],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            cwd=scratch,
            env=environment,
            start_new_session=True,
        )
        try:
            for line in process.stdout:
                if not line.startswith(MARK):
                    continue
                last = json.loads(line.removeprefix(MARK))
                if "cell" in last:
                    result.cells = last["cell"]
                    on_cell(last["cell"], last["of"])
            process.wait()
        finally:
            _end(process)
            process.stdout.close()
    if "cell" in last or not last:  # the worker itself ended: its own words are all there is
        with log.open(encoding="utf-8", errors="replace") as lines:
            tail = "".join(deque(lines, maxlen=20))
        last = {"died": f"the worker ended with code {process.returncode}\n{tail}".rstrip()}
    return last


def with_lab(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables with which a process in any folder finds this very `sftlab`."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))]
    return {**variables, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths)}


def _environment(result: Result, records: Path) -> dict[str, str]:
    """The child's variables: a folder for its records, no hub for a profile on this disk."""
    environment = with_lab(os.environ)
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    environment[RECORDS_VARIABLE] = str(records)
    if environment.get("SFTLAB_CACHE"):  # the child works in another folder
        environment["SFTLAB_CACHE"] = os.path.abspath(environment["SFTLAB_CACHE"])
    if not find_profile(result.profile).on_hub:
        environment.update(OFFLINE)
    return environment
