"""Measured effects with confidence intervals: shares, means, differences, equivalence, segments.

    share(outcomes)             a share of independent items, with its exact interval
    mean(frame)                 a share, or any mean, with its interval over seeds and entities
    difference(first, second)   mean(first) - mean(second), paired where the arms share items
    equivalent(estimate, 0.05)  whether the effect is shown to lie within +-0.05
    computed(14.2, factor=1.1)  a figure of a formula, right within a tenth
    segment_means(cut)          the mean of each segment: what a mean over all items hides

A frame has one row per seed and item. How the intervals are made, and how often they hold the
truth, is in `sftlab.measure.intervals`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd

from sftlab.measure.intervals import cells, clopper_pearson, interval
from sftlab.world import country

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

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.items or self.items == 0:
            raise ValueError(
                f"{self.hits} of {self.items}: a share needs 1 item or more, and 0 to as many hits"
            )

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.hits / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95% binomial interval (Clopper and Pearson).

        It takes the items as independent: too narrow for several questions about one country, for
        which there is `mean`.
        """
        return clopper_pearson(self.hits, self.items)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{percent(self.value)} ({low:.0%} to {high:.0%})"


def share(outcomes) -> Share:
    """The share of true values in a sequence of outcomes; ValueError when it is empty."""
    outcomes = [bool(outcome) for outcome in outcomes]
    return Share(hits=sum(outcomes), items=len(outcomes))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An effect with its interval over seeds and entities; `str` gives `81% (74% to 87%)`.

    low, high   ends of the interval at `level`, in which a correction for comparisons is included
    inner       the interval at 1 - 2(1 - level), 90% by default: two one-sided tests at 5%
    seeds       1 when nothing is random
    items       distinct items: the rows of one seed
    entities    clusters; 1 when the values are one number a run
    by_seed     the effect for each seed, in their order
    method      one of `sftlab.measure.intervals`, or computed
    unit        share (printed as percents), points (a difference of shares), or number

    ValueError when a field contradicts another, as an interval that does not hold its value.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    inner: tuple[float, float]
    seeds: int
    items: int
    entities: int
    by_seed: tuple[float, ...]
    method: str
    unit: str = NUMBER

    def __post_init__(self) -> None:
        least, most = self.inner
        numbers = (self.value, self.low, self.high, least, most, *self.by_seed)
        counts = (self.seeds, self.items, self.entities, len(self.by_seed))
        faults = {
            "a number is not finite": not all(map(math.isfinite, numbers)),
            "the value is outside of low to high": not self.low <= self.value <= self.high,
            "inner is not within low to high": (
                not self.low - 1e-9 <= least <= most <= self.high + 1e-9
            ),
            "level is not above 0.5 and below 1": not 0.5 < self.level < 1,
            f"unit is not {SHARE}, {POINTS} or {NUMBER}": self.unit not in (SHARE, POINTS, NUMBER),
            "seeds, items, entities or by_seed is below 1": min(counts) < 1,
        }
        if found := [fault for fault, there in faults.items() if there]:
            raise ValueError(f"{found[0]} in {self!r}: measure again")

    def __str__(self) -> str:
        written = {
            SHARE: percent,
            # One digit more where whole points would print a difference as none.
            POINTS: lambda share: f"{100 * share:+.{int(0 < abs(share) < 0.005)}f}",
            NUMBER: lambda number: f"{number:.3g}",
        }[self.unit]
        value, low, high = written(self.value), written(self.low), written(self.high)
        return f"{value}{' points' if self.unit == POINTS else ''} ({low} to {high})"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON and `from_dict`."""
        return asdict(self) | {"inner": list(self.inner), "by_seed": list(self.by_seed)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """The estimate that `to_dict` wrote; ValueError names unknown fields."""
        unknown = set(record) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown fields of an estimate: {', '.join(sorted(unknown))}")
        tuples = {name: tuple(record[name]) for name in ("inner", "by_seed")}
        return cls(**{**record, **tuples})


def computed(*values: float, factor: float = 1.0, comparisons: int = 1) -> Estimate:
    """A figure that was computed and not measured, such as a planner's, as an estimate.

    Nothing in it is random: its interval reaches from the smallest of several `values` (one for
    each model that the claim may mean) to the largest, widened by `factor`, the error that the
    formula may have either way (1.1 is a tenth). The value is their mean.
    """
    if not values or not factor >= 1:
        raise ValueError(
            f"computed from {values} with the factor {factor}: give at least one value, and a "
            "factor of 1 for an exact figure, 1.1 for within a tenth"
        )
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


def equivalent(estimate: Estimate, margin: float) -> bool:
    """Equivalence test: whether the effect is shown to lie within +-margin.

    Two one-sided tests (TOST, Schuirmann 1987), each at 1 - level (5%): both reject exactly when
    `estimate.inner` (90%) lies strictly within the margins. False says that equivalence was not
    shown, not that there is a difference. `margin` is in the effect's unit: 0.05 is 5 points.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin = {margin}: an equivalence test needs a finite margin above 0")
    low, high = estimate.inner
    return -margin < low and high < margin


