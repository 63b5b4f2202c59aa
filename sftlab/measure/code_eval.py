"""Code that a model wrote is run on tests, in another process and under limits.

    candidate -> code_worker: a fresh Python, in an empty folder, under limits -> results -> passed?

Never `exec` it in the kernel: a loop without end would hang it, and a line that deletes files would
delete them. The expected values stay here, so no candidate can claim to be right. Python's audit
hook refuses the network, other processes, writing, deleting, and reading outside Python's library;
memory is limited on Linux (RLIMIT_AS), time everywhere.

Not covered is code that was written to break out: native code (ctypes, or C modules of Python's own
library) passes the audit hook, and can read your files, send signals and do what else you can. For
code that you do not trust use a virtual machine.
"""

import json
import math
import os
import re
import signal
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
NESTING = 100  # depth of a result, checked before it is parsed


def run_code(candidates: Sequence[Mapping[str, Any]], *, seconds: float = 2.0) -> pd.DataFrame:
    """Run each candidate on its tests; one row each, in their order.

    A candidate is `{"code", "name", "tests"}`: Python text, the function that it must define, and
    tests as (arguments, expected result) in values of JSON; anything else is a ValueError. Equal
    candidates run once. `seconds` is of processor time, rounded up; two more pass on the clock
    before a sleeping one is stopped. A tuple counts as a list; a whole float as its integer.

    Columns: name, passed, fault (empty, or such as `SyntaxError: ...`, `TimeLimit: ...`).
    """
    jobs = [_job(one, f"candidate {place}") for place, one in enumerate(candidates)]
    faults = {job: _run(json.loads(job), seconds) for job in dict.fromkeys(jobs)}
    rows = [
        (one["name"], not faults[job], faults[job])
        for one, job in zip(candidates, jobs, strict=True)
    ]
    return pd.DataFrame(rows, columns=["name", "passed", "fault"])


def _job(one: Mapping[str, Any], place: str) -> str:
    """The candidate as JSON, checked before any runs."""
    keys = one.keys() if isinstance(one, Mapping) else ()
    if missing := [key for key in ("code", "name", "tests") if key not in keys]:
        raise ValueError(f"{place} has no {missing[0]!r}; it needs code, name and tests")
    code, name, tests = one["code"], one["name"], one["tests"]
    if not isinstance(code, str) or not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{place}: code must be a text, and name that of a function; got {name!r}")
    try:
        pairs = [(list(arguments), right) for arguments, right in tests]
        text = json.dumps(pairs, allow_nan=False)
        plain = _depth(text.encode()) <= NESTING and _same(json.loads(text), pairs)
    except (TypeError, ValueError, RecursionError) as error:
        pairs, plain = [], error
    if plain is not True or not pairs:
        why = "" if isinstance(plain, bool) else f" ({plain})"
        raise ValueError(
            f"{place}: tests must be (arguments, expected result) pairs of JSON values, at least "
            f"one, nested at most {NESTING} deep, keys that are strings, no NaN{why}"
        )
    calls, expected = zip(*pairs, strict=True)
    return json.dumps({"code": code, "name": name, "calls": calls, "expected": expected})


def _run(job: dict[str, Any], limit: float) -> str:
    """What is wrong with a candidate; empty where it passes."""
    expected = job.pop("expected")
    request = {**job, "seconds": math.ceil(limit), "bytes": MEGABYTES * 2**20}
    begun = time.monotonic()
    with (
        TemporaryDirectory(prefix="sftlab-code-", ignore_cleanup_errors=True) as folder,
        TemporaryFile() as output,
    ):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WORKER)],
            cwd=folder,
            env={name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with process:
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(json.dumps(request).encode(), timeout=limit + GRACE)
            finally:
                process.kill()
                with suppress(OSError, AttributeError):  # what it started; Windows has no groups
                    os.killpg(process.pid, signal.SIGKILL)
        late = time.monotonic() - begun >= limit
        output.seek(0)
        fault = _fault(output.read(OUTPUT).splitlines(), expected)
    fault = "TimeLimit: not done in time" if late and fault.startswith("Died") else fault
    # A message may hold half surrogates, which no file or terminal takes, and line breaks.
    return " ".join(fault[:300].encode("utf-8", "backslashreplace").decode().split())


def _fault(lines: list[bytes], expected: list) -> str:
    """What is wrong with the answers to the calls; empty where all are right."""
    for call, (line, right) in enumerate(zip(lines, expected, strict=False)):
        try:
            answer = json.loads(line) if _depth(line) <= NESTING else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or len({"value", "error"} & {*answer}) != 1:
            return "the result is unreadable, too long, or nested too deep"
        if "error" in answer:
            return f"{answer['error']}" or "Error"
        if not _same(answer["value"], right):
            return f"WrongResult: call {call} gave {answer['value']!r}"
    return "" if len(lines) == len(expected) else "Died: the process ended early"


def _depth(line: bytes) -> int:
    """How deep lists and dicts are nested in a JSON text."""
    depth = deepest = 0
    for bracket in re.findall(rb"[][{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _same(value: Any, right: Any) -> bool:
    """Equal in type too, since True is 1 in Python; a whole float may stand for its integer."""
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, list) and isinstance(right, list | tuple):
        return len(value) == len(right) and all(map(_same, value, right))
    if isinstance(value, dict) and isinstance(right, dict):
        return value.keys() == right.keys() and all(_same(value[key], right[key]) for key in value)
    return value == right
