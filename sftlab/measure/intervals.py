"""Confidence intervals for means over seeds x entities, and for differences of such means.

Every seed is measured on the same items, so the outcomes are crossed: a seed's luck is in a whole
row, an entity's difficulty in a whole column, and neither rows nor single items are independent.
`spread` estimates the variance V of a mean (analysis of variance) and its degrees of freedom.

    numbers       value +- t sqrt(V), Student's t
    shares        the same on the logit scale: logit(share) +- t sqrt(V) / (share (1 - share)), so
                  that no end leaves 0 to 1; corrected for skewness (`_logit_interval`), and cut at
                  the exact binomial limits of the entities that were wrong (or right) for any
                  seed, which matters when they are few
    differences   of shares: from the arms' intervals and the correlation of their means (`mover`)
    no variation  exact binomial (`exact`)

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

A cluster bootstrap stretched to the same variance, which stood here before, held 91.6 to 97.9 in
the same simulation. Outside of this table: two arms that hardly differ, or both at 98%, 96.7 to 100
(too wide), but 94.3 with 10 seeds that dominate; seeds that vary even more (sd 1.5) at 90% or 98%,
91.5 to 93; numbers, 93 with 3 seeds that dominate and 89 with 2; 10 entities, 95 to 99 (too wide).
Nothing covers a rare collapse that none of the seeds has shown.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

STUDENT, LOGIT, EXACT, MOVER = "Student's t", "logit t", "exact binomial", "MOVER"
CONSTANT = "constant"


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float
    method: str
    """Student's t, logit t, exact binomial, MOVER or constant."""


class Term(NamedTuple):
    """A variance of a mean (or of a difference of means), and how well it is known."""

    variance: float
    """In the unit squared."""
    freedom: float
    """Degrees of freedom of this estimate; 0 where there is none."""


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
    value = first.mean() - (0 if second is None else second.mean())
    of_value = spread(first, second, paired_seeds=paired_seeds, paired_entities=paired_entities)
    # Less than this is what rounding leaves of differences that are all the same.
    varies = of_value.variance > (1e-12 * max(np.abs(arm).max() for arm in arms)) ** 2
    if not shares:
        if not varies:
            return Interval(float(value), float(value), CONSTANT)
        reach = -stdtrit(of_value.freedom, (1 - level) / 2) * of_value.variance**0.5
        return Interval(float(value - reach), float(value + reach), STUDENT)
    if second is not None and any(np.ptp(arm) <= 1e-12 for arm in arms):
        # No correlation can be seen. A positive one, as of arms that share items, would only make
        # the interval narrower.
        return mover(arms, 0.0, level)
    if not varies:
        entities = min(arm.shape[1] for arm in arms)
        least = 0.0 if second is None else -1.0
        return Interval(*exact(float(value), entities, level=level, least=least), EXACT)
    if second is None:
        return Interval(*_logit_interval(first, level), LOGIT)
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

    value = first - second
    low = value - reach(down1, up2, max(down1 - down2, up2 - up1))
    high = value + reach(up1, down2, max(up1 - up2, down2 - down1))
    return Interval(max(low, -1.0), min(high, 1.0), MOVER)


def _logit_interval(cells: np.ndarray, level: float) -> tuple[float, float]:
    """Student's t on the logit scale, with the quantile's Cornish-Fisher correction for skewness.

    Near 0% or 100% a mean is skewed even on the logit scale: one seed that fails, or a few hard
    entities, pull it towards the middle, and the tail on that side is the longer one.
    """
    value, entities, tail = cells.mean(), cells.shape[1], (1 - level) / 2
    of_mean = spread(cells)
    reach = -stdtrit(of_mean.freedom, tail) * of_mean.variance**0.5 / (value * (1 - value))
    # With these bounds, 1.2 and 2.5, an interval of a higher level is always the wider one.
    z = min(-ndtri(tail), 2.5)
    tilt = min(max(_third_moment(cells) / of_mean.variance**1.5, -1.2), 1.2) * (z - 1 / z) / 6
    low, high = expit(logit(value) + reach * np.array([tilt - 1, tilt + 1]))
    always, ever = int((cells.min(0) == 1).sum()), int((cells.max(0) > 0).sum())
    least, _ = clopper_pearson(always, entities, level=level)
    _, most = clopper_pearson(ever, entities, level=level)
    return float(max(low, least)), float(min(high, most))