def mean(
    frame: pd.DataFrame,
    *,
    value: str = "right",
    seed: str = "seed",
    entity: str | None = "country",
    comparisons: int = 1,
) -> Estimate:
    """The mean of a column with its 95% interval over seeds and entities.

    `value` is a column of booleans, or of any numbers; of 0s and 1s alone the mean is a share,
    and its interval stays within 0 to 1. A frame without the column "seed" is one seed, and the
    interval is over entities alone; `entity=None` is for one number a run, over seeds alone.
    Entities count alike, and all rows of an entity move together. `comparisons=k` makes k such
    intervals hold at once (Bonferroni): each is at the level 1 - 0.05 / k.
    """
    arm = cells(frame, value=value, seed=seed, entity=entity)
    if arm.values.size == 1 and not arm.shares:
        raise ValueError(
            f"{arm.values.item():g} is one number of one seed: an interval needs more seeds, or "
            "items of several entities"
        )
    return _estimate(
        [arm.values],
        by_seed=arm.values.mean(1),
        unit=SHARE if arm.shares else NUMBER,
        counts=dict(seeds=len(arm.seeds), items=arm.items, entities=len(arm.entities)),
        comparisons=comparisons,
    )


def difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    value: str = "right",
    seed: str = "seed",
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
    seeds each seed of the arm whose seeds differ more, against the other arm's mean. `seeds` is
    the smaller number of the two arms, an arm with one seed apart.
    """
    one, two = (cells(arm, value=value, seed=seed, entity=entity) for arm in (first, second))
    numbers = (len(one.seeds), len(two.seeds))
    if paired_seeds and 1 not in numbers and one.seeds != two.seeds:
        raise ValueError(
            f"the first arm has the seeds {list(one.seeds)}, the second {list(two.seeds)}: measure "
            "both with the same seeds, or pass paired_seeds=False"
        )
    paired = one.entities == two.entities
    common = set(one.entities) & set(two.entities)
    if common and not paired:
        lonely = sorted(map(str, set(one.entities) ^ set(two.entities)))
        raise ValueError(
            f"the arms share {len(common)} entities, but {', '.join(lonely[:3])}"
            f"{' and more' if len(lonely) > 3 else ''} are in one arm only: compare them on the "
            "entities that both have"
        )
    shares = one.shares and two.shares
    if one.values.size == two.values.size == 1 and not shares:
        raise ValueError("both arms are one number: an interval needs seeds or entities")
    by_one, by_two = one.values.mean(1), two.values.mean(1)
    if not paired_seeds or 1 in numbers:
        steady = by_one.std() < by_two.std()
        by_one, by_two = (by_one.mean(), by_two) if steady else (by_one, by_two.mean())
    together = min if paired else sum
    return _estimate(
        [one.values, two.values],
        by_seed=by_one - by_two,
        unit=POINTS if shares else NUMBER,
        counts=dict(
            seeds=max(numbers) if 1 in numbers else min(numbers),
            items=together((one.items, two.items)),
            entities=together((len(one.entities), len(two.entities))),
        ),
        comparisons=comparisons,
        paired_seeds=paired_seeds,
        paired_entities=paired,
    )


def _estimate(
    arms: list[np.ndarray],
    *,
    by_seed: np.ndarray,
    unit: str,
    comparisons: int,
    counts: dict[str, int],
    **pairing: bool,
) -> Estimate:
    if comparisons < 1:
        raise ValueError(f"comparisons = {comparisons}: count the intervals, 1 or more")
    level = 1 - (1 - 0.95) / comparisons
    outer, inner = (
        interval(*arms, shares=unit != NUMBER, level=one, **pairing)
        for one in (level, 1 - 2 * (1 - level))
    )
    value = float(arms[0].mean() - (arms[1].mean() if len(arms) == 2 else 0))
    return Estimate(
        value=value,
        low=min(outer.low, value),
        high=max(outer.high, value),
        level=level,
        # An interval of two correlated arms may grow at one end as the level falls.
        inner=(max(inner.low, outer.low), min(inner.high, outer.high)),
        by_seed=tuple(float(effect) for effect in np.atleast_1d(by_seed)),
        method=outer.method,
        unit=unit,
        **counts,
    )


CUTS: dict[str, Callable[[Any], str]] = {
    "relation": lambda row: row.relation,
    "continent": lambda row: country(row.country).continent,
    "length": lambda row: "several words" if " " in row.expected.strip() else "one word",
    "group": lambda row: row.group,
    "relation and group": lambda row: f"{row.relation}, {row.group}",
}
"""From a row of `probe_questions` to the name of its segment: by relation, continent, length of
the answer, and how the corpus holds the country (asked about, stated, never mentioned)."""


def with_segments(frame: pd.DataFrame, cuts: Sequence[str] = tuple(CUTS)) -> pd.DataFrame:
    """A row for each item and cut, with the columns cut and segment."""
    if unknown := [name for name in cuts if name not in CUTS]:
        raise ValueError(f"no cut {unknown[0]!r}; there are {', '.join(CUTS)}")
    rows = list(frame.itertuples())
    return pd.concat(
        [frame.assign(cut=name, segment=[CUTS[name](row) for row in rows]) for name in cuts],
        ignore_index=True,
    )


def by_frequency(frame: pd.DataFrame, counts: Mapping[str, int]) -> pd.DataFrame:
    """The frame cut by how often the corpus names each country (`counts`): equal thirds."""
    names = sorted(set(frame["country"]), key=lambda name: (counts.get(name, -1), name))
    if missing := [name for name in names if name not in counts]:
        raise ValueError(f"{missing[0]!r} has no count: count it in the corpus")
    if len(names) < 3:
        raise ValueError(f"{len(names)} countries cannot be cut into thirds: measure more")
    labels = {}
    for part in range(3):
        third = [name for n, name in enumerate(names) if n * 3 // len(names) == part]
        rarest, most = counts[third[0]], counts[third[-1]]
        labels |= dict.fromkeys(third, f"named {rarest:,} to {most:,} times")
    return frame.assign(cut="frequency", segment=frame["country"].map(labels))


def segment_means(cut: pd.DataFrame, **how: Any) -> dict[str, dict[str, Estimate]]:
    """Cut -> segment -> mean with its interval, the weakest segment first; `how` goes to `mean`.

    all            ############################## 87%
    capital        ###################            62%     <- here
    continent      #################################  99%
    """
    found = {}
    for name, part in cut.groupby("cut", sort=False):
        means = {segment: mean(rows, **how) for segment, rows in part.groupby("segment")}
        found[name] = dict(sorted(means.items(), key=lambda pair: pair[1].value))
    return found


def weakest(cut: pd.DataFrame, *, least: int = 5) -> tuple[str, str]:
    """(cut, segment) with the lowest mean, of those with `least` items or more a seed.

    Choose it on some items and report it on others: the lowest of many means is low by luck too.
    """
    seeds = cut["seed"].nunique() if "seed" in cut else 1
    table = cut.groupby(["cut", "segment"])["right"].agg(["mean", "size"])
    table = table[table["size"] >= least * seeds]
    if table.empty:
        raise ValueError(f"no segment has {least} items: lower `least`, or measure more items")
    return table["mean"].idxmin()
