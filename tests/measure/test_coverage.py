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


def simulate(rng, shares, *, seeds, of_seed, repetitions, common):
    """Cells (repetitions, seeds, entities) for each arm; `common` of each variance is shared."""
    shapes = (seeds, 1, 1), (1, ENTITIES, 1), (1, ENTITIES, ITEMS), (seeds, ENTITIES, 1)
    logits = [location(share, of_seed) for share in shares]
    for size, shape in zip((of_seed, OF_ENTITY, OF_ITEM, OF_CELL), shapes, strict=True):
        shared = rng.normal(size=(repetitions, *shape))
        for arm in range(len(shares)):
            own = rng.normal(size=shared.shape)
            effect = np.sqrt(common) * shared + np.sqrt(1 - common) * own
            logits[arm] = logits[arm] + size * effect
    return [(rng.random(one.shape) < expit(one)).mean(-1) for one in logits]


def coverage(*shares, seeds, of_seed, repetitions=REPETITIONS, paired=True):
    """Percent of 95% intervals that hold the true mean, or difference of two."""
    rng = np.random.default_rng((seeds, round(100 * of_seed), *(round(1000 * s) for s in shares)))
    how = dict(seeds=seeds, of_seed=of_seed, repetitions=repetitions, common=0.5 * paired)
    truth = shares[0] - (shares[1] if len(shares) == 2 else 0)
    pairing = dict(paired_seeds=paired, paired_entities=paired)
    found = [
        interval(*cells, shares=True, **pairing)
        for cells in zip(*simulate(rng, shares, **how), strict=True)
    ]
    return 100 * sum(low <= truth <= high for low, high, _ in found) / repetitions


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("of_seed", list(OF_SEED))
@pytest.mark.parametrize("shares", [(0.5,), (0.9,), (0.7, 0.5), (0.95, 0.85)], ids=str)
def test_95_percent_intervals_hold_the_truth_that_often(shares, of_seed, seeds):
    """Nominal 95% must hold 92.5 to 98, as in the table; 2 are the noise of 500 repetitions."""
    assert 92.5 - 2 <= coverage(*shares, seeds=seeds, of_seed=OF_SEED[of_seed]) <= 98 + 2


def test_independent_arms_are_covered_too():
    assert 92.5 - 2 <= coverage(0.7, 0.5, seeds=5, of_seed=0.25, paired=False) <= 98 + 2


@pytest.mark.parametrize(("seeds", "entities", "rate"), [(5, 50, 0.01), (3, 150, 0.005)])
def test_arms_that_hardly_differ_are_not_told_apart(seeds, entities, rate):
    """One arm is the other with a few outcomes turned over, of either kind alike."""
    rng, share, held = np.random.default_rng(seeds * entities), 0.8, 0
    for _ in range(REPETITIONS):
        first = rng.random((seeds, entities)) < share
        turned = rng.random(first.shape) < np.where(first, rate, rate * share / (1 - share))
        low, high, _ = interval(first.astype(float), (first ^ turned).astype(float), shares=True)
        held += low <= 0 <= high
    assert 100 * held / REPETITIONS >= 95 - 2


def test_a_lower_level_lies_within_a_higher_one():
    rng = np.random.default_rng(0)
    for _ in range(400):
        seeds, entities = rng.integers(1, 6), rng.integers(2, 40)
        cells = (rng.random((seeds, entities, 2)) < rng.random()).mean(-1)
        ends = [interval(cells, shares=True, level=level) for level in (0.999, 0.99, 0.95, 0.9)]
        for outer, inner in pairwise(ends):
            assert 0 <= outer.low <= inner.low <= inner.high <= outer.high <= 1


def test_variance_and_degrees_of_freedom_by_hand():
    # The means of the seeds are 1 and 6, of the entities 2 and 5, each residual is +-0.5.
    found = spread(np.array([[0.0, 2], [4, 8]]))
    assert found.variance == pytest.approx(6.25 + 2.25 - 0.25)
    assert found.freedom == pytest.approx(8.25**2 / (6.25**2 + 2.25**2 + 0.25**2))
    # Without variance of seeds the entities' degrees of freedom count.
    assert spread(np.tile(np.arange(10.0), (3, 1))).freedom == 9
    one_wrong = np.ones((3, 50))
    one_wrong[0, 0] = 0.75
    assert spread(one_wrong).freedom == pytest.approx(49)


PAIRED = Components(seeds=0.04, entities=0.3, residual=0.2, paired=True)
ALIKE = Components(seeds=0.0, entities=0.3, residual=0.2, paired=True)
UNPAIRED = Components(seeds=0.04, entities=0.3, residual=0.2, paired=False)


def luck(rng, pilot, *, seeds, entities):
    sizes = np.sqrt([pilot.seeds, pilot.entities, pilot.residual])
    shapes = (seeds, 1), (1, entities), (seeds, entities)
    return sum(s * rng.normal(size=shape) for s, shape in zip(sizes, shapes, strict=True))


def frame(values):
    table = pd.DataFrame(values).rename_axis("seed").reset_index()
    return table.melt("seed", var_name="country", value_name="right")


def test_components_are_found_again_unless_the_pilot_says_nothing():
    rng = np.random.default_rng(0)
    found = [components(frame(luck(rng, PAIRED, seeds=8, entities=60))) for _ in range(60)]
    assert np.mean([c.seeds for c in found]) == pytest.approx(0.04, rel=0.2)
    assert np.mean([c.entities for c in found]) == pytest.approx(0.3, rel=0.1)
    assert np.mean([c.residual for c in found]) == pytest.approx(0.2, rel=0.05)
    one, two = (frame(luck(rng, PAIRED, seeds=4, entities=9)) for _ in range(2))
    paired, alone = components(one, two), components(one.assign(right=one["right"] - two["right"]))
    assert (paired.paired, alone.paired) == (True, False)
    assert paired.residual == pytest.approx(alone.residual)
    with pytest.raises(ValueError, match="1 seeds and 9 entities"):
        components(one[one["seed"] == 0])
    with pytest.raises(ValueError, match="same seeds and entities"):
        components(one, one[one["country"] != 3])


@pytest.mark.parametrize(
    ("pilot", "seeds", "entities"),
    [(PAIRED, 5, 40), (PAIRED, 10, 20), (ALIKE, 3, 40), (UNPAIRED, 5, 40)],
    ids=["5 seeds", "10 seeds", "seeds alike", "unpaired"],
)
def test_the_power_promised_is_the_power_had(pilot, seeds, entities):
    rng = np.random.default_rng(0)
    effect = detectable(pilot, seeds=seeds, entities=entities)
    seen, repetitions = 0, 600
    for _ in range(repetitions):
        first = effect + luck(rng, pilot, seeds=seeds, entities=entities)
        second = 0 * first if pilot.paired else luck(rng, pilot, seeds=seeds, entities=entities)
        pairing = dict(paired_seeds=pilot.paired, paired_entities=pilot.paired)
        seen += interval(first, second, shares=False, **pairing).low > 0
    assert seen / repetitions == pytest.approx(0.8, abs=0.06)


if __name__ == "__main__":
    for shares in [(0.5,), (0.9,), (0.98,), (0.7, 0.5), (0.95, 0.85), (0.98, 0.5)]:
        print(shares)
        for sd in OF_SEED.values():
            how = dict(of_seed=sd, repetitions=int(sys.argv[1]))
            print(*(f"{coverage(*shares, seeds=n, **how):.1f}" for n in (3, 5, 10)), flush=True)
