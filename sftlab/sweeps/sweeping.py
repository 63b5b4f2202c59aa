"""Sweeps: each row of a grid is trained and measured with each seed, in parallel, and kept."""

import inspect
import itertools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import cloudpickle
import loky
import numpy
import pandas as pd
import psutil
from tqdm import tqdm

from sftlab.chat import find_template
from sftlab.machine import progress_stream
from sftlab.models import ModelNotAvailableError
from sftlab.profiles import Profile, UnknownProfileError, find_profile
from sftlab.sweeps import cache
from sftlab.sweeps.keys import (
    FingerprintError,
    base_hashes,
    code_hash,
    fingerprint,
    key_of,
    own_files,
    versions,
)
from sftlab.sweeps.worker import SweepError, Task, carry_out, start
from sftlab.train import VALIDATION, Settings, check_examples, control_tokens, data_hash
from sftlab.weights import BrokenWeightsError

OWN_COLUMNS = ("seed", "measure", "seconds", "loss", "run", "error")
"""Columns that every sweep's frame has."""
SMALL = 20_000_000
"""Parameters up to which a run has one thread, whatever `jobs`: so the numbers stay the same."""
_MEMORY = (
    1_200_000_000  # bytes of a worker: 0.5 GB of libraries, the rest for a small model at work
)
_IDLE = 120  # seconds after which a worker without work ends
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
                "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
_NO_MODEL = (UnknownProfileError, BrokenWeightsError, ModelNotAvailableError)
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
    validation: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: int | Iterable[int] = 5,
    settings: Settings | None = None,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: bool = True,
    refresh: bool = False,
) -> pd.DataFrame:
    """Fine-tune and measure for each row of a grid and each seed; a tidy frame of all results.

    Runs go on in parallel, each in one worker process, and are stored when they end, under a hash
    of what made them: settings, seed, base model, content of examples and validation, the code of
    the measures with the values that they use, the lab's code, and versions. What is stored is not
    run again: a second call returns at once, and one after an interrupt does what is left. A run
    that fails is one row with its error, is not stored, and does not stop the others.

        sweep("tiny", examples=lambda seed, n: country_examples(n, seed=seed),
              measure={"questions": lambda run: probe_questions(run.answer)},
              grid={"learning_rate": [5e-4, 2e-3], "n": [100, 400]}, seeds=3)

        learning_rate    n  seed    measure  country  right  ...  seconds  loss   run  error
               0.0005  100     0  questions  Austria   True  ...      2.1  0.31  6f1c   None

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        measure: by name, functions of a run that return a frame with one row an item, or a number.
            One with a parameter `seed`, or one named in the grid, is given it. Without examples and
            without such a `seed` the base is measured once, and all seeds show that result. Levels
            of an index that have names, such as those of `groupby`, become columns.
        examples: conversations, or a function that makes them from `seed` and names of the grid;
            `None` to measure the base model as it is.
        validation: the same, for examples to measure the loss on after each epoch; a measure finds
            the losses in `run.validation`.
        grid: values by name: of a setting, of an argument of `examples`, of `validation` or of a
            measure, or of `profile`. All combinations are run.
        seeds: how many (then 0, 1, ...), or which. They replace the one in `settings`.
        settings: how to train, where the grid does not say.
        executor: where the runs go on, any `concurrent.futures.Executor`, such as
            `distributed.Client(...).get_executor(pure=False)` for a cluster. By default worker
            processes of `loky` on this machine.
        jobs: processes at a time, without an `executor`. By default one a core where memory allows
            it; one for a model that is not embedded, since it may need the whole machine.
        progress: show a bar with the runs done.
        refresh: run all again, and replace what is stored.

    Returns:
        One row an observation, in the order of grid, seeds and measures: the grid's columns, seed,
        measure, the item's columns (or `value` for a number), seconds of training, loss (mean of
        the last tenth of training, nats a supervised token; NaN when untrained), run (key) and
        error (`None`, or such as `ExampleError: example 3 ...`).

    Raises:
        SweepError: a name of the grid that nothing takes, no seeds, a measure without a run, an
            item's column that has the name of another, or a worker with another version of the lab.
        FingerprintError: a measure uses something from outside, such as a model, that can't be
            hashed.
        UnknownProfileError, ModelNotAvailableError: the profile is unknown, or can't be loaded.
    """
    one = {"profile": profile, "measure": measure, "examples": examples, "validation": validation,
           "grid": grid, "seeds": seeds, "settings": settings}  # fmt: skip
    return sweeps(one, executor=executor, jobs=jobs, progress=progress, refresh=refresh)[0]


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
        executor, jobs, progress, refresh: as in `sweep`, for all together.
        common: arguments of all the sweeps; those in `wanted` come first.

    Returns:
        For each of them the frame that `sweep` would return.

    Raises:
        SweepError, FingerprintError, UnknownProfileError, ModelNotAvailableError: as in `sweep`.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
    plans = [_plan_sweep(**{**common, **one}) for one in wanted]
    tasks = {row.task.run: row.task for plan in plans for row in plan.rows if row.task}
    found = {} if refresh else {run: cache.read(run) for run in tasks}
    found = {run: stored for run, stored in found.items() if stored}
    errors = [row.error for plan in plans for row in plan.rows if row.error]
    failed: dict[str, str] = {}
    names = {Path(task.profile.name).name for task in tasks.values()}
    bar = tqdm(total=len(tasks), initial=len(found), unit="run", file=progress_stream(),
               desc=f"sweep of {', '.join(names)}", disable=not progress)  # fmt: skip

    def done(task: Task, outcome: dict[str, Any]) -> None:
        if "error" in outcome:
            failed[task.run] = outcome["error"]
            bar.set_postfix(failed=len(failed), refresh=False)
        else:
            known = {"profile": task.profile.name, "seed": task.seed, "code": task.code}
            cache.write(task.run, {**known, **outcome["record"]}, outcome["frames"])
        bar.update()

    with bar:
        _run_all([task for run, task in tasks.items() if run not in found], executor, jobs, done)
    errors += failed.values()
    found |= {run: cache.read(run) for run in tasks if run not in found and run not in failed}
    if errors:
        warnings.warn(
            f"{len(errors)} run{'s' * (len(errors) > 1)} failed and will be tried again by the "
            f"next call; the column `error` says why. The first: {errors[0]}",
            stacklevel=3,
        )
    heard = Counter(text for run in found.values() if run for text in run.record["warnings"])
    for text, count in heard.items():
        warnings.warn(f"{text} (in {count} of {len(found)} runs)", stacklevel=3)
    return [_observations(plan, found, failed) for plan in plans]


