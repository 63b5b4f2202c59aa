"""`sftlab mask`, as somebody types it: what it prints, in JSON too, and its mistakes."""

import json

import pytest
import typer
from typer.testing import CliRunner

from sftlab.chat import assistant_spans, find_template
from sftlab.cli.data import mask

APP = typer.Typer()
APP.command()(mask)
CHAT = [
    {"role": "user", "content": "Hi [you]"},
    {"role": "assistant", "content": "Ho."},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Yes.\nNo."},
]


def call(*arguments):
    """Exit code, what was printed, and the mistake that `sftlab` would print as one line."""
    done = CliRunner().invoke(APP, list(map(str, arguments)))
    mistake = done.exception if isinstance(done.exception, ValueError) else None
    if done.exception and not mistake and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, str(mistake or "")


@pytest.fixture
def chat(tmp_path):
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(CHAT), encoding="utf-8")
    return file


def told(out):
    """Role and text of each line of the picture."""
    body = out.split("\n\n", 1)[1]
    return [tuple(line.rstrip().split(maxsplit=1)) for line in body.splitlines() if line.strip()]


def test_brackets_hold_what_is_learned(chat):
    code, out, _ = call("--template", "chatml", "--messages", chat)
    assert code == 0
    assert "tokens are supervised" in out
    rows = told(out)
    assert ("user", "Hi·[you]") in rows
    assert ("assistant", "[Ho.<|im_end|>]") in rows
    assert ("assistant", "[Yes.⏎") in rows
    assert ("No.<|im_end|>]",) in rows


def test_json_has_stable_keys_and_the_same_mask(chat):
    code, out, _ = call("--template", "llama-3", "--messages", chat, "--json")
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
    assert all(
        token["label"] == (token["id"] if token["supervised"] else -100)
        for token in found["tokens"]
    )
    spans = assistant_spans(find_template("llama-3", bos_token="<|endoftext|>"), CHAT).spans
    assert found["spans"] == [{"start": s.start, "end": s.end, "message": s.message} for s in spans]


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        (["--turns", "last"], "Yes.\nNo.<|im_end|>"),
        (["--no-end-of-turn"], "Ho.Yes.\nNo."),
        (["--max-length", "17"], None),
    ],
)
def test_options_reach_the_mask(chat, options, learned):
    _, out, _ = call("--template", "chatml", "--messages", chat, "--json", *options)
    found = json.loads(out)
    if learned is None:
        assert found["total"] == 17
        assert any("cut to 17" in warning for warning in found["warnings"])
        return
    assert "".join(t["text"] for t in found["tokens"] if t["supervised"]) == learned


def test_everything_is_learned_when_asked(chat):
    _, out, _ = call("--template", "chatml", "--messages", chat, "--json", "--turns", "everything")
    found = json.loads(out)
    assert found["supervised"] == found["total"]


def test_a_row_of_a_file_is_picked_and_converted(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": CHAT}, {"prompt": "2 + 2?", "completion": "4"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ["--template", "chatml", "--messages", file, "--json"]
    assert "Hi [you]" in json.loads(call(*options)[1])["text"]
    assert "2 + 2?" in json.loads(call(*options, "--row", "2")[1])["text"]
    code, _, mistake = call(*options, "--row", "3")
    assert (code, "2 rows" in mistake) == (1, True)


def test_a_template_file_and_warnings_that_are_told(tmp_path, chat):
    file = tmp_path / "endless.jinja"
    file.write_text(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}",
        encoding="utf-8",
    )
    code, out, _ = call("--template", file, "--messages", chat)
    assert code == 0
    assert "! nothing ends the turn" in " ".join(out.split())
    assert "endless.jinja" in out


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (None, [], "no such file"),
        ("{", [], "complete it"),
        ('{"foo": 1}', [], "messages"),
        (json.dumps(CHAT), ["--row", "2"], "one conversation"),
        (json.dumps(CHAT), ["--template", "no-such"], "no-such"),
        (json.dumps(CHAT), ["--turns", "first"], "--turns first"),
        (json.dumps(CHAT), ["--start", "middle"], "middle"),
        (json.dumps(CHAT), ["--tokenizer", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_says_what_to_give(tmp_path, content, options, said):
    file = tmp_path / "chat.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    code, out, mistake = call("--messages", file, *options)
    assert code == 1  # `sftlab` itself prints the line and ends with 2
    assert out == ""
    assert said in mistake
