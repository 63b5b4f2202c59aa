"""Measured effects with intervals: means, differences, sameness, several comparisons, power.

    mean(frame)                 a share, or any mean, with its interval
    difference(first, second)   mean(first) - mean(second), paired where the arms share items
    equivalent(estimate, 0.05)  whether the effect is shown to lie within +-0.05
    computed(14.2, factor=1.1)  a figure of a formula, right within a tenth
    holm(pvalues)               p values corrected for being several
    components, detectable, plan    how many seeds and entities an effect needs

A frame has one row per seed and item. How the intervals are made, and how often they hold the
truth, is in `sftlab.measure.bootstrap`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sftlab.measure.bootstrap import DRAWS, intervals
from sftlab.measure.cells import Cells, cells
from sftlab.measure.estimate import NUMBER, POINTS, SHARE, Estimate, computed, equivalent
from sftlab.measure.power import Components, components, detectable, plan
from sftlab.measure.shares import Share, percent, share

__all__ = [
    "Components",
    "Estimate",
    "Share",
    "components",
    "computed",
    "detectable",
    "difference",
    "equivalent",
    "holm",
    "mean",
    "percent",
    "plan",
    "share",
]


def mean(
    frame: pd.DataFrame,
    *,
    value: str = "right",
    seed: str = "seed",
    entity: str | None = "country",
    level: float = 0.95,
    comparisons: int = 1,
) -> Estimate:
    """The mean of a column with its interval over seeds and entities.

    `value` is a column of booleans, or of any numbers; of 0s and 1s alone the mean is a share,
    and its interval stays within 0 to 1. A frame without the column "seed" is one seed, and the
    interval is over entities alone; `entity=None` is for one number a run, over seeds alone.
    Entities count alike, and all rows of an entity move together. `comparisons=k` makes k such
    intervals hold at once (Bonferroni): each is at the level 1 - (1 - level) / k.

    ValueError: the frame cannot be averaged (see `cells`), or is a single number with nothing to
    resample.
    """
    arm = cells(frame, value=value, seed=seed, entity=entity)
    if arm.values.size == 1 and not arm.shares:
        raise ValueError(
            f"{arm.values.item():g} is one number of one seed: an interval needs more seeds, or "
            "items of several entities"
        )
    return _estimate(
        float(arm.values.mean()),
        [arm.values],
        by_seed=arm.values.mean(1),
        unit=SHARE if arm.shares else NUMBER,
        counts=dict(seeds=len(arm.seeds), items=arm.items, entities=len(arm.entities)),
        level=level,
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
    level: float = 0.95,
    comparisons: int = 1,
) -> Estimate:
    """mean(first) - mean(second) with its interval over seeds and entities.

    Entities are paired when both frames hold the same ones, independent when they share none.
    `paired_seeds=True` pairs the arms' seeds, as when seed 3 drew the same examples in the same
    order for both; give False when equal seeds mean nothing. An arm with one seed is taken as
    not random (a prompt): a single training run is none, so do not pass one against many.

    Of values that are 0 and 1 the difference is one of shares: its interval stays within -1 to
    1, and it prints as points. `by_seed` holds the paired seeds' differences; for independent
    seeds each seed of the arm whose seeds differ more, against the other arm's mean. `seeds` is
    the smaller number of the two arms, an arm with one seed apart.

    ValueError as for `mean`, and when the arms share some entities only or, paired, not all seeds.
    """
    columns = dict(value=value, seed=seed, entity=entity)
    one, two = cells(first, **columns), cells(second, **columns)
    single = 1 in (len(one.seeds), len(two.seeds))
    if paired_seeds and not single and one.seeds != two.seeds:
        raise ValueError(
            f"the first arm has the seeds {list(one.seeds)}, the second {list(two.seeds)}: measure "
            "both with the same seeds, or pass paired_seeds=False"
        )
    paired = _paired_entities(one, two)
    if one.values.size == two.values.size == 1 and not (one.shares and two.shares):
        raise ValueError("both arms are one number: an interval needs seeds or entities")
    shares = one.shares and two.shares
    by_one, by_two = one.values.mean(1), two.values.mean(1)
    if not (paired_seeds and not single):
        steady = by_one.std() < by_two.std()
        by_one, by_two = (by_one.mean(), by_two) if steady else (by_one, by_two.mean())
    numbers = (len(one.seeds), len(two.seeds))
    together = min if paired else sum
    return _estimate(
        float(one.values.mean() - two.values.mean()),
        [one.values, two.values],
        by_seed=by_one - by_two,
        unit=POINTS if shares else NUMBER,
        counts=dict(
            seeds=max(numbers) if single else min(numbers),
            items=together((one.items, two.items)),
            entities=together((len(one.entities), len(two.entities))),
        ),
        level=level,
        comparisons=comparisons,
        paired_seeds=paired_seeds,
        paired_entities=paired,
    )


def _paired_entities(one: Cells, two: Cells) -> bool:
    if one.entities == two.entities:
        return True
    first, second = set(one.entities), set(two.entities)
    if not first & second:
        return False
    lonely = sorted(map(str, first ^ second))
    raise ValueError(
        f"the arms share {len(first & second)} entities, but {', '.join(lonely[:3])}"
        f"{' and more' if len(lonely) > 3 else ''} are in one arm only: compare them on the "
        "entities that both have"
    )


def _estimate(
    value: float,
    arms: list[np.ndarray],
    *,
    by_seed: np.ndarray,
    unit: str,
    counts: dict[str, int],
    level: float,
    comparisons: int,
    **pairing: bool,
) -> Estimate:
    if not 0.5 < level < 1:
        raise ValueError(f"level = {level} is no confidence level: give 0.5 < level < 1")
    if comparisons < 1:
        raise ValueError(f"comparisons = {comparisons}: count the intervals, 1 or more")
    level = 1 - (1 - level) / comparisons
    levels = (level, 1 - 2 * (1 - level))
    # Enough draws that some twenty lie beyond each end, or the end is a matter of luck.
    draws = min(max(DRAWS, round(40 / (1 - level))), 100_000)
    found = intervals(*arms, shares=unit != NUMBER, levels=levels, draws=draws, **pairing)
    (low, high), inner = found.limits
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=level,
        inner=inner,
        by_seed=tuple(float(effect) for effect in np.atleast_1d(by_seed)),
        method=found.method,
        unit=unit,
        **counts,
    )


def holm(pvalues: Sequence[float]) -> list[float]:
    """p values corrected for being several, in the order given (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below the
    one before, nor rise above 1. Reject where the result is at most 5%, and the chance of even
    one false rejection is at most 5%, however the tests depend on each other.
    """
    values = np.asarray(pvalues, dtype=float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{pvalues} are no p values: give numbers from 0 to 1 in one list")
    order = values.argsort(kind="stable")
    grown = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = grown.clip(max=1)
    return corrected.tolist()
