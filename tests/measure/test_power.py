import numpy as np
import pandas as pd
import pytest

from sftlab.measure.intervals import interval
from sftlab.measure.power import Components, components, detectable

PAIRED = Components(seeds=0.04, entities=0.3, residual=0.2, paired=True, items_per_entity=4)


def cells(rng, pilot, *, seeds, entities):
    sizes = np.sqrt([pilot.seeds, pilot.entities, pilot.residual])
    shapes = (seeds, 1), (1, entities), (seeds, entities)
    return sum(s * rng.normal(size=shape) for s, shape in zip(sizes, shapes, strict=True))


def frame(values):
    table = pd.DataFrame(values).rename_axis("seed").reset_index()
    return table.melt("seed", var_name="country", value_name="right")


def test_components_are_found_again():
    rng = np.random.default_rng(0)
    found = [components(frame(cells(rng, PAIRED, seeds=8, entities=60))) for _ in range(60)]
    assert np.mean([c.seeds for c in found]) == pytest.approx(0.04, rel=0.2)
    assert np.mean([c.entities for c in found]) == pytest.approx(0.3, rel=0.1)
    assert np.mean([c.residual for c in found]) == pytest.approx(0.2, rel=0.05)
    one, two = (frame(cells(rng, PAIRED, seeds=4, entities=9)) for _ in range(2))
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
        first = effect + cells(rng, pilot, seeds=seeds, entities=entities)
        second = 0 * first if pilot.paired else cells(rng, pilot, seeds=seeds, entities=entities)
        pairing = dict(paired_seeds=pilot.paired, paired_entities=pilot.paired)
        seen += interval(first, second, shares=False, **pairing).low > 0
    assert seen / repetitions == pytest.approx(power, abs=0.06)


def test_more_seeds_or_entities_see_smaller_differences():
    seen = [detectable(PAIRED, seeds=s, entities=40) for s in (2, 3, 5, 10, 50)]
    assert seen == sorted(seen, reverse=True)
    seen = [detectable(PAIRED, seeds=5, entities=e) for e in (2, 5, 20, 100)]
    assert seen == sorted(seen, reverse=True)
    assert detectable(PAIRED, seeds=5, entities=40, power=0.95) > detectable(
        PAIRED, seeds=5, entities=40
    )
    assert detectable(PAIRED, seeds=5, entities=40, comparisons=10) > detectable(
        PAIRED, seeds=5, entities=40
    )


def test_pilots_that_say_nothing_are_refused():
    rng = np.random.default_rng(0)
    pilot = frame(cells(rng, PAIRED, seeds=4, entities=9))
    with pytest.raises(ValueError, match="1 seeds and 9 entities"):
        components(pilot[pilot["seed"] == 0])
    with pytest.raises(ValueError, match="same seeds and entities"):
        components(pilot, pilot[pilot["country"] != 3])
    with pytest.raises(ValueError, match="a variance is"):
        Components(seeds=-1, entities=0, residual=0, paired=True)
    with pytest.raises(ValueError, match="one seed"):
        detectable(PAIRED, seeds=1, entities=40)
    with pytest.raises(ValueError, match="power"):
        detectable(PAIRED, seeds=3, entities=40, power=1.2)
