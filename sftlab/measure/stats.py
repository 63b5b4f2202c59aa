"""Measured effects with confidence intervals: shares, means, differences, equivalence.

    share(outcomes)             a share of independent items, with its exact interval
    mean(frame)                 a share, or any mean, with its interval over seeds and entities
    difference(first, second)   mean(first) - mean(second), paired where the arms share items
    equivalent(estimate, 0.05)  whether the effect is shown to lie within +-0.05
    computed(14.2, factor=1.1)  a figure of a formula, right within a tenth

A frame has one row per seed and item. How the intervals are made, and how often they hold the
truth, is in `sftlab.measure.intervals`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import pandas as pd

from sftlab.measure.intervals import COMPUTED, NO_INTERVAL, Cells, cells, clopper_pearson, interval

SHARE, POINTS, NUMBER = "share", "points", "number"


def percent(share: float) -> str:
    """A share as `81%`; with one digit more where `0%` or `100%` would hide some items."""
    near = 0 < share < 0.005 or 0.995 <= share < 1
    return f"{share:.1%}" if near else f"{share:.0%}"


@dataclass(frozen=True)
class Share:
    """Hits of items tried, with the 95% interval of the share; `str` gives `81% (74 to 87%)`."""

    hits: int
    items: int

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.hits / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95% binomial interval of independent items (`mean` is for several a country)."""
        return clopper_pearson(self.hits, self.items)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.value)} ({low:.0%} to {high:.0%})"


