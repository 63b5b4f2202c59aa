"""Confidence intervals for means over seeds x entities and their differences; power of a plan.

Every seed is measured on the same items, so the outcomes are crossed: a seed's luck is in a whole
row, an entity's difficulty in a whole column, and neither rows nor single items are independent.
`spread` estimates the variance V of a mean (analysis of variance) and its degrees of freedom.

    numbers       value +- t sqrt(V), Student's t
    shares        the same on the logit scale: logit(share) +- t sqrt(V) / (share (1 - share)), so
                  that no end leaves 0 to 1; corrected for skewness (`_logit_interval`), and cut at
                  the exact binomial limits of the entities that were wrong (or right) for any
                  seed, which matters when they are few
    differences   of shares: from the arms' intervals and the correlation of their means (`mover`)
    no variation  exact binomial, of the entities
    one number    of one seed, not 0 or 1: none, so its ends are -inf and inf

How many percent of the 95% intervals hold the truth, for 50 entities with four items whose logits
vary by entity, item and cell (sd 1, 1, 0.5) and by seed (sd 0, 0.25, 1: of the variance of a mean
over 3 seeds this is none, half, over nine tenths); 2,000 simulated runs each, +-1
(`tests/measure/test_coverage.py` prints it):

                      seeds vary: not          half              dominate
    seeds                    3    5   10      3    5   10      3    5   10
    share 50%             97.3 95.7 95.1   95.8 95.1 95.0   92.7 95.0 94.8
    share 90%             96.8 95.8 94.6   96.0 96.0 94.8   93.8 94.2 94.2
    share 98%             97.5 96.9 94.9   96.8 95.8 95.3   93.0 93.2 92.8
    paired 70% - 50%      97.5 96.0 95.4   96.6 95.7 95.0   94.9 95.2 95.5
    paired 95% - 85%      97.7 96.8 95.2   97.0 96.4 95.0   94.2 94.0 94.5
    paired 98% - 50%      97.0 95.2 95.7   96.0 95.0 95.5   92.6 93.1 94.9

Outside of this table: two arms that hardly differ, or both at 98%, 96.7 to 100, but 94.3 with 10
seeds that dominate; seeds with sd 1.5 at 90% or 98%, 91.5 to 93; numbers, 93 with 3 seeds that
dominate and 89 with 2; 10 entities, 95 to 99. Nothing covers a collapse that no seed has shown.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

STUDENT, LOGIT, EXACT, MOVER = "Student's t", "logit t", "exact binomial", "MOVER"
CONSTANT, COMPUTED, NO_INTERVAL = "constant", "computed", "no interval"


class Interval(NamedTuple):
    """A confidence interval, and the method above that gave it."""

    low: float
    high: float
    method: str


class Term(NamedTuple):
    """A variance of a mean (in the unit squared), and its degrees of freedom: 0 for none."""

    variance: float
    freedom: float


def interval(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    shares: bool,
    paired_seeds: bool = True,
    paired_entities: bool = True,
    level: float = 0.95,
) -> Interval:
    """Interval for mean(first), or for mean(first) - mean(second).

    The arms are (seeds, entities) arrays of cell means; `shares` says that all items are 0 or 1.
    Paired arms have the same seeds (or one arm a single one), the same entities, in one order.
    """
    arms = [first] if second is None else [first, second]
    value = float(first.mean() - (0 if second is None else second.mean()))
    of_value = spread(first, second, paired_seeds=paired_seeds, paired_entities=paired_entities)
    # Less than this is what rounding leaves of differences that are all the same.
    varies = of_value.variance > (1e-12 * max(np.abs(arm).max() for arm in arms)) ** 2
    if not shares:
        if all(arm.size == 1 for arm in arms):
            return Interval(-np.inf, np.inf, NO_INTERVAL)
        if not varies:
            return Interval(value, value, CONSTANT)
        reach = -stdtrit(of_value.freedom, (1 - level) / 2) * of_value.variance**0.5
        return Interval(float(value - reach), float(value + reach), STUDENT)
    if second is not None and any(np.ptp(arm) <= 1e-12 for arm in arms):
        # No correlation can be seen; a positive one would only make the interval narrower.
        return mover(arms, 0.0, level)
    if not varies:
        # No entity was seen to deviate, so the exact interval bounds the share of those that would,
        # and they might be anything from the least value to 1. It counts entities, as neither their
        # items nor the seeds are independent: 50 of 50 entities right give 92.9% to 100%.
        least = 0.0 if second is None else -1.0
        _, deviate = clopper_pearson(0, min(arm.shape[1] for arm in arms), level=level)
        return Interval(value - deviate * (value - least), value + deviate * (1 - value), EXACT)
    if second is None:
        return _logit_interval(first, level)
    one, two = (spread(arm).variance for arm in arms)
    correlation = (one + two - of_value.variance) / 2 / (one * two) ** 0.5
    return mover(arms, min(max(correlation, -1.0), 1.0), level)


def mover(arms: list[np.ndarray], correlation: float, level: float) -> Interval:
    """Interval for a difference of shares from the two arms' own intervals.

    The method of variance estimates recovery (MOVER; Zou & Donner 2008): with `down` and `up` the
    distances from a mean to its ends, the lower end of a difference of independent arms is
    value - sqrt(down1^2 + up2^2). Correlated arms have a part (1 - r) of this, and a part r that
    moves both in one direction: down1 - down2, or up2 - up1.
    """
    one, two = (interval(arm, shares=True, level=level) for arm in arms)
    first, second = (float(arm.mean()) for arm in arms)
    down1, up1 = first - one.low, one.high - first
    down2, up2 = second - two.low, two.high - second

    def reach(towards: float, away: float, together: float) -> float:
        if correlation < 0:
            return (towards**2 + away**2 - 2 * correlation * towards * away) ** 0.5
        apart = (1 - correlation) * (towards**2 + away**2)
        return (apart + correlation * max(together, 0.0) ** 2) ** 0.5

    low = first - second - reach(down1, up2, max(down1 - down2, up2 - up1))
    high = first - second + reach(up1, down2, max(up1 - up2, down2 - down1))
    return Interval(max(low, -1.0), min(high, 1.0), MOVER)


def _logit_interval(cells: np.ndarray, level: float) -> Interval:
    """Student's t on the logit scale, with the quantile's Cornish-Fisher correction for skewness.

    Near 0% or 100% a mean is skewed even on the logit scale: one seed that fails, or a few hard
    entities, pull it towards the middle, and the tail on that side is the longer one.
    """
    value, entities, tail = cells.mean(), cells.shape[1], (1 - level) / 2
    of_mean = spread(cells)
    reach = -stdtrit(of_mean.freedom, tail) * of_mean.variance**0.5 / (value * (1 - value))
    # Third central moment of the mean: of the entities, and of the seeds where these vary.
    seeds_vary = _term(cells.mean(1)).variance > _residual(cells).variance
    means = [cells.mean(axis) for axis in ((0, 1) if seeds_vary else (0,))]
    moment = sum(((one - one.mean()) ** 3).mean() / len(one) ** 2 for one in means)
    # With these bounds, 1.2 and 2.5, an interval of a higher level is always the wider one.
    z = min(-ndtri(tail), 2.5)
    tilt = min(max(moment / of_mean.variance**1.5, -1.2), 1.2) * (z - 1 / z) / 6
    low, high = expit(logit(value) + reach * np.array([tilt - 1, tilt + 1]))
    always, ever = int((cells.min(0) == 1).sum()), int((cells.max(0) > 0).sum())
    least, _ = clopper_pearson(always, entities, level=level)
    _, most = clopper_pearson(ever, entities, level=level)
    return Interval(float(max(low, least)), float(min(high, most)), LOGIT)


def clopper_pearson(hits: int, items: int, *, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval (Clopper & Pearson 1934), by quantiles of the beta distribution."""
    tail = (1 - level) / 2
    low = betaincinv(hits, items - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, items - hits, 1 - tail) if hits < items else 1.0
    return float(low), float(high)


