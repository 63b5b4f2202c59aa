"""`sftlab doctor` and `mask`: what they print, and how they end."""

import json
import re

import pytest

import sftlab.show
from sftlab.chat import FAMILIES
from sftlab.data import read
from sftlab.profiles import find_profile
from sftlab.train import ExampleError, Settings
from sftlab.train.finetuning import prepare_training

ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
STOPS = ENDLESS.replace("'\n'", "'<|stop|>\n'")  # a token that no vocabulary has
BROKEN = "{% for m in messages %}\n{{ m['content'] \n{% endfor %}"
CHAT = [
    {"role": "user", "content": "Hi [you]"},
    {"role": "assistant", "content": "Ho."},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Yes.\nNo."},
]
ROWS = [{"messages": CHAT}, {"prompt": "2 + 2?", "completion": "4"}]


def write(file, content):
    rows = "".join(json.dumps(row) + "\n" for row in content) if isinstance(content, list) else ""
    file.write_text(rows or content, encoding="utf-8")
    return file


def test_doctor_ends_with_1_where_a_finding_is_an_error(call, tmp_path):
    code, out, _ = call("doctor", "--template", "chatml")
    assert code == 0
    assert re.search(r"ok +end-of-turn: an answer ends with '<\|im_end\|>'", out)
    code, out, _ = call("doctor", "--template", write(tmp_path / "plain.jinja", ENDLESS))
    assert code == 1
    assert out.index("no-end-of-turn") < out.index("no-generation-prompt")
    assert "do: write the tokenizer's eos after each answer" in out
    code, _, err = call("doctor", "--template", write(tmp_path / "broken.jinja", BROKEN))
    assert code == 2
    assert re.search(r"line [23]", err)


def test_doctor_examines_tokenizer_and_data_too(call, tmp_path, toy_tokenizer):
    rows = [{"prompt": "2 + 2?", "completion": "4"}, {"prompt": "word " * 300, "completion": "yes"}]
    data = ["--data", write(tmp_path / "chat.jsonl", rows), "--tokenizer", "tiny"]
    code, out, _ = call("doctor", "--template", "chatml", *data)
    assert code == 0
    assert "end-not-stop" in out
    code, out, _ = call("doctor", "--template", "chatml", *data, "--max-length", 100)
    assert code == 1
    assert "rows-masked" in out
    toy_tokenizer.chat_template = FAMILIES["article"].text
    try:
        toy_tokenizer.save_pretrained(tmp_path)
    finally:
        toy_tokenizer.chat_template = None
    code, out, _ = call("doctor", "--tokenizer", tmp_path)
    assert (code, "system-refused" in out) == (0, True)


@pytest.fixture
def mask(call, tmp_path):
    """Calls `sftlab mask` on a file of rows."""

    def run(*options, content=ROWS):
        file = tmp_path / "rows.jsonl"
        if content is not None:
            write(file, content)
        return call("mask", "--messages", file, *options)

    return run


def learned(out):
    """The text within the brackets that say what is supervised."""
    lines = out.split("\n\n", 1)[1].splitlines()
    return re.findall(r"  \[(.*?)\]$", "\n".join(lines), flags=re.M | re.S)


def test_brackets_hold_what_is_learned(mask, tmp_path):
    code, out, _ = mask("--template", "chatml")
    assert code == 0
    assert "tokens are supervised" in out
    assert re.search(r"^user +Hi·\[you\]$", out, flags=re.M)
    first, second = learned(out)
    assert first == "Ho.<|im_end|>"
    assert re.fullmatch(r"Yes\.⏎\n +No\.<\|im_end\|>", second)
    code, out, _ = mask("--template", write(tmp_path / "endless.jinja", ENDLESS))
    assert code == 0
    assert "! nothing ends the turn" in out
    assert "endless.jinja" in out


def test_row_and_end_of_turn_reach_the_mask(mask):
    code, out, _ = mask("--template", "chatml", "--row", 2, "--no-end-of-turn")
    assert (code, learned(out)) == (0, ["4"])


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, [], "no such file"),
        ("{", [], "complete it"),
        ('{"foo": 1}', [], "messages"),
        (ROWS, ["--row", "3"], "2 rows"),
        (ROWS, ["--turns", "first"], "turns is 'first': Input should be 'all', 'last'"),
        ([{"prompt": "a", "completion": "b", "mood": "c"}], [], "--meta 'mood'"),
        (ROWS, ["--tokenizer", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_says_what_to_give(mask, content, options, said):
    code, out, err = mask(*options, content=content)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
USER, ANSWER = {"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}
CALLED = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "Grey."},
    ANSWER,
]
SHAPED = {
    "messages": {"messages": CHAT},
    "weights": {"messages": [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]]},
    "texts": {"prompt": "2 + 2?", "completion": "4"},
    "lists": {"prompt": CHAT[:3], "completion": CHAT[3:]},
    "alpaca": {"instruction": "Add.", "input": "2, 2", "output": "4"},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "tools": {"messages": CALLED, "tools": TOOLS},
    "thinking": {"messages": [USER, {**ANSWER, "reasoning_content": "I know it."}]},
}


@pytest.mark.parametrize("how", [{}, {"turns": "last"}, {"start": "generation"}])
@pytest.mark.parametrize("template", [None, "mistral", "qwen3", ENDLESS, STOPS])
def test_the_mask_has_the_ids_and_labels_of_the_training(
    call, monkeypatch, tmp_path, toy_base, template, how
):
    """`mask` on a row of a file, and the rows of the trainer for the same file."""
    real, shown, refused = sftlab.show.show_mask, [], []
    monkeypatch.setattr(
        sftlab.show, "show_mask", lambda *a, **k: shown.append(real(*a, **k)) or shown[-1]
    )
    asked = [f"--{name}={value}" for name, value in how.items()]
    asked += [f"--template={template}"] if template else []
    for name, row in SHAPED.items():
        file = write(tmp_path / f"{name}.jsonl", [row])
        profile = find_profile(toy_base)
        settings = Settings(template=template, **how).filled(profile)
        try:
            trainer, *_ = prepare_training(profile, read(file), settings, folder=tmp_path)
        except ExampleError:
            refused.append(name)
            continue
        call("mask", "--messages", file, "--tokenizer", toy_base, *asked)
        (trained,) = trainer.train_dataset
        assert [token.id for token in shown[-1].tokens] == trained["input_ids"], name
        assert [token.label for token in shown[-1].tokens] == trained["labels"], name
    # Only qwen3 has a place for calls and thinking; with the last answer alone no call is learned.
    alone = ["tools"] * (how != {"turns": "last"} or template == "mistral")
    assert refused == ([] if template == "qwen3" else [*alone, "thinking"])


def test_validate_holds_the_rows_against_a_template(call, tmp_path):
    file = write(tmp_path / "rows.jsonl", [ROWS[1], SHAPED["thinking"], SHAPED["tools"]])
    assert call("validate", file)[0] == 0
    assert call("validate", file, "--template", "qwen3")[0] == 0
    code, out, _ = call("validate", file, "--template", "chatml", "--json")
    (lost,) = [one for one in json.loads(out)["render"] if one["code"] == "rows-text-lost"]
    assert (code, json.loads(out)["ok"], lost["rows"]) == (1, False, [2, 3])
    assert "rows-text-lost" in call("validate", file, "--template", "chatml")[1]
    assert "rows-text-lost" in call("doctor", "--data", file, "--template", "chatml")[1]