def _third_moment(cells: np.ndarray) -> float:
    """Third central moment of the mean: of the entities, and of the seeds where these vary."""
    axes = [0]
    if _term(cells.mean(1)).variance > _residual(cells).variance:
        axes.append(1)
    means = [cells.mean(axis) for axis in axes]
    return sum(((one - one.mean()) ** 3).mean() / len(one) ** 2 for one in means)


def exact(value: float, entities: int, *, level: float, least: float = 0.0) -> tuple[float, float]:
    """Interval for a share (or, with least=-1, a difference of shares) seen alike in all entities.

    No entity of `entities` was seen to deviate from `value`, so the exact binomial interval bounds
    the share of those that would, and they might be anything from `least` to 1. For a share of 0 or
    1 this is the Clopper-Pearson interval itself: 50 of 50 entities right gives 92.9% to 100%.

    It counts entities, not items or seeds: conservative, as the items of an entity and the seeds
    are not independent. What no seed has shown, such as a run that collapses, it cannot know.
    """
    _, deviate = clopper_pearson(0, entities, level=level)
    return value - deviate * (value - least), value + deviate * (1 - value)


@lru_cache(maxsize=4096)
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

    with Satterthwaite's (1946) degrees of freedom, V^2 / sum(V_k^2 / f_k). Where the seeds' means
    spread no more than the residual explains (V_seeds <= V_residual), no variance of seeds is
    seen, and the entities' E - 1 degrees of freedom count: with S - 1 of them a single wrong answer
    in 600 would put the lower end at 33%.

    Paired arms share effects, so a term is that of the difference of their means; terms of
    unpaired arms add up. An arm with one seed adds no variance of seeds.
    """
    arms = [first] if second is None else [first, second]
    paired_seeds = paired_seeds and len(arms) == 2 and len(first) == len(second)
    paired_entities = paired_entities and len(arms) == 2

    def means(axis: int, paired: bool) -> list[np.ndarray]:
        found = [arm.mean(axis) for arm in arms]
        return [found[0] - found[1]] if paired else found

    of_seeds = [_term(one) for one in means(1, paired_seeds)]
    of_entities = [_term(one) for one in means(0, paired_entities)]
    both = paired_seeds and paired_entities
    of_rest = [_residual(one) for one in ([first - second] if both else arms)]
    seeds, entities, rest = (sum(t.variance for t in k) for k in (of_seeds, of_entities, of_rest))
    variance = max(seeds + entities - rest, seeds, entities, rest)
    counted, squared = [*of_seeds, *of_entities, *of_rest], variance**2
    if entities and seeds <= rest * (1 + 1e-9):
        counted, squared = of_entities, entities**2
    unsure = sum(t.variance**2 / t.freedom for t in counted if t.freedom)
    least = min((t.freedom for t in counted if t.freedom), default=1)
    return Term(variance, max(squared / unsure, least) if unsure else least)


def terms(cells: np.ndarray) -> tuple[Term, Term, Term]:
    """Variance of the mean of (seeds, entities) cells from the spread of the seeds' means, from
    that of the entities' means, and from what neither explains: the mean squares of the two-way
    analysis of variance, each divided so that it is a variance of the mean."""
    return _term(cells.mean(1)), _term(cells.mean(0)), _residual(cells)


def _term(means: np.ndarray) -> Term:
    if len(means) == 1:
        return Term(0.0, 0)
    # Sums of equal floats differ in the last bit: without this, constant cells would vary.
    deviations = means - means[0]
    return Term(float(deviations.var(ddof=1) / len(means)), len(means) - 1)


def _residual(cells: np.ndarray) -> Term:
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
    seed 1     0.75   0.25   1.00        a row: one training run
    seed 2     1.00   0.50   1.00        a column: one cluster of items that go together
    """

    values: np.ndarray
    """(seeds, entities) floats."""
    seeds: tuple[Hashable, ...]
    """The seeds, in order."""
    entities: tuple[Hashable, ...]
    """The entities, in order."""
    items: int
    """Rows of one seed: of the seed that has the fewest."""
    shares: bool
    """Whether every value is 0 or 1, so that a mean is a share."""


