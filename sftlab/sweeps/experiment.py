"""Experiments: arms that differ in what they say they do, each trained and measured with each seed,
in parallel, and kept."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, as_completed
from pathlib import Path
from typing import Any

import loky
import pandas as pd
from pandas.api.types import infer_dtype
from tqdm import tqdm

from sftlab.machine import free_ram, progress_stream
from sftlab.measure import Estimate, difference, mean
from sftlab.paths import OTHER_CACHE, check_writable
from sftlab.profiles import Profile
from sftlab.sweeps import cache
from sftlab.sweeps.cache import SweepError
from sftlab.sweeps.plan import Row, plan_arm
from sftlab.sweeps.worker import Task, carry_out, error_text, start
from sftlab.train import Settings

_MEMORY = 1_200_000_000  # bytes of a worker: 0.5 GB of libraries, the rest for a model at work
_IDLE = 120  # seconds after which a worker without work ends
_DIED = (
    "WorkerDied: the worker process of this run ended without an error, also when the run was "
    "tried again alone. As a rule memory ran out: give run a smaller jobs, or train with smaller "
    "batches or a smaller max_length"
)
_OF_AN_ARM = ("examples", "eval_dataset", "measure", "profile", "seeds")


class Experiment:
    """What all arms share: the model, the examples, what is measured, settings and seeds.

        rates = Experiment("tiny", examples=few, measure={"accuracy": accuracy}, seeds=5)
        results = rates.run({f"{rate:g}": {"learning_rate": rate} for rate in [7e-5, 7e-4, 7e-3]})
        results.mean("accuracy")              # {"7e-05": Estimate, "0.0007": ..., "0.007": ...}
        results.difference("0.0007", "7e-05")  # paired by seed and question

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        measure: by name, functions whose first parameter is a run, and that return a frame with
            one row per item, or a number. Parameters `seed`, `profile`, or named by an arm, are
            given.
        examples: conversations, or a function that makes them from `seed` and names of an arm;
            `None` to measure the base as it is: once for all seeds, unless a measure takes `seed`.
        eval_dataset: the same, to measure the loss on; a measure finds it in `run.validation`.
        settings: how to train, where an arm does not say.
        seeds: how many (then 0, 1, ...), or which. They replace the one in `settings`.
    """

    def __init__(
        self,
        profile: str | Path | Profile,
        *,
        measure: Mapping[str, Callable[..., pd.DataFrame | float]],
        examples: Any = None,
        eval_dataset: Any = None,
        settings: Settings | None = None,
        seeds: Any = 5,
    ) -> None:
        self.shared = {"profile": profile, "measure": measure, "examples": examples}
        self.shared |= {"eval_dataset": eval_dataset, "seeds": seeds}
        self.settings = settings or Settings()

    def run(
        self,
        arms: Mapping[str, Mapping[str, Any]],
        *,
        executor: Executor | None = None,
        jobs: int | None = None,
        progress: bool = True,
        refresh: bool = False,
    ) -> "Results":
        """Train and measure each arm with each seed.

        Each run is stored when it ends, under a hash of all that made it (`sftlab.sweeps.plan`),
        and not run again: a call after an interrupt does what is left. One that fails is a row with
        its error, and the next call tries it again.

        Args:
            arms: name -> what is different in this arm: fields of `Settings`, arguments of the
                functions that make examples or measure, or another `examples` (`None`: the base as
                it is), `eval_dataset`, `measure`, `profile` or `seeds`. `{}` differs in nothing.
            executor: what carries out the runs, such as `distributed.Client(...).get_executor(
                pure=False)` for a cluster. By default `loky`'s worker processes on this machine.
            jobs: number of these processes. By default one a core where memory allows it; one for a
                model that is not embedded, since it may need the whole machine.
            progress: show a bar with the runs done.
            refresh: run all again, and replace what is stored.

        Raises:
            SweepError, UnknownProfileError, ModelNotAvailableError: an argument is wrong.
        """
        if not arms:
            raise SweepError("an experiment needs an arm: run({'as it is': {}})")
        if jobs is not None and jobs < 1:
            raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
        rows = []
        for arm, named in arms.items():
            own = {name: named[name] for name in _OF_AN_ARM if name in named}
            changes = {name: named[name] for name in named if name not in _OF_AN_ARM}
            usual = {**self.shared, "settings": self.settings}
            rows += plan_arm(arm, changes, **usual | own)
        tasks = {row.task.run: row.task for row in rows if row.task}
        found = {} if refresh else {run: stored for run in tasks if (stored := cache.read(run))}
        todo = [task for run, task in tasks.items() if run not in found]
        if todo:
            check_writable(cache.runs_folder(), remedy=OTHER_CACHE)  # before the hours, not after
        names = sorted({Path(task.profile.name).name for task in tasks.values()})
        bar = {"desc": f"runs of {', '.join(names)}", "unit": "run", "file": progress_stream()}
        bar |= {"total": len(tasks), "initial": len(found), "disable": not progress}
        with tqdm(**bar) as shown:
            failed = _run(todo, executor, jobs, shown) if todo else {}
        found |= {task.run: cache.read(task.run) for task in todo if task.run not in failed}
        errors = [row.error for row in rows if row.error] + [*failed.values()]
        if errors:
            warnings.warn(
                f"{len(errors)} runs failed and will be tried again by the next call; the column "
                f"`error` says why. The first: {errors[0]}",
                stacklevel=2,
            )
        for text in dict.fromkeys(text for run in found.values() for text in run["warnings"]):
            warnings.warn(text, stacklevel=2)
        return Results(_observations(rows, found, failed))


class Results:
    """What an experiment measured: `frame` has a row an observation.

    Columns: arm, seed, measure, the item's columns (or `value` for a number), seconds of training,
    loss (mean of the last tenth of training, nats a supervised token; NaN when untrained), run
    (key) and error.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __getitem__(self, arm: str) -> pd.DataFrame:
        """The rows of one arm; of several measures take one with `of`."""
        return self.of(None, arm=arm)

    def of(self, measure: str | None = None, **where: Any) -> pd.DataFrame:
        """The rows of one measure (`None`: the only one) in which columns have these values."""
        rows = self.frame
        measures = list(rows["measure"].unique())
        if measure is None and len(measures) == 1:
            measure = measures[0]
        if measure is not None:
            where = {"measure": measure, **where}
        for column, value in where.items():
            if not (rows[column] == value).any():
                found = ", ".join(map(str, rows[column].unique()))
                raise SweepError(f"no row has {column} {value!r}; there are {found}")
            rows = rows[rows[column] == value]
        return rows

    def mean(self, measure: str | None = None, **options: Any) -> dict[str, Estimate]:
        """Arm -> its mean with an interval; options as for `sftlab.measure.mean`."""
        return {
            arm: mean(self.of(measure, arm=arm), **options) for arm in self.frame["arm"].unique()
        }

    def difference(
        self, arm: str, other: str, measure: str | None = None, **options: Any
    ) -> Estimate:
        """`arm` minus `other`, paired; options as for `sftlab.measure.difference`."""
        return difference(self.of(measure, arm=arm), self.of(measure, arm=other), **options)


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
        room = int(free_ram() / _MEMORY)  # in a container what that may take
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
    rows: list[Row], found: Mapping[str, dict], failed: Mapping[str, str]
) -> pd.DataFrame:
    """One row an observation, in the order of the arms, their seeds and their measures."""
    pieces = []
    for row in rows:
        run = row.task.run if row.task else None
        stored = found.get(run, {"seconds": math.nan, "loss": math.nan, "frames": {}})
        loss = math.nan if stored["loss"] is None else stored["loss"]  # JSON has no NaN
        same = {"arm": row.arm, "seed": row.seed, "seconds": stored["seconds"], "loss": loss}
        same |= {"run": run, "error": row.error or failed.get(run)}
        for name in row.measures if run in found else [None]:
            items = stored["frames"].get(name, pd.DataFrame(index=[0]))  # a failed run is one row
            pieces.append(items.assign(measure=name, **same))
    # Without rows a column has no type, and would spoil that of the others.
    frame = pd.concat([piece for piece in pieces if len(piece)] or pieces, ignore_index=True)
    first, last = ["arm", "seed", "measure"], ["seconds", "loss", "run", "error"]
    frame = frame[[*first, *frame.columns.drop([*first, *last]), *last]]
    for name in frame:
        if frame[name].dtype == object and infer_dtype(frame[name], skipna=True) == "boolean":
            frame[name] = frame[name].astype("boolean")  # as objects `~` would turn True into -2
    return frame.astype({"measure": object, "error": object})