def spread(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    paired_seeds: bool = True,
    paired_entities: bool = True,
) -> Term:
    """Variance of mean(first), or of mean(first) - mean(second), of (seeds, entities) cells.

    A cell is y[s, e] = mean + seed effect + entity effect + residual. With S seeds and E entities
    the mean has the variance

        var(seed effect) / S  +  var(entity effect) / E  +  var(residual) / (S E)

    The spread of the seeds' means over S estimates the first and the third, that of the entities'
    means over E the second and the third, so their sum counts the residual twice (Owen 2007, "The
    pigeonhole bootstrap"). Hence

        V = V_seeds + V_entities - V_residual,  at least the largest of the three

    with Satterthwaite's (1946) degrees of freedom, V^2 / sum(V_k^2 / f_k). Where V_seeds is at most
    V_residual, no variance of seeds is seen, and the entities' E - 1 degrees of freedom count: with
    S - 1 of them a single wrong answer in 600 would put the lower end at 33%.

    Paired arms share effects, so a term is that of the difference of their means; terms of
    unpaired arms add up. An arm with one seed adds no variance of seeds.
    """
    arms = [first] if second is None else [first, second]
    paired_seeds = paired_seeds and len(arms) == 2 and len(first) == len(second)
    paired_entities = paired_entities and len(arms) == 2

    def of_means(axis: int, paired: bool) -> list[Term]:
        found = [arm.mean(axis) for arm in arms]
        return [_term(one) for one in ([found[0] - found[1]] if paired else found)]

    of_seeds, of_entities = of_means(1, paired_seeds), of_means(0, paired_entities)
    paired = paired_seeds and paired_entities
    of_rest = [_residual(one) for one in ([first - second] if paired else arms)]
    seeds, entities, rest = (sum(t.variance for t in k) for k in (of_seeds, of_entities, of_rest))
    variance = max(seeds + entities - rest, seeds, entities, rest)
    counted, squared = [*of_seeds, *of_entities, *of_rest], variance**2
    if entities and seeds <= rest * (1 + 1e-9):
        counted, squared = of_entities, entities**2
    unsure = sum(t.variance**2 / t.freedom for t in counted if t.freedom)
    least = min((t.freedom for t in counted if t.freedom), default=1)
    return Term(variance, max(squared / unsure, least) if unsure else least)