def share(outcomes) -> Share:
    """The share of true values in a sequence of outcomes, one or more."""
    outcomes = [bool(outcome) for outcome in outcomes]
    return Share(hits=sum(outcomes), items=len(outcomes))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An effect with its interval over seeds and entities; `str` gives `81% (74% to 87%)`."""

    value: float
    # Ends of the interval at `level`, in which a correction for comparisons is included; infinite
    # where one number of one seed gives none, so that nothing is shown by it.
    low: float
    high: float
    level: float = 0.95
    inner: tuple[float, float]  # at 1 - 2(1 - level), 90% by default: two one-sided tests at 5%
    # At 1 - (1 - level) / k for k = 2 to 5: what contradicts one of k parts, any of which may err.
    wider: tuple[tuple[float, float], ...]
    seeds: int  # 1 when nothing is random
    items: int  # distinct ones: the rows of one seed
    entities: int  # clusters; 1 when the values are one number a run
    by_seed: tuple[float, ...]  # the effect for each seed, in their order
    method: str  # one of `sftlab.measure.intervals`, or computed
    unit: str = NUMBER  # share (printed as percents), points (a difference of shares), or number

    def __str__(self) -> str:
        written = {
            SHARE: percent,
            # One digit more where whole points would print a difference as none.
            POINTS: lambda share: f"{100 * share:+.{int(0 < abs(share) < 0.005)}f}",
            NUMBER: lambda number: f"{number:.3g}",
        }[self.unit]
        value = written(self.value)
        if self.unit == POINTS:
            value += " point" + "s" * (abs(float(value)) != 1)
        if self.method == NO_INTERVAL:
            return f"{value} (no interval, one seed)"
        return f"{value} ({written(self.low)} to {written(self.high)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON and `from_dict`: no infinite ends, which JSON lacks."""
        ends = ("low", "high", "inner", "wider") if self.method == NO_INTERVAL else ()
        return {name: value for name, value in asdict(self).items() if name not in ends}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The estimate that `to_dict` wrote."""
        record = (_NO_ENDS if record["method"] == NO_INTERVAL else {}) | record
        tuples = {name: tuple(record[name]) for name in ("inner", "by_seed")}
        return cls(**{**record, **tuples, "wider": tuple(map(tuple, record["wider"]))})

    def map(self, function: Callable[[float], float]) -> Self:
        """The estimate on another scale, by a function that rises: with `math.exp` the mean of
        logarithms becomes the geometric mean."""
        ends = (self.low, self.high), self.inner, *self.wider
        (low, high), inner, *wider = (tuple(map(function, pair)) for pair in ends)
        by_seed = tuple(map(function, self.by_seed))
        found = {"low": low, "high": high, "inner": inner, "wider": tuple(wider)}
        found = _NO_ENDS if self.method == NO_INTERVAL else found
        return replace(self, value=function(self.value), by_seed=by_seed, **found)

    def among(self, parts: int) -> tuple[float, float]:
        """The interval that all of 1 to 5 parts hold at once (Bonferroni); of one the plain one."""
        return (self.low, self.high) if parts == 1 else self.wider[parts - 2]


_NO_ENDS = {"low": -math.inf, "high": math.inf, "inner": (-math.inf, math.inf)}
_NO_ENDS |= {"wider": (_NO_ENDS["inner"],) * 4}


def computed(*values: float, factor: float = 1.0) -> Estimate:
    """A figure that was computed and not measured, such as a planner's, as an estimate.

    Its interval reaches from the smallest of the `values`, one for each model that the claim may
    mean, to the largest, widened by `factor`, the formula's error. The value is their mean.
    """
    reach = [v * off for v in values for off in (1 / factor, factor)]
    low, high, mean = min(reach), max(reach), math.fsum(values) / len(values)
    return Estimate(
        value=min(max(mean, low), high),  # a mean's last bit may lie outside
        low=low,
        high=high,
        inner=(low, high),
        wider=((low, high),) * 4,
        seeds=1,
        items=len(values),
        entities=len(values),
        by_seed=(mean,),
        method=COMPUTED,
    )


def equivalent(estimate: Estimate, margin: float) -> bool:
    """Equivalence test: whether the effect is shown to lie within +-margin (0.05 is 5 points).

    Two one-sided tests (TOST, Schuirmann 1987), each at 5%: the 90% interval `inner` decides.
    """
    low, high = estimate.inner
    return -margin < low and high < margin


def mean(
    frame: pd.DataFrame,
    *,
    value: str = "right",
    entity: str | None = "country",
    comparisons: int = 1,
) -> Estimate:
    """The mean of a column with its 95% interval over seeds and entities.

    Of 0s and 1s (or booleans) alone the mean is a share, and its interval stays within 0 to 1. A
    frame without the column "seed" is one seed, and the interval is over entities alone;
    `entity=None` is for one number a run, over seeds alone: a single one has no interval, and its
    ends are infinite. Entities count alike.
    `comparisons=k` makes k such intervals hold at once (Bonferroni): each is at 1 - 0.05 / k.
    """
    return _estimate([cells(frame, value=value, entity=entity)], comparisons)


def difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    value: str = "right",
    entity: str | None = "country",
    paired_seeds: bool = True,
    comparisons: int = 1,
) -> Estimate:
    """mean(first) - mean(second) with its 95% interval over seeds and entities.

    Entities are paired when both frames hold the same ones, independent when they share none.
    `paired_seeds=True` pairs the arms' seeds, as when seed 3 drew the same examples in the same
    order for both; give False when equal seeds mean nothing. An arm with one seed is taken as
    not random (a prompt): do not pass a single training run, which is, against many.

    Of values that are 0 and 1 the difference is one of shares: its interval stays within -1 to
    1, and it prints as points. `by_seed` holds the paired seeds' differences; for independent
    seeds each seed of the arm whose seeds differ more, against the other arm's mean.
    """
    one, two = (cells(arm, value=value, entity=entity) for arm in (first, second))
    if paired_seeds and 1 not in (len(one.seeds), len(two.seeds)) and one.seeds != two.seeds:
        raise ValueError(
            f"the first arm has the seeds {list(one.seeds)}, the second {list(two.seeds)}: measure "
            "both with the same seeds, or pass paired_seeds=False"
        )
    common, lonely = (set(one.entities) & set(two.entities), set(one.entities) ^ set(two.entities))
    if common and lonely:
        raise ValueError(
            f"the arms share {len(common)} entities, but {len(lonely)} are in one arm only, such "
            f"as {', '.join(sorted(map(str, lonely))[:3])}: compare them on those that both have"
        )
    return _estimate([one, two], comparisons, paired_seeds=paired_seeds)


def _estimate(arms: list[Cells], comparisons: int, *, paired_seeds: bool = True) -> Estimate:
    """The estimate of the mean of one arm, or of the difference of two."""
    shares = all(arm.shares for arm in arms)
    values, by_seed = [arm.values for arm in arms], [arm.values.mean(1) for arm in arms]
    numbers, paired = [len(arm.seeds) for arm in arms], arms[0].entities == arms[-1].entities
    if len(arms) == 2:
        if not paired_seeds or 1 in numbers:
            steady = 0 if by_seed[0].std() < by_seed[1].std() else 1
            by_seed[steady] = by_seed[steady].mean()
        by_seed[0] = by_seed[0] - by_seed[1]
    level, together = 1 - (1 - 0.95) / comparisons, min if paired else sum
    how = {"shares": shares, "paired_seeds": paired_seeds, "paired_entities": paired}
    inner, outer, *wider = (
        interval(*values, level=1 - (1 - level) / k, **how) for k in (0.5, 1, 2, 3, 4, 5)
    )
    value = float(values[0].mean() - (values[1].mean() if len(arms) == 2 else 0))
    low, high = min(outer.low, value), max(outer.high, value)
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=level,
        # An interval of two correlated arms may grow at one end as the level falls.
        inner=(max(inner.low, outer.low), min(inner.high, outer.high)),
        wider=tuple((min(one.low, low), max(one.high, high)) for one in wider),
        seeds=max(numbers) if 1 in numbers else min(numbers),
        items=together(arm.items for arm in arms),
        entities=together(len(arm.entities) for arm in arms),
        by_seed=tuple(by_seed[0].tolist()),
        method=outer.method,
        unit=NUMBER if not shares else SHARE if len(arms) == 1 else POINTS,
    )
