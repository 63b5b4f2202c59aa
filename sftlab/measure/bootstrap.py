"""Intervals for means over seeds x entities, and for differences of such means.

Every seed is measured on the same items, so the outcomes cross: a seed's luck is in a whole row,
an entity's difficulty in a whole column, and neither the rows nor the single items are
independent. One draw of the bootstrap takes seeds with replacement and entities with
replacement, each entity with all its items:

              Brazil x2  Chad x0  France x1        weight of a cell =
    seed 0 x1     2          0         1             times its seed was drawn
    seed 1 x0     0          0         0             x times its entity was drawn
    seed 2 x2     4          0         2

Taken as they are, the percentiles of such draws ("pigeonhole bootstrap", Owen 2007) are wrong in
two ways: they count the residual variance three times, and with 3 seeds they are far too narrow
where seeds differ (79% covered instead of 95%). So the draws only give the shape. Their
deviations from the mean are stretched until their spread is that of
`sftlab.measure.variance.spread` and their tail that of Student's t with its degrees of freedom.

Where hardly any outcome differs between two arms, no draw reaches beyond none at all, on the other
side of which the truth may lie as well. So the interval of a difference, and of plain numbers,
holds at least the plain one, value +- t times the root of the variance, where the draws have to be
drawn together instead of stretched, which tells that outcomes of single cells dominate.

For shares (values 0 and 1) each arm's stretched deviations are laid on the logit scale,

    logit(share) + deviation / (share (1 - share))

and brought back, so that no draw leaves 0 to 1 and the tail towards the middle is the longer one;
a difference is taken draw by draw after that. The draws of a share stop at the exact binomial
limits of the entities that were wrong (or right) for any seed, which matters only when they are
few. Other values stay on their own scale, without bounds: whether a loss or an F1 could leave
0 to 1 is not to be seen in the values.

Where an arm's cells are all alike there is nothing to resample: see `exact`.

How many percent of the 95% intervals hold the truth, for 50 entities with four items whose logits
vary by entity, item and cell (sd 1, 1, 0.5) and by seed (sd 0, 0.25, 1: of the variance of a mean
over 3 seeds this is none, half, over nine tenths); 2,000 to 6,000 simulated runs each, +-0.5:

                      seeds vary: not          half              dominate
    seeds                    3    5   10      3    5   10      3    5   10
    share 50%             96.9 96.0 95.7   95.3 95.3 95.5   93.3 94.8 95.1
    share 90%             96.2 95.8 95.2   96.1 95.0 95.2   92.8 94.1 94.0
    share 98%             97.3 96.1 95.9   96.6 95.7 94.8   95.2 94.2 93.7
    paired 70% - 50%      97.1 97.1 95.4   96.3 96.0 95.6   92.8 93.3 94.9
    paired 95% - 85%      97.0 97.3 96.1   95.9 96.7 96.2   92.2 94.2 95.0
    paired 98% - 50%      97.1 95.8 96.7   95.7 96.1 95.2   94.0 94.6 95.4

Below the 93 to 97 wanted by 0.8 at most, with 3 seeds that dominate; above by 0.3. Outside this
table: two arms that differ in one of a hundred outcomes and on the whole in none, 96.6 to 100 (too
wide); seeds that vary even more (sd 1.5) near the ceiling, 91 to 94 at 90% or 98%; numbers that are
no shares, 91.5 with 2 or 3 seeds that dominate; 10 entities, up to 98.8 (too wide) near the
ceiling; two arms both at 98% with 3 seeds, 98 to 99.5 (too wide). Nothing covers a rare collapse
that none of the seeds has shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from sftlab.measure.shares import exact_interval
from sftlab.measure.variance import spread

DRAWS = 4000
BOOTSTRAP, EXACT, MOVER, CONSTANT = "cluster bootstrap", "exact binomial", "MOVER", "constant"


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """One interval for each level asked for, and how they were made."""

    limits: tuple[tuple[float, float], ...]
    """(low, high) for each level."""
    method: str
    """cluster bootstrap, exact binomial, MOVER or constant."""


def intervals(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    shares: bool,
    paired_seeds: bool = True,
    paired_entities: bool = True,
    levels: Sequence[float] = (0.95,),
    draws: int = DRAWS,
) -> Intervals:
    """Intervals for mean(first), or for mean(first) - mean(second).

    The arms are (seeds, entities) arrays of cell means; `shares` says that all items are 0 or 1.
    Paired arms have the same seeds (or one arm a single one), the same entities, in one order.
    Deterministic: the draws come from a fixed seed.
    """
    arms = [first] if second is None else [first, second]
    alike = [_alike(arm) for arm in arms]
    pairing = dict(paired_seeds=paired_seeds, paired_entities=paired_entities)
    if second is not None and shares and any(alike):
        each = [intervals(arm, shares=True, levels=levels, draws=draws).limits for arm in arms]
        means = first.mean(), second.mean()
        return Intervals(
            limits=tuple(mover(*means, *ends) for ends in zip(*each, strict=True)), method=MOVER
        )
    value = first.mean() - (0 if second is None else second.mean())
    spread_ = spread(first, second, **pairing)
    # Less than this is what rounding leaves of differences that are all the same.
    if spread_.variance > (1e-12 * max(np.abs(arm).max() for arm in arms)) ** 2:
        drawn = _deviations(arms, draws=draws, **pairing)
        total = drawn[0] if second is None else drawn[0] - drawn[1]
        stretches = [_stretch(total, spread_, level) for level in levels]
        # For all levels or for none, so that a lower one lies within.
        plain = stretches[levels.index(max(levels))] < 1 and not (shares and second is None)
        ends = [
            _stretched(arms, drawn, spread_, shares, level, stretch=stretch, plain=plain)
            for level, stretch in zip(levels, stretches, strict=True)
        ]
        return Intervals(limits=tuple(ends), method=BOOTSTRAP)
    if not shares:
        return Intervals(limits=((float(value),) * 2,) * len(levels), method=CONSTANT)
    least = 0.0 if second is None else -1.0
    entities = min(arm.shape[1] for arm in arms)
    ends = [exact(float(value), entities, level=level, least=least) for level in levels]
    return Intervals(limits=tuple(ends), method=EXACT)


def exact(value: float, entities: int, *, level: float, least: float = 0.0) -> tuple[float, float]:
    """Interval for a share (or, with least=-1, a difference of shares) seen alike in all entities.

    No entity of `entities` was seen to deviate from `value`, so the exact binomial interval
    (Clopper & Pearson 1934) bounds the share of those that would, and
    they might be anything from `least` to 1. For a share of 0 or 1 this is the Clopper-Pearson
    interval itself: 50 of 50 entities right gives 92.9% to 100%.

    It counts entities, not items or seeds: conservative, as the items of an entity and the seeds
    are not independent. What no seed has shown, as a run that collapses, it cannot know.
    """
    _, deviate = exact_interval(0, entities, level=level)
    return value - deviate * (value - least), value + deviate * (1 - value)


def mover(
    first: float,
    second: float,
    of_first: tuple[float, float],
    of_second: tuple[float, float],
) -> tuple[float, float]:
    """Interval for first - second from the arms' own intervals (MOVER; Zou & Donner 2008).

    The arms count as independent. Where one is saturated no correlation can be seen, and a
    positive one, as between arms that share items, would only make the interval narrower.
    """
    (low1, high1), (low2, high2) = of_first, of_second
    below = np.hypot(first - low1, high2 - second)
    above = np.hypot(high1 - first, second - low2)
    value = first - second
    return max(float(value - below), -1.0), min(float(value + above), 1.0)


def _alike(cells: np.ndarray) -> bool:
    return bool(np.ptp(cells) <= 1e-12)


@lru_cache(maxsize=32)
def _weights(size: int, draws: int, stream: int) -> np.ndarray:
    """(draws, size) weights: how often each was drawn, over how many were."""
    chosen = np.random.default_rng((stream, size)).multinomial(size, [1 / size] * size, draws)
    weights = chosen / size
    weights.flags.writeable = False
    return weights


def _deviations(
    arms: Sequence[np.ndarray], *, draws: int, paired_seeds: bool, paired_entities: bool
) -> list[np.ndarray]:
    """For each arm, how far the mean of each draw lies from the arm's mean."""
    found = []
    for place, arm in enumerate(arms):
        seeds, entities = arm.shape
        of_seeds = _weights(seeds, draws, 0 if paired_seeds else 2 * place)
        of_entities = _weights(entities, draws, 1 if paired_entities else 2 * place + 1)
        found.append(np.einsum("de,de->d", of_seeds @ arm, of_entities) - arm.mean())
    return found


