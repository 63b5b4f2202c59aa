"""The queue of sweeps: which of their runs are missing, who does them, and what comes out."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.sweeps import results
from sftlab.sweeps.countdown import Countdown, work
from sftlab.sweeps.experiment import Experiment
from sftlab.sweeps.grid import OWN_COLUMNS, SweepError
from sftlab.sweeps.observations import observations
from sftlab.sweeps.plan import Plan, Planned, make_plan

ROOM = 1_200_000_000
"""Bytes of memory for each process: libraries 0.5 GB where it can't share a server's, the rest for
the model at work."""
SMALL = 20_000_000
"""Parameters up to which a run has one thread, whatever `jobs`: so the numbers stay the same."""


def carry_out_all(
    wanted: list[dict[str, Any]], *, jobs: int | None, progress: bool, refresh: bool
) -> list[pd.DataFrame]:
    """Carry out sweeps together; the frame of each.

    Args:
        wanted: for each sweep all arguments of `make_plan`.
        jobs, progress, refresh: as in `sftlab.sweeps.sweep`.

    Raises:
        SweepError, FingerprintError, UnknownProfileError, ModelNotAvailableError: as `sweep`.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise SweepError(f"jobs is {jobs!r}; give a whole number, 1 or more")
    plans = [make_plan(**one) for one in wanted]
    results.sweep_up()
    store = results.runs_folder()
    unique = {one.run: (one, plan) for plan in plans for one in plan.runs if one.run}
    have = {} if refresh else {run: results.read(store, run) for run in unique}
    have = {run: found for run, found in have.items() if found}
    todo = [unique[run] for run in unique if run not in have]
    hopeless = [one.error for plan in plans for one in plan.runs if one.error]
    jobs = _jobs([one for one, _ in todo], jobs)
    bar = Countdown(
        f"sweep of {_name(plans)}", total=len(unique) + len(hopeless),
        cached=len(have), jobs=max(min(jobs, len(todo)), 1), shown=progress,
    )  # fmt: skip
    errors = {}
    try:
        for error in hopeless:
            bar.failed(error)
        if todo:
            errors = _carry_out(todo, bar, jobs)
    finally:
        bar.close()
    have |= {one.run: results.read(store, one.run) for one, _ in todo if one.run not in errors}
    _repeat_warnings([found.record for found in have.values() if found])
    return [
        observations(plan, list(one["measure"]), have, errors)
        for plan, one in zip(plans, wanted, strict=True)
    ]


def _name(plans: list[Plan]) -> str:
    names = {one.needs["profile"].name for plan in plans for one in plan.runs if one.needs}
    return Path(names.pop()).name if len(names) == 1 else "several models"


def _jobs(todo: list[Planned], jobs: int | None) -> int:
    if jobs is None:
        import joblib
        import psutil

        jobs = min(joblib.cpu_count(), int(psutil.virtual_memory().available / ROOM))
        if not all(one.needs["profile"].embedded for one in todo):
            jobs = 1
    return max(jobs, 1)


def _carry_out(todo: list[tuple[Planned, Plan]], bar: Countdown, jobs: int) -> dict[str, str]:
    """Do the runs that are missing; the errors of those that failed."""
    from sftlab.sweeps.processes import conduct_all

    experiments = []
    with _sent_by_value(set().union(*(plan.live for _, plan in todo))):
        for one, plan in todo:
            needs = {**one.needs, "calls": _pickled(one.needs["calls"])}
            small = (needs["profile"].parameters or SMALL + 1) <= SMALL
            experiments.append(Experiment(
                **needs, reserved=(*plan.names, *OWN_COLUMNS), store=results.runs_folder(),
                threads=1 if small else _threads(jobs),
            ))  # fmt: skip
    # The longest first: one that begins last would leave the other processes without work.
    experiments.sort(key=work, reverse=True)
    bar.expect(experiments)
    errors = {}
    loaded = " ".join(sorted({plan.loaded for _, plan in todo}))
    with closing(conduct_all(experiments, jobs=jobs, loaded=loaded)) as events:
        for event in events:
            if event is None:
                bar.tick()
                continue
            kind, experiment, outcome = event
            if kind == "begun":
                bar.begun(experiment)
                continue
            if outcome.fatal:
                raise SweepError(outcome.error.partition(": ")[2])
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
        warnings.warn(f"{text} (in {count} of {len(records)} runs)", stacklevel=4)
