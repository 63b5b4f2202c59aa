"""Fine-tuning on a random two-layer model: what is supervised, what is refused, what is kept."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from toy_run import EXAMPLES, equal, stop_at, talk, train, weights
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from sftlab.chat import CHATML, FAMILIES, IGNORED, control_tokens, setup_chat_template
from sftlab.models import load
from sftlab.train import ExampleError, RunError, Settings, SettingsError, load_run, untrained
from sftlab.train import finetuning as module
from sftlab.train.examples import supervise
from sftlab.train.trainer import SupervisedTrainer
from sftlab.world import country_examples

ROOT = Path(__file__).resolve().parents[2]
LEARN = {"num_train_epochs": 8, "learning_rate": 1e-2}


def make_base(folder, *, reserved=True, tied=True, kind="llama", bos=False):
    """A random model and a byte-level BPE; without `reserved` it knows no chat token."""
    end = "<|endoftext|>"
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    how = {"special_tokens": [end] + ["<|pad|>", "<|im_start|>", "<|im_end|>"] * reserved}
    how |= {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    words = ["What is the capital? Paris user assistant system"] * 3
    bpe.train_from_iterator(words, trainers.BpeTrainer(vocab_size=320, **how))
    if bos:
        bpe.post_processor = TemplateProcessing(single=f"{end} $A", special_tokens=[(end, 0)])
    pad = {"pad_token": "<|pad|>"} if reserved else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=end, eos_token=end, **pad)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    config = LlamaConfig if kind == "llama" else Qwen3Config
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config(tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0, **sizes)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base):
    return train(base, **LEARN)


def test_labels_that_reach_the_model(base, monkeypatch):
    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append({name: inputs[name].clone() for name in ("input_ids", "labels")})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    made = train(base)
    answer = [*made.tokenizer("Paris")["input_ids"], 3]
    assert len(seen) == 3
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            assert labels[labels != -100].tolist() == answer
            assert torch.equal(ids[labels != -100], labels[labels != -100])
    assert made.tokens["supervised"] == len(EXAMPLES) * len(answer)


def test_run_learns_stops_and_says_where_it_came_from(run):
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2
    assert [row["step"] for row in run.history] == list(range(1, 25))
    assert not run.model.training
    assert (run.tokenizer.eos_token, run.tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert run.model.generation_config.eos_token_id == [3, 0]
    assert run.chat("What is 7?") == "Paris"
    assert run.seconds > 0
    assert (run.tokens["examples"], run.tokens["cut"]) == (24, 0)
    assert (run.settings.learning_rate, run.settings.max_length) == (1e-2, 128)
    assert len(run.provenance["data"]) == len(run.provenance["base_weights"]) == 64
    assert run.provenance["added_tokens"] == []
    twin = copy.deepcopy(run.model)  # which computes with its own weights
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(torch.tensor([[5, 6]])).logits.abs().max() == 0


def test_the_callers_random_generators_are_left_as_they_were_and_a_dataset_is_a_list(base):
    random.seed(5), torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    one = train(base)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(6)
    rows = Dataset.from_list([{**example, "source": "x"} for example in EXAMPLES])
    assert equal(one, train(base, rows))


def test_answers_come_in_batches_and_sampling_has_a_seed(run):
    questions = ["What is 3?", "What is the capital of 30 user assistants?", "is?"]
    assert run.answer(questions) == [run.chat(q, max_new_tokens=24) for q in questions]
    assert run.answer([]) == []
    how = {"sample": True, "temperature": 9.0}
    first = run.chat("a", seed=1, **how)
    assert first == run.chat("a", seed=1, **how) != run.chat("a", seed=2, **how)
    talk = [*EXAMPLES[0]["messages"], {"role": "user", "content": "And?"}]
    assert isinstance(run.chat(talk, max_new_tokens=3), str)
    with pytest.raises(ExampleError, match="the user's turn"):
        run.chat(EXAMPLES[0]["messages"])
    with pytest.raises(ExampleError, match="the model reads 128"):
        run.chat("long " * 200)


def test_saved_run_is_a_plain_model(run, tmp_path):
    folder = run.save(tmp_path / "run")
    assert not list(folder.glob("*.bin"))
    opened = load_run(folder)
    assert (opened.settings, opened.history) == (run.settings, run.history)
    assert opened.provenance == run.provenance
    assert opened.tokenizer.chat_template == CHATML
    assert opened.model.generation_config.eos_token_id == [3, 0]
    with pytest.raises(RunError, match="not empty"):
        run.save(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = weights(run.model)
    assert all(torch.equal(before[name], one) for name, one in weights(plain).items())


def test_a_run_reads_its_meter_once_and_keeps_it(run, base, monkeypatch, tmp_path):
    taken, folder = run.meter(), tmp_path / "run"
    monkeypatch.setattr("sftlab.train.run.read_meter", lambda *a, **k: pytest.fail("read twice"))
    pd.testing.assert_frame_equal(run.meter(), taken)
    pd.testing.assert_frame_equal(load_run(run.save(folder)).meter(), taken)
    monkeypatch.undo()
    moved = taken["nats"] - untrained(base).meter()["nats"]
    assert moved.abs().max() > 0.1
    taken["nats"] = 0.0
    assert (run.meter()["nats"] > 0).all(), "a caller's change is not the run's"
    untrained(base).save(tmp_path / "untrained")
    assert not (tmp_path / "untrained" / "meter.parquet").exists()


def test_adapters_for_another_base_are_refused(base, tmp_path):
    moved = make_base(tmp_path / "base")
    folder = train(moved, method="lora").save(tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        model.lm_head.weight += 1
    model.save_pretrained(moved)
    with pytest.raises(RunError, match="another version"):
        load_run(folder)


def test_run_on_a_relative_folder_opens_from_another(tmp_path, monkeypatch):
    make_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    made = {m: train("base", method=m) for m in ("full", "lora")}
    saved = {method: run.save(tmp_path / method) for method, run in made.items()}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for method, run in made.items():
        assert load_run(saved[method]).answer(["What is 3?"]) == run.answer(["What is 3?"])
        assert run.provenance["profile"]["name"] == "base"

    def naming(folder):
        return [f.name for f in folder.iterdir() if str(tmp_path).encode() in f.read_bytes()]

    # Only adapters on a local folder need this machine's path.
    assert naming(saved["full"]) == []
    assert naming(saved["lora"]) == ["run.json"]
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"no longer in .*base"):
        load_run(saved["lora"])


def test_provenance_is_known_before_training(base, monkeypatch):
    def gone(folder):
        raise ValueError("the weights are gone")

    monkeypatch.setattr(module, "weights_hash", gone)
    monkeypatch.setattr(SupervisedTrainer, "train", lambda self: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match="the weights are gone"):
        train(base)


def test_base_that_pads_with_its_end_learns_to_stop_and_one_with_bos_gets_exactly_one(tmp_path):
    made = train(make_base(tmp_path / "bare", reserved=False), **LEARN)
    assert made.tokenizer.pad_token == "<|endoftext|>"
    assert made.chat("What is 7?") == "Paris"
    made = train(make_base(tmp_path / "bos", bos=True))
    ids = made.tokenizer.apply_chat_template(EXAMPLES[0]["messages"])["input_ids"]
    assert ids[:2] == [0, 2]
    assert ids.count(0) == 1


@pytest.mark.parametrize(
    ("method", "tied", "kind"),
    [("full", True, "qwen3"), ("full", False, "llama"), ("lora", True, "llama"),
     ("lora", False, "qwen3")],
)  # fmt: skip
def test_base_without_chat_tokens_gets_them(tmp_path, method, tied, kind):
    bare = make_base(tmp_path / "base", reserved=False, tied=tied, kind=kind)
    made = train(bare, method=method)
    assert made.provenance["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
    ids = made.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    embeddings = made.model.get_input_embeddings().weight
    assert embeddings.shape[0] == len(made.tokenizer) == ids[1] + 1
    assert not torch.equal(embeddings[ids[0]], embeddings[ids[1]])  # both were the mean
    assert made.tokenizer.pad_token == "<|endoftext|>"
    folder = made.save(tmp_path / "run")
    assert load_run(folder).answer(["What is 3?"]) == made.answer(["What is 3?"])


def wrong(messages):
    return [*EXAMPLES[:2], {"messages": messages}]


USER, ASSISTANT = EXAMPLES[0]["messages"]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples"),
        ("text", "examples is a str"),
        ([*EXAMPLES[:1], {"text": "a"}], r"example 1: the row has no known shape"),
        (wrong([]), "example 2, messages: the list of messages is empty"),
        (wrong([USER]), "example 2, .*there is no message of the assistant"),
        (wrong([USER, USER, ASSISTANT]), r"messages\[1\].role: two user messages follow"),
        (wrong([ASSISTANT]), r"messages\[0\].role: .* begins with the role assistant"),
        (wrong([USER, ASSISTANT | {"role": "bard"}]), r"\[1\].role: the role is unknown \('bard"),
        (wrong([USER, ASSISTANT | {"content": " "}]), r"\[1\].content: the content is empty"),
        (wrong([USER, ASSISTANT | {"content": 4}]), r"content: .* must be a string \(got int: 4"),
        (wrong([USER, ASSISTANT | {"train": False}]), "every answer has train: false"),
        (wrong([USER, ASSISTANT, USER | {"role": "system"}]), "comes after the first message"),
        (wrong([USER, ASSISTANT | {"content": "a<|im_end|>"}]), "would end its own turn"),
    ],
)
def test_mistakes_in_examples_are_named(base, examples, said):
    with pytest.raises(ExampleError, match=said):
        train(base, examples)


def test_example_whose_answer_is_cut_off(base):
    long = {"messages": [{"role": "user", "content": "x " * 60}, ASSISTANT]}
    with pytest.raises(ExampleError, match=r"example 1 has .* max_length is 40.*1 of 2"):
        train(base, [EXAMPLES[0], long], max_length=40)
    half = {"messages": [USER, {"role": "assistant", "content": "x " * 60}]}
    with pytest.warns(UserWarning, match=r"1 of 2 examples .*first is example 1"):
        made = train(base, [EXAMPLES[0], half], max_length=40)
    assert made.tokens["cut"] == 1
    assert made.tokens["longest"] == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lr": 1}, "no setting 'lr'; the settings are learning_rate, num_train_epochs"),
        ({"num_train_epochs": 0}, "epochs is 0"),
        ({"per_device_train_batch_size": 2.5}, "whole number"),
        ({"learning_rate": "1e-3"}, "give a number"),
        ({"method": "magic"}, "one of full, lora, qlora"),
        ({"warmup_steps": -1}, "zero or more"),
        ({"dropout": 1}, "dropout is 1; give a number from 0 to below 1"),
        ({"gradient_checkpointing": 1}, "checkpointing is 1; give True or False"),
        ({"train_sampling_strategy": "sorted"}, "one of group_by_length, random, sequential"),
        ({"early_stopping_patience": 0}, "above zero"),
        ({"init_lora_weights": "olora"}, 'True or "pissa"'),
        ({"target_modules": []}, '"all-linear", a list'),
        ({"target_modules": [1]}, '"all-linear", a list'),
        ({"adapter_dtype": "float16"}, "float32, bfloat16"),
        ({"seed": True}, "zero or more"),
        ({"template": 3}, "a name, a path or Jinja text"),
        ({"template": "chatmll"}, "no chat template 'chatmll'.*chatml"),
    ],
)
def test_mistakes_in_settings_are_named(base, change, said):
    with pytest.raises(SettingsError, match=said):
        train(base, **change)


def test_bar_shows_steps_and_loss_and_is_closed_by_an_interrupt(base, monkeypatch, capsys):
    train(base, progress=True)
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "loss=" in shown.err
    assert shown.out == ""
    stop_at(monkeypatch, 0, KeyboardInterrupt)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(base, progress=True)
    assert torch.equal(state, torch.get_rng_state())
    assert capsys.readouterr().err.count("\n") == 1  # the bar's line is ended


COUNTRIES = country_examples(16, seed=0)
TURNS = {
    "messages": [
        *talk("What is the capital of France?", "Paris")["messages"],
        *talk("And its currency?", "euro")["messages"],
    ]
}


PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
"""A template that ends no turn."""
HALF = [m | {"train": False} if m["content"] == "Paris" else m for m in TURNS["messages"]]


@pytest.mark.parametrize(
    ("template", "messages", "how", "said"),
    [
        *((family, TURNS["messages"], {}, "Paris{end}euro{end}") for family in FAMILIES),
        ("chatml", TURNS["messages"], {"supervised": "last"}, "euro{end}"),
        ("chatml", TURNS["messages"], {"end_of_turn": False}, "Pariseuro"),
        ("chatml", HALF, {}, "euro{end}"),
        (PLAIN, TURNS["messages"], {}, "Pariseuro{end}"),
        ("chatml", TURNS["messages"], {"supervised": "everything"}, None),
    ],
)
def test_what_is_learned(template, messages, how, said):
    model, tokenizer = load("tiny")
    setup_chat_template(model, tokenizer, template=template)
    settings = Settings(template=template, max_length=512, **how)
    (row,), counted = supervise([{"messages": messages}], tokenizer, settings)
    pairs = list(zip(row["input_ids"], row["labels"], strict=True))
    kept = [i for i, label in pairs if label != IGNORED]
    assert counted["supervised"] == len(kept)
    assert all(label in (i, IGNORED) for i, label in pairs)
    if said is None:
        assert kept == row["input_ids"]
    else:
        learned = tokenizer.decode(kept).replace(" ", "")
        assert learned == said.format(end=tokenizer.eos_token)
    for token in control_tokens(template):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.parametrize("trained", [True, False])
def test_frozen_rows_stay_and_others_move(trained):
    base, tokenizer = load("tiny")
    ids = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    before = base.get_input_embeddings().weight.detach().clone()
    made = train("tiny", COUNTRIES, train_control_tokens=trained, weight_decay=0.1)
    after = made.model.get_input_embeddings().weight
    assert torch.equal(before[ids], after[ids]) == (not trained)
    paris = tokenizer(" Paris")["input_ids"][0]
    assert not torch.equal(before[paris], after[paris])


def test_run_in_another_family_is_asked_saved_and_opened_in_it(tmp_path):
    made = train("tiny", COUNTRIES, template="mistral")
    asked = made.tokenizer.apply_chat_template(
        TURNS["messages"][:1], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<|endoftext|>[INST] What is the capital of France?[/INST]"
    opened = load_run(made.save(tmp_path / "run"))
    question = ["What is the capital of France?"]
    assert opened.answer(question) == made.answer(question)
    assert opened.settings.template == "mistral"


@pytest.mark.parametrize("family", ["chatml", "mistral", "article"])
def test_content_that_would_end_its_own_turn_is_refused(family):
    end = "<|endoftext|>"  # of the base: in two of these families it ends a turn, in all a text
    bad = {"messages": [{"role": "user", "content": f"a{end}b"}, TURNS["messages"][1]]}
    with pytest.raises(ExampleError, match=r"example 1, messages\[0\].content: .*endoftext"):
        train("tiny", [TURNS, bad], template=family)
    with pytest.raises(ExampleError, match=r"example 0, messages\[0\].content: .*endoftext"):
        train("tiny", [TURNS], eval_dataset=[bad], template=family)


def test_template_of_a_file_travels_as_its_text(tmp_path):
    file = tmp_path / "chat_template.jinja"
    file.write_text(FAMILIES["article"].text, encoding="utf-8")
    made = train("tiny", COUNTRIES, template=str(tmp_path))  # the folder with that file
    assert made.settings.template == FAMILIES["article"].text
    file.unlink()
    assert load_run(made.save(tmp_path / "run")).settings == made.settings


def test_examples_that_a_template_refuses_are_named():
    system = {"messages": [{"role": "system", "content": "Be brief."}, *TURNS["messages"]]}
    with pytest.raises(ExampleError, match=r"example 1: .*Gemma has no system role"):
        train("tiny", [TURNS, system], template="gemma")


def test_nothing_is_printed_warned_or_sent(base, tmp_path):
    script = f"""
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
from sftlab.train import finetune, load_run
examples = [{{"messages": [{{"role": "user", "content": "a"}},
                          {{"role": "assistant", "content": "b"}}]}}] * 8
from sftlab.models import METHODS
for method in METHODS:
    run = finetune({base!r}, examples, method=method, num_train_epochs=1, progress=False)
    run.answer(["a"]), run.chat("a", sample=True)
    load_run(run.save({str(tmp_path)!r} + "/" + method)).answer(["a"])
import threading
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
