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
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import pandas as pd

from sftlab.measure.code_worker import OUTPUT

WORKER = Path(__file__).with_name("code_worker.py")
GRACE = 2.0  # seconds that starting Python may take on a busy machine


def pass_at_k(draws: int, passed: int, k: int) -> float:
    """Probability that at least one of k draws passes, estimated without bias from n draws.

    1 - C(n - c, k) / C(n, k) with c of n passed (Chen et al. 2021, arXiv 2107.03374). The plain
    1 - (1 - c/n)^k is biased: it is too low.

    Raises:
        ValueError: k is larger than the number of draws, or a number is impossible.
    """
    if not 1 <= k <= draws or not 0 <= passed <= draws:
        raise ValueError(f"{passed} of {draws} draws passed, k={k}: give k from 1 to the draws")
    return 1 - math.comb(draws - passed, k) / math.comb(draws, k)


def run_code(
    candidates: Sequence[Mapping[str, Any]], *, seconds: float = 2.0, megabytes: int = 256
) -> pd.DataFrame:
    """Run each candidate on its tests; one row each, in their order.

    A candidate is `{"code", "name", "tests"}`: Python text, the function that it must define, and
    tests as (arguments, expected result) in values of JSON. Equal candidates run once. `seconds` is
    of processor time, rounded up; two more pass on the clock before a sleeping one is stopped.
    `megabytes` is of memory, where the system can limit it.

    Columns: name, passed, fault (empty when passed, else such as `SyntaxError: ...`,
    `TimeLimit: ...`, `WrongResult: ...`), seconds. `frame.attrs["isolation"]` is `isolation()`.

    Raises:
        ValueError: a candidate lacks a part, or a limit is impossible.
    """
    if not 0 < seconds <= 600 or not 32 <= megabytes <= 65536:
        raise ValueError(
            f"seconds={seconds}, megabytes={megabytes}: give above 0 to 600 seconds "
            "and 32 to 65536 megabytes (Python itself needs 32)"
        )
    keys = [_key(one, number) for number, one in enumerate(candidates)]
    found = {key: _run(*json.loads(key), seconds, megabytes) for key in dict.fromkeys(keys)}
    rows = [{"name": json.loads(key)[0]["name"], **found[key]} for key in keys]
    frame = pd.DataFrame(rows, columns=["name", "passed", "fault", "seconds"])
    frame.attrs["isolation"] = isolation()
    return frame


def _key(candidate: Mapping[str, Any], number: int) -> str:
    """A candidate as JSON text: [job, expected results]."""
    missing = [name for name in ("code", "name", "tests") if name not in candidate]
    if missing or not candidate["tests"]:
        raise ValueError(
            f"candidate {number} lacks {missing[0] if missing else 'tests'}; give "
            '{"code": text, "name": function, "tests": [(arguments, expected), ...]}'
        )
    try:
        tests = [(list(arguments), right) for arguments, right in candidate["tests"]]
        job = {"code": candidate["code"], "name": candidate["name"]}
        job["calls"] = [arguments for arguments, _ in tests]
        return json.dumps([job, [right for _, right in tests]])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"candidate {number}: its tests must be pairs of arguments and result in JSON ({error})"
        ) from error


def _run(job: dict[str, Any], expected: list, limit: float, megabytes: int) -> dict[str, Any]:
    request = {**job, "seconds": math.ceil(limit), "bytes": megabytes * 2**20}
    begun = time.monotonic()
    with TemporaryDirectory(prefix="sftlab-code-") as folder, TemporaryFile() as output:
        os.chmod(folder, 0o500)
        try:
            subprocess.run(
                [*_namespace(), sys.executable, "-I", "-S", str(WORKER)],
                cwd=folder,
                env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=limit + GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pass
        seconds = time.monotonic() - begun
        output.seek(0)
        answers = [_answer(line) for line in output.read(OUTPUT).splitlines()]
    fault = _fault(answers, expected)
    if fault.startswith("Died") and seconds >= limit:
        fault = "TimeLimit: not done in time"
    return {"passed": not fault, "fault": fault[:300], "seconds": seconds}


def _answer(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) and found else {"error": "the result is unreadable"}


def _fault(answers: list[dict[str, Any]], expected: list) -> str:
    """What is wrong with the answers to the calls; empty where all are right."""
    for call, (answer, right) in enumerate(zip(answers, expected, strict=False)):
        if "value" not in answer:
            return str(answer.get("error"))
        if not _same(answer["value"], right):
            return f"WrongResult: call {call} gave {answer['value']!r}"
    return "" if len(answers) == len(expected) else "Died: the process ended early"


def _same(value: Any, right: Any) -> bool:
    """Equal in type too, since True is 1 in Python; a whole float may stand for its integer."""
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, list) and isinstance(right, list):
        return len(value) == len(right) and all(map(_same, value, right))
    return value == right


@lru_cache(maxsize=1)
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
    off = "the functions for it are switched off in Python"
    return {
        "network": "none: a network namespace" if _namespace() else off,
        "processes": "none can be started (RLIMIT_NPROC)" if limits else off,
        "memory": "limited (RLIMIT_AS)" if linux else "not limited on this system",
        "time": "limited (RLIMIT_CPU and a timeout)" if limits else "limited (a timeout)",
        "files": off + (", and the process runs as the user nobody" if nobody else ""),
        "not covered": "code that was written to break out: it can switch on again what is off in "
        f"Python, and {'read' if nobody else 'read and delete'} your files: use a virtual machine",
    }


def draw_table(frame: pd.DataFrame, *, ks: Sequence[int]) -> pd.DataFrame:
    """pass@k of each task from a frame with a row for each draw (columns task and passed).

    A row for each task and k. Columns: task, k, draws, passes, score.
    """
    counts = frame.groupby("task", sort=False)["passed"].agg(["size", "sum"])
    rows = [
        (task, k, int(draws), int(passes), pass_at_k(int(draws), int(passes), k))
        for task, draws, passes in counts.itertuples()
        for k in ks
    ]
    return pd.DataFrame(rows, columns=["task", "k", "draws", "passes", "score"])
