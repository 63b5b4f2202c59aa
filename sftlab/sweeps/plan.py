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
from typing import Any, NamedTuple

import cloudpickle
import numpy

from sftlab.profiles import find_profile
from sftlab.sweeps.cache import SweepError, base_hash, code_hash, fingerprint
from sftlab.sweeps.worker import Task, error_text
from sftlab.train import VALIDATION, Settings, check_examples, data_hash

OWN_COLUMNS = ("seed", "measure", "seconds", "loss", "run", "error")  # of every sweep's frame
SETTINGS = {field.name for field in fields(Settings)}


class Row(NamedTuple):
    """A row of the grid with a seed: a task, or the error that leaves it without one."""

    values: dict[str, Any]
    seed: int
    task: Task | None
    error: str | None


def plan_sweep(
    profile: Any = None,
    *,
    measure: Mapping[str, Callable],
    examples: Any = None,
    eval_dataset: Any = None,
    grid: Mapping[str, Iterable] | None = None,
    seeds: Any = 5,
    settings: Settings | None = None,
) -> list[Row]:
    """The runs of a sweep, in the order of the grid and of the seeds; arguments as in `sweep`."""
    data = {"examples": examples, "eval_dataset": eval_dataset}
    data = {kind: given for kind, given in data.items() if given is not None}
    if not isinstance(measure, Mapping) or not measure:
        raise SweepError('measure is a mapping from names to functions, such as {"facts": facts}')
    seeds = _plain(range(seeds) if isinstance(seeds, int) else seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise SweepError(f"seeds is {seeds}: give how many, 1 or more, or different whole numbers")
    grid = {name: _listed(name, values) for name, values in (grid or {}).items()}
    given = {*grid, "seed", "profile"}
    takes = {
        name: _parameters(function, f"the measure {name!r}", given, run=True)
        for name, function in measure.items()
    }
    makers = {kind: _parameters(raw, kind, given) for kind, raw in data.items() if callable(raw)}
    known = {"profile"}.union(SETTINGS if data else (), *takes.values(), *makers.values())
    _check(grid, known - {"seed"})
    common = {
        "code": code_hash(),
        "python": sys.version_info[:2],
        "versions": [version(name) for name in ("torch", "transformers", "trl", "peft")],
        "measures": {
            name: fingerprint(function, what=f"the measure {name!r}")
            for name, function in measure.items()
        },
    }
    base_of, sent, made = cache(base_hash), cloudpickle.dumps(dict(measure)), {}
    if "profile" not in grid:
        base_of(find_profile(profile))  # or an error; one of the grid's fails in its rows

    def task_of(values: dict[str, Any], seed: int) -> Task:
        base = find_profile(values.get("profile", profile))
        given = {**values, "seed": seed, "profile": base.name}
        arguments = {name: _chosen(given, names) for name, names in takes.items()}
        hashes = {name: fingerprint(one, what="the grid") for name, one in arguments.items()}
        identity = {**common, "base": base_of(base), "embedded": base.embedded, "arguments": hashes}
        filled, rows = None, {}
        if data:
            filled = (settings or Settings()).changed(**_chosen(given, SETTINGS)).filled(base)
            # What a template's name or path leads to may change.
            template = filled.template_for(base).text
            identity |= {"settings": asdict(filled), "template": template}
            for kind, raw in data.items():
                chosen = _chosen(given, makers.get(kind, set()))
                key = (kind, fingerprint(chosen, what="the grid"))
                if key not in made:  # the same examples are made once
                    made[key] = _examples(kind, raw, chosen)
                rows[kind] = made[key]
                identity[kind] = data_hash(rows[kind])
        elif not any("seed" in one for one in arguments.values()):
            seed = 0  # the base is the same for all seeds: measured once
        text = json.dumps({**identity, "seed": seed}, sort_keys=True)
        return Task(
            run=hashlib.sha256(text.encode()).hexdigest()[:32],
            code=common["code"],
            base=identity["base"],
            profile=base,
            settings=filled,
            seed=seed,
            data=rows,
            measures=sent,
            arguments=arguments,
            reserved=(*grid, *OWN_COLUMNS),
        )

    rows = []
    for *chosen, seed in itertools.product(*grid.values(), seeds):
        values, task, failed = dict(zip(grid, chosen, strict=True)), None, None
        try:
            task = task_of(values, seed)
        except Exception as error:  # of a learner's function, or a value of the grid
            failed = error_text(error)
        rows.append(Row(values, seed, task, failed))
    return rows


def _parameters(function: Callable, what: str, given: set[str], *, run: bool = False) -> set[str]:
    """Names of a function's parameters, of a measure without the first, which is the run."""
    if not callable(function):
        raise SweepError(f"{what} is {function!r}; give a function of a run")
    found = [*inspect.signature(function).parameters.values()][run:]
    found = [one for one in found if "VAR" not in one.kind.name]
    for one in found:
        if one.default is one.empty and one.name not in given:
            remedy = "put its values into the grid, or give it a default"
            raise SweepError(f"{what} needs {one.name!r}: {remedy}")
    return {one.name for one in found}


def _plain(values: Iterable) -> list:
    return [value.item() if isinstance(value, numpy.generic) else value for value in values]


def _chosen(given: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: given[name] for name in sorted(names & given.keys())}


def _listed(name: str, values: Any) -> list:
    many = isinstance(values, Iterable) and not isinstance(values, str)
    if name == "seed":
        raise SweepError("the seeds of a sweep are its argument `seeds`, not part of the grid")
    if not many or not (values := _plain(values)):
        raise SweepError(f"grid[{name!r}] is {values!r}; give a list of one or more values")
    return values


def _check(grid: Mapping[str, list], known: set[str]) -> None:
    """Refuse a grid whose names reach nothing, or that would count a run twice."""
    for name, values in grid.items():
        if name in (*OWN_COLUMNS, "value"):
            raise SweepError(f"grid[{name!r}]: the result has a column of that name; rename it")
        if name not in known:
            may = ", ".join(sorted(known))
            raise SweepError(f"nothing takes {name!r}; the grid may name {may}")
        if len({fingerprint(value, what=f"grid[{name!r}]") for value in values}) < len(values):
            raise SweepError(f"grid[{name!r}] has a value twice: {values!r}; give each once")


def _examples(kind: str, raw: Any, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        raw = raw(**arguments) if callable(raw) else raw
    except Exception as error:
        error.add_note(f" (in the function `{kind}`)")
        raise
    return check_examples(raw, name="example" if kind == "examples" else VALIDATION)
