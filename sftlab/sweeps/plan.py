"""From the arguments of a sweep to its runs: what each needs, and the key that names it.

The key is a hash of settings, seed, base model, content of the examples, the measures with all
that they use, the lab's code, and versions of libraries.
"""

import hashlib
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import version
from numbers import Integral
from typing import Any, NamedTuple

import cloudpickle
import numpy

from sftlab.chat import control_tokens, find_template
from sftlab.models import find_profile
from sftlab.sweeps.cache import FORMAT
from sftlab.sweeps.keys import FingerprintError, base_hashes, code_hash, fingerprint
from sftlab.sweeps.worker import SweepError, Task, error_text
from sftlab.train import VALIDATION, Settings, check_examples, data_hash

OWN_COLUMNS = ("seed", "measure", "seconds", "loss", "run", "error")  # of every sweep's frame


class Row(NamedTuple):
    """A row of the grid with a seed: a task, or the error that leaves it without one."""

    values: dict[str, Any]
    seed: int
    task: Task | None
    error: str | None


class Plan(NamedTuple):
    """What one sweep is to do: rows in the order of the grid and of the seeds."""

    names: list[str]  # of the grid
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
    data = {"examples": examples, "eval_dataset": eval_dataset}
    data = {kind: given for kind, given in data.items() if given is not None}
    form = "eval_dataset needs examples: without them nothing is trained"
    _require("examples" in data or not data, form)
    form = f"settings is {settings!r}; give Settings(...)"
    _require(isinstance(settings, Settings | None), form)
    form = 'measure is a mapping from names to functions, such as {"facts": facts}'
    _require(measure and isinstance(measure, Mapping), form)
    form = f'grid is {grid!r}; give values by name, such as {{"n": [1, 3]}}'
    _require(isinstance(grid, Mapping | None), form)
    grid = {name: _values(name, values) for name, values in (grid or {}).items()}
    seeds = _seeds(seeds)
    takes, made_from = _taken(measure, data, grid)
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
    if "profile" not in grid:
        base_of(find_profile(profile))  # or an error; one of the grid's fails in its rows

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
        arguments = {name: _chosen(given, names) for name, names in takes.items()}
        hashes = {name: fingerprint(one, what="the grid") for name, one in arguments.items()}
        identity = {**common, "base": base_of(base), "embedded": base.embedded, "arguments": hashes}
        filled, rows = None, {}
        if data:
            chosen = _chosen(given, {field.name for field in fields(Settings)})
            filled = (settings or Settings()).changed(**chosen).filled(base)
            for kind in data:
                made = _chosen(given, made_from[kind])
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
            data=rows,
            measures=sent,
            arguments=arguments,
            reserved=(*grid, *OWN_COLUMNS),
        )

    rows = []
    for *values, seed in itertools.product(*grid.values(), seeds):
        values, made, failed = dict(zip(grid, values, strict=True)), None, None
        try:
            made = task(values, seed)
        except (FingerprintError, SweepError):
            raise
        except Exception as error:  # of a learner's function, or a value of the grid
            failed = error_text(error)
        rows.append(Row(values, seed, made, failed))
    return Plan(list(grid), list(measure), rows)


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise SweepError(otherwise)


def _chosen(given: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: given[name] for name in sorted(names & given.keys())}


def _values(name: str, values: Any) -> list:
    """The values of a name of the grid, as a list."""
    where = f"grid[{name!r}]"
    _require(name != "seed", "the seeds of a sweep are its argument `seeds`, not part of the grid")
    free = name not in (*OWN_COLUMNS, "value")
    _require(free, f"{where}: the result has a column of that name; rename it")
    many = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    _require(many, f"{where} is {values!r}; give a list of values")
    values = [value.item() if isinstance(value, numpy.generic) else value for value in values]
    _require(values, f"{where} has no values; give one or more, or leave it out")
    different = {fingerprint(value, what=where) for value in values}
    once = len(different) == len(values)
    _require(once, f"{where} has a value twice: {values!r}; give each once")
    return values


def _seeds(seeds: Any) -> list[int]:
    """The seeds as a list: 0 to n - 1 for a number n."""
    number = isinstance(seeds, Integral) and not isinstance(seeds, bool)
    listed = list(range(seeds) if number else seeds if isinstance(seeds, Iterable) else [])
    whole = all(isinstance(seed, Integral) and seed >= 0 for seed in listed)
    form = "give how many, 1 or more, or a list of different whole numbers"
    _require(listed and whole and len(set(listed)) == len(listed), f"seeds is {seeds!r}; {form}")
    return [int(seed) for seed in listed]


def _taken(
    measure: Mapping[str, Callable], data: Mapping[str, Any], grid: Mapping[str, list]
) -> list[dict[str, set[str]]]:
    """By measure, and by what makes examples, the names of its parameters."""
    given = {*grid, "seed", "profile"}
    takes = {
        name: _parameters(f"the measure {name!r}", function, given | {"run"}, run=True)
        for name, function in measure.items()
    }
    makers = {k: _parameters(k, raw, given) if callable(raw) else set() for k, raw in data.items()}
    settings = {field.name for field in fields(Settings)} if data else set()
    known = {"profile"}.union(settings, *takes.values(), *makers.values()) - {"seed", "run"}
    why = "" if data else " (without examples nothing is trained)"
    for name in grid:
        may = ", ".join(sorted(known))
        _require(name in known, f"nothing takes {name!r}{why}; the grid may name {may}")
    return [takes, makers]


def _parameters(what: str, function: Any, given: set[str], *, run: bool = False) -> set[str]:
    """Names of a function's parameters; a measure's run goes to `run`, or else to the first."""
    _require(callable(function), f"{what} is {function!r}; give a function of a run")
    found = [*inspect.signature(function).parameters.values()]
    if run and "run" not in [one.name for one in found]:
        first = found and found[0].kind not in (found[0].KEYWORD_ONLY, found[0].VAR_KEYWORD)
        _require(first, f"{what} takes no run; write it as a function of the run")
        del found[0]
    found = [one for one in found if "VAR" not in one.kind.name]
    for one in found:
        form = f"{what} needs {one.name!r}: put its values into the grid, or give it a default"
        _require(one.name in given or one.default is not one.empty, form)
    return {one.name for one in found}