def _term(means: np.ndarray) -> Term:
    """Variance of a mean from the spread of the seeds' or of the entities' means."""
    if len(means) == 1:
        return Term(0.0, 0)
    # Sums of equal floats differ in the last bit: without this, constant cells would vary.
    deviations = means - means[0]
    return Term(float(deviations.var(ddof=1) / len(means)), len(means) - 1)


def _residual(cells: np.ndarray) -> Term:
    """Variance of the mean from what neither seeds nor entities explain (two-way ANOVA)."""
    seeds, entities = cells.shape
    freedom = (seeds - 1) * (entities - 1)
    if not freedom:
        return Term(0.0, 0)
    rest = cells - cells.mean(0) - cells.mean(1, keepdims=True) + cells.mean()
    return Term(float((rest**2).sum() / freedom / cells.size), freedom)


class Cells(NamedTuple):
    """The mean of the items in each cell, seeds down and entities across.

              Brazil  Chad  France ...
    seed 0     0.75   0.50   1.00        a cell: the mean over the items (four relations)
    seed 1     0.75   0.25   1.00        a row: one training run; a column: one cluster of items
    """

    values: np.ndarray
    seeds: tuple[Hashable, ...]
    entities: tuple[Hashable, ...]
    items: int  # rows of the seed that has the fewest
    shares: bool  # every value is 0 or 1, so that a mean is a share


