"""`sftlab doctor` and `mask`: what they print, in JSON too, and how they end."""

import json
import re
from dataclasses import replace

import pytest

from sftlab.chat import FAMILIES, assistant_spans, find_template

ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
BROKEN = "{% for m in messages %}\n{{ m['content'] \n{% endfor %}"
CHAT = [
    {"role": "user", "content": "Hi [you]"},
    {"role": "assistant", "content": "Ho."},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Yes.\nNo."},
]
ONE_CHAT = json.dumps(CHAT)


def write(file, content):
    rows = "".join(json.dumps(row) + "\n" for row in content) if isinstance(content, list) else ""
    file.write_text(rows or content, encoding="utf-8")
    return file


def test_a_sound_template_ends_well(call):
    code, out, _ = call("doctor", "--template", "chatml")
    assert code == 0
    assert "template chatml: nothing wrong was found" in out
    assert re.search(r"ok +end-of-turn +An answer ends with '<\|im_end\|>'", out)


def test_an_error_ends_with_1_and_says_what_to_do_in_json_too(call, tmp_path):
    file = write(tmp_path / "plain.jinja", ENDLESS)
    code, out, _ = call("doctor", "--template", file)
    assert code == 1
    assert out.index("no-end-of-turn") < out.index("no-generation-prompt")
    assert "→ Write the tokenizer's eos after each answer" in " ".join(out.split())
    assert "plain.jinja: 1 error, 1 warning, 1 note" in out
    code, out, _ = call("doctor", "--template", file, "--json")
    found = json.loads(out)
    assert code == 1
    assert set(found) == {"template", "end_of_turn", "rows", "findings", "ok"}
    assert (found["ok"], found["end_of_turn"]) == (False, None)
    assert [f["code"] for f in found["findings"] if f["level"] == "error"] == ["no-end-of-turn"]
    assert set(found["findings"][0]) == {"level", "code", "what", "remedy", "rows"}
    code, _, err = call("doctor", "--template", write(tmp_path / "broken.jinja", BROKEN))
    assert code == 2
    assert re.search(r"line [23]", err)


def test_tokenizer_and_data_are_examined_too(call, tmp_path):
    rows = [
        {"prompt": "2 + 2?", "completion": "4"},
        {"prompt": "word " * 300, "completion": "yes"},
    ]
    data = ["--data", write(tmp_path / "chat.jsonl", rows), "--tokenizer", "tiny", "--json"]
    code, out, _ = call("doctor", "--template", "chatml", *data)
    found = json.loads(out)
    assert (code, found["rows"]) == (0, 2)
    assert {"end-not-stop", "markers", "rows"} <= {f["code"] for f in found["findings"]}
    code, out, _ = call("doctor", "--template", "chatml", *data, "--max-length", 100)
    (masked,) = (f for f in json.loads(out)["findings"] if f["code"] == "rows-masked")
    assert (code, masked["rows"]) == (1, [2])


def test_without_a_template_the_tokenizer_s_own_is_examined(call, tmp_path, toy_tokenizer):
    toy_tokenizer.chat_template = FAMILIES["article"].text
    try:
        toy_tokenizer.save_pretrained(tmp_path)
    finally:
        toy_tokenizer.chat_template = None
    code, out, _ = call("doctor", "--tokenizer", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["end_of_turn"]) == (0, "<|endoftext|>")
    assert [f["code"] for f in found["findings"] if f["level"] != "ok"] == ["system-refused"]


@pytest.fixture
def mask(call, tmp_path):
    """Calls `sftlab mask` on CHAT, or on another content."""

    def run(*options, content=ONE_CHAT, name="chat.json"):
        file = tmp_path / name
        if content is not None:
            write(file, content)
        return call("mask", "--messages", file, *options)

    return run


def test_brackets_hold_what_is_learned(mask, tmp_path):
    code, out, _ = mask("--template", "chatml")
    assert code == 0
    assert "tokens are supervised" in out
    body = out.split("\n\n", 1)[1].splitlines()
    lines = [tuple(line.rstrip().split(maxsplit=1)) for line in body if line.strip()]
    assert ("user", "Hi·[you]") in lines
    assert ("assistant", "[Ho.<|im_end|>]") in lines
    assert lines[lines.index(("assistant", "[Yes.⏎")) + 1] == ("No.<|im_end|>]",)
    code, out, _ = mask("--template", write(tmp_path / "endless.jinja", ENDLESS))
    assert code == 0
    assert "! nothing ends the turn" in " ".join(out.split())
    assert "endless.jinja" in out


def test_json_has_stable_keys_and_the_same_mask(mask):
    code, out, _ = mask("--template", "llama-3", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "template", "text", "spans", "end_of_turn", "warnings", "tokens", "supervised", "total",
    }  # fmt: skip
    assert all(set(t) == {"id", "text", "label", "role", "supervised"} for t in found["tokens"])
    assert found["end_of_turn"] == "<|eot_id|>"
    assert found["total"] == len(found["tokens"])
    learned = [token for token in found["tokens"] if token["supervised"]]
    assert found["supervised"] == len(learned)
    assert "".join(token["text"] for token in learned) == "Ho.<|eot_id|>Yes.\nNo.<|eot_id|>"
    for token in found["tokens"]:
        assert token["label"] == (token["id"] if token["supervised"] else -100)
    template = replace(find_template("llama-3"), bos_token="<|endoftext|>")
    spans = assistant_spans(template, CHAT).spans
    assert found["spans"] == [{"start": s.start, "end": s.end, "message": s.message} for s in spans]


def test_options_reach_the_mask(mask):
    def found(*options):
        return json.loads(mask("--template", "chatml", "--json", *options)[1])

    for options, learned in (
        (["--turns", "last"], "Yes.\nNo.<|im_end|>"),
        (["--no-end-of-turn"], "Ho.Yes.\nNo."),
    ):
        tokens = found(*options)["tokens"]
        assert "".join(t["text"] for t in tokens if t["supervised"]) == learned
    cut = found("--max-length", "17")
    assert cut["total"] == 17
    assert any("cut to 17" in warning for warning in cut["warnings"])
    whole = found("--turns", "everything")
    assert whole["supervised"] == whole["total"]


def test_a_row_of_a_file_is_picked_and_converted(mask):
    rows = [{"messages": CHAT}, {"prompt": "2 + 2?", "completion": "4"}]

    def of_row(row, **file):
        return mask("--template", "chatml", "--json", "--row", row, **file)

    for file in ({"name": "rows.jsonl", "content": rows}, {"content": json.dumps(rows)}):
        assert "Hi [you]" in json.loads(of_row(1, **file)[1])["text"]
        assert "2 + 2?" in json.loads(of_row(2, **file)[1])["text"]
        code, _, err = of_row(3, **file)
        assert (code, "2 rows" in err) == (2, True)


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, [], "no such file"),
        ("{", [], "complete it"),
        ('{"foo": 1}', [], "messages"),
        (ONE_CHAT, ["--row", "2"], "one conversation"),
        (ONE_CHAT, ["--template", "no-such"], "no-such"),
        (ONE_CHAT, ["--turns", "first"], "--turns first"),
        (ONE_CHAT, ["--start", "middle"], "middle"),
        (ONE_CHAT, ["--tokenizer", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_says_what_to_give(mask, content, options, said):
    code, out, err = mask(*options, content=content)
    assert (code, out) == (2, "")
    assert said in err
