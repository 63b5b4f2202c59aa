"""One row of each shape, and what is wrong with rows, by the row's own names."""

import json
import tomllib
from pathlib import Path

import pytest

from sftlab.data import RecordsError, convert, read_row, shown

WRONG = tomllib.loads(Path(__file__).with_name("wrong.toml").read_text(encoding="utf-8"))
USER = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}
AT_1 = "messages[1].content"


@pytest.mark.parametrize(
    ("row", "shape", "messages"),
    [
        ({"messages": [USER, ANSWER]}, "messages", [USER, ANSWER]),
        ({"messages": [SYSTEM, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER]),
        ({"messages": [USER, ANSWER], "prompt": "2 + 2?"}, "messages", [USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
         "sharegpt", [USER, ANSWER]),
        ({"conversations": [USER, ANSWER]}, "sharegpt", [USER, ANSWER]),
        ({"prompt": "2 + 2?", "completion": "4"}, "prompt-completion", [USER, ANSWER]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, "prompt-completion",
         [SYSTEM, USER, ANSWER]),
        ({"prompt": "2 + 2?", "completion": '[{"value": 4}]'}, "prompt-completion",
         [USER, {"role": "assistant", "content": '[{"value": 4}]'}]),
        ({"prompt": [USER], "completion": "4"}, "prompt-completion", [USER, ANSWER]),
        ({"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])}, "prompt-completion",
         [USER, ANSWER]),
        ({"instruction": "2 + 2?", "output": "4"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "2 + 2?", "input": "", "output": "4"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "alpaca",
         [{"role": "user", "content": "Add.\n\n2, 2"}, ANSWER]),
        ({"instruction": "Add.", "context": "2, 2", "response": "4"}, "alpaca",
         [{"role": "user", "content": "Add.\n\n2, 2"}, ANSWER]),
        ({"system_prompt": "Be brief.", "question": "2 + 2?", "response": "4"},
         "prompt-completion", [SYSTEM, USER, ANSWER]),
        ({"context": "two", "question": "2 + 2?", "answer": "4"}, "prompt-completion",
         [{"role": "user", "content": "2 + 2?\n\ntwo"}, ANSWER]),
        ({"messages": None, "prompt": "2 + 2?", "completion": "4"}, "prompt-completion",
         [USER, ANSWER]),
    ],
)  # fmt: skip
def test_shape_is_detected_and_becomes_messages(row, shape, messages):
    assert convert(row) == messages
    assert read_row(row).shape == shape


def test_what_the_row_carries_besides_is_meta():
    row = {"id": 7, "prompt": "a", "completion": "b", "tags": ["x"], "system": "", "images": []}
    assert read_row(row).meta == {"id": 7, "tags": ["x"]}
    kept = {"messages": [USER | {"id": 1}, ANSWER], "meta": {"images": 7}, "url": "u"}
    assert read_row(kept).meta == {"images": 7, "url": "u", "messages[0].id": 1}
    assert read_row({"messages": [USER, ANSWER], "prompt": "2 + 2?"}).meta == {"prompt": "2 + 2?"}
    assert read_row({"prompt": "a", "completion": "b", "x": 1}, meta=["x"]).meta == {"x": 1}
    for said, side in (("Test", "held_out"), ("validation", "held_out"), (" training", "train")):
        assert read_row({"prompt": "a", "completion": "b", "split": said}).meta == {"split": side}


@pytest.mark.parametrize(
    ("further", "field", "what"),
    [
        ({"history": [["a", "b"]]}, "history", "the column 'history' is not known"),
        ({"context": "a"}, "context", "'context' is not known"),
        ({"images": ["a.png"]}, "images", "images, video and sound"),
        ({"rejected": "a"}, "rejected", "preference data"),
        ({"kto_tag": "true"}, "kto_tag", "preference data"),
        ({"split": "fold 3"}, "split", "the split is unknown"),
        ({"split": 0, "meta": {"source": "a"}}, "split", "the split is unknown"),
        ({"data_split": "test"}, "data_split", "looks like a split"),
        ({"train": "4"}, "train", "'train' belongs to a message"),
        ({"System": "Be long."}, "System", "name with capitals"),
        ({"Unnamed: 3": "in French"}, "Unnamed: 3", "'Unnamed: 3' is not known"),
        ({"functions": "get_weather"}, "functions", "tools must be a list"),
        ({"system": "Be long."}, "system", "two system messages"),
        ({"tools": [{"description": "no name"}]}, "tools[0]", "each with a name"),
        ({"tools": [{"name": "a", "x": json.loads("[" * 50 + "]" * 50)}]}, "tools", "too deep"),
    ],
)
def test_a_column_that_may_bear_on_training_is_refused_by_name(further, field, what):
    (problem,) = read_row({"messages": [SYSTEM, USER, ANSWER]} | further).problems
    assert (problem.field, what in problem.what) == (field, True), problem


def test_roles_of_other_tools_and_spellings():
    names = ["System", "human", "GPT", "observation", "bot"]
    row = {"conversations": [{"from": name, "value": "a"} for name in names]}
    assert [m["role"] for m in convert(row)] == ["system", "user", "assistant", "tool", "assistant"]


def test_flags_say_what_is_learned():
    again = [USER, ANSWER | {"train": False}, USER, ANSWER]
    assert convert({"messages": again}) == again
    for key, no, yes in (("weight", 0, 1), ("loss", False, True), ("train_on_turn", 0.0, 1.0)):
        flagged = [USER, ANSWER | {key: no}, USER, ANSWER | {key: yes}]
        assert [m.get("train") for m in convert({"messages": flagged})] == [None, False, None, True]
    # a Dataset fills the key of messages that have none
    assert convert({"messages": [USER | {"train": None}, ANSWER]}) == [USER, ANSWER]


def test_of_a_prompt_and_a_completion_the_completion_alone_is_learned():
    row = {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}
    assert convert(row) == [USER, ANSWER | {"train": False}, USER, ANSWER]
    row = {"instruction": "And 3?", "output": "6", "history": [["2 + 2?", "4"]], "input": "now"}
    turns = [USER, ANSWER, {"role": "user", "content": "And 3?\n\nnow"}]
    assert convert(row) == [*turns, {"role": "assistant", "content": "6"}]


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": None}}}
DEFINITION = {"name": "add", "description": "a + b", "parameters": {}}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "c0"}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL["function"]])},
        {"role": "assistant", "tool_calls": [{"function": {
            "name": "add", "arguments": '{"a": 2, "b": null}'}}]},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"role": "tool_call", "content": json.dumps(CALL["function"])},
        {"from": "function_call", "value": json.dumps([CALL["function"]])},
    ],
)  # fmt: skip
def test_calls_of_tools_have_one_form(turn):
    tools = [{"type": "function", "function": DEFINITION}]
    for given in ([DEFINITION], json.dumps([DEFINITION]), tools):
        row = {"messages": [USER, turn, RESULT, ANSWER], "tools": given}
        found = read_row(row)
        assert read_row({**row, "tools": None, "functions": given}) == found
        assert found.problems == []
        assert found.tools == tools
        called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        assert found.messages == [USER, called, RESULT, ANSWER]
    assert read_row({"messages": [USER, turn]}).problems == []
    assert read_row({"messages": [USER, ANSWER], "tools": "[]"}).used == {"messages"}


