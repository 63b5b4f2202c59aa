"""From the arguments of a sweep to its runs: what each needs, and the key that names it."""

import hashlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from typing import Any

import cloudpickle
import numpy

from sftlab.chat import control_tokens, find_template
from sftlab.models import (
    BrokenWeightsError,
    ModelNotAvailableError,
    UnknownProfileError,
    find_profile,
)
from sftlab.sweeps.cache import FORMAT
from sftlab.sweeps.keys import FingerprintError, base_hashes, code_hash, fingerprint
from sftlab.sweeps.worker import SweepError, Task, error_text
from sftlab.train import VALIDATION, Settings, check_examples, data_hash

OWN_COLUMNS = ("seed", "measure", "seconds", "loss", "run", "error")
"""Columns that every sweep's frame has."""


@dataclass(kw_only=True)
class Row:
    """A row of the grid with a seed: a task, or the error that leaves it without one."""

    values: dict[str, Any]
    seed: int
    task: Task | None = None
    error: str = ""


@dataclass(kw_only=True)
class Plan:
    """What one sweep is to do: rows in the order of the grid and of the seeds."""

    names: list[str]
    """Of the grid."""
    measures: list[str]
    rows: list[Row]


def plan_sweep(
    profile: Any = None,
    *,
    measure: Mapping[str, Callable],
    examples: Any = None,
    eval_dataset: Any = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: Any = 5,
    settings: Settings | None = None,
) -> Plan:
    """Check the arguments of a sweep and list its runs; arguments and errors as in `sweep`."""
    grid, seeds = _checked_grid(grid), _checked_seeds(seeds)
    data = {"examples": examples, "eval_dataset": eval_dataset}
    data = {kind: given for kind, given in data.items() if given is not None}
    if "eval_dataset" in data and "examples" not in data:
        raise SweepError("eval_dataset needs examples: without them nothing is trained")
    if not isinstance(settings, Settings | None):
        raise SweepError(f"settings is {settings!r}; give Settings(...)")
    if not isinstance(measure, Mapping) or not measure:
        raise SweepError('measure is a mapping from names to functions, such as {"facts": facts}')
    takes, made_from = _taken(measure, data, grid)
    if "profile" not in grid:
        find_profile(profile)
    common = {
        "format": FORMAT,
        "code": code_hash(),
        "python": sys.version_info[:2],
        "versions": [version(name) for name in ("torch", "transformers", "trl", "peft")],
        "measures": {
            name: fingerprint(function, what=f"the measure {name!r}")
            for name, function in measure.items()
        },
    }
    base_of, sent, known = cache(base_hashes), cloudpickle.dumps(dict(measure)), {}

    def rows_of(kind: str, arguments: dict[str, Any], template: str) -> tuple[list, str]:
        """Checked examples and their hash; the same ones are made once."""
        key = (kind, template, fingerprint(arguments, what="the grid"))
        if key not in known:
            raw = data[kind]
            try:
                raw = raw(**arguments) if callable(raw) else raw
            except Exception as error:
                error.add_note(f" (in the function `{kind}`)")
                raise
            name = "example" if kind == "examples" else VALIDATION
            rows = check_examples(raw, control=control_tokens(template), name=name)
            known[key] = (rows, data_hash(rows))
        return known[key]

    def task(values: dict[str, Any], seed: int) -> Task:
        base = find_profile(values.get("profile", profile))
        given = {**values, "seed": seed, "profile": base.name, "run": None}
        arguments = {name: {key: given[key] for key in keys} for name, keys in takes.items()}
        hashes = {name: fingerprint(one, what="the grid") for name, one in arguments.items()}
        identity = {**common, "base": base_of(base), "embedded": base.embedded, "arguments": hashes}
        filled, rows = None, {}
        if data:
            chosen = {f.name: given[f.name] for f in fields(Settings) if f.name in given}
            filled = (settings or Settings()).changed(**chosen).filled(base)
            for kind in data:
                made = {key: given[key] for key in made_from[kind]}
                rows[kind], identity[kind] = rows_of(kind, made, filled.template)
            # 3 epochs are the same as 3.0; what a template's name or path leads to may change.
            identity["settings"] = {
                key: float(value) if type(value) is int else value
                for key, value in asdict(filled).items()
            }
            identity["template"] = find_template(filled.template).text
        elif not any("seed" in one for one in arguments.values()):
            seed = 0  # the base is the same for all seeds: measured once
        text = json.dumps({**identity, "seed": seed}, sort_keys=True)
        return Task(
            run=hashlib.sha256(text.encode()).hexdigest()[:32],
            code=common["code"],
            weights=identity["base"]["weights"],
            profile=base,
            settings=filled,
            seed=seed,
            examples=rows.get("examples"),
            eval_dataset=rows.get("eval_dataset"),
            measures=sent,
            arguments=arguments,
            reserved=(*grid, *OWN_COLUMNS),
        )

    rows = []
    for values in itertools.product(*grid.values()):
        for seed in seeds:
            row = Row(values=dict(zip(grid, values, strict=True)), seed=seed)
            rows.append(row)
            try:
                row.task = task(row.values, seed)
            except (FingerprintError, SweepError):
                raise
            except Exception as error:  # of a learner's function, or a value of the grid
                no_model = (UnknownProfileError, BrokenWeightsError, ModelNotAvailableError)
                if isinstance(error, no_model) and "profile" not in grid:
                    raise
                row.error = error_text(error)
    return Plan(names=list(grid), measures=list(measure), rows=rows)


