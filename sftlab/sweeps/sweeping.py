"""Sweeps: each row of a grid is trained and measured with each seed, in parallel, and kept."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from pathlib import Path
from typing import Any

import loky
import pandas as pd
import psutil
from pandas.api.types import infer_dtype
from tqdm import tqdm

from sftlab.machine import progress_stream
from sftlab.paths import OTHER_CACHE, check_writable
from sftlab.profiles import Profile
from sftlab.sweeps import cache
from sftlab.sweeps.cache import SweepError
from sftlab.sweeps.plan import Row, plan_sweep
from sftlab.sweeps.worker import Task, carry_out, error_text, start
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
        measure: by name, functions whose first parameter is a run, and that return a frame with
            one row per item, or a number. Parameters `seed`, `profile`, or named in the grid, are
            given.
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
        SweepError, UnknownProfileError, ModelNotAvailableError: an argument is wrong.
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
    if jobs is not None and jobs < 1:
        raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
    wanted = [{**common, **one} for one in wanted]
    plans = [plan_sweep(**one) for one in wanted]
    tasks = {row.task.run: row.task for rows in plans for row in rows if row.task}
    found = {} if refresh else {run: stored for run in tasks if (stored := cache.read(run))}
    todo = [task for run, task in tasks.items() if run not in found]
    if todo:
        check_writable(cache.runs_folder(), remedy=OTHER_CACHE)  # before the hours, not after
    names = sorted({Path(task.profile.name).name for task in tasks.values()})
    bar = {"desc": f"sweep of {', '.join(names)}", "unit": "run", "file": progress_stream()}
    bar |= {"total": len(tasks), "initial": len(found), "disable": not progress}
    with tqdm(**bar) as shown:
        failed = _run(todo, executor, jobs, shown) if todo else {}
    found |= {task.run: cache.read(task.run) for task in todo if task.run not in failed}
    errors = [row.error for rows in plans for row in rows if row.error] + [*failed.values()]
    if errors:
        warnings.warn(
            f"{len(errors)} runs failed and will be tried again by the next call; the column "
            f"`error` says why. The first: {errors[0]}",
            stacklevel=3,
        )
    for text in dict.fromkeys(text for run in found.values() for text in run["warnings"]):
        warnings.warn(text, stacklevel=3)
    return [
        _observations(rows, list(one["measure"]), found, failed)
        for rows, one in zip(plans, wanted, strict=True)
    ]


def _run(
    tasks: list[Task], executor: Executor | None, jobs: int | None, bar: tqdm
) -> dict[str, str]:
    """Carry out tasks and store what they give; the errors of those that fail, by run."""
    waiting, failed = {task.run: task for task in tasks}, {}

    def done(task: Task, outcome: dict[str, Any]) -> None:
        if "error" in outcome:
            failed[task.run] = outcome["error"]
        else:
            cache.write(task.run, outcome["record"], outcome["frames"])
        del waiting[task.run]
        bar.update()

    if jobs is None:  # as memory allows; a model that is not embedded may need the whole machine
        room = int(psutil.virtual_memory().available / _MEMORY)
        small = all(task.profile.embedded for task in tasks)
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
        initargs=(os.getpid(), os.getcwd(), [*sys.path], cache.own_files()),
    )
    futures = {}
    try:
        for task in tasks:
            futures[pool.submit(carry_out, task)] = task
        for future in as_completed(futures):
            error = future.exception()
            if not isinstance(error, BrokenExecutor):
                outcome = {"error": error_text(error)} if error else None
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
    rows: list[Row], measures: list[str], found: Mapping[str, dict], failed: Mapping[str, str]
) -> pd.DataFrame:
    """One row an observation, in the order of the rows and of the measures."""
    pieces = []
    for row in rows:
        run = row.task.run if row.task else None
        stored = found.get(run, {"seconds": math.nan, "loss": math.nan, "frames": {}})
        left = {**row.values, "seed": row.seed}
        if "profile" in left:
            left["profile"] = getattr(left["profile"], "name", left["profile"])
        loss = math.nan if stored["loss"] is None else stored["loss"]  # JSON has no NaN
        right = {"seconds": stored["seconds"], "loss": loss}
        right |= {"run": run, "error": row.error or failed.get(run)}
        for name in measures if run in found else [None]:
            # A run that failed is one row without items. A list, so that a tuple stays one cell.
            items = stored["frames"].get(name, pd.DataFrame(index=[0]))
            same = {**left, "measure": name, **right}
            pieces.append(items.assign(**{key: [one] * len(items) for key, one in same.items()}))
    # Without rows a column has no type, and would spoil that of the others.
    pieces = [piece for piece in pieces if len(piece)] or pieces
    frame = pd.concat(pieces, ignore_index=True)
    items = frame.columns.drop([*left, "measure", *right])
    frame = frame.reindex(columns=[*left, "measure", *items, *right])
    for name in frame:
        if frame[name].dtype == object and infer_dtype(frame[name], skipna=True) == "boolean":
            frame[name] = frame[name].astype("boolean")  # as objects `~` would turn True into -2
    return frame.astype({"measure": object, "error": object})
