"""pass@k: code that a model wrote is run on tests, away from the kernel and under limits.

    candidates --> code_worker (another Python, an empty folder) --> one process each --> passed?

No `exec` in the kernel, ever: a loop without end would hang it, and a line that deletes files would
delete them. What the limits are made of depends on the system; `isolation` says it, tried out, and
so does the frame that `run_code` gives. Against code that was written to break out, use a virtual
machine: this is for code that a model wrote without meaning harm.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

WORKER = Path(__file__).with_name("code_worker.py")
MEGABYTE = 2**20


class CodeError(ValueError):
    """A candidate, a test or a limit that can't be used."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may take."""

    seconds: float = 2.0
    """Wall-clock seconds; then it is killed."""
    megabytes: int = 256
    """Memory, where the system can limit it."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 600 or not 32 <= self.megabytes <= 65536:
            raise CodeError(
                f"seconds={self.seconds}, megabytes={self.megabytes}: give above 0 to 600 seconds, "
                "and 32 (Python itself needs them) to 65536 megabytes"
            )


def pass_at_k(draws: int, passed: int, k: int) -> float:
    """Chance that of k draws at least one passes, estimated without bias from n draws.

    1 - C(n - c, k) / C(n, k) with c of n passed (Chen et al. 2021, arXiv 2107.03374). The plain
    1 - (1 - c/n)^k is biased: it is too low.

    Raises:
        CodeError: k is more than the draws, or a number can't be.
    """
    if not 1 <= k <= draws or not 0 <= passed <= draws:
        raise CodeError(f"{passed} of {draws} draws passed, k={k}: give k from 1 to the draws")
    return 1 - math.comb(draws - passed, k) / math.comb(draws, k)


def run_code(
    candidates: Sequence[Mapping[str, Any]], *, limits: Limits | None = None
) -> pd.DataFrame:
    """Run each candidate on its tests; one row each, in their order.

    A candidate is `{"code", "name", "tests"}`: Python text, the function that it must define, and
    tests as (arguments, expected result) in values of JSON. Equal ones run once. Results are
    compared outside of the candidate's process, which never learns what is expected.

    Columns: name, passed, fault (empty when passed, else such as `SyntaxError: ...`,
    `TimeLimit: ...`, `WrongResult: ...`), seconds. `frame.attrs["isolation"]` is what `isolation`
    gives.

    Raises:
        CodeError: a candidate lacks a part, or the worker could not be started.
    """
    limits = limits or Limits()
    jobs = [_job(one, n) for n, one in enumerate(candidates)]
    keys = [json.dumps(job, sort_keys=True) for job in jobs]
    unique = list(dict.fromkeys(keys))
    doors, results = _carried_out([json.loads(key) for key in unique], limits)
    by_key = dict(zip(unique, results, strict=True))
    frame = pd.DataFrame(
        [{"name": job["name"], **by_key[key]} for job, key in zip(jobs, keys, strict=True)],
        columns=["name", "passed", "fault", "seconds"],
    )
    frame.attrs["isolation"] = doors
    return frame


@lru_cache(maxsize=1)
def isolation() -> dict[str, str]:
    """What keeps a candidate in here, tried out: network, files, processes, memory -> in words.

    `refused by Python alone` is a hook inside the candidate's own interpreter: it stops what a
    model writes by mistake, and not what was written to break out.
    """
    return _carried_out([], Limits())[0]


def _job(candidate: Mapping[str, Any], number: int) -> dict[str, Any]:
    missing = [name for name in ("code", "name", "tests") if name not in candidate]
    if missing or not candidate["tests"]:
        raise CodeError(
            f"candidate {number} lacks {missing[0] if missing else 'tests'}; give "
            '{"code": text, "name": function, "tests": [(arguments, expected), ...]}'
        )
    try:
        job = {
            "code": candidate["code"],
            "name": candidate["name"],
            "calls": [list(arguments) for arguments, _ in candidate["tests"]],
            "expected": [expected for _, expected in candidate["tests"]],
        }
        json.dumps(job)
        return job
    except (TypeError, ValueError) as error:
        raise CodeError(
            f"candidate {number}: its tests are no pairs of arguments and result in JSON ({error})"
        ) from error


def _carried_out(jobs: list[dict], limits: Limits) -> tuple[dict[str, str], list[dict]]:
    forks = hasattr(os, "fork")
    batches = [jobs] if forks else [[job] for job in jobs] or [[]]
    doors, results = {}, []
    for batch in batches:
        told = _worker(batch, limits, forks=forks)
        doors = told[0] if told else doors
        results += told[1:] or [_late(limits)] * len(batch)
    return doors, results


def _worker(batch: list[dict], limits: Limits, *, forks: bool) -> list[dict]:
    request = {
        "jobs": batch,
        "limits": {"seconds": limits.seconds, "bytes": limits.megabytes * MEGABYTE},
    }
    # Each candidate is stopped by the worker; where it can't fork, the worker itself is.
    most = 60 + len(batch) * (limits.seconds + 1) if forks else limits.seconds + 5
    with TemporaryDirectory(prefix="sftlab-code-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", str(WORKER)], cwd=folder, timeout=most,
                input=json.dumps(request) + "\n", capture_output=True, text=True, env={},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            if not forks:
                return []
            raise CodeError(f"the worker was not done after {most:.0f} seconds") from None
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != len(batch) + 1:
        if not forks and lines:  # the candidate took its process with it
            return []
        raise CodeError(
            f"the worker that runs code ended with {done.returncode} and {len(lines)} of "
            f"{len(batch) + 1} lines: {done.stderr.strip()[-500:]}"
        )
    return [json.loads(line) for line in lines]


def _late(limits: Limits) -> dict[str, Any]:
    return {"passed": False, "fault": "TimeLimit: not done in time", "seconds": limits.seconds}


def draw_table(frame: pd.DataFrame, *, ks: Sequence[int]) -> pd.DataFrame:
    """pass@k of each task from a frame with a row for each draw (columns task and passed).

    A row for each task and k. Columns: task, k, draws, passes, score.
    """
    rows = []
    for task, part in frame.groupby("task", sort=False):
        draws, passes = len(part), int(part["passed"].sum())
        for k in ks:
            rows.append(
                {
                    "task": task,
                    "k": k,
                    "draws": draws,
                    "passes": passes,
                    "score": pass_at_k(draws, passes, k),
                }
            )
    return pd.DataFrame(rows)
