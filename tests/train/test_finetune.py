"""Fine-tuning on a random two-layer model: what is supervised, what is refused, what is kept."""

import copy
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from toy_run import EXAMPLES, TOOLS, equal, same, stop_at, talk, train
from transformers import AutoModelForCausalLM

from sftlab.chat import CHATML, FAMILIES, IGNORED, setup_chat_template
from sftlab.models import load
from sftlab.profiles import ModelNotAvailableError
from sftlab.train import (
    ExampleError,
    RunError,
    Settings,
    SettingsError,
    data_hash,
    load_run,
    untrained,
)
from sftlab.train.examples import supervise

ROOT = Path(__file__).resolve().parents[2]
LEARN = {"num_train_epochs": 8, "learning_rate": 1e-2}
TURNS = [
    *talk("What is the capital of France?", "Paris")["messages"],
    *talk("And its currency?", "euro")["messages"],
]
USER, ASSISTANT = TURNS[:2]


@pytest.fixture(scope="module")
def run(toy_base):
    return train(toy_base, **LEARN)


def test_run_learns_stops_and_says_where_it_came_from(run):
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2
    assert [row["step"] for row in run.history] == list(range(1, 25))
    assert not run.model.training
    assert (run.tokenizer.eos_token, run.tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert run.chat("What is 7?") == "Paris"
    assert run.seconds > 0
    assert run.tokens["total"] > run.tokens["supervised"] >= 2 * 24
    assert (run.settings.learning_rate, run.settings.max_length) == (1e-2, 512)
    assert len(run.provenance["data"]) == len(run.provenance["base_weights"]) == 64
    assert run.provenance["added_tokens"] == []
    twin = copy.deepcopy(run.model)  # which computes with its own weights
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(torch.tensor([[5, 6]])).logits.abs().max() == 0


def test_the_callers_random_generators_are_left_as_they_were_and_a_dataset_is_a_list(toy_base):
    random.seed(5), torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    one = train(toy_base)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(6)
    rows = Dataset.from_list([{**example, "source": "x"} for example in EXAMPLES])
    assert equal(one, train(toy_base, rows))


def test_max_steps_decides_and_not_the_epochs(toy_base):
    assert train(toy_base, max_steps=5).history[-1]["step"] == 5
    assert train(toy_base, num_train_epochs=9, max_steps=2).history[-1]["step"] == 2


def test_answers_come_in_batches_and_sampling_has_a_seed(run):
    questions = ["What is 3?", "What is the capital of 30 user assistants?", "is?"]
    assert run.answer(questions) == [run.chat(q, max_new_tokens=24) for q in questions]
    assert run.answer([]) == []
    how = {"sample": True, "temperature": 9.0}
    first = run.chat("a", seed=1, **how)
    assert first == run.chat("a", seed=1, **how) != run.chat("a", seed=2, **how)
    assert isinstance(run.chat(TURNS[:3], max_new_tokens=3), str)
    with pytest.raises(ExampleError, match="the model reads 512"):
        run.chat("long " * 600)


def test_saved_run_is_a_plain_model(run, tmp_path):
    folder = run.save(tmp_path / "run")
    assert not list(folder.glob("*.bin"))
    opened = load_run(folder)
    assert (opened.settings, opened.history) == (run.settings, run.history)
    assert opened.provenance == run.provenance
    assert opened.tokenizer.chat_template == CHATML
    ends = run.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert opened.model.generation_config.eos_token_id == ends
    for there in folder, folder / "run.json":
        with pytest.raises(RunError, match="not empty"):
            run.save(there)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert same(run.model.state_dict(), plain.state_dict())


def test_a_run_reads_its_meter_once_and_keeps_it(run, toy_base, monkeypatch, tmp_path):
    taken = run.meter()
    assert (taken["nats"] - untrained(toy_base).meter()["nats"]).abs().max() > 0.1
    monkeypatch.setattr("sftlab.train.run.read_meter", lambda *a, **k: pytest.fail("read twice"))
    pd.testing.assert_frame_equal(run.meter(), taken)
    pd.testing.assert_frame_equal(load_run(run.save(tmp_path / "run")).meter(), taken)


def test_adapters_open_from_another_folder_and_not_on_another_base(toy_base, tmp_path, monkeypatch):
    shutil.copytree(toy_base, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    run = train("base", method="lora")
    saved = run.save(tmp_path / "lora")
    full = train("base").save(tmp_path / "full")

    def naming(folder):
        return [f.name for f in folder.iterdir() if str(tmp_path).encode() in f.read_bytes()]

    # Only adapters on a local folder need this machine's path.
    assert (naming(full), naming(saved)) == ([], ["run.json"])
    monkeypatch.chdir(saved)
    assert load_run(saved).answer(["What is 3?"]) == run.answer(["What is 3?"])
    model, _ = load(str(tmp_path / "base"))
    with torch.no_grad():
        model.lm_head.weight += 1
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelNotAvailableError, match="another version"):
        load_run(saved)
    with pytest.raises(RunError, match="give the folder that Run"):
        load_run(tmp_path)


def wrong(*messages):
    return [*EXAMPLES[:2], {"messages": list(messages)}]


THOUGHT = ASSISTANT | {"reasoning_content": "so"}
SYSTEM = {"role": "system", "content": "Be brief."}
ENDED = {"role": "user", "content": "a<|endoftext|>b"}


@pytest.mark.parametrize(
    ("examples", "template", "said"),
    [
        ([], "chatml", "no examples"),
        ("text", "chatml", "examples is a str"),
        (wrong(), "chatml", "example 2, messages: the list of messages is empty"),
        (wrong(USER, ASSISTANT | {"content": 4}), "chatml", r"must be a string \(4\)"),
        (wrong(USER, ASSISTANT | {"train": False}), "chatml", "every answer has train: false"),
        # The end is the base's: in the second family it ends a turn, in both a text.
        (wrong(ENDED, ASSISTANT), "chatml", r"example 2, messages\[0\].content: .*endoftext"),
        (wrong(ENDED, ASSISTANT), "mistral", r"example 2, messages\[0\].content: .*endoftext"),
        (wrong(USER, ASSISTANT | {"content": "a<|eot_id|>b"}), "qwen3", "content: .*eot_id"),
        (wrong(USER, THOUGHT), "chatml", "of message 1: .so.*--template qwen3.*of a content$"),
        (wrong(USER, THOUGHT, USER, ASSISTANT), "chatml", "of message 1: .so.*--turns last"),
        (wrong(SYSTEM, *TURNS), "gemma", "example 2: .*Gemma has no system role"),
    ],
)
def test_mistakes_in_examples_are_named(toy_base, examples, template, said):
    with pytest.raises(ExampleError, match=said):
        train(toy_base, examples, template=template)


def test_example_whose_answer_is_cut_off(toy_base):
    with pytest.raises(ExampleError, match=r"example 1 has .* max_length is 40.*1 of 2"):
        train(toy_base, [EXAMPLES[0], talk("x " * 60, "Paris")], max_length=40)
    with pytest.warns(UserWarning, match=r"1 of 2 examples .*first is example 1"):
        train(toy_base, [EXAMPLES[0], talk("What?", "x " * 60)], max_length=40)


def test_a_text_that_is_not_learned_is_counted_and_tools_make_other_data(toy_base):
    rows = [talk("What?", "Rome"), {**talk("What?", "Oslo"), "tools": TOOLS, "meta": {"a": 1}}]
    with pytest.warns(UserWarning, match=r"a text of 1 of 2.*example 1: tool: .weather"):
        run = train(toy_base, rows)
    assert run.provenance["data"] == data_hash([rows[0], {**rows[1], "meta": {}}])
    assert run.provenance["data"] != data_hash([talk("What?", "Rome"), talk("What?", "Oslo")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 1}, "no setting 'lr'; the settings are learning_rate, num_train_epochs"),
        ({"method": "magic"}, "method is 'magic': .*'full', 'lora', 'qlora'"),
        ({"dropout": 1}, "dropout is 1: .*less than 1"),
        ({"gradient_checkpointing": 1}, "checkpointing is 1: .*boolean"),
        ({"target_modules": [1]}, "target_modules is .1,.: .*string"),
        ({"template": "chatmll"}, "no chat template 'chatmll'.*chatml"),
    ],
)
def test_mistakes_in_settings_are_named(toy_base, change, said):
    with pytest.raises(SettingsError, match=said):
        train(toy_base, **change)


PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
"""A template that ends no turn."""
HALF = [m | {"train": False} if m["content"] == "Paris" else m for m in TURNS]


@pytest.mark.parametrize(
    ("template", "messages", "how", "said"),
    [
        *((family, TURNS, {}, "Paris{end}euro{end}") for family in FAMILIES),
        ("chatml", TURNS, {"turns": "last"}, "euro{end}"),
        ("chatml", TURNS, {"end_of_turn": False}, "Pariseuro"),
        ("chatml", HALF, {}, "euro{end}"),
        (PLAIN, TURNS, {}, "Pariseuro{end}"),
        ("chatml", TURNS, {"turns": "everything"}, None),
    ],
)
def test_what_is_learned(toy_base, template, messages, how, said):
    model, tokenizer = load(str(toy_base))
    setup_chat_template(model, tokenizer, template=template)
    settings = Settings(template=template, max_length=512, **how)
    (row,) = supervise([{"messages": messages}], tokenizer, settings)
    pairs = list(zip(row["input_ids"], row["labels"], strict=True))
    kept = [i for i, label in pairs if label != IGNORED]
    assert all(label in (i, IGNORED) for i, label in pairs)
    if said is None:
        assert kept == row["input_ids"]
    else:
        learned = tokenizer.decode(kept).replace(" ", "")
        assert learned == said.format(end=tokenizer.eos_token)


