"""Talking to a model, with stand-ins for the models."""

import json
from types import SimpleNamespace

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


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """The folder of a stand-in for a saved run, which says what it hears."""
    import sftlab.train

    class Saved:
        prompt = ""
        tokenizer = SimpleNamespace(
            chat_template="reasoning_content", decode=lambda ids: Saved.prompt
        )

        def prompt_ids(self, messages, tools=None):
            return []

        def chat(self, messages, *, tools=None, **options):
            heard = [m["content"] + m.get("reasoning_content", "") for m in messages]
            return f"{heard} {tools} {options.get('sample')}"

    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(sftlab.train, "load_run", lambda folder, verify: Saved(), raising=False)
    return Saved, str(tmp_path)


def test_saved_run_hears_system_message_and_tools_and_thinking_apart(saved):
    _, reply = open_model(saved[1], system="Be brief.", tools=[1], sample=True)
    assert reply(user("hello")) == "['Be brief.', 'hello'] [1] True"
    past = {"role": "assistant", "content": "<think>\nso\n</think>\n\nHo"}
    turns = [*user("hello"), past, *user("<think>why?")]
    assert reply(turns).startswith("['Be brief.', 'hello', 'Hoso', '<think>why?']")
    saved[0].prompt = "<|im_start|>assistant\n<think>\n"
    assert reply(user("hello")).startswith("<think>\n['Be")
    saved[0].tokenizer.chat_template = "content"
    assert repr(past["content"]) in open_model(saved[1])[1](turns)


def test_thinking_is_folded_and_unfinished_thinking_is_no_answer(capsys):
    said = ["<think>\none two\n</think>\n\nHo", "<think>\nand then", "Hi"]
    heard = []

    def reply(turns):
        heard.append([turn["content"] for turn in turns])
        return said[len(heard) % 3 - 1]

    talk(reply, lines=["a", "b", "c"])
    assert capsys.readouterr().out.splitlines() == [
        "(thinking, 2 words; --thinking shows it)",
        "Ho",
        "(thinking, 2 words; not finished: --max-new-tokens gives more room; --thinking shows it)",
        "Hi",
    ]
    assert heard[-1] == ["a", said[0], "c"]
    talk(reply, lines=["a"], thinking=True)
    assert capsys.readouterr().out == said[0] + "\n"


def test_tools_come_from_a_file_and_are_for_saved_runs(call, saved, tmp_path, toy_base):
    file = tmp_path / "tools.json"
    for text, said in (("[", "tools.json is not JSON"), ("3", "tools must be a list")):
        file.write_text(text)
        code, _, err = call("chat", saved[1], "--tools", file)
        assert (code, said in err) == (2, True)
    file.write_text(json.dumps([{"type": "function", "function": {"name": "weather"}}]))
    code, _, err = call("chat", toy_base, "--tools", file)
    assert (code, "takes no --tools" in err) == (2, True)
