"""`sftlab doctor` and `sftlab mask`, as somebody types them: pictures, JSON, and mistakes."""

import json
import re

import pytest
from typer.testing import CliRunner

from sftlab.chat import FAMILIES, assistant_spans, find_template
from sftlab.cli.main import app

ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
CHAT = [
    {"role": "user", "content": "Hi [you]"},
    {"role": "assistant", "content": "Ho."},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Yes.\nNo."},
]


def call(*arguments):
    """Exit code, what was printed, and the mistake that `sftlab` would print as one line."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    mistake = done.exception if isinstance(done.exception, ValueError) else None
    if done.exception and not mistake and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, str(mistake or "")


@pytest.fixture
def endless(tmp_path):
    file = tmp_path / "endless.jinja"
    file.write_text(ENDLESS, encoding="utf-8")
    return file


@pytest.fixture
def chat(tmp_path):
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHAT), encoding="utf-8")
    return file


def test_doctor_ends_well_or_with_1_and_says_what_to_do(endless):
    code, out, _ = call("doctor", "--template", "chatml")
    assert code == 0
    assert "template chatml: nothing wrong was found" in out
    assert re.search(r"ok +end-of-turn +An answer ends with '<\|im_end\|>'", out)
    code, out, _ = call("doctor", "--template", endless)
    assert code == 1
    assert out.index("no-end-of-turn") < out.index("no-generation-prompt")
    assert "→ Write the tokenizer's eos after each answer" in " ".join(out.split())
    assert "endless.jinja: 1 error, 1 warning, 1 note" in out


def test_doctor_s_json_has_the_same_findings_under_stable_names(endless):
    code, out, _ = call("doctor", "--template", endless, "--json")
    found = json.loads(out)
    assert code == 1
    assert set(found) == {"template", "end_of_turn", "rows", "findings", "ok"}
    assert (found["ok"], found["end_of_turn"]) == (False, None)
    assert [f["code"] for f in found["findings"] if f["level"] == "error"] == ["no-end-of-turn"]
    assert set(found["findings"][0]) == {"level", "code", "what", "remedy", "rows"}


def test_doctor_examines_tokenizer_and_data_too(tmp_path):
    file = tmp_path / "chat.jsonl"
    rows = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in (("2 + 2?", "4"), ("word " * 300, "yes"))
    ]
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    data = ["doctor", "--template", "chatml", "--tokenizer", "tiny", "--data", file, "--json"]
    code, out, _ = call(*data)
    assert (code, json.loads(out)["rows"]) == (0, 2)
    assert {"end-not-stop", "markers", "rows"} <= {f["code"] for f in json.loads(out)["findings"]}
    code, out, _ = call(*data, "--max-length", 100)
    (masked,) = (f for f in json.loads(out)["findings"] if f["code"] == "rows-masked")
    assert (code, masked["rows"]) == (1, [2])


def test_doctor_without_a_template_examines_the_tokenizer_s_own(tmp_path, toy_tokenizer):
    toy_tokenizer.chat_template = FAMILIES["article"].text
    try:
        toy_tokenizer.save_pretrained(tmp_path)
    finally:
        toy_tokenizer.chat_template = None
    code, out, _ = call("doctor", "--tokenizer", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["end_of_turn"]) == (0, "<|endoftext|>")
    assert [f["code"] for f in found["findings"] if f["level"] != "ok"] == ["system-refused"]


def test_mask_s_brackets_hold_what_is_learned(chat, endless):
    code, out, _ = call("mask", "--template", "chatml", "--messages", chat)
    assert code == 0
    body = out.split("\n\n", 1)[1]
    rows = [line.rstrip().split(maxsplit=1) for line in body.splitlines() if line.strip()]
    assert ["user", "Hi·[you]"] in rows
    assert ["assistant", "[Ho.<|im_end|>]"] in rows
    assert ["assistant", "[Yes.⏎"] in rows
    assert ["No.<|im_end|>]"] in rows
    code, out, _ = call("mask", "--template", endless, "--messages", chat)
    assert (code, "! nothing ends the turn" in " ".join(out.split())) == (0, True)


def test_mask_s_json_has_stable_keys_and_the_same_mask(chat):
    code, out, _ = call("mask", "--template", "llama-3", "--messages", chat, "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "template", "text", "spans", "end_of_turn", "warnings", "tokens", "supervised", "total",
    }  # fmt: skip
    assert all(set(t) == {"id", "text", "label", "role", "supervised"} for t in found["tokens"])
    assert found["total"] == len(found["tokens"])
    for token in found["tokens"]:
        assert token["label"] == (token["id"] if token["supervised"] else -100)
    template = find_template("llama-3", bos_token="<|endoftext|>")
    assert found["spans"] == [
        {"start": s.start, "end": s.end, "message": s.message}
        for s in assistant_spans(template, CHAT).spans
    ]


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        ([], "Ho.<|im_end|>Yes.\nNo.<|im_end|>"),
        (["--turns", "last"], "Yes.\nNo.<|im_end|>"),
        (["--no-end-of-turn"], "Ho.Yes.\nNo."),
        (["--turns", "everything"], None),
    ],
)
def test_options_reach_the_mask(chat, options, learned):
    _, out, _ = call("mask", "--template", "chatml", "--messages", chat, "--json", *options)
    found = json.loads(out)
    learned = found["text"] if learned is None else learned
    assert "".join(t["text"] for t in found["tokens"] if t["supervised"]) == learned


def test_mask_picks_and_converts_a_row_and_cuts_it(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": CHAT}, {"prompt": "2 + 2?", "completion": "4"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["mask", "--template", "chatml", "--messages", file, "--json"]
    found = json.loads(call(*options, "--max-length", "17")[1])
    assert "Hi [you]" in found["text"]
    assert found["total"] == 17
    assert any("lost" in warning for warning in found["warnings"])
    assert "2 + 2?" in json.loads(call(*options, "--row", "2")[1])["text"]
    code, _, mistake = call(*options, "--row", "3")
    assert (code, "2 rows" in mistake) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("doctor", "--template"),
        ("doctor --template no-such-template", "no-such-template"),
        ("doctor --template chatml --max-length 10", "--max-length"),
        ("doctor --template chatml --tokenizer no-such-folder", "no-such-folder"),
        ("doctor --template chatml --data no-such-file.jsonl", "no-such-file.jsonl"),
        ("doctor --tokenizer tiny", "template"),
        ("mask --messages no-such-file.json", "no such file"),
        ("mask --messages CHAT --row 2", "one conversation"),
        ("mask --messages CHAT --template no-such", "no-such"),
        ("mask --messages CHAT --turns first", "--turns first"),
        ("mask --messages CHAT --start middle", "middle"),
        ("mask --messages CHAT --tokenizer no-such-folder", "no-such-folder"),
    ],
)
def test_a_mistake_says_what_to_give(arguments, said, chat):
    code, out, mistake = call(*(chat if part == "CHAT" else part for part in arguments.split()))
    assert code == 1  # `sftlab` itself prints the line and ends with 2
    assert out == ""
    assert said in mistake