def cells(
    frame: pd.DataFrame,
    *,
    value: str = "right",
    seed: str = "seed",
    entity: str | None = "country",
) -> Cells:
    """Average the rows of a frame into cells.

    One row per seed and item. A frame without the column "seed" is one seed, in which nothing is
    random. `entity=None` is for one number a run, such as a loss over a fixed text. Entities
    count alike, however many items they have.

    ValueError: a column or every row is missing; a value is missing, not finite or not a number;
    or a seed lacks entities that another has.
    """
    wanted = [value] if entity is None else [value, entity]
    if seed in frame.columns or seed != "seed":
        wanted.append(seed)
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise ValueError(
            f"the frame has no column {absent[0]!r}, only {', '.join(map(str, frame.columns))}: "
            "name the columns with value=, seed= and entity= (None for one number a run)"
        )
    if frame.empty:
        raise ValueError("the frame has no rows, so there is nothing to average")
    nothing = np.zeros(len(frame), int)
    rows, seeds = _numbered(frame[seed] if seed in wanted else nothing)
    columns, entities = _numbered(nothing if entity is None else frame[entity])
    nameless = (rows < 0) | (columns < 0)
    if nameless.any():
        raise ValueError(
            f"row {int(nameless.argmax())} has no seed or no entity: fill it in or drop the row"
        )
    numbers = _numbers(frame[value], seeds[rows])
    place, shape = rows * len(entities) + columns, (len(seeds), len(entities))
    counts, sums = (
        np.bincount(place, weights, minlength=len(seeds) * len(entities)).reshape(shape)
        for weights in (None, numbers)
    )
    if not counts.all():
        raise ValueError(
            f"these pairs of seed and entity have no rows: {_gaps(counts, seeds, entities)}. "
            "Every seed must be measured on the same entities: measure them, or leave that seed or "
            "entity out"
        )
    return Cells(
        values=sums / counts,
        seeds=tuple(seeds.tolist()),
        entities=tuple(entities.tolist()),
        items=int(counts.sum(1).min()),
        shares=bool(np.isin(numbers, (0.0, 1.0)).all()),
    )


def _numbered(names: pd.Series | np.ndarray) -> tuple[np.ndarray, pd.Index | np.ndarray]:
    """For each row the number of its name, -1 without one; and the names, in order."""
    if isinstance(names.dtype, pd.CategoricalDtype):  # whose order may differ between frames
        names = names.astype(names.cat.categories.dtype)
    return pd.factorize(names, sort=True)


def _numbers(column: pd.Series, seeds: pd.Index | np.ndarray) -> np.ndarray:
    try:
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column.name!r} must hold numbers: {error}") from error
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(numbers)} values of {column.name!r} are missing or not finite, "
            f"the first in row {int(wrong.argmax())} (seed {seeds[int(wrong.argmax())]}): a "
            "run that failed has none; run it again or leave that seed out"
        )
    return numbers


def _gaps(counts: np.ndarray, seeds: pd.Index | np.ndarray, entities: pd.Index | np.ndarray) -> str:
    rows, columns = np.nonzero(counts == 0)
    named = [f"({seeds[r]}, {entities[c]})" for r, c in list(zip(rows, columns, strict=True))[:3]]
    return ", ".join(named) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
