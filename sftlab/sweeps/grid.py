"""Checks of what a sweep is asked to do."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy

from sftlab.train import Settings

OWN_COLUMNS = ("seed", "measure", "seconds", "loss", "run", "error")
"""Columns that a sweep itself gives."""


class SweepError(ValueError):
    """A sweep that can't begin."""


def checked_grid(grid: Any) -> dict[str, list]:
    """The values of each name of the grid, as lists.

    Raises:
        SweepError: it is no mapping, or a name has no values, or one twice.
    """
    if not isinstance(grid, Mapping | None):
        raise SweepError(
            f'grid is {grid!r}; give values by name, such as {{"num_train_epochs": [1, 3]}}'
        )
    return {name: _checked_values(name, values) for name, values in (grid or {}).items()}


def _checked_values(name: str, values: Any) -> list:
    """The values of one name of the grid, as a list.

    Raises:
        SweepError: there are none, or one stands there twice.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise SweepError(f"grid[{name!r}] is {values!r}; give a list of values")
    values = [value.item() if isinstance(value, numpy.generic) else value for value in values]
    if not values:
        raise SweepError(f"grid[{name!r}] has no values; give one or more, or leave it out")
    try:
        twice = len(set(values)) < len(values)
    except TypeError:  # lists and the like: they have no hash
        twice = False
    if twice:
        raise SweepError(f"grid[{name!r}] holds a value twice: {values!r}; give each once")
    return values


def checked_seeds(seeds: Any) -> list[int]:
    """The seeds as a list: 0 to n - 1 for a number n.

    Raises:
        SweepError: there are none, or not different whole numbers from zero.
    """
    number = isinstance(seeds, int | numpy.integer) and not isinstance(seeds, bool)
    listed = range(seeds) if number else seeds
    listed = list(listed) if isinstance(listed, Iterable) and not isinstance(listed, str) else []
    sound = all(hasattr(s, "__index__") and not isinstance(s, bool) for s in listed)
    listed = [int(seed) for seed in listed] if sound else []
    if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        raise SweepError(
            f"seeds is {seeds!r}; give how many, 1 or more, or a list of different whole numbers"
        )
    return listed


def _taken(function: Callable, *, run: bool) -> tuple[set[str], set[str]]:
    """Names of the arguments that a callable takes besides the run, and of those that it must have.

    The run goes to the parameter called `run`, or to the first one.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # built in, without a signature
        return set(), set()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if run and "run" not in [p.name for p in parameters if p.kind in named]:
        places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if not parameters or parameters[0].kind not in (*places, inspect.Parameter.VAR_POSITIONAL):
            raise SweepError("takes no run; write it as a function of the run")
        parameters = parameters[1:]
    names = {p.name for p in parameters if p.kind in named}
    bound = {p.name for p in parameters if p.default is p.empty and p.name in names}
    return names, bound


def taken_names(grid, measure, rows) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """What each measure takes of grid and seeds; and the same of the functions that make rows.

    `rows` holds `examples` and `eval_dataset`, by these names.

    Raises:
        SweepError: a measure is no function of a run, or needs what is not given; or nothing takes
            a name of the grid.
    """
    if not isinstance(measure, Mapping) or not measure:
        raise SweepError('measure is a mapping from names to functions, such as {"facts": facts}')
    if rows["examples"] is None and rows["eval_dataset"] is not None:
        raise SweepError("eval_dataset needs examples: without them nothing is trained")
    made = {name: function for name, function in rows.items() if callable(function)}
    of_measures, of_rows, known = {}, {}, set()
    for takes, functions, own in ((of_rows, made, ()), (of_measures, measure, ("run",))):
        for name, function in functions.items():
            what = f"the measure {name!r}" if own else name
            if not isinstance(name, str) or not callable(function):
                raise SweepError(f"{what} is {function!r}; give a name and a function of a run")
            try:
                names, needed = _taken(function, run=bool(own))
            except SweepError as error:
                raise SweepError(f"{what} {error}") from None
            given = {*grid, "seed", "profile", *own}
            missing = sorted(needed - given)
            if missing:
                raise SweepError(
                    f"{what} needs {missing[0]!r}: put its values into the grid, or give it a "
                    "default"
                )
            takes[name] = names & given
            known |= names - {"seed", "run"}
    settings = [f.name for f in fields(Settings) if f.name != "seed"]
    known |= {"profile", *(settings if rows["examples"] is not None else ())}
    for name in grid:
        if name == "seed":
            raise SweepError("the seeds of a sweep are its argument `seeds`, not part of the grid")
        if name in OWN_COLUMNS or name in ("run", "value"):
            raise SweepError(f"grid[{name!r}]: the result has a column of that name; rename it")
        if name not in known:
            why = "" if rows["examples"] is not None else " (without examples nothing is trained)"
            raise SweepError(
                f"nothing takes {name!r}{why}; the grid may name {', '.join(sorted(known))}"
            )
    return of_measures, of_rows
