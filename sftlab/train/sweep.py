"""Sweeps: grids of settings x seeds, each run once, side by side on all cores, kept for ever."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.profiles import Profile
from sftlab.train import results
from sftlab.train.countdown import Countdown, work
from sftlab.train.experiment import Experiment
from sftlab.train.fingerprint import FingerprintError
from sftlab.train.grid import OWN_COLUMNS, SweepError
from sftlab.train.observations import observations
from sftlab.train.plan import Plan, Planned, make_plan
from sftlab.train.settings import Settings

__all__ = ["FingerprintError", "SweepError", "sweep"]

ROOM = 1_200_000_000
"""Bytes of memory for each process: libraries 0.5 GB, the rest for the model at work."""
SMALL = 20_000_000
"""Parameters up to which a run has one thread, whatever `jobs`: so the numbers stay the same."""


def sweep(
    profile: str | Path | Profile,
    *,
    measure: Mapping[str, Callable[..., pd.DataFrame | float]],
    examples: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    validation: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: int | Iterable[int] = 5,
    settings: Settings | None = None,
    jobs: int | None = None,
    progress: bool = True,
    refresh: bool = False,
) -> pd.DataFrame:
    """Fine-tune and measure for each row of a grid and each seed; a tidy frame of all results.

    Each run has a process of its own and is stored when it ends, under the hash of what made it:
    settings, seed, base model, content of examples and validation, the measures' code with the
    values that they use, the lab's code, and versions. What is stored is not run again, so a second
    call comes back at once, and one after an interrupt goes on where the first ended. A run that
    fails is one row with its error, is not stored, and does not stop the others.

        sweep("tiny", examples=lambda seed, n: country_examples(n, seed=seed),
              measure={"questions": lambda run: probe_questions(run.answer)},
              grid={"learning_rate": [5e-4, 2e-3], "n": [100, 400]}, seeds=3)

        learning_rate    n  seed    measure  country  right  ...  seconds  loss   run  error
               0.0005  100     0  questions  Austria   True  ...      2.1  0.31  6f1c   None

    Args:
        profile: a profile, its name, a model folder, or a hub id.
        measure: by name, functions of a run that return a frame with one row an item, or a number.
            One that has a parameter `seed` or one named in the grid is given it.
        examples: conversations, or a function that makes them from `seed` and names of the grid;
            `None` to measure the base model as it is.
        validation: the same, for examples to measure the loss on after each epoch; a measure finds
            the losses in `run.validation`.
        grid: values by name: of a setting, of an argument of `examples`, of `validation` or of a
            measure, or of `profile`. All combinations are run.
        seeds: how many (then 0, 1, ...), or which. They replace the one in `settings`.
        settings: how to train, where the grid does not say.
        jobs: processes at a time. By default one a core where memory allows it; one for a model
            that is not embedded, since it may need the whole machine.
        progress: show a bar with the runs done and the time left.
        refresh: run all again, and replace what is stored.

    Returns:
        One row an observation, in the order of grid, seeds and measures: the grid's columns, seed,
        measure, the item's columns (or `value` for a number), seconds of training, loss (mean of
        the last tenth of training, nats a supervised token; NaN when untrained), run (hash) and
        error (`None`, or such as `ExampleError: example 3 ...`).

    Raises:
        SweepError: a name of the grid that nothing takes, no seeds, a measure without a run, or an
            item's column that has the name of another.
        FingerprintError: a measure uses something, such as a model, that has no value to compare.
        UnknownProfileError, ModelNotAvailableError: the one profile is unknown, or not to be had.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
    plan = make_plan(profile, measure=measure, examples=examples, validation=validation, grid=grid,
                     seeds=seeds, settings=settings)  # fmt: skip
    results.sweep_up()
    store = results.runs_folder()
    unique = {one.run: one for one in plan.runs if one.run}
    have = {} if refresh else {run: results.read(store, run) for run in unique}
    have = {run: found for run, found in have.items() if found}
    todo = [one for run, one in unique.items() if run not in have]
    jobs = _jobs(todo, jobs)
    bar = Countdown(
        f"sweep of {_name(plan)}", total=len(unique) + sum(not one.run for one in plan.runs),
        cached=len(have), jobs=max(min(jobs, len(todo)), 1), shown=progress,
    )  # fmt: skip
    errors = {}
    try:
        for one in plan.runs:
            if one.error:
                bar.failed(one.error)
        if todo:
            errors = _carry_out(todo, plan, bar, jobs)
    finally:
        bar.close()
    have |= {one.run: results.read(store, one.run) for one in todo if one.run not in errors}
    _repeat_warnings([found.record for found in have.values() if found])
    return observations(plan, list(measure), have, errors)