def _checked_grid(grid: Any) -> dict[str, list]:
    """The values of each name of the grid, as lists."""
    if not isinstance(grid, Mapping | None):
        raise SweepError(f'grid is {grid!r}; give values by name, such as {{"n": [1, 3]}}')
    checked = {}
    for name, values in (grid or {}).items():
        where = f"grid[{name!r}]"
        if name == "seed":
            raise SweepError("the seeds of a sweep are its argument `seeds`, not part of the grid")
        if name in (*OWN_COLUMNS, "value"):
            raise SweepError(f"{where}: the result has a column of that name; rename it")
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise SweepError(f"{where} is {values!r}; give a list of values")
        values = [value.item() if isinstance(value, numpy.generic) else value for value in values]
        if not values:
            raise SweepError(f"{where} has no values; give one or more, or leave it out")
        if len({fingerprint(value, what=where) for value in values}) < len(values):
            raise SweepError(f"{where} has a value twice: {values!r}; give each once")
        checked[name] = values
    return checked


def _checked_seeds(seeds: Any) -> list[int]:
    """The seeds as a list: 0 to n - 1 for a number n."""
    number = isinstance(seeds, int | numpy.integer) and not isinstance(seeds, bool)
    listed = list(range(seeds) if number else seeds if isinstance(seeds, Iterable) else [])
    whole = all(isinstance(seed, int | numpy.integer) and seed >= 0 for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed):
        raise SweepError(
            f"seeds is {seeds!r}; give how many, 1 or more, or a list of different whole numbers"
        )
    return [int(seed) for seed in listed]


def _parameters(what: str, function: Any, given: set[str], *, run: bool = False) -> set[str]:
    """Names of a function's parameters; those without a default must be among the `given`.

    A measure's run goes to its parameter `run`, or else to the first one.
    """
    if not callable(function):
        raise SweepError(f"{what} is {function!r}; give a function of a run")
    found = list(inspect.signature(function).parameters.values())
    if run and "run" not in [one.name for one in found]:
        if not found or found[0].kind in (found[0].KEYWORD_ONLY, found[0].VAR_KEYWORD):
            raise SweepError(f"{what} takes no run; write it as a function of the run")
        found = found[1:]
    found = [one for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    for one in found:
        if one.name not in given and one.default is one.empty:
            raise SweepError(
                f"{what} needs {one.name!r}: put its values into the grid, or give it a default"
            )
    return {one.name for one in found}


def _taken(
    measure: Mapping[str, Callable], data: Mapping[str, Any], grid: Mapping[str, list]
) -> list[dict[str, list[str]]]:
    """By measure, and by what makes examples, the names of grid, seed and run that it takes.

    Raises:
        SweepError: nothing takes a name of the grid.
    """
    given = {*grid, "seed", "profile"}
    takes = {
        name: _parameters(f"the measure {name!r}", function, given | {"run"}, run=True)
        for name, function in measure.items()
    }
    makers = {k: _parameters(k, raw, given) if callable(raw) else set() for k, raw in data.items()}
    settings = {f.name for f in fields(Settings)} if data else set()
    known = {"profile"}.union(settings, *takes.values(), *makers.values()) - {"seed", "run"}
    for name in grid:
        if name not in known:
            why = "" if data else " (without examples nothing is trained)"
            may = ", ".join(sorted(known))
            raise SweepError(f"nothing takes {name!r}{why}; the grid may name {may}")
    given.add("run")
    return [{k: sorted(names & given) for k, names in one.items()} for one in (takes, makers)]
