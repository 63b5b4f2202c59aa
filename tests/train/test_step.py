"""Invariants of a training step, on a random two-layer model: nothing here is a recorded number."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftlab.models import load
from sftlab.train.checkpoints import WHOLE, CheckpointError
from sftlab.train.finetuning import finetune
from sftlab.train.speech import teach_tokens
from sftlab.train.step import (
    Batches,
    SupervisedTrainer,
    only_positions,
    packing_collator,
    supervised_loss,
)

ROOT = Path(__file__).resolve().parents[2]
# Lengths differ much, so that padding and grouping have something to do.
EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": "the capital of France is " * (1 + 7 * n % 5)},
            {
                "role": "assistant",
                "content": ["Paris", "Oslo is the capital", "Rome, Italy"][n % 3],
            },
        ]
    }
    for n in range(24)
]
WAYS = {
    "grouped": {},
    "random": {"train_sampling_strategy": "random"},
    "padding-free": {"train_sampling_strategy": "random", "padding_free": True},
}
EXACT = {
    "bf16": False,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def pair(toy_base):
    model, tokenizer = load(str(toy_base))
    teach_tokens(model, tokenizer, template="chatml")
    return model, tokenizer


@pytest.fixture(scope="module")
def rows(pair):
    """(ids, labels) of some examples of different lengths."""
    made = []
    for example in EXAMPLES[:6]:
        out = pair[1].apply_chat_template(
            example["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = out["input_ids"], out["assistant_masks"]
        labels = [i if m else -100 for i, m in zip(ids, mask, strict=True)]
        made.append({"input_ids": ids, "labels": labels})
    assert len({len(row["input_ids"]) for row in made}) > 3
    return made


def padded(rows, pad=0):
    width = max(len(row["input_ids"]) for row in rows)
    batch = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        n = len(row["input_ids"])
        batch["input_ids"].append(row["input_ids"] + [pad] * (width - n))
        batch["attention_mask"].append([1] * n + [0] * (width - n))
        batch["labels"].append(row["labels"] + [-100] * (width - n))
    return {name: torch.tensor(values) for name, values in batch.items()}


def loss_and_gradient(model, batch):
    model.zero_grad()
    inputs = dict(batch)
    loss, _ = supervised_loss(model, inputs, inputs.pop("labels"))
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_supervised_loss_is_the_models_own(pair, rows):
    model, _ = pair
    batch = padded(rows)
    loss, gradient = loss_and_gradient(model, batch)
    model.zero_grad()
    own = model(**batch, use_cache=False).loss
    own.backward()
    assert loss == pytest.approx(own.item(), rel=1e-5)
    theirs = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-7)


def test_logits_are_computed_where_they_are_wanted_alone(pair, rows):
    model, _ = pair
    ids = padded(rows)["input_ids"]
    kept = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    with torch.no_grad():
        every = model(ids, use_cache=False).logits
        with only_positions(model, kept):
            some = model(ids, use_cache=False).logits
        again = model(ids, use_cache=False).logits
    assert some.shape == (1, int(kept.sum()), every.shape[-1])
    torch.testing.assert_close(some[0], every[kept])
    assert torch.equal(again, every), "the hook is gone afterwards"


def test_packed_is_padded_in_loss_and_gradient(pair, rows):
    model, tokenizer = pair
    packed = packing_collator(tokenizer.pad_token_id)(rows)
    assert packed["input_ids"].shape == (1, sum(len(row["input_ids"]) for row in rows))
    one, first = loss_and_gradient(model, padded(rows))
    two, second = loss_and_gradient(model, packed)
    assert one == pytest.approx(two, rel=1e-5)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)


def test_packed_neighbours_are_blind_to_each_other(pair, rows):
    model, tokenizer = pair
    collate = packing_collator(tokenizer.pad_token_id)
    changed = [*rows]
    changed[1] = {**rows[1], "input_ids": [(i + 1) % 300 for i in rows[1]["input_ids"]]}
    with torch.no_grad():
        before, after = (
            model(**{k: v for k, v in collate(some).items() if k != "labels"}, use_cache=False)
            .logits[0]
            .split([len(row["input_ids"]) for row in rows])
            for some in (rows, changed)
        )
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(old, new) == (place != 1)


def test_batches_hold_each_example_once_in_groups_of_like_length():
    lengths = [n % 37 for n in range(1000)]
    order = Batches(lengths, size=16, pool=8, seed=3)
    indices = list(order)
    assert sorted(indices) == list(range(1000))
    batches = [indices[n : n + 16] for n in range(0, 1000, 16)]
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches[:56]]
    assert sum(spread) / len(spread) < 6, "of 36 when they are drawn at random"
    assert list(order) == indices
    order.set_epoch(1)
    assert list(order) != indices
    assert list(Batches(lengths, size=16, pool=8, seed=4)) != indices


def test_batches_are_not_in_order_of_length():
    lengths = list(range(160))
    indices = list(Batches(lengths, size=16, pool=10, seed=0))
    means = [sum(indices[n : n + 16]) for n in range(0, 160, 16)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


@pytest.mark.parametrize("batching", WAYS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_examples_in_the_order_given_make_the_batches(
    toy_base, monkeypatch, batching, accumulation
):
    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        ids, labels = inputs["input_ids"], inputs["labels"]
        rows = (
            [ids[0]]
            if batching == "padding-free"
            else [
                row[: int((mask != 0).sum())]
                for row, mask in zip(ids, inputs["attention_mask"], strict=True)
            ]
        )
        seen.append(torch.cat(rows).tolist())
        assert len(labels)
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    made = train(
        toy_base,
        train_sampling_strategy="sequential",
        **WAYS[batching],
        per_device_train_batch_size=10,
        num_train_epochs=2,
        gradient_accumulation_steps=accumulation,
    )
    ids = [
        made.tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
        for row in EXAMPLES
    ]
    batches = [[i for row in ids[n : n + 10] for i in row] for n in (0, 10, 20)]
    assert seen == batches * 2


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def train(base, **settings):
    return finetune(str(base), EXAMPLES, progress=False, **{**EXACT, **settings})


@pytest.mark.parametrize("batching", WAYS)
def test_accumulated_batches_are_one_large_batch(toy_base, batching):
    one = train(
        toy_base, per_device_train_batch_size=8, gradient_accumulation_steps=1, **WAYS[batching]
    )
    four = train(
        toy_base, per_device_train_batch_size=2, gradient_accumulation_steps=4, **WAYS[batching]
    )
    assert len(one.history) == len(four.history) == 3
    for first, second in zip(one.history, four.history, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-3)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_weights_another_seed_others(toy_base, precision):
    first, second = (
        weights(train(toy_base, bf16=precision == "bfloat16", seed=5)) for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights(train(toy_base, bf16=precision == "bfloat16", seed=6))
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_packed_training_is_random_training(toy_base):
    packed, random = (train(toy_base, **WAYS[b]) for b in ("padding-free", "random"))
    for first, second in zip(packed.history, random.history, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointing_keeps_less_and_changes_nothing(toy_base, method, precision):
    settings = {"method": method, "bf16": precision == "bfloat16", "learning_rate": 1e-2}
    kept, again = (train(toy_base, gradient_checkpointing=on, **settings) for on in (False, True))
    for first, second in zip(kept.history, again.history, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-5)
    assert again.settings.gradient_checkpointing is True
    # A learner who trains on with the returned model has a plain one.
    assert not any(getattr(m, "gradient_checkpointing", False) for m in again.model.modules())
    embedded = again.model.get_input_embeddings()(torch.tensor([[5, 6]]))
    assert embedded.requires_grad == (method == "full")


def test_gradients_are_clipped_to_the_norm_asked_for(toy_base, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
        norms.append(torch.cat(gradients).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    told = [row["grad_norm"] for row in train(toy_base, max_grad_norm=0).history]
    assert norms == pytest.approx(told, rel=1e-4)
    assert min(told) > 0.5, "this test needs longer ones"
    norms.clear()
    told = [row["grad_norm"] for row in train(toy_base, max_grad_norm=0.25).history]
    assert norms == pytest.approx([0.25] * 3, rel=1e-4)
    assert min(told) > 0.25, "told is the norm before"


KILLED = """
import os, signal, sys
from transformers import TrainerCallback, Trainer
from sftlab.train import finetune
sys.path.insert(0, {tests!r})
from test_step import EXAMPLES