def test_reasoning_parts_and_keys_have_one_form_or_are_refused():
    for key in ("reasoning_content", "thinking", "reasoning"):
        (_, answer) = convert({"messages": [USER, ANSWER | {key: "so"}]})
        assert answer == ANSWER | {"reasoning_content": "so"}
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?", "image": None}]
    assert convert({"messages": [USER | {"content": parts}, ANSWER]}) == [USER, ANSWER]
    assert convert({"messages": [USER, ANSWER | {"tool_calls": [], "refusal": None}]})


@pytest.mark.parametrize(
    ("first", "answer", "field", "what"),
    [
        ({}, {"train": "no"}, "messages[1].train", "must be true or false"),
        ({}, {"weight": 0.5}, "messages[1].weight", "between 0 and 1"),
        ({}, {"train": True, "weight": 0}, "messages[1].train", "two keys say different things"),
        ({"loss": True}, {}, "messages[0].loss", "not the assistant's is marked"),
        ({}, {"train": False}, "messages[1].train", "every answer has train: false"),
        ({"name": "Ann"}, {}, "messages[0].name", "role user has no 'name'"),
        ({}, {"learn": True}, "messages[1].learn", "the key 'learn' of a message"),
        ({3: "a"}, {}, "messages[0].3", "Keys should be strings"),
        ({"content": [{"type": "image", "url": "x"}]}, {}, "messages[0].content[0]", "a part"),
        ({"reasoning_content": "a"}, {}, "messages[0].reasoning_content", "role user has no"),
        ({}, {"thinking": "a", "reasoning": "b"}, "messages[1].thinking", "two keys that differ"),
        ({}, {"content": "<think>a</think>4", "reasoning": "a"}, "messages[1].reasoning",
         "or in the content"),
        ({}, {"tool_calls": [{"id": "1"}]}, "messages[1].tool_calls[0].function.name", "tool call"),
        ({}, {"tool_calls": [CALL | {"x": 1}]}, "messages[1].tool_calls[0].x", "tool call"),
        ({}, {"tool_calls": 7}, "messages[1].tool_calls", "tool call"),
        ({}, {"function_call": {"name": "a", "arguments": "b"}}, "messages[1].function_call",
         "not JSON"),
        ({}, {"tool_calls": [{"name": "a", "arguments": {"x": "\0"}}]}, "messages[1].tool_calls",
         "U+0000"),
    ],
)  # fmt: skip
def test_a_key_of_a_message_that_can_not_be_used_is_refused_by_name(first, answer, field, what):
    problems = read_row({"messages": [USER | first, ANSWER | answer]}).problems
    assert (problems[0].field, what in problems[0].what) == (field, True), problems