def base_meter(profile: str | Path | Profile) -> pd.DataFrame:
    """What `Run.meter` gives for the profile's model before any training; read once, then cached.

    Raises:
        UnknownProfileError, ModelNotAvailableError: the profile is unknown, or can't be loaded.
    """
    found = sweep(profile, measure={"meter": _meter}, seeds=1, jobs=1, progress=False)
    if found["error"].notna().any():
        raise SweepError(found["error"].iloc[0])
    return found.drop(columns=list(OWN_COLUMNS))


def _meter(run: Any) -> pd.DataFrame:
    return run.meter()


# Planning: from the arguments of a sweep to its runs


@dataclass(kw_only=True)
class _Row:
    """A row of the grid with a seed."""

    values: dict[str, Any]
    seed: int
    task: Task | None = None
    error: str = ""
    """Why there is no task."""


@dataclass(kw_only=True)
class _Plan:
    """What one sweep is to do: its rows in the order of the grid and the seeds."""

    names: list[str]
    measures: list[str]
    rows: list[_Row] = field(default_factory=list)


def _plan_sweep(
    profile: Any = None,
    *,
    measure: Any,
    examples: Any = None,
    validation: Any = None,
    grid: Any = None,
    seeds: Any = 5,
    settings: Settings | None = None,
) -> _Plan:
    grid, seeds = _checked_grid(grid), _checked_seeds(seeds)
    makers = {"examples": examples, "validation": validation}
    if not isinstance(settings, Settings | None):
        raise SweepError(f"settings is {settings!r}; give Settings(...)")
    if not isinstance(measure, Mapping) or not measure:
        raise SweepError('measure is a mapping from names to functions, such as {"facts": facts}')
    if examples is None and validation is not None:
        raise SweepError("validation needs examples: without them nothing is trained")
    takes = {name: _taken(f"the measure {name!r}", function, grid, run=True)
             for name, function in measure.items()}  # fmt: skip
    made_from = {name: _taken(name, function, grid)
                 for name, function in makers.items() if callable(function)}  # fmt: skip
    known = {"profile", *itertools.chain(*takes.values(), *made_from.values())} - {"seed", "run"}
    if examples is not None:
        known |= {f.name for f in fields(Settings)} - {"seed"}
    for name in grid:
        if name not in known:
            why = " (without examples nothing is trained)" if examples is None else ""
            raise SweepError(
                f"nothing takes {name!r}{why}; the grid may name {', '.join(sorted(known))}"
            )
    if "profile" not in grid:
        find_profile(profile)
    common = {
        "format": cache.FORMAT, "code": code_hash(), "versions": versions(),
        "measures": {name: fingerprint(function, what=f"the measure {name!r}")
                     for name, function in measure.items()},
    }  # fmt: skip
    measures = _pickled(measure)
    made: dict[str, Any] = {}

    def once(key: str, make: Callable[[], Any]) -> Any:
        if key not in made:
            made[key] = make()
        return made[key]

    def rows_of(kind: str, template: str, given: dict[str, Any]) -> tuple[list, str]:
        """Checked examples, or validation, and their hash."""
        raw = makers[kind]
        if callable(raw):
            try:
                raw = raw(**{name: given[name] for name in made_from[kind]})
            except Exception as error:
                error.add_note(f" (in the function `{kind}`)")
                raise
        name = "example" if kind == "examples" else VALIDATION
        rows = check_examples(raw, control=control_tokens(template), name=name)
        return rows, data_hash(rows)

    def task_of(values: dict[str, Any], seed: int) -> Task:
        base = find_profile(values.get("profile", profile))
        hashes = once(f"{base.source} {base.revision}", lambda: base_hashes(base))
        given = {**values, "seed": seed, "profile": base.name}
        arguments = {name: {key: given[key] for key in sorted(takes[name] - {"run"})}
                     for name in measure}  # fmt: skip
        filled, rows = None, {"examples": (None, None), "validation": (None, None)}
        if examples is not None:
            chosen = {f.name for f in fields(Settings)} & set(given)
            filled = (settings or Settings()).changed(**{name: given[name] for name in chosen})
            filled = filled.filled(base)
            for kind in rows if validation is not None else ["examples"]:
                used = {name: given[name] for name in sorted(made_from.get(kind, ()))}
                key = f"{kind} {filled.template} {fingerprint(used, what='the grid')}"
                rows[kind] = once(key, lambda kind=kind: rows_of(kind, filled.template, given))
        elif not any("seed" in one for one in arguments.values()):
            seed = 0  # the base is the same for all seeds: measured once
        run = key_of({
            **common, "seed": seed, "base": hashes, "embedded": base.embedded,
            # 3 epochs are the same as 3.0; and behind a template's name or path its text may change
            "settings": filled and {name: float(value) if type(value) is int else value
                                    for name, value in asdict(filled).items()},
            "template": filled and find_template(filled.template).text,
            "data": rows["examples"][1], "validation": rows["validation"][1],
            "arguments": {name: fingerprint(one, what=f"the grid, for the measure {name!r},")
                          for name, one in arguments.items()},
        })  # fmt: skip
        small = (base.parameters or SMALL + 1) <= SMALL
        return Task(
            run=run, code=common["code"], weights=hashes["weights"], profile=base, settings=filled,
            seed=seed, examples=rows["examples"][0], validation=rows["validation"][0],
            measures=measures, arguments=arguments, reserved=(*grid, *OWN_COLUMNS),
            threads=1 if small else None,
        )  # fmt: skip

    plan = _Plan(names=list(grid), measures=list(measure))
    for point in itertools.product(*grid.values()):
        for seed in seeds:
            row = _Row(values=dict(zip(grid, point, strict=True)), seed=seed)
            try:
                row.task = task_of(row.values, seed)
            except (FingerprintError, SweepError):
                raise
            except Exception as error:  # of the learner's functions, or of a value in the grid
                if isinstance(error, _NO_MODEL) and "profile" not in grid:
                    raise
                where = "".join(getattr(error, "__notes__", []))
                row.error = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
            plan.rows.append(row)
    return plan