def _name(plan: Plan) -> str:
    names = {one.needs["profile"].name for one in plan.runs if one.needs}
    return Path(names.pop()).name if len(names) == 1 else "several models"


def _jobs(todo: list[Planned], jobs: int | None) -> int:
    if jobs is None:
        import joblib
        import psutil

        jobs = min(joblib.cpu_count(), int(psutil.virtual_memory().available / ROOM))
        if not all(one.needs["profile"].embedded for one in todo):
            jobs = 1
    return max(jobs, 1)


def _carry_out(todo: list[Planned], plan: Plan, bar: Countdown, jobs: int) -> dict[str, str]:
    """Do the runs that are missing; the errors of those that failed."""
    from sftlab.train.processes import conduct_all

    small = all((one.needs["profile"].parameters or SMALL + 1) <= SMALL for one in todo)
    experiments = []
    with _sent_by_value(plan.live):
        for one in todo:
            needs = {**one.needs, "calls": _pickled(one.needs["calls"])}
            experiments.append(Experiment(
                **needs, reserved=(*plan.names, *OWN_COLUMNS), store=results.runs_folder(),
                threads=1 if small else _threads(jobs),
            ))  # fmt: skip
    # The longest first: one that begins last would leave the other processes without work.
    experiments.sort(key=work, reverse=True)
    bar.expect(experiments)
    errors = {}
    with closing(conduct_all(experiments, jobs=jobs, loaded=plan.loaded)) as events:
        for event in events:
            if event is None:
                bar.tick()
                continue
            kind, experiment, outcome = event
            if kind == "begun":
                bar.begun(experiment)
                continue
            if outcome.error and outcome.error.startswith("ColumnError: "):
                # No matter of this run: all the others would fail like it.
                raise SweepError(outcome.error.removeprefix("ColumnError: "))
            bar.ended(experiment, outcome)
            if outcome.error:
                errors[experiment.run] = outcome.error
    return errors


def _threads(jobs: int) -> int:
    import joblib

    return max(joblib.cpu_count() // jobs, 1)


@contextmanager
def _sent_by_value(modules: set[str]) -> Iterator[None]:
    """Send functions of the learner's own modules whole: a process may not find the module."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    named = [n for n in modules - {"__main__", *known} if n in sys.modules]
    for name in named:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        for name in named:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _pickled(calls: dict[str, tuple]) -> bytes:
    import cloudpickle

    for name, call in calls.items():
        try:
            cloudpickle.dumps(call)
        except Exception as error:  # pickle raises what it likes
            raise SweepError(
                f"the measure {name!r} can't be sent to another process: {error}"
            ) from error
    return cloudpickle.dumps(calls)


def _repeat_warnings(records: list[dict[str, Any]]) -> None:
    """Warn of what the runs warned of, once each."""
    counts: dict[str, int] = {}
    for record in records:
        for text in record["warnings"]:
            counts[text] = counts.get(text, 0) + 1
    for text, count in counts.items():
        warnings.warn(f"{text} (in {count} of {len(records)} runs)", stacklevel=3)
