"""How often the intervals hold the truth, and plans their power, on simulated runs.

`python tests/measure/test_coverage.py 4000` prints the table in the docstring of
`sftlab.measure.intervals`, in some minutes.
"""

import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from sftlab.measure.intervals import Components, components, detectable, interval, spread

ENTITIES, ITEMS, REPETITIONS = 50, 4, 500
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


def coverage(*shares, seeds, of_seed, repetitions=REPETITIONS, **pairing):
    """Percent of 95% intervals that hold the true mean, or difference of two."""
    rng = np.random.default_rng((seeds, round(100 * of_seed), *(round(1000 * s) for s in shares)))
    common = 0.5 if pairing.get("paired_seeds", True) else 0.0
    arms = simulate(
        rng, shares, seeds=seeds, of_seed=of_seed, repetitions=repetitions, common=common
    )
    truth = shares[0] - (shares[1] if len(shares) == 2 else 0)
    found = [interval(*cells, shares=True, **pairing) for cells in zip(*arms, strict=True)]
    return 100 * sum(low <= truth <= high for low, high, _ in found) / repetitions


# Nominal 95% must hold 92.5 to 98, as in the table; two standard errors after 500 repetitions.
LEAST, MOST, NOISE = 92.5, 98.0, 2.0


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_seed", list(OF_SEED))
@pytest.mark.parametrize("shares", [(0.5,), (0.9,), (0.7, 0.5), (0.95, 0.85)], ids=str)
def test_95_percent_intervals_hold_the_truth_that_often(shares, of_seed, seeds):
    found = coverage(*shares, seeds=seeds, of_seed=OF_SEED[of_seed])
    assert LEAST - NOISE <= found <= MOST + NOISE


def test_independent_arms_are_covered_too():
    pairing = dict(paired_seeds=False, paired_entities=False)
    found = coverage(0.7, 0.5, seeds=5, of_seed=OF_SEED["moderate"], **pairing)
    assert LEAST - NOISE <= found <= MOST + NOISE


@pytest.mark.parametrize(("seeds", "entities", "rate"), [(5, 50, 0.01), (3, 150, 0.005)])
def test_arms_that_hardly_differ_are_not_told_apart(seeds, entities, rate):
    """One arm is the other with a few outcomes turned over, of either kind alike."""
    rng, share, held = np.random.default_rng(seeds * entities), 0.8, 0
    for _ in range(REPETITIONS):
        first = rng.random((seeds, entities)) < share
        turned = rng.random(first.shape) < np.where(first, rate, rate * share / (1 - share))
        low, high, _ = interval(first.astype(float), (first ^ turned).astype(float), shares=True)
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
        seeds, entities = rng.integers(1, 6), rng.integers(2, 40)
        cells = (rng.random((seeds, entities, 2)) < rng.random()).mean(-1)
        ends = [interval(cells, shares=True, level=level) for level in (0.999, 0.99, 0.95, 0.9)]
        for outer, inner in pairwise(ends):
            assert outer.low <= inner.low <= inner.high <= outer.high


def effects(rng, *, seeds, entities, of_seed, of_entity):
    return (
        of_seed * rng.normal(size=(seeds, 1))
        + of_entity * rng.normal(size=(1, entities))
        + rng.normal(size=(seeds, entities))
    )


@pytest.mark.parametrize(("of_seed", "of_entity"), [(1.0, 1.0), (1.0, 3.0), (0.5, 2.0)])
def test_the_variance_of_the_mean_counts_the_residual_once(of_seed, of_entity):
    rng = np.random.default_rng(0)
    found = [
        spread(effects(rng, seeds=5, entities=30, of_seed=of_seed, of_entity=of_entity)).variance
        for _ in range(3000)
    ]
    true = of_seed**2 / 5 + of_entity**2 / 30 + 1 / 150
    assert np.mean(found) == pytest.approx(true, rel=0.04)


def test_variance_and_degrees_of_freedom_by_hand():
    cells = np.array([[1.0, 2, 3], [3, 4, 5]])  # seeds 2 apart, entities 1 apart, no residual
    found = spread(cells)
    of_seeds, of_entities = 2 / 2, 1 / 3
    assert found.variance == pytest.approx(of_seeds + of_entities)
    assert found.freedom == pytest.approx((4 / 3) ** 2 / (1 + (1 / 3) ** 2 / 2))
    # Without variance of seeds the entities' degrees of freedom count.
    assert spread(np.tile(np.arange(10.0), (3, 1))).freedom == 9
    one_wrong = np.ones((3, 50))
    one_wrong[0, 0] = 0.75
    assert spread(one_wrong).freedom == pytest.approx(49)