@pytest.mark.parametrize("trained", [True, False])
def test_frozen_rows_stay_and_others_move(toy_base, trained):
    base, tokenizer = load(str(toy_base))
    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    before = base.get_input_embeddings().weight
    made = train(toy_base, train_control_tokens=trained)
    after = made.model.get_input_embeddings().weight
    assert torch.equal(before[ids], after[ids]) == (not trained)
    paris = tokenizer("Paris")["input_ids"][0]
    assert not torch.equal(before[paris], after[paris])


@pytest.mark.parametrize("named", [True, False])
def test_run_in_another_family_is_asked_saved_and_opened_in_it(toy_base, tmp_path, named):
    text = FAMILIES["mistral"].text
    file = tmp_path / "chat_template.jinja"
    file.write_text(text, encoding="utf-8")
    made = train(toy_base, template="mistral" if named else str(tmp_path))
    assert made.settings.template == ("mistral" if named else text), "the file's text, not its path"
    file.unlink()
    form = {"tokenize": False, "add_generation_prompt": True}
    asked = made.tokenizer.apply_chat_template([USER], **form)
    assert asked == "<|endoftext|>[INST] What is the capital of France?[/INST]"
    opened = load_run(made.save(tmp_path / "run"))
    assert opened.chat(USER["content"]) == made.chat(USER["content"])
    assert opened.settings == made.settings


def test_bar_shows_steps_and_loss_and_is_closed_by_an_interrupt(toy_base, capsys, monkeypatch):
    train(toy_base, progress=True)
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "loss=" in shown.err
    assert shown.out == ""
    stop_at(monkeypatch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(toy_base, progress=True)
    assert capsys.readouterr().err.count("\n") == 1  # the bar's line is ended


def test_nothing_is_printed_warned_or_sent(toy_base, tmp_path):
    script = f"""
import socket, sys, threading
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from sftlab.profiles import METHODS
from sftlab.train import finetune, load_run
how = {{"num_train_epochs": 1, "progress": False}}
for method in METHODS:
    run = finetune({str(toy_base)!r}, {EXAMPLES[:8]!r}, method=method, **how)
    run.answer(["a"]), run.chat("a", sample=True)
    load_run(run.save({str(tmp_path)!r} + "/" + method)).answer(["a"])
names = [thread.name for thread in threading.enumerate()]
assert not any("telemetry" in name for name in names), names
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0", "CI": ""},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