def _checked_grid(grid: Any) -> dict[str, list]:
    """The values of each name of the grid, as lists."""
    if not isinstance(grid, Mapping | None):
        raise SweepError(f'grid is {grid!r}; give values by name, such as {{"n": [1, 3]}}')
    checked = {}
    for name, values in (grid or {}).items():
        if name == "seed":
            raise SweepError("the seeds of a sweep are its argument `seeds`, not part of the grid")
        if name in (*OWN_COLUMNS, "value"):
            raise SweepError(f"grid[{name!r}]: the result has a column of that name; rename it")
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise SweepError(f"grid[{name!r}] is {values!r}; give a list of values")
        values = [value.item() if isinstance(value, numpy.generic) else value for value in values]
        if not values:
            raise SweepError(f"grid[{name!r}] has no values; give one or more, or leave it out")
        if len({fingerprint(value, what=f"grid[{name!r}]") for value in values}) < len(values):
            raise SweepError(f"grid[{name!r}] has a value twice: {values!r}; give each once")
        checked[name] = values
    return checked


def _checked_seeds(seeds: Any) -> list[int]:
    """The seeds as a list: 0 to n - 1 for a number n."""
    if isinstance(seeds, int | numpy.integer) and not isinstance(seeds, bool):
        seeds = range(seeds)
    listed = list(seeds) if isinstance(seeds, Iterable) else []
    whole = all(isinstance(seed, int | numpy.integer) and seed >= 0 for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise SweepError(
            f"seeds is {seeds!r}; give how many, 1 or more, or a list of different whole numbers"
        )
    return [int(seed) for seed in listed]


def _taken(what: str, function: Any, grid: Mapping[str, Any], *, run: bool = False) -> set[str]:
    """Names of the grid and of the seed that a function takes.

    A measure's run goes to its parameter `run`, which is then among them, or else to the first one.
    """
    if not callable(function):
        raise SweepError(f"{what} is {function!r}; give a function of a run")
    parameters = list(inspect.signature(function).parameters.values())
    named = {p.name: p for p in parameters
             if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}  # fmt: skip
    if run and "run" not in named:
        if not parameters or parameters[0].kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise SweepError(f"{what} takes no run; write it as a function of the run")
        named.pop(parameters[0].name, None)
    given = {*grid, "seed", "profile", *(["run"] if run else [])}
    for name, parameter in named.items():
        if name not in given and parameter.default is parameter.empty:
            raise SweepError(
                f"{what} needs {name!r}: put its values into the grid, or give it a default"
            )
    return set(named) & given


def _pickled(measure: Mapping[str, Callable]) -> bytes:
    for name, function in measure.items():
        try:
            cloudpickle.dumps(function)
        except Exception as error:  # pickle raises what it likes
            raise SweepError(
                f"the measure {name!r} can't be sent to another process: {error}"
            ) from error
    return cloudpickle.dumps(dict(measure))


# Running


def _run_all(
    tasks: list[Task], executor: Executor | None, jobs: int | None, done: Callable
) -> None:
    """Carry out the tasks; `done(task, outcome)` is called as each ends."""
    if jobs is None:
        jobs = min(loky.cpu_count(), int(psutil.virtual_memory().available / _MEMORY))
        if not all(task.profile.embedded for task in tasks):
            jobs = 1
    jobs = max(jobs, 1)
    waiting = {task.run: task for task in tasks}

    def ended(task: Task, outcome: dict[str, Any]) -> None:
        done(task, outcome)
        del waiting[task.run]

    while waiting:
        _run_together(list(waiting.values()), executor, jobs, ended)
        # Only where a worker died is something left, and it is not known whose run it was: one of
        # the first `jobs`. Each of them is tried again alone, then the others go on.
        for task in list(waiting.values())[: None if executor else jobs]:
            _run_together([task], executor, jobs, ended)
            if task.run in waiting:
                ended(task, {"error": _DIED})


def _run_together(tasks: list[Task], executor: Executor | None, jobs: int, ended: Callable) -> None:
    """Carry out tasks until all have ended, or a worker has died.

    After an interrupt, or another exception, what has finished is kept and the rest is cancelled;
    loky's workers are killed.
    """
    pool = executor or loky.get_reusable_executor(
        jobs, timeout=_IDLE, env=_ENVIRONMENT, initializer=start,
        # Where one of these has changed, such as a learner's module, new workers are started.
        initargs=(os.getpid(), code_hash(), os.getcwd(), tuple(sys.path), own_files()),
    )  # fmt: skip
    futures = {}
    kept = set()
    try:
        for task in tasks:
            futures[pool.submit(carry_out, task)] = task
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, SweepError):
                raise error
            if not isinstance(error, BrokenExecutor):
                outcome = {"error": f"{type(error).__name__}: {error}"} if error else None
                ended(futures[future], outcome or future.result())
                kept.add(future)
    except BrokenExecutor:  # when submitting: a worker has died meanwhile
        return
    except BaseException:
        left = [future for future in futures if not future.cancel() and future not in kept]
        for future in left:
            if future.done() and future.exception() is None:
                ended(futures[future], future.result())
        if executor is None:
            pool.shutdown(wait=True, kill_workers=True)
        raise


