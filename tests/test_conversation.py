"""Talking to a model, with stand-ins for the models."""

import io

import pytest

from sftlab.cli import conversation


def test_run_hears_the_whole_conversation(capsys):
    heard = []

    def chat(messages, seed):
        heard.append([m["content"] for m in messages])
        return f"answer {seed}"

    speaker = conversation.RunSpeaker("x", chat, system="Be brief.")
    conversation.talk(speaker, lines=["one\n", "\n", "two\n", "/reset\n", "three\n"])
    assert heard == [
        ["Be brief.", "one"],
        ["Be brief.", "one", "answer 1", "two"],
        ["Be brief.", "three"],
    ]
    assert capsys.readouterr().out.splitlines() == [
        "answer 1", "answer 3", "(a new conversation)", "answer 1",
    ]  # fmt: skip


def test_base_continues_and_says_what_it_is(capsys):
    speaker = conversation.BaseSpeaker("tiny", lambda text, turn: " Paris.")
    conversation.talk(speaker, lines=["The capital is  \n", "/quit\n", "unread\n"])
    out, err = capsys.readouterr()
    assert out == "The capital is Paris.\n"
    assert "base model" in err


def test_turn_that_fails_is_explained_and_dropped(capsys):
    def chat(messages, seed):
        if messages[-1]["content"] == "too long":
            raise ValueError("leave out the earliest turns")
        return str(len(messages))

    speaker = conversation.RunSpeaker("x", chat, system=None)
    conversation.talk(speaker, lines=io.StringIO("a\ntoo long\nb\n"))
    out, err = capsys.readouterr()
    assert out.splitlines() == ["1", "3"]
    assert "leave out the earliest turns (or /reset)" in err


def test_base_model_continues_the_same_text_greedily(toy_base, capsys):
    speaker = conversation.open_model(str(toy_base), max_new_tokens=4)
    first, again = speaker.say("The capital of France is "), speaker.say("The capital of France is")
    assert first == again
    assert first.startswith("The capital of France is")


def test_base_model_takes_no_system_message(toy_base):
    with pytest.raises(ValueError, match="takes no --system"):
        conversation.open_model(str(toy_base), system="Be brief.")


def test_name_of_no_folder_here_may_be_a_run_or_a_model_of_the_hub(tmp_path, monkeypatch):
    import sftlab.models

    def load(profile):
        raise sftlab.models.ModelNotAvailableError("the hub has no such model")

    monkeypatch.setattr(sftlab.models, "load", load)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no folder runs/mine .*saved run.*the hub has no such"):
        conversation.open_model("runs/mine")
    with pytest.raises(ValueError, match=r"^the hub has no such"):
        conversation.open_model("smollm2-135m")
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="no such folder"):
        conversation.open_model("runs/mine")


def test_saved_run_is_known_by_its_record(tmp_path, monkeypatch):
    import sftlab.train.saved_run

    class Saved:
        def chat(self, messages, **options):
            return f"{messages[-1]['content']} {options['sample']}"

    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(sftlab.train.saved_run, "load_run", lambda folder: Saved())
    assert conversation.open_model(str(tmp_path), sample=True).say("hello") == "hello True"
