"""An effect with its interval, and what may be read off it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from sftlab.measure.shares import percent

SHARE, POINTS, NUMBER = "share", "points", "number"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An effect with its interval over seeds and entities; `str` gives `81% (74% to 87%)`.

    ValueError when a field contradicts another, as an interval that does not hold its value.
    """

    value: float
    """The effect in the unit of the measured column (a share: 0 to 1)."""
    low: float
    """Lower end of the interval at `level`."""
    high: float
    """Upper end of the interval at `level`."""
    level: float = 0.95
    """Confidence level of low and high; a correction for several comparisons is in it."""
    inner: tuple[float, float]
    """The interval at 1 - 2(1 - level), 90% by default: two one-sided tests at 5%."""
    seeds: int
    """Number of SFT seeds; 1 when nothing is random."""
    items: int
    """Number of distinct items: the rows of one seed."""
    entities: int
    """Number of clusters; 1 when the values are one number a run."""
    by_seed: tuple[float, ...]
    """The effect for each seed, in the order of the seeds."""
    method: str
    """How the interval was made: cluster bootstrap, exact binomial, MOVER, constant, computed."""
    unit: str = NUMBER
    """`share` (printed as percents), `points` (difference of shares), or `number`."""

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high, *self.inner, *self.by_seed)
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{numbers} holds a number that is not finite: measure again")
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"the interval {self.low} to {self.high} does not hold its value {self.value}"
            )
        least, most = self.inner
        if not self.low - 1e-9 <= least <= most <= self.high + 1e-9:
            raise ValueError(
                f"the inner interval {least} to {most} is not within {self.low} to {self.high}"
            )
        if not 0.5 < self.level < 1:
            raise ValueError(f"level = {self.level} is no confidence level: give 0.5 < level < 1")
        if self.unit not in (SHARE, POINTS, NUMBER):
            raise ValueError(f"unit = {self.unit!r} is none of {SHARE}, {POINTS}, {NUMBER}")
        if min(self.seeds, self.items, self.entities) < 1 or not self.by_seed:
            raise ValueError(
                f"{self.seeds} seeds, {self.items} items, {self.entities} entities and "
                f"{len(self.by_seed)} effects by seed: each must be 1 or more"
            )

    def __str__(self) -> str:
        written = {
            SHARE: percent,
            POINTS: lambda share: f"{100 * share:+.{_digits(share)}f}",
            NUMBER: lambda number: f"{number:.3g}",
        }[self.unit]
        value, low, high = written(self.value), written(self.low), written(self.high)
        return f"{value}{' points' if self.unit == POINTS else ''} ({low} to {high})"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON; `from_dict` is the way back."""
        return asdict(self) | {"inner": list(self.inner), "by_seed": list(self.by_seed)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The estimate that `to_dict` wrote; ValueError naming fields that are not known."""
        unknown = set(record) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"an estimate has no {', '.join(sorted(unknown))}")
        tuples = {name: tuple(record[name]) for name in ("inner", "by_seed")}
        return cls(**{**record, **tuples})


def computed(*values: float, factor: float = 1.0, comparisons: int = 1) -> Estimate:
    """A figure that was computed and not measured, such as a planner's, as an estimate.

    Nothing in it is random, so its interval says other things: it reaches from the smallest of
    several `values` (one for each model that the claim may mean) to the largest, and `factor` is
    how far the formula may be off, either way: 1.1 is a tenth. The value is their mean.

    ValueError: no value, or a factor below 1.
    """
    if not values:
        raise ValueError("no value is given: compute at least one")
    if not factor >= 1:
        raise ValueError(f"factor is {factor}; give 1 for an exact figure, 1.1 for within a tenth")
    reach = [v * off for v in values for off in (1 / factor, factor)]
    ends, mean = (min(reach), max(reach)), math.fsum(values) / len(values)
    return Estimate(
        value=min(max(mean, ends[0]), ends[1]),  # a mean's last bit may lie outside
        low=ends[0],
        high=ends[1],
        level=1 - (1 - 0.95) / comparisons,
        inner=ends,
        seeds=1,
        items=len(values),
        entities=len(values),
        by_seed=(mean,),
        method="computed",
    )


def _digits(points: float) -> int:
    """One digit where whole points would print a difference as none."""
    return 1 if 0 < abs(points) < 0.005 else 0


def equivalent(estimate: Estimate, margin: float) -> bool:
    """Whether the effect lies within +-margin: two one-sided tests (Schuirmann 1987).

    Each test holds the effect against one margin at 1 - level (5%); both reject exactly when
    `estimate.inner` (90%) lies strictly within the margins. False says that sameness was not
    shown, not that there is a difference. `margin` is in the effect's unit: 0.05 is 5 points.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin = {margin} leaves no room for sameness: give a number above 0")
    low, high = estimate.inner
    return -margin < low and high < margin