# The result


def _observations(
    plan: _Plan, found: Mapping[str, cache.Stored | None], failed: Mapping[str, str]
) -> pd.DataFrame:
    """One row an observation, in the order of the plan and of the measures."""
    pieces = []  # of a run and a measure: the items, and what is the same for all of them
    for row in plan.rows:
        same = {name: getattr(value, "name", value) if name == "profile" else value
                for name, value in row.values.items()}  # fmt: skip
        run = row.task.run if row.task else None
        same |= {"seed": row.seed, "measure": None, "seconds": float("nan"), "loss": float("nan"),
                 "run": run, "error": row.error or failed.get(run)}  # fmt: skip
        stored = found.get(run)
        if stored is None:
            same["error"] = same["error"] or "LostError: its file is gone; sweep again"
            pieces.append((pd.DataFrame(index=[0]), same))
            continue
        same["seconds"] = stored.record["seconds"]
        if stored.record["loss"] is not None:
            same["loss"] = stored.record["loss"]
        for name in plan.measures:
            for column in stored.frames[name].columns.intersection(plan.names):
                raise SweepError(
                    f"the measure {name!r} gives a column {column!r}, and the grid has one of that "
                    "name; rename one"
                )
            pieces.append((stored.frames[name], {**same, "measure": name}))
    # Without rows a column has no type, and would spoil that of the others.
    pieces = [piece for piece in pieces if len(piece[0])] or pieces
    frame = pd.concat([items for items, _ in pieces], ignore_index=True)
    for name in frame.columns:
        values = frame[name].dropna() if frame[name].dtype == object else ()
        if len(values) and all(isinstance(value, bool | numpy.bool_) for value in values):
            frame[name] = frame[name].astype("boolean")  # as objects `~` would turn True into -2
    which = numpy.repeat(range(len(pieces)), [len(items) for items, _ in pieces])
    same = pd.DataFrame({name: _column([same[name] for _, same in pieces], name)
                         for name in (*plan.names, *OWN_COLUMNS)})  # fmt: skip
    same = same.iloc[which].reset_index(drop=True)
    last = ["seconds", "loss", "run", "error"]
    return pd.concat([same.drop(columns=last), frame, same[last]], axis=1)


def _column(values: list[Any], name: str) -> pd.Series:
    """Of what is the same for a piece; texts and `None` can share a column."""
    kind = object if name in ("measure", "error") else None
    return pd.concat([pd.Series([value], dtype=kind) for value in values], ignore_index=True)