@pytest.mark.parametrize(("row", "field", "what"), WRONG["rows"])
def test_problem_names_the_row_s_own_field(row, field, what):
    row = json.loads(row)
    first = read_row(row).problems[0]
    assert (first.field, first.remedy != "") == (field, True)
    assert what in first.what
    with pytest.raises(RecordsError):
        convert(row)


def test_all_problems_of_a_row_are_told_at_once():
    row = {"messages": [USER, USER | {"content": ""}, ANSWER | {"content": None}, USER]}
    with pytest.raises(RecordsError) as told:
        convert(row)
    assert [p.field for p in told.value.problems] == [
        "messages[1].role",
        AT_1,
        "messages[2].content",
        "messages[3].role",
    ]
    assert len(str(told.value).splitlines()) == 4


def test_a_conversation_that_waits_for_an_answer_and_tokens_of_the_template():
    assert read_row({"messages": [SYSTEM, USER]}, answered=False).problems == []
    (problem,) = read_row({"messages": [USER, USER]}, answered=False).problems
    assert problem.field == "messages[1].role"
    row = {"messages": [USER, ANSWER | {"content": "4<|im_end|>"}]}
    (problem,) = read_row(row, control=["<|im_end|>"]).problems
    assert (problem.field, problem.value) == (AT_1, "'<|im_end|>'")


def test_values_are_short_and_show_control_characters():
    assert len(shown("a" * 10**7)) < 80
    assert len(shown([{"a": "b" * 1000}] * 1000)) < 400
    assert shown("a\x1b[31m\0\n\ud800") == r"'a\x1b[31m\x00\n\ud800'"


def test_what_says_nothing_is_no_answer_and_what_is_carried_is_not_read():
    for turn in (
        ANSWER | {"content": "", "tool_calls": "[]"},
        ANSWER | {"content": "", "reasoning_content": " "},
        {"from": "function_call", "value": "null"},
    ):
        (problem,) = read_row({"messages": [USER, turn]}).problems
        assert problem.what == "the content is empty"
    assert convert({"messages": [USER, ANSWER | {"tool_calls": "null"}]}) == [USER, ANSWER]
    row = {"prompt": "2 + 2?", "completion": "4", "context": "a", "id": 1}
    found = read_row(row | {"Meta": {"id": 2, "split": "test"}}, meta=["context"])
    assert (found.messages, found.problems) == ([USER, ANSWER], [])
    assert found.meta == {"context": "a", "id": 1, "Meta.id": 2, "split": "held_out"}
