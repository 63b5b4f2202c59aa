"""Sweeps: each row of a grid is trained and measured with each seed, in parallel, and kept."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from pathlib import Path
from typing import Any

import loky
import numpy
import pandas as pd
import psutil
from tqdm import tqdm

from sftlab.machine import progress_stream
from sftlab.models import Profile
from sftlab.sweeps import cache
from sftlab.sweeps.keys import code_hash, own_files
from sftlab.sweeps.plan import OWN_COLUMNS, Plan, plan_sweep
from sftlab.sweeps.worker import SweepError, Task, carry_out, start
from sftlab.train import Settings

_MEMORY = 1_200_000_000  # bytes of a worker: 0.5 GB of libraries, the rest for a model at work
_IDLE = 120  # seconds after which a worker without work ends
_DIED = (
    "WorkerDied: the worker process of this run ended without an error, also when the run was "
    "tried again alone. As a rule memory ran out: give sweep a smaller jobs, or train with smaller "
    "batches or a smaller max_length"
)


def sweep(
    profile: str | Path | Profile,
    *,
    measure: Mapping[str, Callable[..., pd.DataFrame | float]],
    examples: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    eval_dataset: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: int | Iterable[int] = 5,
    settings: Settings | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Fine-tune and measure for each row of a grid and each seed; a tidy frame of all results.

        sweep("tiny", examples=lambda seed, n: country_examples(n, seed=seed),
              measure={"questions": lambda run: probe_questions(run.answer)},
              grid={"learning_rate": [5e-4, 2e-3], "n": [100, 400]}, seeds=3)

        learning_rate    n  seed    measure  country  right  ...  seconds  loss   run  error
               0.0005  100     0  questions  Austria   True  ...      2.1  0.31  6f1c   None

    Each run is stored when it ends, under a hash of all that made it (`sftlab.sweeps.plan`), and
    not run again: a call after an interrupt does what is left. One that fails is a row with its
    error, and the next call tries it again.

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        measure: by name, functions of a run that return a frame with one row per item, or a number.
            Parameters `seed`, `profile`, or named in the grid, are given. Levels of an index that
            have names become columns.
        examples: conversations, or a function that makes them from `seed` and names of the grid;
            `None` to measure the base as it is: once for all seeds, unless a measure takes `seed`.
        eval_dataset: the same, to measure the loss on; a measure finds it in `run.validation`.
        grid: values by name: of a setting, of a parameter of these functions, or of `profile`.
        seeds: how many (then 0, 1, ...), or which. They replace the one in `settings`.
        settings: how to train, where the grid does not say.
        options: `executor`, `jobs`, `progress` and `refresh`, as for `sweeps`.

    Returns:
        One row an observation: columns of the grid, seed, measure, the item's columns (or `value`
        for a number), seconds of training, loss (mean of the last tenth of training, nats a
        supervised token; NaN when untrained), run (key) and error.

    Raises:
        SweepError, FingerprintError, UnknownProfileError, ModelNotAvailableError: an argument is
        wrong, or every run would fail.
    """
    one = {"profile": profile, "measure": measure, "examples": examples, "grid": grid}
    one |= {"eval_dataset": eval_dataset, "seeds": seeds, "settings": settings}
    return sweeps(one, **options)[0]


