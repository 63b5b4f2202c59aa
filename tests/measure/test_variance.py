import numpy as np
import pytest

from sftlab.measure.variance import spread


def arms(rng, *, seeds, entities, of_seed, of_entity, of_rest=1.0):
    return (
        of_seed * rng.normal(size=(seeds, 1))
        + of_entity * rng.normal(size=(1, entities))
        + of_rest * rng.normal(size=(seeds, entities))
    )


@pytest.mark.parametrize(("of_seed", "of_entity"), [(1.0, 1.0), (1.0, 3.0), (0.5, 2.0)])
def test_the_variance_of_the_mean_counts_the_residual_once(of_seed, of_entity):
    rng = np.random.default_rng(0)
    found = [
        spread(arms(rng, seeds=5, entities=30, of_seed=of_seed, of_entity=of_entity)).variance
        for _ in range(3000)
    ]
    true = of_seed**2 / 5 + of_entity**2 / 30 + 1 / 150
    assert np.mean(found) == pytest.approx(true, rel=0.04)


def test_a_residual_alone_is_not_counted_three_times():
    rng = np.random.default_rng(0)
    cells = [arms(rng, seeds=5, entities=30, of_seed=0, of_entity=0) for _ in range(2000)]
    found = np.mean([spread(c).variance for c in cells])
    # The floor at the largest term costs something; a crossed bootstrap would say 3.
    assert 1 < found * 150 < 1.5


def test_by_hand():
    cells = np.array([[1.0, 2, 3], [3, 4, 5]])  # seeds 2 apart, entities 1 apart, no residual
    found = spread(cells)
    of_seeds, of_entities = 2 / 2, 1 / 3
    assert found.variance == pytest.approx(of_seeds + of_entities)
    assert found.freedom == pytest.approx((4 / 3) ** 2 / (1 + (1 / 3) ** 2 / 2))


def test_paired_terms_are_those_of_the_difference_and_unpaired_add_up():
    rng = np.random.default_rng(0)
    first = arms(rng, seeds=4, entities=6, of_seed=2, of_entity=2)
    second = first + 0.1 * arms(rng, seeds=4, entities=6, of_seed=2, of_entity=2)
    together, of_difference = spread(first, second), spread(first - second)
    assert together.variance == pytest.approx(of_difference.variance)
    assert together.freedom == pytest.approx(of_difference.freedom)
    apart = spread(first, second, paired_seeds=False, paired_entities=False)
    assert apart.variance == pytest.approx(spread(first).variance + spread(second).variance)
    single = second[:1]
    assert spread(first, single).variance == pytest.approx(spread(first - single).variance)


def test_without_variance_of_seeds_the_entities_degrees_count():
    cells = np.tile(np.arange(10.0), (3, 1))
    assert spread(cells).freedom == 9
    one_wrong = np.ones((3, 50))
    one_wrong[0, 0] = 0.75
    assert spread(one_wrong).freedom == pytest.approx(49)
