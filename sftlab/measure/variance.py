"""How far a mean over seeds and entities would move if both were drawn again."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance of a mean (or of a difference of means) and how well it is known."""

    variance: float
    """Estimated variance of the mean, in the unit squared."""
    freedom: float
    """Degrees of freedom of that estimate (Satterthwaite)."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One mean square of the analysis of variance, divided so that it is a variance of the mean."""

    variance: float
    """In the unit squared."""
    freedom: int
    """Its degrees of freedom; 0 where it cannot be estimated and counts nothing."""


def term_of_seeds(cells: np.ndarray) -> Term:
    """Variance of the mean of (seeds, entities) cells from the spread of the seeds' means."""
    return _term(cells.mean(1))


def term_of_entities(cells: np.ndarray) -> Term:
    """Variance of the mean of (seeds, entities) cells from the spread of the entities' means."""
    return _term(cells.mean(0))


def term_of_residual(cells: np.ndarray) -> Term:
    """Variance of the mean from what neither seed nor entity explains in the cells."""
    seeds, entities = cells.shape
    freedom = (seeds - 1) * (entities - 1)
    if not freedom:
        return Term(variance=0.0, freedom=0)
    rest = cells - cells.mean(0) - cells.mean(1, keepdims=True) + cells.mean()
    return Term(variance=float((rest**2).sum() / freedom / cells.size), freedom=freedom)


def _term(means: np.ndarray) -> Term:
    if len(means) == 1:
        return Term(variance=0.0, freedom=0)
    # Sums of equal floats differ in the last bit: without this, constant cells would vary.
    deviations = means - means[0]
    return Term(variance=float(deviations.var(ddof=1) / len(means)), freedom=len(means) - 1)


def spread(
    first: np.ndarray,
    second: np.ndarray | None = None,
    *,
    paired_seeds: bool = True,
    paired_entities: bool = True,
) -> Spread:
    """Spread of mean(first), or of mean(first) - mean(second), of (seeds, entities) cells.

    A cell is y[s, e] = mean + seed effect + entity effect + residual. With S seeds and E entities
    the mean has the variance

        var(seed effect) / S  +  var(entity effect) / E  +  var(residual) / (S E)

    The spread of the seeds' means over S estimates the first and the third, that of the entities'
    means over E the second and the third, so their sum counts the residual twice, and a crossed
    bootstrap even three times (Owen 2007, "The pigeonhole bootstrap"). Hence

        V = V_seeds + V_entities - V_residual,  no less than the largest of the three

    with Satterthwaite's (1946) degrees of freedom, V^2 / sum(V_k^2 / f_k). Where the seeds' means
    spread no more than the residual explains (V_seeds <= V_residual), no variance of seeds is
    seen, and the entities' E - 1 degrees count: with S - 1 of them a single wrong answer in
    600 would put the lower end at 33%.

    Paired arms share effects, so a term is taken of the difference of their means; terms of
    unpaired arms add up. An arm with one seed adds no variance of seeds.
    """
    if second is None:
        of_seeds, of_entities = [term_of_seeds(first)], [term_of_entities(first)]
        of_rest = [term_of_residual(first)]
    else:
        arms = first, second
        paired_seeds = paired_seeds and len(first) == len(second)
        of_seeds = (
            [_term(first.mean(1) - second.mean(1))]
            if paired_seeds
            else [term_of_seeds(arm) for arm in arms]
        )
        of_entities = (
            [_term(first.mean(0) - second.mean(0))]
            if paired_entities
            else [term_of_entities(arm) for arm in arms]
        )
        of_rest = (
            [term_of_residual(first - second)]
            if paired_seeds and paired_entities
            else [term_of_residual(arm) for arm in arms]
        )

    seeds, entities, rest = (sum(t.variance for t in k) for k in (of_seeds, of_entities, of_rest))
    variance = max(seeds + entities - rest, seeds, entities, rest)
    terms = [*of_seeds, *of_entities, *of_rest]
    if entities and seeds <= rest * (1 + 1e-9):
        terms, squared = of_entities, entities**2
    else:
        squared = variance**2
    unsure = sum(t.variance**2 / t.freedom for t in terms if t.freedom)
    least = min((t.freedom for t in terms if t.freedom), default=1)
    return Spread(variance=variance, freedom=max(squared / unsure, least) if unsure else least)
