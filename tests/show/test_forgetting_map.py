"""The map of forgetting: what it tells, its frontier, and the walk along it."""

import pandas as pd
import pytest

from sftlab.measure import mean
from sftlab.show.forgetting_map import Point, frontier, plot_map, plot_pareto
from sftlab.show.walker import map_walker


def share(*of_twenty):
    """An estimate with one seed for each number of right items."""
    rows = [(f"c{c}", s, c < n) for s, n in enumerate(of_twenty) for c in range(20)]
    return mean(pd.DataFrame(rows, columns=["country", "seed", "right"]))


@pytest.fixture
def points():
    return {
        "slow": {"0%": Point(share(18, 18), share(19, 19)), "20%": Point(share(16), share(20))},
        "fast": {"0%": Point(share(19), share(2)), "20%": Point(share(10, 12), share(8, 14))},
    }


def test_frontier_is_what_nothing_beats(points):
    assert frontier(points) == [("slow", "20%"), ("slow", "0%"), ("fast", "0%")]
    equal = {"a": {"x": Point(share(5), share(5)), "y": Point(share(5), share(5))}}
    assert frontier(equal) == [("a", "x"), ("a", "y")]


def test_pareto_tells_every_setting_and_spans_its_seeds(points):
    picture = plot_pareto(points, before=1.0, title="Map")
    assert "fast 20 percent task 55%; fast 20 percent kept 55%" in picture.alt
    assert picture.alt.count("%") == 8, "a percentage for each number and no other"
    (ax,) = picture.figure.axes
    spans = [list(line.get_xdata()) for line in ax.lines]
    assert [0.5, 0.6] in spans, "the cross reaches from seed to seed"
    assert ax.get_xlim()[0] > 0.3, "where nothing was measured nothing is drawn"
    dashed = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert list(dashed.get_xdata()) == [0.8, 0.9, 0.95]


def test_map_has_both_numbers_in_its_cells(points):
    picture = plot_map(points, title="Map", rows="rate", columns="general")
    task, kept = picture.figure.axes
    assert [text.get_text() for text in task.texts] == ["90%", "80%", "95%", "55%"]
    assert [text.get_text() for text in kept.texts] == ["95%", "100%", "10%", "55%"]
    assert "slow 0 percent task 90%" in picture.alt


def reading(right):
    rows = [("facts", n < right, 0.5) for n in range(10)]
    return pd.DataFrame(rows, columns=["skill", "right", "nats"]).astype({"right": "boolean"})


def test_a_walk_shows_the_chosen_setting(points):
    readings = {
        (c, label): reading(n)
        for n, (c, label) in enumerate(
            [("slow", "0%"), ("slow", "20%"), ("fast", "0%"), ("fast", "20%")]
        )
    }
    walker = map_walker(points, readings=readings, before=reading(10))
    assert walker.chosen == ("slow", "0%")
    assert "task 90%, kept 95%" in walker.card.value
    walker.controls["curve"].value, walker.controls["label"].value = "fast", "20%"
    assert "task 55%, kept 55%" in walker.card.value
    assert "<strong>fast, 20%</strong>" in walker.card.value
    assert ">100%</td>" in walker.card.value
    assert ">30%</td>" in walker.card.value
    assert walker.card.value.count('stroke="#222"/>') == 2, "a white dot for each seed"
    assert "http" not in walker.card.value


def test_a_setting_without_a_reading_is_refused(points):
    with pytest.raises(ValueError, match="has no reading of the meter"):
        map_walker(points, readings={}, before=reading(10))
