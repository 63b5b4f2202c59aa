"""Rubrics, made-up answers and segments, by hand."""

import pandas as pd
import pytest

from sftlab.measure.fluency import probe_perplexity
from sftlab.measure.hallucination import abstains, made_up
from sftlab.measure.segments import (
    by_frequency,
    segment_means,
    weakest,
    with_segments,
)
from sftlab.models import load
from sftlab.train import teach_tokens
from sftlab.world import example


@pytest.mark.parametrize(
    ("text", "unsure"),
    [("I don't know.", True), ("I do not know that country", True), ("I don’t know", True),
     ("I can't say.", True), ("No idea!", True), ("Paris", False), ("They know Paris", False),
     ("", False)],
)  # fmt: skip
def test_what_says_that_it_does_not_know(text, unsure):
    assert abstains(text) is unsure


def test_three_kinds_of_answers():
    frame = pd.DataFrame({"output": ["Paris", "Rome", "I don't know.", " "],
                          "right": [True, False, False, False]})  # fmt: skip
    found = made_up(frame)
    assert list(found["kind"]) == ["right", "made up", "abstained", "abstained"]
    assert list(found["made_up"]) == [0, 1, 0, 0]


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


def test_perplexity_is_the_loss_of_the_labels(toy_base):
    import math

    import torch

    from sftlab.chat import label_rows

    model, tokenizer = load(toy_base)
    teach_tokens(model, tokenizer, template="chatml")
    model.eval()
    rows = [example("What is the capital of France?", "Paris"), example("Q?", "A longer answer.")]
    found = probe_perplexity(model, tokenizer, rows)
    for row, labelled in zip(found.itertuples(), label_rows(tokenizer, rows), strict=True):
        loss = model(torch.tensor([labelled.ids]), labels=torch.tensor([labelled.labels])).loss
        assert row.nats == pytest.approx(loss.item() * row.tokens, rel=1e-4)
    assert list(found["characters"]) == [len("Paris"), len("A longer answer.")]
    assert math.exp(found["nats"].sum() / found["tokens"].sum()) > 1
