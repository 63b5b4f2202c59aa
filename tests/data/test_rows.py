import json

import pytest

from sftlab.data.rows import RowsError, checked, part_of, pieces, values_of, words

TWO_TURNS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "And of Italy?"},
        {"role": "assistant", "content": "Rome."},
    ],
    "meta": {"country": "Italy"},
    "split": "train",
}


def test_parts_of_a_conversation_are_as_drawn():
    assert part_of(TWO_TURNS, "prompt") == "Capital of France?\nParis.\nAnd of Italy?"
    assert part_of(TWO_TURNS, "context") == "Be brief.\n" + part_of(TWO_TURNS, "prompt")
    assert part_of(TWO_TURNS, "answer") == "Rome."
    assert part_of(TWO_TURNS, "conversation") == part_of(TWO_TURNS, "context") + "\nRome."
    unanswered = {"messages": TWO_TURNS["messages"][:2]}
    assert part_of(unanswered, "prompt") == "Capital of France?"
    assert part_of(unanswered, "answer") == ""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"rows: the list is empty"),
        ([TWO_TURNS, {"prompt": "a"}], r"rows\[1\] must be .*, got {'prompt': 'a'}: use"),
        ([{"messages": []}], r"rows\[0\] must be a dict with 'messages'"),
        ([{"messages": [{"role": "user", "content": None}]}], r"rows\[0\] .*'content': None"),
        (["a"], r"rows\[0\] must be a dict"),
    ],
)
def test_rows_that_cannot_be_measured_are_named_with_the_remedy(rows, message):
    with pytest.raises(RowsError, match=message):
        checked(rows)


def test_values_are_looked_up_in_meta_then_in_the_row_then_computed():
    assert values_of([TWO_TURNS], "country") == ["Italy"]
    assert values_of([TWO_TURNS], "split") == ["train"]
    assert values_of([TWO_TURNS], lambda row: len(row["messages"])) == [5]
    with pytest.raises(RowsError, match=r"rows\[0\] has no 'region', but 'split', 'country'"):
        values_of([TWO_TURNS], "region")
    with pytest.raises(RowsError, match=r"rows\[1\] has no 'country'"):
        values_of([TWO_TURNS, {**TWO_TURNS, "meta": {"country": None}}], "country")


def test_pieces_of_words_and_of_characters():
    assert words("It's GOOD -- isn't it?") == ["it's", "good", "isn't", "it"]
    assert pieces("One, two; three", size=2) == ["one two", "two three"]
    assert pieces("One", size=2) == ["one"]
    assert pieces("aB  c", size=3, unit="characters") == ["ab ", "b c"]
    assert pieces("", size=3) == [""]


def test_an_answer_is_its_reasoning_and_calls_too():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    answer = {"role": "assistant", "content": "", "reasoning_content": "so", "tool_calls": [call]}
    assert part_of({"messages": [answer]}, "answer") == "so\n" + json.dumps([call])