def _stretch(total: np.ndarray, spread_, level: float) -> float:
    """The factor that gives the draws the spread and the tail that they should have."""
    tail = (1 - level) / 2
    return stdtrit(spread_.freedom, tail) / ndtri(tail) * np.sqrt(spread_.variance) / total.std()


def _stretched(
    arms, drawn, spread_, shares: bool, level: float, *, stretch: float, plain: bool
) -> tuple[float, float]:
    tail = (1 - level) / 2
    signs = (1, -1)[: len(arms)]
    value = sum(sign * arm.mean() for sign, arm in zip(signs, arms, strict=True))
    if shares:
        moved = sum(
            sign * _on_logits(arm, stretch * deviations, tail)
            for sign, arm, deviations in zip(signs, arms, drawn, strict=True)
        )
    else:
        total = sum(sign * deviations for sign, deviations in zip(signs, drawn, strict=True))
        moved = value + stretch * total
    ends = [*np.quantile(moved, (tail, 1 - tail)), value]
    if plain:
        # Draws of a few outcomes that differ can't leave the side that these lie on.
        reach = -stdtrit(spread_.freedom, tail) * np.sqrt(spread_.variance)
        bound = 1 if shares else np.inf
        ends += [max(value - reach, -bound), min(value + reach, bound)]
    return float(min(ends)), float(max(ends))


def _on_logits(arm: np.ndarray, deviations: np.ndarray, tail: float) -> np.ndarray:
    value = arm.mean()
    moved = expit(logit(value) + deviations / (value * (1 - value)))
    entities = arm.shape[1]
    always, ever = int((arm.min(0) == 1).sum()), int((arm.max(0) > 0).sum())
    low, _ = exact_interval(always, entities, level=1 - 2 * tail)
    _, high = exact_interval(ever, entities, level=1 - 2 * tail)
    return moved.clip(low, high)
