"""How many seeds and entities an effect needs, from the variances that a pilot shows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import nct, t

from sftlab.measure.intervals import cells, terms


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variance components of one arm, or of the paired difference of two.

    A cell (seed, entity) is mean + seed effect + entity effect + residual; the residual holds the
    luck of single items, so it is for entities with `items_per_entity` items.
    """

    seeds: float
    """Variance of the seed effects, in the unit squared."""
    entities: float
    """Variance of the entity effects."""
    residual: float
    """Variance of the residuals of the cells."""
    paired: bool
    """Whether these are of the difference of two arms that share entities (and seeds)."""
    items_per_entity: float = 1.0
    """Items of one entity in the pilot."""

    def __post_init__(self) -> None:
        for name in ("seeds", "entities", "residual"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: a variance is a finite number, 0 or more"
                )


def components(
    first: pd.DataFrame,
    second: pd.DataFrame | None = None,
    *,
    value: str = "right",
    seed: str = "seed",
    entity: str = "country",
) -> Components:
    """Variance components of a pilot: of one arm, or of the paired difference of two.

    From the mean squares of the two-way analysis of variance without replication, an estimate
    below 0 set to 0. A second arm with one seed is taken as not random. From few seeds the
    seeds' variance is a rough guess: with 3 it is often off by a factor of three.

    ValueError: the pilot has one seed or one entity, or the arms are not paired.
    """
    columns = dict(value=value, seed=seed, entity=entity)
    pilot = cells(first, **columns)
    values, others = pilot.values, None
    if second is not None:
        others = cells(second, **columns)
        same_seeds = pilot.seeds == others.seeds or 1 in (len(pilot.seeds), len(others.seeds))
        if not same_seeds or pilot.entities != others.entities:
            raise ValueError(
                "the arms of this pilot are not measured on the same seeds and entities: pass the "
                "frame of one arm, and the plan is for unpaired arms"
            )
        values = values - others.values
    if min(values.shape) < 2:
        raise ValueError(
            f"a pilot of {values.shape[0]} seeds and {values.shape[1]} entities does not show how "
            "they vary: measure 2 or more of each, better 5 seeds"
        )
    of_seeds, of_entities, rest = (term.variance for term in terms(values))
    number_of_seeds, number_of_entities = values.shape
    return Components(
        seeds=max(of_seeds - rest, 0) * number_of_seeds,
        entities=max(of_entities - rest, 0) * number_of_entities,
        residual=rest * values.size,
        paired=second is not None,
        items_per_entity=pilot.items / number_of_entities,
    )


def detectable(
    pilot: Components,
    *,
    seeds: int,
    entities: int,
    power: float = 0.8,
    level: float = 0.95,
    comparisons: int = 1,
) -> float:
    """The smallest difference that `difference` would tell from 0 with this power.

    Components of a paired pilot plan paired arms. Those of one arm plan two arms of `seeds` and
    `entities` each that share neither (arms that share entities see smaller differences). Both
    arms are taken to vary alike, though a share near 0 or 1 varies less than one near the middle.

    The interval excludes 0 when t = difference / standard error passes its quantile; t follows
    the noncentral t distribution, with the degrees of freedom that `spread` would
    expect. Approximate, as those degrees are themselves estimated in the experiment.

    ValueError: fewer than 1 seed (2 where seeds vary) or 2 entities, or a wrong power or level.
    """
    if seeds < 1 or entities < 2:
        raise ValueError(f"{seeds} seeds and {entities} entities: plan 1 seed and 2 or more")
    if seeds == 1 and pilot.seeds:
        raise ValueError("one seed does not show how seeds vary, and in the pilot they do: plan 2")
    if not (0 < level < 1 and 1 - level < power < 1 and comparisons >= 1):
        raise ValueError(
            f"power = {power}, level = {level}, comparisons = {comparisons}: give a level below 1, "
            "a power between 1 - level and 1, and 1 comparison or more"
        )
    arms = 1 if pilot.paired else 2
    rest = pilot.residual / seeds / entities
    parts = [(pilot.entities / entities + rest, entities - 1)]
    variance = parts[0][0]
    if pilot.seeds:
        variance += pilot.seeds / seeds
        parts.append((pilot.seeds / seeds + rest, seeds - 1))
        parts.append((rest, (seeds - 1) * (entities - 1)))
    unsure = sum(part**2 / freedom for part, freedom in parts)
    if not variance:
        return 0.0
    freedom = arms * max(variance**2 / unsure, min(freedom for _, freedom in parts))
    tail = (1 - level) / comparisons / 2
    bar = t.isf(tail, freedom)
    shift = brentq(lambda delta: nct.sf(bar, freedom, delta) - power, 0, 4 * bar + 10)
    return float(shift * np.sqrt(arms * variance))