def cells(frame: pd.DataFrame, *, value: str = "right", entity: str | None = "country") -> Cells:
    """Average the rows of a frame, one per seed and item, into cells; the arguments of `mean`.

    ValueError: a number is missing or not finite, or a seed lacks entities that another has.
    """
    keys = ["seed" if "seed" in frame else None, entity]
    wanted = [value, *(key for key in keys if key is not None)]
    if absent := [name for name in wanted if name not in frame]:
        raise ValueError(
            f"the frame has no column {absent[0]!r}, only {', '.join(map(str, frame))}: "
            "name them with value= and entity= (None for one number a run)"
        )
    if frame.empty:
        raise ValueError("the frame has no rows, so there is nothing to average")
    alike = np.zeros(len(frame), int)
    # As arrays: a categorical column would bring an order of its own, which may differ by frame.
    names = [alike if key is None else np.asarray(frame[key]) for key in keys]
    (rows, seeds), (columns, entities) = (pd.factorize(one, sort=True) for one in names)
    numbers = pd.to_numeric(frame[value], errors="coerce").to_numpy(float, na_value=np.nan)
    wrong = (rows < 0) | (columns < 0) | ~np.isfinite(numbers)
    if wrong.any():
        row = int(wrong.argmax())
        found = ", ".join(f"{name} {frame[name].iloc[row]}" for name in wanted)
        raise ValueError(
            f"{wrong.sum()} of {len(frame)} rows cannot be used, the first is row {row} ({found}): "
            f"{value!r} must hold finite numbers. A run that failed has none: leave that seed out"
        )
    place, shape = rows * len(entities) + columns, (len(seeds), len(entities))
    counts, sums = (
        np.bincount(place, weights, minlength=len(seeds) * len(entities)).reshape(shape)
        for weights in (None, numbers)
    )
    if not counts.all():
        gaps = [f"({seeds[r]}, {entities[c]})" for r, c in np.argwhere(counts == 0)]
        raise ValueError(
            f"{len(gaps)} pairs of seed and entity have no rows, such as {', '.join(gaps[:3])}: "
            "every seed must be measured on the same entities"
        )
    return Cells(
        values=sums / counts,
        seeds=tuple(seeds.tolist()),
        entities=tuple(entities.tolist()),
        items=int(counts.sum(1).min()),
        shares=bool(np.isin(numbers, (0.0, 1.0)).all()),
    )


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances of the effects in a cell (see `spread`), in the unit squared."""

    seeds: float
    entities: float
    residual: float  # holds the luck of single items: for entities with as many as the pilot's
    paired: bool  # they are of the difference of two arms that share entities (and seeds)


def components(first: pd.DataFrame, second: pd.DataFrame | None = None) -> Components:
    """Variance components of a pilot: of one arm, or of the paired difference of two.

    From the mean squares of the two-way analysis of variance without replication, an estimate
    below 0 set to 0. From 3 seeds the seeds' variance is often off by a factor of three.
    """
    pilot = cells(first)
    values = pilot.values
    if second is not None:
        others = cells(second)
        same_seeds = pilot.seeds == others.seeds or 1 in (len(pilot.seeds), len(others.seeds))
        if not same_seeds or pilot.entities != others.entities:
            raise ValueError("the arms of a pilot must have the same seeds and entities")
        values = values - others.values
    seeds, entities = values.shape
    if min(values.shape) < 2:
        raise ValueError(
            f"a pilot of {seeds} seeds and {entities} entities does not show how they vary: "
            "measure 2 or more of each, better 5 seeds"
        )
    rest = _residual(values).variance
    return Components(
        seeds=max(_term(values.mean(1)).variance - rest, 0) * seeds,
        entities=max(_term(values.mean(0)).variance - rest, 0) * entities,
        residual=rest * values.size,
        paired=second is not None,
    )


def detectable(
    pilot: Components | tuple[pd.DataFrame, pd.DataFrame],
    *,
    seeds: int,
    entities: int,
) -> float:
    """The smallest difference that `difference` would tell from 0 four times in five, about.

    Components of a paired pilot, or its two frames, plan paired arms, those of one arm two arms
    that share neither seeds nor entities and vary alike, though a share near 0 or 1 varies less.

    The interval excludes 0 when t = difference / standard error passes its quantile; t follows the
    noncentral t distribution, with the degrees of freedom that `spread` would expect.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    pilot = pilot if isinstance(pilot, Components) else components(*pilot)
    arms, rest = 1 if pilot.paired else 2, pilot.residual / seeds / entities
    variance = pilot.entities / entities + rest
    parts = [(variance, entities - 1)]
    if pilot.seeds:
        variance += pilot.seeds / seeds
        parts += [(pilot.seeds / seeds + rest, seeds - 1), (rest, (seeds - 1) * (entities - 1))]
    if not variance:
        return 0.0
    unsure = sum(part**2 / freedom for part, freedom in parts)
    freedom = arms * max(variance**2 / unsure, min(freedom for _, freedom in parts))
    bar = t.isf((1 - 0.95) / 2, freedom)
    shift = brentq(lambda delta: nct.sf(bar, freedom, delta) - 0.8, 0, 4 * bar + 10)
    return float(shift * np.sqrt(arms * variance))
