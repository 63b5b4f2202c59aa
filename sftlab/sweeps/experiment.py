"""An experiment: arms that differ in what they say they do, each with the same seeds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sftlab.measure import Estimate, difference, mean
from sftlab.profiles import Profile
from sftlab.sweeps.cache import SweepError
from sftlab.sweeps.sweeping import sweeps
from sftlab.train import Settings

_OF_AN_ARM = ("examples", "eval_dataset", "measure", "profile", "seeds")


class Experiment:
    """What all arms share: the model, the examples, what is measured, settings and seeds.

        rates = Experiment("tiny", examples=few, measure={"accuracy": accuracy}, seeds=5)
        results = rates.run({f"{rate:g}": {"learning_rate": rate} for rate in [7e-5, 7e-4, 7e-3]})
        results.mean("accuracy")              # {"7e-05": Estimate, "0.0007": ..., "0.007": ...}
        results.difference("0.0007", "7e-05")  # paired by seed and question

    Runs are trained in parallel, kept, and not repeated: see `sftlab.sweeps.sweep`, whose arguments
    these are.
    """

    def __init__(
        self,
        profile: str | Path | Profile,
        *,
        measure: Mapping[str, Callable[..., Any]],
        examples: Any = None,
        eval_dataset: Any = None,
        settings: Settings | None = None,
        seeds: Any = 5,
    ) -> None:
        self.shared = {"profile": profile, "measure": measure, "examples": examples}
        self.shared |= {"eval_dataset": eval_dataset, "seeds": seeds}
        self.settings = settings or Settings()

    def run(self, arms: Mapping[str, Mapping[str, Any]], **options: Any) -> "Results":
        """Train and measure each arm with each seed.

        Args:
            arms: name -> what is different in this arm: fields of `Settings`, arguments of the
                functions that make examples or measure, or another `examples` (`None`: the base as
                it is), `eval_dataset`, `measure`, `profile` or `seeds`. `{}` differs in nothing.
            options: as for `sftlab.sweeps.sweeps`.
        """
        if not arms:
            raise SweepError("an experiment needs an arm: run({'as it is': {}})")
        wanted = []
        for changes in arms.values():
            own = {name: changes[name] for name in _OF_AN_ARM if name in changes}
            grid = {name: [changes[name]] for name in changes if name not in _OF_AN_ARM}
            wanted.append({**self.shared, "settings": self.settings, **own, "grid": grid})
        frames = sweeps(*wanted, **options)
        named = [
            frame.drop(columns=[name for name in changes if name not in _OF_AN_ARM]).assign(arm=arm)
            for (arm, changes), frame in zip(arms.items(), frames, strict=True)
        ]
        return Results(pd.concat(named, ignore_index=True))


class Results:
    """What an experiment measured: `frame` has a row an observation, with its `arm`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __getitem__(self, arm: str) -> pd.DataFrame:
        """The rows of one arm; of several measures take one with `of`."""
        return self.of(None, arm=arm)

    def of(self, measure: str | None = None, **where: Any) -> pd.DataFrame:
        """The rows of one measure (`None`: the only one) in which columns have these values."""
        rows = self.frame
        measures = list(rows["measure"].unique())
        if measure is None and len(measures) == 1:
            measure = measures[0]
        if measure is not None:
            where = {"measure": measure, **where}
        for column, value in where.items():
            if not (rows[column] == value).any():
                found = ", ".join(map(str, rows[column].unique()))
                raise SweepError(f"no row has {column} {value!r}; there are {found}")
            rows = rows[rows[column] == value]
        return rows

    def mean(self, measure: str | None = None, **options: Any) -> dict[str, Estimate]:
        """Arm -> its mean with an interval; options as for `sftlab.measure.mean`."""
        return {
            arm: mean(self.of(measure, arm=arm), **options) for arm in self.frame["arm"].unique()
        }

    def difference(
        self, arm: str, other: str, measure: str | None = None, **options: Any
    ) -> Estimate:
        """`arm` minus `other`, paired; options as for `sftlab.measure.difference`."""
        return difference(self.of(measure, arm=arm), self.of(measure, arm=other), **options)
