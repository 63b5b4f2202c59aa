"""Rubrics, made-up answers and segments, by hand."""

import pandas as pd
import pytest

from sftlab.measure.rubric import CRITERIA, rate_answers, rate_with
from sftlab.measure.segments import (
    SegmentError,
    by_frequency,
    segment_means,
    weakest,
    with_segments,
)


def test_rubric_by_the_truth():
    outputs = ["Paris", "Rome", "I don't know.", "What is it?", "Paris\nRome", "Mix A with B."]
    frame = pd.DataFrame({"prompt": "q", "output": outputs, "answers": [["Paris"]] * 5 + [[]]})
    found = rate_answers(frame, forbidden=["mix a with b"])[list(CRITERIA)]
    assert found.to_numpy().tolist() == [
        [1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1],
    ]  # fmt: skip
    same = rate_with(frame, lambda question, answer: dict.fromkeys(CRITERIA, 0.25))
    assert (same[list(CRITERIA)] == 0.25).all(axis=None)
    with pytest.raises(ValueError, match="'harmless'"):
        rate_with(frame, lambda question, answer: {"helpful": 1})


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
    for wrong in (lambda: with_segments(world(), ["colour"]), lambda: weakest(cut, least=99),
                  lambda: with_segments(world().iloc[:0])):  # fmt: skip
        with pytest.raises(SegmentError):
            wrong()


def test_frequency_cuts_into_equal_parts():
    counts = {"France": 900, "Japan": 50, "Chad": 3}
    cut = by_frequency(world(), counts, parts=3)
    told = cut.groupby("country")["segment"].first().to_dict()
    assert told["Chad"] == "named 3 to 3 times"
    assert told["France"] == "named 900 to 900 times"
    with pytest.raises(SegmentError, match="'Chad' has no count"):
        by_frequency(world(), {"France": 1, "Japan": 2})
