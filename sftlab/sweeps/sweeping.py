"""Sweeps: grids of settings x seeds, each run once, side by side on all cores, kept for ever."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.models import Profile
from sftlab.sweeps.fingerprint import FingerprintError
from sftlab.sweeps.grid import SweepError
from sftlab.sweeps.queue import carry_out_all
from sftlab.train import Settings

__all__ = ["FingerprintError", "SweepError", "prepare", "sweep", "sweeps"]

OF_THE_QUEUE = ("jobs", "progress", "refresh")
"""Arguments that are one for all sweeps that are carried out together."""

ALL_CACHED = "SFTLAB_ALL_CACHED"
"""Environment variable of a lesson whose runs are all known to be stored: nothing to prepare."""


def prepare() -> None:
    """Let the processes of sweeps import their libraries beside what the caller does meanwhile.

    A lesson calls it before its own imports, so that its first sweep begins at once. Returns at
    once. On Linux and without a graphics card alone (`sweeps/forking.py`); elsewhere a sweep's
    processes import when they start.
    """
    from sftlab.sweeps import processes

    if not os.environ.get(ALL_CACHED):
        processes.prepare()


def sweep(
    profile: str | Path | Profile,
    *,
    measure: Mapping[str, Callable[..., pd.DataFrame | float]],
    examples: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    eval_dataset: Sequence[Mapping[str, Any]] | Callable[..., Sequence] | None = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: int | Iterable[int] = 5,
    settings: Settings | None = None,
    jobs: int | None = None,
    progress: bool = True,
    refresh: bool = False,
) -> pd.DataFrame:
    """Fine-tune and measure for each row of a grid and each seed; a tidy frame of all results.

    Each run has a process of its own and is stored when it ends, under the hash of what made it:
    settings, seed, base model, content of examples and eval_dataset, the measures' code with the
    values that they use, the lab's code, and versions. A file counts by its content where a measure
    reaches it by a `Path` from outside; by a text it does not: so one to write to is a text, and
    `refresh=True` is for one to read that has changed. What is stored is not run again, so a second
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
            One that has a parameter `seed` or one named in the grid is given it. Without examples
            and without such a `seed` the base is measured once, and all seeds show that result. An
            index that has a name, such as that of `groupby`, becomes columns.
        examples: conversations, or a function that makes them from `seed` and names of the grid;
            `None` to measure the base model as it is.
        eval_dataset: the same, for examples to measure the loss on; a measure finds
            the losses in `run.validation`.
        grid: values by name: of a setting, of an argument of `examples`, of `eval_dataset` or of a
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
    one = {"profile": profile, "measure": measure, "examples": examples,
           "eval_dataset": eval_dataset,
           "grid": grid, "seeds": seeds, "settings": settings}  # fmt: skip
    return carry_out_all([one], jobs=jobs, progress=progress, refresh=refresh)[0]


def sweeps(
    *wanted: Mapping[str, Any],
    jobs: int | None = None,
    progress: bool = True,
    refresh: bool = False,
    **common: Any,
) -> list[pd.DataFrame]:
    """Several sweeps in one queue, so that no process waits for the last run of each.

        house, plain = sweeps({"examples": in_style, "measure": {"house": house_questions}},
                              {"examples": plainly, "measure": {"plain": plain_questions}},
                              profile="tiny", seeds=5)

    Args:
        wanted: for each sweep its arguments, by the names that they have in `sweep`.
        jobs, progress, refresh: as in `sweep`, for all together.
        common: arguments of all the sweeps; those in `wanted` come first.

    Returns:
        For each of them the frame that `sweep` would return.

    Raises:
        SweepError: what `sweep` raises, an argument that it does not have, or one that is missing.
        FingerprintError, UnknownProfileError, ModelNotAvailableError: as in `sweep`.
    """
    wanted = [_complete({**common, **one}) for one in wanted]
    return carry_out_all(wanted, jobs=jobs, progress=progress, refresh=refresh)


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a sweep, with the defaults of those that are not given."""
    names = [name for name in signature(sweep).parameters if name not in OF_THE_QUEUE]
    for name in given:
        if name not in names:
            raise SweepError(f"a sweep has no argument {name!r}; it takes {', '.join(names)}")
    for name in ("profile", "measure"):
        if name not in given:
            raise SweepError(f"a sweep without {name!r}; give it to each, or once for all")
    defaults = {name: signature(sweep).parameters[name].default for name in names}
    return defaults | given
