"""From an arm of an experiment to its runs: what each needs, and the key that names it.

The key is a hash of settings, seed, base model, content of the examples, the measures with all
that they use, the lab's code, and versions of libraries.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any, NamedTuple

import cloudpickle
import numpy

from sftlab.profiles import find_profile
from sftlab.sweeps.cache import SweepError, base_hash, code_hash, fingerprint
from sftlab.sweeps.worker import Task, error_text
from sftlab.train import VALIDATION, Settings, check_examples, data_hash

SETTINGS = {field.name for field in fields(Settings)}


class Row(NamedTuple):
    """A seed of an arm: a task, or the error that leaves it without one."""

    arm: str
    measures: tuple[str, ...]
    seed: int
    task: Task | None
    error: str | None


def plan_arm(
    arm: str,
    changes: Mapping[str, Any],
    *,
    profile: Any,
    measure: Mapping[str, Callable],
    examples: Any,
    eval_dataset: Any,
    seeds: Any,
    settings: Settings,
) -> list[Row]:
    """The runs of an arm, one a seed; `changes` are its settings and its functions' arguments."""
    data = {"examples": examples, "eval_dataset": eval_dataset}
    data = {kind: given for kind, given in data.items() if given is not None}
    if not isinstance(measure, Mapping) or not measure:
        raise SweepError('measure is a mapping from names to functions, such as {"facts": facts}')
    seeds = _plain(range(seeds) if isinstance(seeds, int) else seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise SweepError(f"seeds is {seeds}: give how many, 1 or more, or different whole numbers")
    changes = dict(zip(changes, _plain(changes.values()), strict=True))
    given = {*changes, "seed", "profile"}
    takes = {
        name: _parameters(function, f"the measure {name!r}", given, run=True)
        for name, function in measure.items()
    }
    makers = {kind: _parameters(raw, kind, given) for kind, raw in data.items() if callable(raw)}
    known = set().union(SETTINGS if data else (), *takes.values(), *makers.values())
    if unknown := changes.keys() - (known - {"seed", "profile"}):
        may = ", ".join(sorted({*known, "seeds"} - {"seed"}))
        raise SweepError(f"nothing takes {min(unknown)!r}; an arm may name {may}")
    common = {
        "code": code_hash(),
        "python": sys.version_info[:2],
        "versions": [version(name) for name in ("torch", "transformers", "trl", "peft")],
        "measures": {
            name: fingerprint(function, what=f"the measure {name!r}")
            for name, function in measure.items()
        },
    }
    base, sent, made = find_profile(profile), cloudpickle.dumps(dict(measure)), {}
    hashed = base_hash(base)

    def task_of(seed: int) -> Task:
        given = {**changes, "seed": seed, "profile": base.name}
        arguments = {name: _chosen(given, names) for name, names in takes.items()}
        hashes = {name: fingerprint(one, what="the arm") for name, one in arguments.items()}
        identity = {**common, "base": hashed, "embedded": base.embedded, "arguments": hashes}
        filled, rows = None, {}
        if data:
            filled = settings.changed(**_chosen(given, SETTINGS)).filled(base)
            # What a template's name or path leads to may change.
            template = filled.template_for(base).text
            identity |= {"settings": asdict(filled), "template": template}
            for kind, raw in data.items():
                chosen = _chosen(given, makers.get(kind, set()))
                key = (kind, fingerprint(chosen, what="the arm"))
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
            base=hashed,
            profile=base,
            settings=filled,
            seed=seed,
            data=rows,
            measures=sent,
            arguments=arguments,
        )

    rows = []
    for seed in seeds:
        task, failed = None, None
        try:
            task = task_of(seed)
        except Exception as error:  # of a learner's function, or a value of a setting
            failed = error_text(error)
        rows.append(Row(arm, tuple(measure), seed, task, failed))
    return rows


def _parameters(function: Callable, what: str, given: set[str], *, run: bool = False) -> set[str]:
    """Names of a function's parameters, of a measure without the first, which is the run."""
    if not callable(function):
        raise SweepError(f"{what} is {function!r}; give a function of a run")
    found = [*inspect.signature(function).parameters.values()][run:]
    found = [one for one in found if "VAR" not in one.kind.name]
    for one in found:
        if one.default is one.empty and one.name not in given:
            remedy = "name it in the arm, or give it a default"
            raise SweepError(f"{what} needs {one.name!r}: {remedy}")
    return {one.name for one in found}


def _plain(values: Iterable) -> list:
    return [value.item() if isinstance(value, numpy.generic) else value for value in values]


def _chosen(given: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: given[name] for name in sorted(names & given.keys())}


def _examples(kind: str, raw: Any, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        raw = raw(**arguments) if callable(raw) else raw
    except Exception as error:
        error.add_note(f" (in the function `{kind}`)")
        raise
    return check_examples(raw, name="example" if kind == "examples" else VALIDATION)
