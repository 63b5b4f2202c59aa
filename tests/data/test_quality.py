import math

import pytest

from sftlab.data import quality
from sftlab.data.rows import RowsError
from sftlab.world import country_examples, example


def test_lengths_by_hand(toy_tokenizer):
    rows = [example("One two?", "Yes."), example("One two three?", "No, no.")]
    table = quality.lengths(rows, tokenizer=toy_tokenizer)
    assert table.loc[("prompt", "words"), ["least", "median", "most"]].tolist() == [2, 2.5, 3]
    assert table.loc[("answer", "characters"), ["least", "mean", "most"]].tolist() == [4, 5.5, 7]
    ids = toy_tokenizer(["Yes.", "No, no."], add_special_tokens=False)["input_ids"]
    assert table.loc[("answer", "tokens"), "most"] == max(map(len, ids))
    assert "tokens" not in quality.lengths(rows).index.get_level_values("unit")


def test_values_are_counted_the_most_frequent_first():
    rows = [{**example("q", "a"), "meta": {"region": r}} for r in "BAAA"]
    assert list(quality.count_values(rows, "region").items()) == [("A", 3), ("B", 1)]
    with pytest.raises(RowsError, match=r"rows\[0\] has no 'country'"):
        quality.count_values(rows, "country")


def test_distinct_by_hand():
    # pairs: a b, b c | a b: three of which two differ
    rows = [example("a b c", ""), example("A b!", "")]
    assert quality.distinct(rows) == pytest.approx(2 / 3)
    assert quality.distinct(rows, size=1) == pytest.approx(3 / 5)
    assert math.isnan(quality.distinct(rows, part="answer"))


def test_contradictions_are_the_same_prompt_with_other_answers():
    rows = [example("One?", "Yes."), example("Two?", "No."), example("one?", "No."),
            example("One?", "yes.")]  # fmt: skip
    assert quality.contradictions(rows) == {"One?": {"Yes.": [0, 3], "No.": [2]}}
    systemed = {"messages": [{"role": "system", "content": "Lie."}, *rows[2]["messages"]]}
    assert not quality.contradictions([rows[0], systemed])


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
