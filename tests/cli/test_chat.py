"""Talking to a model, with stand-ins for the models."""

import pytest

from sftlab.cli.chat import open_model, talk


def user(text):
    return [{"role": "user", "content": text}]


def test_the_whole_conversation_reaches_the_model_until_the_end(capsys):
    heard = []

    def reply(turns):
        heard.append([turn["content"] for turn in turns])
        if turns[-1]["content"] == "too long":
            raise ValueError("leave out the earliest turns")
        return f"answer {len(turns)}"

    lines = ["one\n", "\n", "too long\n", "two\n", "/reset\n", "three\n", "/quit\n", "unread\n"]
    talk(reply, lines=lines)
    first = ["one", "answer 1"]
    assert heard == [["one"], [*first, "too long"], [*first, "two"], ["three"]]
    out, err = capsys.readouterr()
    assert out.splitlines() == ["answer 1", "answer 3", "answer 1"]
    assert err == "leave out the earliest turns (or /reset)\n"


def test_base_model_says_what_it_is_and_continues_the_same_text_greedily(toy_base):
    greeting, reply = open_model(str(toy_base), max_new_tokens=4)
    assert "base model" in greeting
    first, again = (reply(user(f"The capital of France is{end}")) for end in (" ", ""))
    assert first == again
    assert first.startswith("The capital of France is")
    with pytest.raises(ValueError, match="takes no --system"):
        open_model(str(toy_base), system="Be brief.")


def test_saved_run_is_known_by_its_record_and_hears_the_system_message(tmp_path, monkeypatch):
    import sftlab.train

    class Saved:
        def chat(self, messages, **options):
            return f"{[m['content'] for m in messages]} {options['sample']}"

    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(sftlab.train, "load_run", lambda folder: Saved(), raising=False)
    _, reply = open_model(str(tmp_path), system="Be brief.", sample=True)
    assert reply(user("hello")) == "['Be brief.', 'hello'] True"
