"""One row of each shape, and what is wrong with rows, by the row's own names."""

import json
import tomllib
from pathlib import Path

import pytest

from sftlab.data.messages import RecordsError, convert, read_row, shown

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
        ({"question": "2 + 2?", "answer": "4"}, "prompt-completion", [USER, ANSWER]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, "prompt-completion",
         [SYSTEM, USER, ANSWER]),
        ({"prompt": [USER], "completion": "4"}, "prompt-completion", [USER, ANSWER]),
        ({"instruction": "2 + 2?", "output": "4"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "2 + 2?", "input": "", "output": "4"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "2 + 2?", "input": None, "output": "4"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "alpaca",
         [{"role": "user", "content": "Add.\n\n2, 2"}, ANSWER]),
        ({"instruction": "Add.", "context": "2, 2", "response": "4"}, "alpaca",
         [{"role": "user", "content": "Add.\n\n2, 2"}, ANSWER]),
        ({"system": "Be brief.", "instruction": "2 + 2?", "output": "4"}, "alpaca",
         [SYSTEM, USER, ANSWER]),
        ({"system_prompt": "Be brief.", "question": "2 + 2?", "response": "4"},
         "prompt-completion", [SYSTEM, USER, ANSWER]),
        ({"messages": None, "prompt": "2 + 2?", "completion": "4"}, "prompt-completion",
         [USER, ANSWER]),
    ],
)  # fmt: skip
def test_shape_is_detected_and_becomes_messages(row, shape, messages):
    assert convert(row) == messages
    assert read_row(row).shape == shape


def test_what_the_row_carries_besides_is_meta():
    row = {"id": 7, "prompt": "a", "completion": "b", "tags": ["x"], "system": ""}
    assert read_row(row).meta == {"id": 7, "tags": ["x"]}
    row = {"messages": [SYSTEM, USER, ANSWER], "system": "Be long."}
    assert read_row(row).meta == {"system": "Be long."}
    kept = {"messages": [USER, ANSWER], "meta": {"id": 7}}
    assert read_row(kept).meta == {"id": 7}


def test_roles_of_other_tools_and_spellings():
    names = ["System", "human", "GPT", "observation", "bot"]
    row = {"conversations": [{"from": name, "value": "a"} for name in names]}
    assert [m["role"] for m in convert(row)] == ["system", "user", "assistant", "tool", "assistant"]


def test_train_and_weight_say_what_is_learned():
    again = [USER, ANSWER | {"train": False}, USER, ANSWER]
    assert convert({"messages": again}) == again
    weighted = [USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}]
    assert [m.get("train") for m in convert({"messages": weighted})] == [None, False, None, True]
    # a Dataset fills the key of messages that have none
    assert convert({"messages": [USER | {"train": None}, ANSWER]}) == [USER, ANSWER]
    with pytest.raises(RecordsError, match=r"messages\[1\].train: train must be true"):
        convert({"messages": [USER, ANSWER | {"train": "no"}]})


def test_other_keys_of_messages_are_counted_and_calls_refused():
    found = read_row({"messages": [USER | {"name": "Ann", "id": 1}, ANSWER | {"id": 2}]})
    assert found.messages == [USER, ANSWER]
    assert found.left_out == {"messages[].name": 1, "messages[].id": 2}
    with pytest.raises(RecordsError, match=r"messages\[1\].tool_calls: .* outside its content"):
        convert({"messages": [USER, ANSWER | {"tool_calls": [{"id": 1}]}]})
    assert convert({"messages": [USER, ANSWER | {"tool_calls": []}]}) == [USER, ANSWER]
    with pytest.raises(RecordsError, match=r"messages\[0\].3: Keys should be strings"):
        convert({"messages": [USER | {3: "a"}, ANSWER]})
    with pytest.raises(RecordsError, match=r"messages\[1\].train: every answer has train: false"):
        convert({"messages": [USER, ANSWER | {"train": False}]})


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
