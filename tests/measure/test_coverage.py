"""How often the intervals hold the truth, on simulated runs; the figures are in the docstring of
`sftlab.measure.bootstrap`."""

from functools import cache

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from sftlab.measure.bootstrap import intervals

ENTITIES, ITEMS, REPETITIONS, DRAWS = 50, 4, 1000, 600
# Standard deviations in logits. The seeds' is the scenario: with 3 seeds they make up none, half
# and over nine tenths of the variance of a mean.
OF_ENTITY, OF_ITEM, OF_CELL = 1.0, 1.0, 0.5
OF_SEED = {"none": 0.0, "moderate": 0.25, "dominate": 1.0}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@cache
def location(share, of_seed):
    """The logit at which the share, integrated over all effects, is the one wanted."""
    total = np.sqrt(of_seed**2 + OF_ENTITY**2 + OF_ITEM**2 + OF_CELL**2)

    def miss(where):
        return (WEIGHTS * expit(where + total * NODES)).sum() / WEIGHTS.sum() - share

    return brentq(miss, -20, 20)


def simulate(rng, shares, *, seeds, of_seed, repetitions, common=0.5):
    """Cells (repetitions, seeds, entities) for each arm; arms share half of each variance."""

    def effect(*shape):
        shared = rng.normal(size=(repetitions, *shape))
        for _ in shares:
            own = rng.normal(size=shared.shape)
            yield np.sqrt(common) * shared + np.sqrt(1 - common) * own

    shapes = (seeds, 1, 1), (1, ENTITIES, 1), (1, ENTITIES, ITEMS), (seeds, ENTITIES, 1)
    sizes = of_seed, OF_ENTITY, OF_ITEM, OF_CELL
    effects = [list(effect(*shape)) for shape in shapes]
    arms = []
    for arm, share in enumerate(shares):
        logits = location(share, of_seed)
        logits = logits + sum(s * e[arm] for s, e in zip(sizes, effects, strict=True))
        arms.append((rng.random(logits.shape) < expit(logits)).mean(-1))
    return arms


def coverage(*shares, seeds, of_seed, repetitions=REPETITIONS, draws=DRAWS, **pairing):
    """Percent of 95% intervals that hold the true mean, or difference of two."""
    rng = np.random.default_rng((seeds, round(100 * of_seed), *(round(1000 * s) for s in shares)))
    common = 0.5 if pairing.get("paired_seeds", True) else 0.0
    arms = simulate(
        rng, shares, seeds=seeds, of_seed=of_seed, repetitions=repetitions, common=common
    )
    truth = shares[0] - (shares[1] if len(shares) == 2 else 0)
    held = 0
    for cells in zip(*arms, strict=True):
        (low, high), *_ = intervals(*cells, shares=True, draws=draws, **pairing).limits
        held += low <= truth <= high
    return 100 * held / repetitions


# Nominal 95% must hold 93 to 97; where it does not, the docstring says so, and this holds it to it.
MISSES = {
    ((0.9,), "dominate", 3): 92.8,
    ((0.95, 0.85), "none", 5): 97.3,
    ((0.7, 0.5), "dominate", 3): 92.8,
    ((0.95, 0.85), "dominate", 3): 92.2,
}
# Two standard errors of a percentage near 95 after 1,000 repetitions.
NOISE = 1.4


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("of_seed", list(OF_SEED))
@pytest.mark.parametrize("shares", [(0.5,), (0.9,), (0.7, 0.5), (0.95, 0.85)], ids=str)
def test_95_percent_intervals_hold_the_truth_that_often(shares, of_seed, seeds):
    found = coverage(*shares, seeds=seeds, of_seed=OF_SEED[of_seed])
    known = MISSES.get((shares, of_seed, seeds))
    low, high = (93, 97) if known is None else (known, known)
    assert low - NOISE <= found <= high + NOISE


def test_independent_arms_are_covered_too():
    pairing = dict(paired_seeds=False, paired_entities=False)
    found = coverage(0.7, 0.5, seeds=5, of_seed=OF_SEED["moderate"], **pairing)
    assert 93 - NOISE <= found <= 97 + NOISE


@pytest.mark.parametrize(
    ("seeds", "entities", "rate"), [(3, 50, 0.005), (5, 50, 0.01), (3, 150, 0.005)]
)
def test_arms_that_hardly_differ_are_not_told_apart(seeds, entities, rate):
    """One arm is the other with a few outcomes turned over, of either kind alike."""
    rng, share, held = np.random.default_rng(seeds * entities), 0.8, 0
    for _ in range(REPETITIONS):
        first = rng.random((seeds, entities)) < share
        turned = rng.random(first.shape) < np.where(first, rate, rate * share / (1 - share))
        arms = first.astype(float), (first ^ turned).astype(float)
        (low, high), *_ = intervals(*arms, shares=True, draws=DRAWS).limits
        held += low <= 0 <= high
    assert 100 * held / REPETITIONS >= 95 - NOISE


def test_a_plain_percentile_bootstrap_would_not_pass():
    """The bar is one that the textbook's method misses, so that passing it says something."""
    rng = np.random.default_rng(0)
    (cells,) = simulate(rng, [0.5], seeds=3, of_seed=1.0, repetitions=400)
    chosen = [rng.multinomial(n, [1 / n] * n, 800) / n for n in (3, ENTITIES)]
    held = 0
    for run in cells:
        low, high = np.quantile(np.einsum("ds,se,de->d", chosen[0], run, chosen[1]), [0.025, 0.975])
        held += low <= 0.5 <= high
    assert 100 * held / len(cells) < 88


def test_a_lower_level_lies_within_a_higher_one():
    rng = np.random.default_rng(0)
    for _ in range(400):
        seeds, entities, shares = rng.integers(1, 6), rng.integers(2, 40), rng.random() < 0.5
        arms = [(rng.random((seeds, entities, 2)) < rng.random()).mean(-1) for _ in range(2)]
        if not shares:
            arms = [arm + 0.1 * rng.normal(size=arm.shape) for arm in arms]
        arms = arms[: rng.integers(1, 3)]
        (low, high), inner = intervals(*arms, shares=shares, levels=(0.95, 0.9), draws=300).limits
        assert low <= inner[0] <= inner[1] <= high
