"""From the arguments of a sweep to its runs: what each needs, and the hash that names it."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sftlab.chat import find_template
from sftlab.models import (
    BrokenWeightsError,
    ModelNotAvailableError,
    Profile,
    UnknownProfileError,
    find_profile,
)
from sftlab.sweeps.bases import base_hash
from sftlab.sweeps.environment import machine, versions
from sftlab.sweeps.fingerprint import Fingerprint, FingerprintError
from sftlab.sweeps.grid import SweepError, checked_grid, checked_seeds, taken_names
from sftlab.sweeps.results import FORMAT
from sftlab.sweeps.sources import code_hash, stamp
from sftlab.train import VALIDATION, Settings, check_examples, control_tokens, data_hash

NO_MODEL = (UnknownProfileError, BrokenWeightsError, ModelNotAvailableError)
ENGINE = "sftlab.sweeps.experiment"
"""The module whose imports are the code of every run."""


@dataclass(kw_only=True)
class Planned:
    """One row of the grid with one seed."""

    values: dict[str, Any]
    """Of the grid, by name."""
    seed: int
    """Of training and measures."""
    run: str | None = None
    """Hash of all that makes the run; `None` when it can't begin."""
    error: str | None = None
    """Why it can't."""
    needs: dict[str, Any] | None = None
    """Fields of the `Experiment` that carries it out."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep is to do."""

    runs: list[Planned]
    """In the order of the grid, and for each row of it in the order of the seeds."""
    names: list[str]
    """Of the grid."""
    loaded: str
    """Stamp of the files that a process may have loaded, and must load anew when they change."""
    live: set[str]
    """The learner's modules whose functions are measures, or parts of them."""


def make_plan(
    profile: str | Path | Profile,
    *,
    measure: Mapping[str, Callable],
    examples: Sequence[Mapping[str, Any]] | Callable | None,
    eval_dataset: Sequence[Mapping[str, Any]] | Callable | None,
    grid: Mapping[str, Iterable] | None,
    seeds: int | Iterable[int],
    settings: Settings | None,
) -> Plan:
    """Check the arguments of a sweep and list its runs.

    Raises:
        SweepError: a name of the grid that nothing takes, a measure that can't be called, no
            values or no seeds.
        FingerprintError: a measure uses something from outside that has no value to compare.
        UnknownProfileError: there is no such profile.
    """
    grid = checked_grid(grid)
    if not isinstance(settings, Settings | None):
        raise SweepError(
            f"settings is {settings!r}; give Settings(...), such as Settings(num_train_epochs=1)"
        )
    seeds = checked_seeds(seeds)
    rows = {"examples": examples, "eval_dataset": eval_dataset}
    takes, made_from = taken_names(grid, measure, rows)
    if "profile" not in grid:
        find_profile(profile)
    marks, live = {}, set()
    modules = {ENGINE}
    for name, function in measure.items():
        mark = Fingerprint(f"the measure {name!r}")
        text = mark.text(function, name=getattr(function, "__name__", name))
        marks[name] = hashlib.sha256(text.encode()).hexdigest()
        modules |= mark.modules
        live |= mark.live
    for name in {*grid} & set().union(*takes.values()):
        for value in grid[name]:  # a function in the grid has code too
            mark = Fingerprint("the grid")
            mark.text(value, name=name)
            modules |= mark.modules
            live |= mark.live
    common = {"format": FORMAT, "measures": marks, "versions": versions(), "machine": machine()}
    common["code"] = code_hash(modules)
    maker = _Maker(profile, measure, settings or Settings(), takes, rows, made_from, common)
    points = [dict(zip(grid, row, strict=True)) for row in itertools.product(*grid.values())]
    runs = [maker.planned(values, seed) for values in points for seed in seeds]
    return Plan(runs=runs, names=list(grid), loaded=stamp(modules), live=live)


