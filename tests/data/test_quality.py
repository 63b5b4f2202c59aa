import math

import pytest

from sftlab.data import quality
from sftlab.data.parts import RowsError
from sftlab.world import country_examples, example


def test_lengths_by_hand(toy_tokenizer):
    rows = [example("One two?", "Yes."), example("One two three?", "No, no.")]
    table = quality.lengths(rows, tokenizer=toy_tokenizer)
    assert table.loc[("prompt", "words"), ["least", "median", "most"]].tolist() == [2, 2.5, 3]
    assert table.loc[("answer", "characters"), ["least", "mean", "most"]].tolist() == [4, 5.5, 7]
    ids = toy_tokenizer(["Yes.", "No, no."], add_special_tokens=False)["input_ids"]
    assert table.loc[("answer", "tokens"), "most"] == max(map(len, ids))
    assert "tokens" not in quality.lengths(rows).index.get_level_values("unit")


def test_coverage_counts_and_names_what_is_missing():
    rows = [{**example("q", "a"), "meta": {"region": r}} for r in "AAAB"]
    found = quality.coverage(rows, "region", expected=["A", "B", "C"])
    assert found.counts == {"A": 3, "B": 1}
    assert found.missing == ("C",)
    assert found.ratio == 3
    assert found.evenness == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert found.table["rows"].to_dict() == {"A": 3, "B": 1, "C": 0}
    assert found.table["share"].tolist() == [0.75, 0.25, 0]
    even = quality.coverage(rows[2:], "region")
    assert (even.ratio, even.evenness) == (1, pytest.approx(1))
    assert quality.coverage(rows[:3], "region").evenness == 0
    with pytest.raises(RowsError, match=r"rows\[0\]: no 'country'"):
        quality.coverage(rows, "country")


def test_distinct_by_hand():
    # pairs: a b, b c | a b: three of which two differ
    rows = [example("a b c", ""), example("A b!", "")]
    assert quality.distinct(rows) == pytest.approx(2 / 3)
    assert quality.distinct(rows, size=1) == pytest.approx(3 / 5)
    assert math.isnan(quality.distinct(rows, part="answer"))
    with pytest.raises(RowsError, match="size=0"):
        quality.distinct(rows, size=0)


def test_contradictions_are_the_same_prompt_with_other_answers():
    rows = [example("One?", "Yes."), example("Two?", "No."), example("one?", "No."),
            example("One?", "yes.")]  # fmt: skip
    (found,) = quality.contradictions(rows)
    assert found.prompt == "One?"
    assert found.answers == {"Yes.": [0, 3], "No.": [2]}
    systemed = {"messages": [{"role": "system", "content": "Lie."}, *rows[2]["messages"]]}
    assert not quality.contradictions([rows[0], systemed])


def test_correctness_counts_what_can_be_judged():
    rows = [example("q", a) for a in ("right", "wrong", "?", "right")]
    verdicts = {"right": True, "wrong": False, "?": None}
    found = quality.correctness(rows, lambda row: verdicts[row["messages"][1]["content"]])
    assert (found.right, found.wrong, found.unknown) == ([0, 3], [1], [2])
    assert found.share == pytest.approx(2 / 3)
    assert math.isnan(quality.correctness(rows, lambda row: None).share)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("<|im_start|>user", "<|im_start|>"),
        ("[INST] a", "[INST]"),
        ("a</s>", "</s>"),
        ("### Response:\nParis", "### Response"),
        ("Yes.\nQ: And then?", "Q:"),
        ("<end_of_turn>", "<end_of_turn>"),
        ("The FAQ: a < b, <b>c</b>, # title, C#, user: x", ""),
    ],
)
def test_formats_show_marks_left_inside(text, mark):
    (form,) = quality.formats([example("a", text)]).to_dict("records")
    assert form["markers"] == mark


def test_formats_count_the_mix():
    rows = [example("a", "Yes."), example("a", "Yes"), example("a", "No"), example("a", " ")]
    table = quality.formats(rows)
    assert dict(zip(table["ends"], table["rows"], strict=True)) == {
        "bare": 2, "with a mark": 1, "empty": 1,
    }  # fmt: skip
    assert len(quality.formats(country_examples(50))) == 1


@pytest.mark.parametrize(
    "measure",
    [quality.lengths, quality.distinct, quality.contradictions, quality.formats],
)
def test_no_rows_are_an_error(measure):
    with pytest.raises(RowsError, match="the list is empty"):
        measure([])
