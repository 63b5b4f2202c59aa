"""Segments, by hand."""

import pandas as pd
import pytest

from sftlab.measure.segments import (
    by_frequency,
    segment_means,
    weakest,
    with_segments,
)


def world(seeds=2):
    rows = []
    for seed in range(seeds):
        for name, group in (("France", "asked"), ("Japan", "asked"), ("Chad", "stated")):
            for relation in ("capital", "currency"):
                right = not (group == "stated" and relation == "capital")
                rows.append({"seed": seed, "country": name, "group": group, "relation": relation,
                             "expected": "CFA franc" if name == "Chad" else "x",
                             "right": right})  # fmt: skip
    return pd.DataFrame(rows)


def test_segments_are_those_of_the_world():
    cut = with_segments(world())
    names = cut.groupby("cut")["segment"].agg(set).to_dict()
    assert names["continent"] == {"Europe", "Asia", "Africa"}
    assert names["length"] == {"one word", "several words"}
    means = segment_means(cut)
    assert next(iter(means["group"])) == "stated"
    assert means["group"]["stated"].value == 0.5
    assert means["group"]["asked"].value == 1
    assert weakest(cut, least=1) == ("relation and group", "capital, stated")
    assert weakest(cut, least=2) == ("continent", "Africa")
    assert weakest(cut, least=3)[0] == "relation"
    for wrong in (
        lambda: with_segments(world(), ["colour"]),
        lambda: weakest(cut, least=99),
        lambda: with_segments(world().iloc[:0]),
    ):
        with pytest.raises(ValueError, match=r"no cut|99 items|no rows"):
            wrong()


def test_frequency_cuts_into_equal_parts():
    counts = {"France": 900, "Japan": 50, "Chad": 3}
    cut = by_frequency(world(), counts, parts=3)
    told = cut.groupby("country")["segment"].first().to_dict()
    assert told["Chad"] == "named 3 to 3 times"
    assert told["France"] == "named 900 to 900 times"
    with pytest.raises(ValueError, match="'Chad' has no count"):
        by_frequency(world(), {"France": 1, "Japan": 2})
