"""pass@k: code that a model wrote is run on tests, in another process and under limits.

    candidate -> code_worker: a fresh Python, in an empty folder, under limits -> results -> passed?

Never `exec` it in the kernel: a loop without end would hang it, and a line that deletes files would
delete them. The expected values stay here, so no candidate can claim to be right.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
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

    Columns: name, passed, fault (empty, or such as `SyntaxError: ...`, `TimeLimit: ...`).
    """
    jobs = []
    for one in candidates:
        calls, expected = zip(*one["tests"], strict=True)
        job = {"code": one["code"], "name": one["name"], "calls": calls, "expected": expected}
        jobs.append(json.dumps(job))
    faults = {job: _run(json.loads(job), seconds) for job in dict.fromkeys(jobs)}
    rows = [
        (one["name"], not faults[job], faults[job])
        for one, job in zip(candidates, jobs, strict=True)
    ]
    return pd.DataFrame(rows, columns=["name", "passed", "fault"])


def _run(job: dict[str, Any], limit: float) -> str:
    """What is wrong with a candidate; empty where it passes."""
    expected = job.pop("expected")
    request = {**job, "seconds": math.ceil(limit), "bytes": MEGABYTES * 2**20}
    begun = time.monotonic()
    with TemporaryDirectory(prefix="sftlab-code-") as folder, TemporaryFile() as output:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-I", "-S", str(WORKER)],
                cwd=folder,
                env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=limit + GRACE,
            )
        late = time.monotonic() - begun >= limit
        output.seek(0)
        fault = _fault(output.read(OUTPUT).splitlines(), expected)
    return "TimeLimit: not done in time" if late and fault.startswith("Died") else fault[:300]


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


def isolation() -> dict[str, str]:
    """What separates a candidate from this machine, in words, and what is "not covered"."""
    off = "Python's audit hook refuses it"
    return {
        "network": off,
        "processes": off,
        "memory": f"{MEGABYTES} MB (RLIMIT_AS)" if sys.platform == "linux" else "not limited here",
        "time": "a timeout, and on Linux and macOS a limit of processor time",
        "files": f"{off} to write or to delete; they can be read",
        "not covered": "code that was written to break out: what is not plain Python passes the "
        "audit hook, and it can do what you can: use a virtual machine",
    }