class Kill(TrainerCallback):
    def {moment}(self, args, state, control, **kwargs):
        if state.global_step == {step}:
            os.kill(os.getpid(), signal.SIGKILL)

begin = Trainer.__init__
def with_kill(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    self.add_callback(Kill())
Trainer.__init__ = with_kill
finetune({base!r}, EXAMPLES, progress=False, output_dir={folder!r}, save_steps=2, {settings})
"""
LONGER = {**EXACT, "num_train_epochs": 2, "per_device_train_batch_size": 4}  # 12 steps, 6 an epoch


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(
    ("moment", "step", "extra"),
    [
        ("on_step_end", 1, {}),  # before the first checkpoint
        ("on_step_end", 5, {}),
        ("on_save", 6, {}),  # written, and not yet marked as whole; the end of an epoch
        ("on_step_end", 9, {"padding_free": True, "bf16": True}),
        ("on_step_end", 7, {"method": "lora", "learning_rate": 1e-2}),
        ("on_step_end", 3, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
        ("on_step_end", 5, {"dropout": 0.2, "train_sampling_strategy": "sequential"}),
        ("on_step_end", 7, {"dropout": 0.2, "gradient_checkpointing": True}),  # from an epoch's end
    ],
)
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(toy_base, tmp_path, moment, step, extra):
    settings = {**LONGER, **extra}
    folder = tmp_path / "checkpoints"
    code = KILLED.format(
        tests=str(Path(__file__).parent),
        moment=moment,
        step=step,
        base=str(toy_base),
        folder=str(folder),
        settings=", ".join(f"{k}={v!r}" for k, v in settings.items()),
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    whole = [c for c in folder.glob("checkpoint-*") if (c / WHOLE).exists()]
    resumed = train(toy_base, output_dir=folder, save_steps=2, **settings)
    plain = train(toy_base, **settings)
    first, second = weights(resumed), weights(plain)
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert [row["step"] for row in resumed.history] == [row["step"] for row in plain.history]
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in plain.history]
    assert bool(whole) == (step >= 3)


def test_finished_run_is_not_trained_again(toy_base, tmp_path):
    first = train(toy_base, output_dir=tmp_path / "c", save_steps=1)
    marked = sorted((tmp_path / "c").glob(f"*/{WHOLE}"))
    assert [f.parent.name for f in marked] == ["checkpoint-2", "checkpoint-3"]
    kept = load_file(tmp_path / "c" / "checkpoint-3" / "model.safetensors")
    before = {f: f.stat().st_mtime_ns for f in marked}
    again = train(toy_base, output_dir=tmp_path / "c", save_steps=1)
    assert {f: f.stat().st_mtime_ns for f in marked} == before
    for name, value in kept.items():
        assert torch.equal(value, again.model.state_dict()[name])
        assert torch.equal(value, first.model.state_dict()[name])


def test_checkpoints_of_another_run_are_refused(toy_base, tmp_path):
    train(toy_base, output_dir=tmp_path / "c", save_steps=2)
    with pytest.raises(CheckpointError, match=r"other settings.*new folder"):
        train(toy_base, output_dir=tmp_path / "c", seed=9)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="something else"):
        train(toy_base, output_dir=tmp_path / "d")
    assert (tmp_path / "d" / "notes.txt").read_text() == "mine"


def test_every_pair_of_lengths_is_grouped_together_sometimes():
    """Grouping does not decide for good which examples meet: neighbours change with the epoch."""
    order = Batches([10] * 8 + [20] * 8, size=2, pool=4, seed=0)
    met = set()
    for epoch in range(60):
        order.set_epoch(epoch)
        indices = list(order)
        met |= {frozenset(indices[n : n + 2]) for n in range(0, 16, 2)}
    alike = {
        frozenset(p) for part in (range(8), range(8, 16)) for p in itertools.combinations(part, 2)
    }
    assert alike <= met