def test_paired_terms_are_those_of_the_difference_and_unpaired_add_up():
    rng = np.random.default_rng(0)
    first = effects(rng, seeds=4, entities=6, of_seed=2, of_entity=2)
    second = first + 0.1 * effects(rng, seeds=4, entities=6, of_seed=2, of_entity=2)
    assert spread(first, second) == pytest.approx(spread(first - second))
    apart = spread(first, second, paired_seeds=False, paired_entities=False)
    assert apart.variance == pytest.approx(spread(first).variance + spread(second).variance)
    single = second[:1]
    assert spread(first, single).variance == pytest.approx(spread(first - single).variance)


PAIRED = Components(seeds=0.04, entities=0.3, residual=0.2, paired=True)


def luck(rng, pilot, *, seeds, entities):
    sizes = np.sqrt([pilot.seeds, pilot.entities, pilot.residual])
    shapes = (seeds, 1), (1, entities), (seeds, entities)
    return sum(s * rng.normal(size=shape) for s, shape in zip(sizes, shapes, strict=True))


def frame(values):
    table = pd.DataFrame(values).rename_axis("seed").reset_index()
    return table.melt("seed", var_name="country", value_name="right")


def test_components_are_found_again():
    rng = np.random.default_rng(0)
    found = [components(frame(luck(rng, PAIRED, seeds=8, entities=60))) for _ in range(60)]
    assert np.mean([c.seeds for c in found]) == pytest.approx(0.04, rel=0.2)
    assert np.mean([c.entities for c in found]) == pytest.approx(0.3, rel=0.1)
    assert np.mean([c.residual for c in found]) == pytest.approx(0.2, rel=0.05)
    one, two = (frame(luck(rng, PAIRED, seeds=4, entities=9)) for _ in range(2))
    paired = components(one, two)
    assert paired.paired
    alone = components(one.assign(right=one["right"] - two["right"]))
    assert paired.residual == pytest.approx(alone.residual)


@pytest.mark.parametrize("power", [0.8, 0.5])
@pytest.mark.parametrize(
    ("pilot", "seeds", "entities"),
    [
        (PAIRED, 5, 40),
        (PAIRED, 10, 20),
        (Components(seeds=0.0, entities=0.3, residual=0.2, paired=True), 3, 40),
        (Components(seeds=0.04, entities=0.3, residual=0.2, paired=False), 5, 40),
    ],
    ids=["5 seeds", "10 seeds", "seeds alike", "unpaired"],
)
def test_the_power_promised_is_the_power_had(pilot, seeds, entities, power):
    rng = np.random.default_rng(0)
    effect = detectable(pilot, seeds=seeds, entities=entities, power=power)
    seen, repetitions = 0, 600
    for _ in range(repetitions):
        first = effect + luck(rng, pilot, seeds=seeds, entities=entities)
        second = 0 * first if pilot.paired else luck(rng, pilot, seeds=seeds, entities=entities)
        pairing = dict(paired_seeds=pilot.paired, paired_entities=pilot.paired)
        seen += interval(first, second, shares=False, **pairing).low > 0
    assert seen / repetitions == pytest.approx(power, abs=0.06)


def test_more_seeds_or_entities_see_smaller_differences():
    seen = [detectable(PAIRED, seeds=s, entities=40) for s in (2, 3, 5, 10, 50)]
    assert seen == sorted(seen, reverse=True)
    seen = [detectable(PAIRED, seeds=5, entities=e) for e in (2, 5, 20, 100)]
    assert seen == sorted(seen, reverse=True)
    usual = detectable(PAIRED, seeds=5, entities=40)
    assert detectable(PAIRED, seeds=5, entities=40, power=0.95) > usual
    assert detectable(PAIRED, seeds=5, entities=40, comparisons=10) > usual


def test_pilots_that_say_nothing_are_refused():
    pilot = frame(luck(np.random.default_rng(0), PAIRED, seeds=4, entities=9))
    with pytest.raises(ValueError, match="1 seeds and 9 entities"):
        components(pilot[pilot["seed"] == 0])
    with pytest.raises(ValueError, match="same seeds and entities"):
        components(pilot, pilot[pilot["country"] != 3])
    with pytest.raises(ValueError, match="one seed"):
        detectable(PAIRED, seeds=1, entities=40)
    with pytest.raises(ValueError, match="power"):
        detectable(PAIRED, seeds=3, entities=40, power=1.2)


if __name__ == "__main__":
    for shares in [(0.5,), (0.9,), (0.98,), (0.7, 0.5), (0.95, 0.85), (0.98, 0.5)]:
        rows = [
            [
                coverage(*shares, seeds=n, of_seed=sd, repetitions=int(sys.argv[1]))
                for n in (3, 5, 10)
            ]
            for sd in OF_SEED.values()
        ]
        print(shares, "   ".join(" ".join(f"{one:.1f}" for one in row) for row in rows), flush=True)