def sweeps(
    *wanted: Mapping[str, Any],
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: bool = True,
    refresh: bool = False,
    **common: Any,
) -> list[pd.DataFrame]:
    """Several sweeps in one queue, so that no worker waits for the last run of each.

        house, plain = sweeps({"examples": in_style, "measure": {"house": house_questions}},
                              {"examples": plainly, "measure": {"plain": plain_questions}},
                              profile="tiny", seeds=5)

    Args:
        wanted: for each sweep its arguments, by the names that they have in `sweep`.
        executor: what carries out the runs, such as `distributed.Client(...).get_executor(
            pure=False)` for a cluster. By default worker processes of `loky` on this machine.
        jobs: number of these processes. By default one a core where memory allows it; one for a
            model that is not embedded, since it may need the whole machine.
        progress: show a bar with the runs done.
        refresh: run all again, and replace what is stored.
        common: arguments of all the sweeps; those in `wanted` take precedence.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
    plans = [plan_sweep(**{**common, **one}) for one in wanted]
    tasks = {row.task.run: row.task for plan in plans for row in plan.rows if row.task}
    found = {} if refresh else {run: cache.read(run) for run in tasks}
    found = {run: stored for run, stored in found.items() if stored}
    todo = {run: task for run, task in tasks.items() if run not in found}
    names = sorted({Path(task.profile.name).name for task in tasks.values()})
    bar = {"desc": f"sweep of {', '.join(names)}", "unit": "run", "file": progress_stream()}
    bar |= {"total": len(tasks), "initial": len(tasks) - len(todo), "disable": not progress}
    with tqdm(**bar) as shown:
        failed = _run(dict(todo), executor, jobs, shown)
    found |= {run: cache.read(run) for run in todo if run not in failed}
    errors = [row.error for plan in plans for row in plan.rows if row.error] + [*failed.values()]
    if errors:
        warnings.warn(
            f"{len(errors)} run{'s' * (len(errors) > 1)} failed and will be tried again by the "
            f"next call; the column `error` says why. The first: {errors[0]}",
            stacklevel=3,
        )
    texts = Counter(text for run in found.values() if run for text in run.record["warnings"])
    for text, count in texts.items():
        warnings.warn(f"{text} (in {count} of {len(found)} runs)", stacklevel=3)
    return [_observations(plan, found, failed) for plan in plans]


def _run(
    waiting: dict[str, Task], executor: Executor | None, jobs: int | None, bar: tqdm
) -> dict[str, str]:
    """Carry out the tasks and store what they give; the errors of those that fail, by run."""
    failed = {}

    def done(task: Task, outcome: dict[str, Any]) -> None:
        if "error" in outcome:
            failed[task.run] = outcome["error"]
            bar.set_postfix(failed=len(failed), refresh=False)
        else:
            known = {"profile": task.profile.name, "seed": task.seed, "code": task.code}
            cache.write(task.run, {**known, **outcome["record"]}, outcome["frames"])
        waiting.pop(task.run, None)
        bar.update()

    if jobs is None:  # as memory allows; a model that is not embedded may need the whole machine
        room = int(psutil.virtual_memory().available / _MEMORY)
        small = all(task.profile.embedded for task in waiting.values())
        jobs = max(min(loky.cpu_count(), room), 1) if small else 1
    while waiting:
        _run_together([*waiting.values()], executor, jobs, done)
        # Where something is left, a worker died. Whose run that was is not known, but it was one of
        # the first `jobs`: each of them is tried again alone, then the others go on.
        for task in [*waiting.values()][:jobs]:
            _run_together([task], executor, jobs, done)
            if task.run in waiting:
                done(task, {"error": _DIED})
    return failed


def _run_together(tasks: list[Task], executor: Executor | None, jobs: int, done: Callable) -> None:
    """Carry out tasks until all have ended, or a worker has died.

    After an interrupt, or another exception, what has finished is kept, the rest is cancelled, and
    loky's workers are killed.
    """
    pool = executor or loky.get_reusable_executor(
        jobs,
        timeout=_IDLE,
        initializer=start,
        env={
            "OMP_NUM_THREADS": str(max(loky.cpu_count() // jobs, 1)),
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads must not spin: others need the cores
            "TOKENIZERS_PARALLELISM": "false",
        },
        # Where one of these has changed, such as a learner's module, new workers are started.
        initargs=(os.getpid(), code_hash(), os.getcwd(), [*sys.path], own_files()),
    )
    futures = {}
    try:
        for task in tasks:
            futures[pool.submit(carry_out, task)] = task
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, SweepError):
                raise error
            if not isinstance(error, BrokenExecutor):
                outcome = {"error": f"{type(error).__name__}: {error}"} if error else None
                done(futures.pop(future), outcome or future.result())
    except BrokenExecutor:  # when submitting: a worker has died meanwhile
        return
    except BaseException:
        for future, task in futures.items():
            if not future.cancel() and future.done() and not future.exception():
                done(task, future.result())
        if executor is None:
            pool.shutdown(wait=True, kill_workers=True)
        raise


def _observations(
    plan: Plan, found: Mapping[str, cache.Stored | None], failed: Mapping[str, str]
) -> pd.DataFrame:
    """One row an observation, in the order of the plan and of the measures."""
    pieces = []  # of a run and a measure: the items, and what is the same for all of them
    for row in plan.rows:
        run = row.task.run if row.task else None
        stored, error = found.get(run), row.error or failed.get(run)
        if not stored:
            error = error or "the cached result is gone: run the sweep again"
        same = {**row.values, "seed": row.seed, "measure": None, "run": run, "error": error}
        if "profile" in same:
            same["profile"] = getattr(same["profile"], "name", same["profile"])
        for name in ("seconds", "loss"):
            value = stored and stored.record[name]
            same[name] = float("nan") if value is None else value
        if not stored:
            pieces.append((pd.DataFrame(index=[0]), same))
            continue
        pieces += [(stored.frames[name], {**same, "measure": name}) for name in plan.measures]
    # Without rows a column has no type, and would spoil that of the others.
    pieces = [piece for piece in pieces if len(piece[0])] or pieces
    items = pd.concat([piece for piece, _ in pieces], ignore_index=True)
    for name in items.columns:
        values = items[name].dropna() if items[name].dtype == object else ()
        if len(values) and all(isinstance(value, bool | numpy.bool_) for value in values):
            items[name] = items[name].astype("boolean")  # as objects `~` would turn True into -2
    columns = {}
    for name in (*plan.names, *OWN_COLUMNS):
        dtype = object if name in ("measure", "error") else None  # there they stand beside `None`
        columns[name] = pd.concat([pd.Series([same[name]], dtype=dtype) for _, same in pieces])
    which = numpy.repeat(range(len(pieces)), [len(piece) for piece, _ in pieces])
    same = pd.DataFrame(columns).iloc[which].reset_index(drop=True)
    last = ["seconds", "loss", "run", "error"]
    parts = [same.drop(columns=last), items, same[last]]
    return pd.concat(parts, axis=1, verify_integrity=True)  # no measure has a column of the grid
