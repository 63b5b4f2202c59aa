"""What the tests of several files of the room draw."""

import pandas as pd
import pytest

from sftlab.measure import mean
from sftlab.show import Point


@pytest.fixture
def share():
    """An estimate with one seed for each number of right items of twenty."""

    def made(*hits):
        rows = [(f"c{c}", seed, c < n) for seed, n in enumerate(hits) for c in range(20)]
        return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))

    return made


@pytest.fixture
def points(share):
    """A map of forgetting: two rates, two shares of general examples."""
    return {
        "slow": {"0%": Point(share(18, 18), share(19, 19)), "20%": Point(share(16), share(20))},
        "fast": {"0%": Point(share(19), share(2)), "20%": Point(share(10, 12), share(8, 14))},
    }


@pytest.fixture
def reading():
    """A reading of the forgetting meter, from the share of right items for each skill."""

    def made(**shares):
        rows = [(skill, n < 10 * share, 0.5) for skill, share in shares.items() for n in range(10)]
        rows += [("corpus", pd.NA, 1.0), ("corpus", pd.NA, 2.0)]
        return pd.DataFrame(rows, columns=["skill", "right", "nats"]).astype({"right": "boolean"})

    return made
