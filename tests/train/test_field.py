"""Files in the shapes of public reports, each with what a model learns from it, or what is said."""

import json
from itertools import groupby

import pytest

from sftlab.chat import IGNORED, setup_tokenizer
from sftlab.models import load_tokenizer
from sftlab.train import DataFaults, TrainingFaults, prepare
from sftlab.train.examples import supervise

USER, ANSWER = {"role": "user"}, {"role": "assistant"}


def turns(*texts):
    roles = ["user", "assistant"]
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def written(folder, row, count=12, name="my.jsonl"):
    """A file of rows that differ in a number, which the row has as §."""
    lines = [json.dumps(row, ensure_ascii=False).replace("§", str(n)) for n in range(count)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def learned(file, base, **how):
    """Of the file's first row what the model reads and, in brackets, learns."""
    data = prepare(file, profile=base, **how)
    tokenizer = load_tokenizer(base)
    setup_tokenizer(tokenizer, template=data.settings.template)
    rows = sorted(data.train + data.held_out, key=lambda row: str(row["messages"]))
    (row,) = supervise(rows[:1], tokenizer, data.settings)
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    parts = [
        (inside, tokenizer.decode([token for token, _ in run]))
        for inside, run in groupby(pairs, lambda pair: pair[1] != IGNORED)
    ]
    return "".join(f"[{text}]" if inside else text for inside, text in parts), data


CALL = {
    "id": "c0",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"town": "§"}'},
}
TOOL = {"name": "weather", "description": "The sky", "parameters": {"type": "object"}}
OPENAI = {
    "messages": [
        USER | {"content": "Weather in §?"},
        ANSWER | {"content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c0", "content": '{"sky": "grey"}'},
        ANSWER | {"content": "Grey."},
    ],
    "tools": [{"type": "function", "function": TOOL}],
    "parallel_tool_calls": False,
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Weather in §?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "§"}}'},
        {"from": "observation", "value": '{"sky": "grey"}'},
        {"from": "gpt", "value": "Grey."},
    ],
    "tools": json.dumps([TOOL]),
    "system": "You may call tools.",
}
CALLED = [
    '[<tool_call>\n{"name": "weather", "arguments": {"town": "0"}}\n</tool_call><|im_end|>]',
    'grey"}\n</tool_response>',
]
THINKING = "<think>\nI add §.\n</think>\n\n§"
SQL = {"context": "TABLE shop§", "question": "How many?", "answer": "SELECT §"}
HISTORY = {
    "instruction": "And twice §?",
    "output": "0",
    "system": "Sums.",
    "history": [["§?", "1"]],
}
REASONED = {"messages": turns("§+0?", "§")}
REASONED["messages"][1]["reasoning_content"] = "I add."
THOUGHT = {"messages": turns("§+0?", THINKING, "Sure?", THINKING.replace("I add", "Again"))}
FLAGGED = {"messages": turns("a§?", "WRONG", "Mend.", "right")}


def marked(key, no, yes):
    row = json.loads(json.dumps(FLAGGED))
    row["messages"][1][key], row["messages"][3][key] = no, yes
    return row


@pytest.mark.parametrize(
    ("row", "template", "said"),
    [
        pytest.param(SQL, "chatml", ["user\nHow many?\n\nTABLE shop0<", "[SELECT 0<|im_end|>]"],
                     id="text-to-SQL sets: question, context, answer"),
        pytest.param(HISTORY, "chatml",
                     ["system\nSums.<", "user\n0?<", "[1<|im_end|>]", "[0<|im_end|>]"],
                     id="LlamaFactory#4683: history"),
        pytest.param(REASONED, "qwen3", ["[<think>\nI add.\n</think>\n\n0<|im_end|>]"],
                     id="slime#330, minimind#737: reasoning_content"),
        pytest.param(OPENAI, "qwen3", [*CALLED, '"description": "The sky"'],
                     id="trl#3597, slime#1008: OpenAI's tools"),
        pytest.param(SHAREGPT, "qwen3", [*CALLED, "You may call tools."],
                     id="LlamaFactory#2529: ShareGPT's function_call"),
        pytest.param(marked("loss", False, True), "chatml", ["\nWRONG<", "[right<|im_end|>]"],
                     id="ms-swift#5215, LlamaFactory#2305: loss"),
        pytest.param(marked("weight", 0, 1), "chatml", ["\nWRONG<", "[right<|im_end|>]"],
                     id="axolotl#1702: weight"),
        pytest.param({"messages": turns("Name § in words.", "It is §.")}, "chatml",
                     ["Name 0 in words.<", "[It is 0.<|im_end|>]"], id="plain"),
    ],
)  # fmt: skip
def test_what_a_model_learns_of_the_file(tmp_path, toy_base, row, template, said):
    file = written(tmp_path, row)
    text, data = learned(file, toy_base, template=template)
    assert [one for one in said if one not in text] == [], text
    assert (data.report.rows, len(data.lengths)) == (12, 12)
    assert not [note for note in data.notes if "row" in note and "lost" in note]


def test_thinking_that_a_template_removes_is_an_error_with_remedies(tmp_path, toy_base):
    """ms-swift#4809, LlamaFactory#7556."""
    file = written(tmp_path, THOUGHT)
    for template in ("qwen3", "deepseek_r1_distill"):
        with pytest.raises(TrainingFaults, match="12 of 12") as told:
            prepare(file, profile=toy_base, template=template)
        assert any(one.code == "rows-text-lost" for one in told.value.findings)
    text, data = learned(file, toy_base, template="qwen3", turns="last")
    assert "[<think>\nAgain 0.\n</think>\n\n0<|im_end|>]" in text
    assert any("12 of 12" in note for note in data.notes)
    with pytest.raises(TrainingFaults):
        prepare(file, profile=toy_base, template="deepseek_r1_distill", turns="last")


def test_a_template_without_a_place_for_tools_is_refused(tmp_path, toy_base):
    """trl#3597: the calls would be left out."""
    with pytest.raises(TrainingFaults, match="qwen3") as told:
        prepare(written(tmp_path, OPENAI), profile=toy_base, template="chatml")
    assert any(one.code == "rows-text-lost" for one in told.value.findings)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param({"prompt": "q§", "chosen": "good", "rejected": "bad"},
                     ["preference data", "rename chosen to completion"], id="DPO given to SFT"),
        pytest.param({"message_tree_id": "t", "prompt": {"text": "Hi", "replies": []}},
                     ["tree of messages", "OASST"], id="OASST tree"),
        pytest.param({"query": "q§", "response": "a"}, ["'query' to prompt", "'response' to"],
                     id="query/response"),
        pytest.param({"Instruction": "q§", "Output": "a"},
                     ["'Instruction' to instruction, 'Output' to output"], id="capitals"),
        pytest.param({"question": "q§", "answers": {"text": ["a"]}},
                     ["rename the column that holds it to completion"], id="SQuAD"),
        pytest.param({"messages": [{"Role": "user", "Content": "q§"}]},
                     ["'Role, Content'", "under the key role"], id="keys with capitals"),
    ],
)  # fmt: skip
def test_a_shape_that_is_not_read_is_named_with_its_remedy(tmp_path, toy_base, row, said):
    with pytest.raises(DataFaults) as told:
        prepare(written(tmp_path, row), profile=toy_base, skip_bad=True)
    assert [one for one in said if one not in str(told.value)] == []
