"""`sftlab doctor`, as somebody types it: what it prints, in JSON too, and how it ends."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from sftlab.chat import FAMILIES
from sftlab.cli.data import doctor

APP = typer.Typer()
APP.command()(doctor)
ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


def call(*arguments):
    """Exit code, what was printed, and the mistake that `sftlab` would print as one line."""
    done = CliRunner().invoke(APP, list(map(str, arguments)))
    mistake = done.exception if isinstance(done.exception, ValueError) else None
    if done.exception and not mistake and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, str(mistake or "")


def test_a_sound_template_ends_well():
    code, out, _ = call("--template", "chatml")
    assert code == 0
    assert "template chatml: nothing wrong was found" in out
    assert re.search(r"ok +end-of-turn +An answer ends with '<\|im_end\|>'", out)


def test_an_error_ends_with_1_and_says_what_to_do(tmp_path):
    file = tmp_path / "plain.jinja"
    file.write_text(ENDLESS, encoding="utf-8")
    code, out, _ = call("--template", file)
    assert code == 1
    assert out.index("no-end-of-turn") < out.index("no-generation-prompt")
    assert "→ Write the tokenizer's eos after each answer" in " ".join(out.split())
    assert "plain.jinja: 1 error, 1 warning, 1 note" in out


def test_json_has_the_same_findings_under_stable_names(tmp_path):
    file = tmp_path / "plain.jinja"
    file.write_text(ENDLESS, encoding="utf-8")
    code, out, _ = call("--template", file, "--json")
    found = json.loads(out)
    assert code == 1
    assert set(found) == {"template", "end_of_turn", "rows", "findings", "ok"}
    assert found["ok"] is False
    assert found["end_of_turn"] is None
    assert [f["code"] for f in found["findings"] if f["level"] == "error"] == ["no-end-of-turn"]
    assert set(found["findings"][0]) == {"level", "code", "what", "remedy", "rows"}


def test_a_broken_template_is_located(tmp_path):
    file = tmp_path / "broken.jinja"
    file.write_text("{% for m in messages %}\n{{ m['content'] \n{% endfor %}", encoding="utf-8")
    code, out, _ = call("--template", file)
    assert code == 1
    assert re.search(r"line [23]", out)


def test_tokenizer_and_data_are_examined_too(tmp_path):
    file = tmp_path / "chat.jsonl"
    rows = [("2 + 2?", "4"), ("word " * 300, "yes")]
    file.write_text(
        "".join(
            json.dumps(
                {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
            )
            + "\n"
            for q, a in rows
        )
    )
    data = ["--template", "chatml", "--tokenizer", "tiny", "--data", file, "--json"]
    code, out, _ = call(*data)
    found = json.loads(out)
    assert code == 0
    assert found["rows"] == 2
    assert {"end-not-stop", "markers", "rows"} <= {f["code"] for f in found["findings"]}
    code, out, _ = call(*data, "--max-length", 100)
    (masked,) = (f for f in json.loads(out)["findings"] if f["code"] == "rows-masked")
    assert code == 1
    assert masked["rows"] == [2]


def test_without_a_template_the_tokenizer_s_own_is_examined(tmp_path, toy_tokenizer):
    toy_tokenizer.chat_template = FAMILIES["article"].text
    try:
        toy_tokenizer.save_pretrained(tmp_path)
    finally:
        toy_tokenizer.chat_template = None
    code, out, _ = call("--tokenizer", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["end_of_turn"]) == (0, "<|endoftext|>")
    assert [f["code"] for f in found["findings"] if f["level"] != "ok"] == ["system-refused"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--template"),
        (["--template", "no-such-template"], "no-such-template"),
        (["--template", "chatml", "--max-length", "10"], "--max-length"),
        (["--template", "chatml", "--tokenizer", "no-such-folder"], "no-such-folder"),
        (["--template", "chatml", "--data", "no-such-file.jsonl"], "no-such-file.jsonl"),
        (["--tokenizer", "tiny"], "template"),
    ],
)
def test_a_mistake_says_what_to_give(arguments, said):
    code, out, mistake = call(*arguments)
    assert code == 1  # `sftlab` itself prints the line and ends with 2
    assert out == ""
    assert said in mistake
