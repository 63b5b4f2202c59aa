"""pass@k: code that a model wrote is run on tests, in another process and under limits.

    candidate -> code_worker: a fresh Python, in an empty folder, under limits -> results -> passed?

Never `exec` it in the kernel: a loop without end would hang it, and a line that deletes files would
delete them. The expected values stay here, so no candidate can claim to be right. `isolation` says
what holds on this system, and what does not.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pandas as pd

from sftlab.measure.code_worker import OUTPUT

WORKER = Path(__file__).with_name("code_worker.py")
GRACE = 2.0  # seconds that starting Python may take on a busy machine
MEGABYTES = 256


def pass_at_k(draws: int, passed: int, k: int) -> float:
    """Probability that at least one of k draws passes, estimated without bias from n draws.

    1 - C(n - c, k) / C(n, k) with c of n passed (Chen et al. 2021, arXiv 2107.03374). The plain
    1 - (1 - c/n)^k is too low.
    """
    if not 1 <= k <= draws or not 0 <= passed <= draws:
        raise ValueError(f"{passed} of {draws} draws passed, k={k}: give k from 1 to the draws")
    return 1 - math.comb(draws - passed, k) / math.comb(draws, k)


def run_code(candidates: Sequence[Mapping[str, Any]], *, seconds: float = 2.0) -> pd.DataFrame:
    """Run each candidate on its tests; one row each, in their order.

    A candidate is `{"code", "name", "tests"}`: Python text, the function that it must define, and
    tests as (arguments, expected result) in values of JSON. Equal candidates run once. `seconds` is
    of processor time, rounded up; two more pass on the clock before a sleeping one is stopped.

    Columns: name, passed, fault (empty, or such as `SyntaxError: ...`, `TimeLimit: ...`), seconds.
    """
    keys = []
    for number, one in enumerate(candidates):
        try:
            tests = [(list(given), right) for given, right in one["tests"]]
            calls, expected = zip(*tests, strict=True)
            job = {"code": one["code"], "name": one["name"], "calls": calls}
            keys.append(json.dumps([job, expected]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'candidate {number} ({error!r}): give {{"code": text, "name": function, "tests": '
                "[(arguments, expected), ...]}, the tests in values of JSON"
            ) from error
    found = {key: _run(*json.loads(key), seconds) for key in dict.fromkeys(keys)}
    columns = ["name", "passed", "fault", "seconds"]
    return pd.DataFrame([found[key] for key in keys], columns=columns)


def _run(job: dict[str, Any], expected: list, limit: float) -> dict[str, Any]:
    request = {**job, "seconds": math.ceil(limit), "bytes": MEGABYTES * 2**20}
    begun = time.monotonic()
    with TemporaryDirectory(prefix="sftlab-code-") as folder, TemporaryFile() as output:
        os.chmod(folder, 0o500)
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*_namespace(), sys.executable, "-I", "-S", str(WORKER)],
                cwd=folder,
                env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=limit + GRACE,
            )
        seconds = time.monotonic() - begun
        output.seek(0)
        fault = _fault(output.read(OUTPUT).splitlines(), expected)
    if fault.startswith("Died") and seconds >= limit:
        fault = "TimeLimit: not done in time"
    return {"name": job["name"], "passed": not fault, "fault": fault[:300], "seconds": seconds}


def _fault(lines: list[bytes], expected: list) -> str:
    """What is wrong with the answers to the calls; empty where all are right."""
    for call, (line, right) in enumerate(zip(lines, expected, strict=False)):
        try:
            answer = json.loads(line)
            if "value" not in answer:
                return str(answer["error"])
        except (ValueError, TypeError, LookupError):
            return "the result is unreadable"
        if not _same(answer["value"], right):
            return f"WrongResult: call {call} gave {answer['value']!r}"
    return "" if len(lines) == len(expected) else "Died: the process ended early"


def _same(value: Any, right: Any) -> bool:
    """Equal in type too, since True is 1 in Python; a whole float may stand for its integer."""
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, list) and isinstance(right, list):
        return len(value) == len(right) and all(map(_same, value, right))
    return value == right


@cache
def _namespace() -> tuple[str, ...]:
    """The command that gives a process its own network and process tree, where it works (Linux)."""
    program = shutil.which("unshare")
    if program is None:
        return ()
    user = () if os.getuid() == 0 else ("--user",)
    command = (program, *user, "--net", "--pid", "--ipc", "--fork", "--kill-child")
    trial = subprocess.run([*command, sys.executable, "-I", "-S", "-c", ""], capture_output=True)
    return command if trial.returncode == 0 else ()


def isolation() -> dict[str, str]:
    """What separates a candidate from this machine, in words, and what is "not covered"."""
    linux, limits = sys.platform.startswith("linux"), sys.platform != "win32"
    nobody = linux and os.getuid() == 0
    off = "Python's audit hook refuses it"
    return {
        "network": "none: a network namespace" if _namespace() else off,
        "processes": "none can be started (RLIMIT_NPROC)" if limits else off,
        "memory": "limited (RLIMIT_AS)" if linux else "not limited on this system",
        "time": "limited (RLIMIT_CPU and a timeout)" if limits else "limited (a timeout)",
        "files": f"{off} to write" + (", and the process runs as the user nobody" * nobody),
        "not covered": "code that was written to break out: what is not plain Python passes the "
        f"audit hook, and it can {'read' if nobody else 'read and delete'} your files: use a "
        "virtual machine",
    }


def draw_table(frame: pd.DataFrame, *, ks: Sequence[int]) -> pd.DataFrame:
    """pass@k from a frame with a row for each draw (columns task and passed).

    A row for each task and k. Columns: task, k, draws, passes, score.
    """
    counts = frame.groupby("task", sort=False)["passed"].agg(["size", "sum"])
    rows = [
        (task, k, draws, passes, pass_at_k(draws, passes, k))
        for task, draws, passes in counts.itertuples()
        for k in ks
    ]
    return pd.DataFrame(rows, columns=["task", "k", "draws", "passes", "score"])