class _Maker:
    """Makes the runs; what several of them share is made once."""

    def __init__(self, profile, measure, settings, takes, rows, made_from, common) -> None:
        self._profile, self._measure, self._settings = profile, measure, settings
        self._takes, self._rows, self._made_from, self._common = takes, rows, made_from, common
        self._made: dict[str, Any] = {}

    def planned(self, values: dict[str, Any], seed: int) -> Planned:
        one = Planned(values=values, seed=seed)
        try:
            self._fill(one)
        except (FingerprintError, SweepError):
            raise
        except Exception as error:  # the functions are the learner's and may raise anything
            if isinstance(error, NO_MODEL) and "profile" not in values:
                raise
            where = "".join(getattr(error, "__notes__", []))
            one.error = f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
        return one

    def _fill(self, one: Planned) -> None:
        profile = find_profile(one.values.get("profile", self._profile))
        given = {**one.values, "seed": one.seed, "profile": profile.name}
        calls = {
            name: (function, {key: given.get(key) for key in sorted(self._takes[name])})
            for name, function in self._measure.items()
        }
        settings = rows = data = eval_dataset = eval_data = None
        seed = one.seed
        if self._rows["examples"] is not None:
            chosen = {f.name for f in fields(Settings)} & set(given)
            settings = self._settings.changed(**{name: given[name] for name in chosen})
            settings = _filled(settings, profile)
            rows, data = self._data("examples", settings.template, given)
            if self._rows["eval_dataset"] is not None:
                eval_dataset, eval_data = self._data("eval_dataset", settings.template, given)
        elif not any("seed" in arguments for _, arguments in calls.values()):
            seed = 0  # the base is the same for all seeds: measured once
        mark = Fingerprint("the grid")
        identity = {
            **self._common,
            "base": self._base(profile),
            "settings": _as_numbers(settings) if settings else None,
            # Behind a name or a path, the text may change.
            "template": find_template(settings.template).text if settings else None,
            "seed": seed,
            "data": data,
            "eval_dataset": eval_data,
            "arguments": {
                name: {key: mark.text(value, name=key) for key, value in arguments.items()}
                for name, (_, arguments) in calls.items()
            },
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        one.run = hashlib.sha256(text.encode()).hexdigest()[:32]
        same = ("seed", "data", "eval_dataset", "base", "code", "versions", "arguments")
        told = {"profile": profile.name, **{name: identity[name] for name in same}}
        one.needs = {"run": one.run, "profile": profile, "settings": settings, "seed": seed,
                     "examples": rows, "eval_dataset": eval_dataset, "calls": calls,
                     "record": told}  # fmt: skip

    def _base(self, profile: Profile) -> str:
        key = f"base {profile.source} {profile.revision} {profile.embedded}"
        if key not in self._made:
            self._made[key] = base_hash(profile)
        return self._made[key]

    def _data(self, kind: str, template: str, given: dict[str, Any]) -> tuple[list, str]:
        """Checked rows, examples or eval_dataset, and their hash."""
        raw = self._rows[kind]
        arguments = {name: given[name] for name in sorted(self._made_from.get(kind, ()))}
        key = f"{kind} {template} {[(name, id(value)) for name, value in arguments.items()]}"
        if key not in self._made:
            if callable(raw):
                try:
                    raw = raw(**arguments)
                except Exception as error:
                    error.add_note(f" (in the function `{kind}`)")
                    raise
            name = "example" if kind == "examples" else VALIDATION
            rows = check_examples(raw, control=control_tokens(template), name=name)
            # An id is a value's own only while the value lives, so the arguments stay.
            self._made[key] = (rows, data_hash(rows), arguments)
        return self._made[key][:2]


def _as_numbers(settings: Settings) -> dict[str, Any]:
    """By name, whole numbers as floats: three epochs are the same as 3.0."""
    return {
        name: float(value) if type(value) is int else value
        for name, value in asdict(settings).items()
    }


def _filled(settings: Settings, profile: Profile) -> Settings:
    """As `Settings.filled`, but a precision that is left to the machine stays so.

    To know it takes torch, and seconds; the machine itself is part of the hash.
    """
    if settings.bf16 is not None:
        return settings.filled(profile)
    return replace(replace(settings, bf16=False).filled(profile), bf16=None)
