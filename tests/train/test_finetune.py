"""Fine-tuning on a random two-layer model: what is supervised, what is refused, what is kept."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sftlab.chat import CHATML
from sftlab.train.conversations import ExampleError
from sftlab.train.finetuning import finetune
from sftlab.train.run import RunError
from sftlab.train.saved_run import load_run
from sftlab.train.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": "Paris"},
        ]
    }
    for n in range(24)
]
QUICK = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "progress": False,
}
LEARN = {
    "num_train_epochs": 8,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "progress": False,
}


def make_base(folder, *, reserved=True, tied=True, kind="llama", bos=False):
    """A random model and a byte-level BPE; without `reserved` it knows no chat token."""
    special = ["<|endoftext|>"] + ["<|pad|>", "<|im_start|>", "<|im_end|>"] * reserved
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["What is the capital? Paris user assistant system"] * 3,
        trainers.BpeTrainer(
            vocab_size=320, special_tokens=special, show_progress=False, initial_alphabet=alphabet
        ),
    )
    if bos:
        from tokenizers.processors import TemplateProcessing

        bpe.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    pad = {"pad_token": "<|pad|>"} if reserved else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>", **pad
    )
    sizes = dict(
        hidden_size=64,
        num_hidden_layers=2,
        intermediate_size=128,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=32, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base):
    return finetune(base, EXAMPLES, **LEARN)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_answer_and_its_end_are_supervised_and_nothing_else(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = CHATML
    messages = [
        {"role": "system", "content": "Hi"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    out = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    start, end = 2, 3

    def ids(text):
        return tokenizer(text)["input_ids"]

    def turn(role, content):
        return [start, *ids(f"{role}\n"), *ids(content), end, *ids("\n")]

    expected = turn("system", "Hi") + turn("user", "a") + turn("assistant", "b")
    expected += turn("user", "c") + turn("assistant", "d")
    assert out["input_ids"] == expected
    supervised = [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert supervised == [*ids("b"), end, *ids("d"), end]


def test_template_without_system_and_with_generation_prompt(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}],
        chat_template=CHATML,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


def test_labels_that_reach_the_model(base, monkeypatch):
    from sftlab.train.step import SupervisedTrainer

    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append({name: inputs[name].clone() for name in ("input_ids", "labels")})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    made = finetune(base, EXAMPLES, **QUICK)
    answer = [*made.tokenizer("Paris")["input_ids"], 3]
    assert len(seen) == 3
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            assert labels[labels != -100].tolist() == answer
            assert torch.equal(ids[labels != -100], labels[labels != -100])
    assert made.tokens["supervised"] == len(EXAMPLES) * len(answer)


def test_run_learns_stops_and_says_where_it_came_from(run, base):
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2
    assert [row["step"] for row in run.history] == list(range(1, 25))
    assert not run.model.training
    assert run.tokenizer.eos_token == "<|im_end|>"
    assert run.tokenizer.pad_token == "<|pad|>"
    assert run.model.generation_config.eos_token_id == [3, 0]
    assert run.chat("What is 7?") == "Paris"
    assert run.seconds > 0
    assert run.tokens["examples"] == 24
    assert run.tokens["cut"] == 0
    assert run.settings.learning_rate == 1e-2
    assert run.settings.max_length == 128
    assert len(run.provenance["data"]) == len(run.provenance["base_weights"]) == 64
    assert run.provenance["added_tokens"] == []


def test_same_seed_same_weights_and_the_callers_randomness_untouched(base):
    random.seed(5), torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    one = finetune(base, EXAMPLES, **QUICK)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    torch.manual_seed(6)
    assert same(weights(one.model), weights(finetune(base, EXAMPLES, **QUICK).model))
    other = finetune(base, EXAMPLES, seed=1, **QUICK)
    assert not same(weights(one.model), weights(other.model))


def test_copy_of_a_trained_model_computes_with_its_own_weights(run):
    twin = copy.deepcopy(run.model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(torch.tensor([[5, 6]])).logits.abs().max() == 0


def test_batched_answers_equal_single_ones(run):
    questions = ["What is 3?", "What is the capital of 30 user assistants?", "is?"]
    assert run.answer(questions) == [run.chat(q, max_new_tokens=24) for q in questions]
    assert run.answer([]) == []


def test_sampling_has_a_seed_and_conversations_go_on(base):
    made = finetune(base, EXAMPLES, **QUICK)
    first = made.chat("a", sample=True, seed=1)
    assert first == made.chat("a", sample=True, seed=1) != made.chat("a", sample=True, seed=2)
    talk = [*EXAMPLES[0]["messages"], {"role": "user", "content": "And?"}]
    assert isinstance(made.chat(talk, max_new_tokens=3), str)
    with pytest.raises(ExampleError, match="the user's turn"):
        made.chat(EXAMPLES[0]["messages"])
    with pytest.raises(ExampleError, match="the model reads 128"):
        made.chat("long " * 200)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_saved_run_answers_as_before(base, tmp_path, method):
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    made = finetune(base, EXAMPLES, method=method, **QUICK)
    questions = ["What is 3?", "What is 300 and more?"]
    folder = made.save(tmp_path / "run")
    assert not list(folder.glob("*.bin"))
    assert list(folder.glob("*.safetensors"))
    opened = load_run(folder)
    assert opened.answer(questions) == made.answer(questions)
    assert opened.settings == made.settings
    assert opened.history == made.history
    assert opened.provenance == made.provenance
    assert opened.tokenizer.chat_template == CHATML
    assert opened.model.generation_config.eos_token_id == [3, 0]
    with pytest.raises(RunError, match="not empty"):
        made.save(folder)
    if method == "full":
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert same(weights(plain), weights(made.model))


def test_adapters_for_another_base_are_refused(base, tmp_path):
    moved = make_base(tmp_path / "base")
    folder = finetune(moved, EXAMPLES, method="lora", **QUICK).save(tmp_path / "run")
    model = LlamaForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        model.lm_head.weight += 1
    model.save_pretrained(moved)
    with pytest.raises(RunError, match="another version"):
        load_run(folder)


def files_naming(text, folder):
    return sorted(f.name for f in folder.iterdir() if str(text).encode() in f.read_bytes())


def test_run_on_a_relative_folder_opens_from_another(tmp_path, monkeypatch):
    make_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    made = {m: finetune("base", EXAMPLES, method=m, **QUICK) for m in ("full", "lora")}
    saved = {method: run.save(tmp_path / method) for method, run in made.items()}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for method, run in made.items():
        assert load_run(saved[method]).answer(["What is 3?"]) == run.answer(["What is 3?"])
        assert run.provenance["profile"]["name"] == "base"
    # Only adapters on a local folder need this machine's path.
    assert files_naming(tmp_path, saved["full"]) == []
    assert files_naming(tmp_path, saved["lora"]) == ["run.json"]
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"no longer in .*base"):
        load_run(saved["lora"])


def test_provenance_is_known_before_training(base, monkeypatch):
    from trl import SFTTrainer

    import sftlab.train.finetuning as module

    def gone(folder):
        raise ValueError("the weights are gone")

    trained = []
    monkeypatch.setattr(module, "weights_hash", gone)
    monkeypatch.setattr(SFTTrainer, "train", lambda self: trained.append(1))
    with pytest.raises(ValueError, match="the weights are gone"):
        finetune(base, EXAMPLES, **QUICK)
    assert trained == []


@pytest.mark.parametrize("pad", [0, 3])
def test_padding_is_told_by_length_and_never_by_its_token(pad):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [
        {"input_ids": [5, 6, 3, 0], "labels": [-100, 6, 3, 0]},
        {"input_ids": [5, 3], "labels": [-100, 3]},
    ]
    batch = DataCollatorForLanguageModeling(pad_token_id=pad)(rows)
    assert batch["labels"].tolist() == [[-100, 6, 3, 0], [-100, 3, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_base_that_pads_with_its_end_learns_to_stop(tmp_path):
    bare = make_base(tmp_path / "base", reserved=False)
    made = finetune(bare, EXAMPLES, **LEARN)
    assert made.tokenizer.pad_token == "<|endoftext|>"
    assert made.chat("What is 7?") == "Paris"


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_base_without_chat_tokens_gets_them(tmp_path, method, tied, kind):
    bare = make_base(tmp_path / "base", reserved=False, tied=tied, kind=kind)
    made = finetune(bare, EXAMPLES, method=method, **QUICK)
    assert made.provenance["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
    ids = made.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    embeddings = made.model.get_input_embeddings().weight
    assert embeddings.shape[0] == len(made.tokenizer) == ids[1] + 1
    assert not torch.equal(embeddings[ids[0]], embeddings[ids[1]])  # both were the mean
    assert made.tokenizer.pad_token == "<|endoftext|>"
    folder = made.save(tmp_path / "run")
    assert load_run(folder).answer(["What is 3?"]) == made.answer(["What is 3?"])


def test_tokenizer_that_writes_bos_gets_exactly_one(tmp_path):
    made = finetune(make_base(tmp_path / "base", bos=True), EXAMPLES, **QUICK)
    ids = made.tokenizer.apply_chat_template(EXAMPLES[0]["messages"])["input_ids"]
    assert ids[:2] == [0, 2]
    assert ids.count(0) == 1


def wrong(messages):
    return [*EXAMPLES[:2], {"messages": messages}]


USER, ASSISTANT = EXAMPLES[0]["messages"]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples"),
        ("text", "examples is a str"),
        (
            [*EXAMPLES[:1], {"text": "a"}],
            r"example 1: the row has no known shape \(it has 'text'\)",
        ),
        (wrong([]), "example 2, messages: the list of messages is empty"),
        (wrong([USER]), "example 2, .*there is no message of the assistant"),
        (
            wrong([USER, USER, ASSISTANT]),
            r"example 2, messages\[1\].role: two user messages follow each other",
        ),
        (wrong([ASSISTANT]), r"example 2, messages\[0\].role: .* begins with the role assistant"),
        (
            wrong([USER, {"role": "bard", "content": "a"}]),
            r"messages\[1\].role: the role is unknown \('bard'\)",
        ),
        (
            wrong([USER, {"role": "assistant", "content": " "}]),
            r"messages\[1\].content: the content is empty",
        ),
        (
            wrong([USER, {"role": "assistant", "content": 4}]),
            r"messages\[1\].content: the content must be a string \(got int: 4",
        ),
        (wrong([USER, ASSISTANT | {"train": False}]), "every answer has train: false"),
        (
            wrong([USER, ASSISTANT, {"role": "system", "content": "a"}]),
            "a system message comes after the first message",
        ),
        (wrong([USER, {"role": "assistant", "content": "a<|im_end|>"}]), "would end its own turn"),
    ],
)
def test_mistakes_in_examples_are_named(base, examples, said):
    with pytest.raises(ExampleError, match=said):
        finetune(base, examples, progress=False)


def test_example_whose_answer_is_cut_off(base):
    long = {"messages": [{"role": "user", "content": "x " * 60}, ASSISTANT]}
    with pytest.raises(ExampleError, match=r"example 1 has .* max_length is 40.*1 of 2"):
        finetune(base, [EXAMPLES[0], long], max_length=40, progress=False)
    half = {"messages": [USER, {"role": "assistant", "content": "x " * 60}]}
    with pytest.warns(UserWarning, match=r"1 of 2 examples .*first is example 1"):
        made = finetune(
            base, [EXAMPLES[0], half], max_length=40, num_train_epochs=1, progress=False
        )
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
        ({"lora_dropout": -0.1}, "from 0"),
        ({"max_grad_norm": -1}, "zero or more"),
        ({"gradient_checkpointing": 1}, "checkpointing is 1; give True or False"),
        ({"train_sampling_strategy": "sorted"}, "one of group_by_length, random, sequential"),
        ({"early_stopping_patience": 0}, "above zero"),
        ({"early_stopping_patience": 1.5}, "whole number"),
    ],
)
def test_mistakes_in_settings_are_named(base, change, said):
    with pytest.raises(SettingsError, match=said):
        finetune(base, EXAMPLES, **change)
    assert Settings().changed(num_train_epochs=2).num_train_epochs == 2


def test_dataset_is_taken_as_a_list_is(base):
    from datasets import Dataset

    rows = Dataset.from_list([{**example, "source": "x"} for example in EXAMPLES])
    made = finetune(base, rows, **QUICK)
    assert same(weights(made.model), weights(finetune(base, EXAMPLES, **QUICK).model))


def test_interrupt_closes_the_bar_and_gives_control_back(base, monkeypatch, capsys):
    from trl import SFTTrainer

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(SFTTrainer, "training_step", stop)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        finetune(base, EXAMPLES)
    assert torch.equal(state, torch.get_rng_state())
    assert capsys.readouterr().err.count("\n") == 1  # the bar's line is ended


def test_bar_shows_steps_and_loss(base, capsys):
    finetune(base, EXAMPLES, **{**QUICK, "progress": True})
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "loss=" in shown.err
    assert shown.out == ""


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
