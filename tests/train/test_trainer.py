"""Invariants of a training step, on a random two-layer model: nothing here is a recorded number."""

import pytest
import torch
from toy_run import MIXED, WAYS, equal, train
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.chat import IGNORED, setup_chat_template
from sftlab.models import load
from sftlab.train import Batches, Settings, supervised_loss
from sftlab.train.examples import supervise
from sftlab.train.trainer import SupervisedTrainer, mean_loss, trimmed


@pytest.fixture(scope="module")
def model(toy_base):
    return load(str(toy_base))[0]


@pytest.fixture(scope="module")
def rows(toy_base):
    """Labelled rows of different lengths."""
    model, tokenizer = load(str(toy_base))
    setup_chat_template(model, tokenizer, template="chatml")
    made, _ = supervise(MIXED[:6], tokenizer, Settings(max_length=512))
    made = [{name: row[name] for name in ("input_ids", "labels")} for row in made]
    assert len({len(row["input_ids"]) for row in made}) > 3
    return made


def collated(rows, **options):
    return DataCollatorForLanguageModeling(pad_token_id=0, **options)(rows)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def close(one, other, **margins):
    """Whether two runs have the same losses and norms, step by step."""
    return len(one.history) == len(other.history) and all(
        first[name] == pytest.approx(second[name], rel=margin)
        for first, second in zip(one.history, other.history, strict=True)
        for name, margin in margins.items()
    )


def test_supervised_loss_is_the_models_own_and_padding_free_is_padded(model, rows):
    batch, packed = collated(rows), collated(rows, padding_free=True)
    assert packed["input_ids"].shape == (1, sum(len(row["input_ids"]) for row in rows))
    own = model(**batch, use_cache=False).loss
    expected = gradients(model, own)
    for inputs in (batch, packed):
        inputs = dict(inputs)
        loss, right = supervised_loss(model, inputs, inputs.pop("labels"))
        assert len(right) == sum(label != IGNORED for row in rows for label in row["labels"])
        assert loss.item() == pytest.approx(own.item(), rel=1e-5)
        torch.testing.assert_close(gradients(model, loss), expected, rtol=1e-3, atol=1e-6)
    again = model(**batch, use_cache=False)
    assert again.logits.shape[:2] == batch["input_ids"].shape, "the hook is gone afterwards"


def test_mean_loss_is_that_of_each_row_alone(model, rows):
    total = count = 0.0
    for row in rows:
        number = sum(label != IGNORED for label in row["labels"])
        with torch.no_grad():
            total += model(**collated([row])).loss.item() * number
        count += number
    for size in (64, 2):
        found = mean_loss(model, rows, 1, batch_size=size)
        assert found == pytest.approx(total / count, rel=1e-5)


def test_columns_right_of_the_last_prediction_are_cut():
    ids = torch.arange(12).view(2, 6)
    labels = torch.tensor([[-100, -100, 2, 3, -100, -100], [-100, 7, -100, -100, -100, -100]])
    inputs, targets = trimmed({"input_ids": ids, "attention_mask": ids > 0}, labels)
    assert inputs["input_ids"].tolist() == [[0, 1, 2], [6, 7, 8]]
    assert inputs["attention_mask"].shape == (2, 3)
    assert targets.tolist() == [[-100, 2, 3], [7, -100, -100]]
    other = {"input_ids": ids, "cu_seq_lens_q": torch.tensor([0, 6])}
    assert trimmed(other, labels)[0] is other, "inputs of another shape would no longer fit"


def test_packed_neighbours_do_not_see_each_other(model, rows):
    changed = [*rows]
    changed[1] = {**rows[1], "input_ids": [(i + 1) % 300 for i in rows[1]["input_ids"]]}
    found = []
    for some in (rows, changed):
        inputs = collated(some, padding_free=True)
        inputs.pop("labels")
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[0]
        found.append(logits.split([len(row["input_ids"]) for row in rows]))
    for place, (old, new) in enumerate(zip(*found, strict=True)):
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
    means = [sum(batch) for batch in batches[:10]]
    assert means not in (sorted(means), sorted(means, reverse=True)), "batches are shuffled"


@pytest.mark.parametrize("way", [{}, {"padding_free": True}])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_sequential_examples_make_the_batches(toy_base, monkeypatch, way, accumulated):
    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
        seen.append(inputs["input_ids"][mask != 0].tolist())
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    how = {"per_device_train_batch_size": 10, "gradient_accumulation_steps": accumulated}
    made = train(toy_base, MIXED, train_sampling_strategy="sequential", **way, **how)
    render = made.tokenizer.apply_chat_template
    ids = [render(row["messages"], return_dict=True)["input_ids"] for row in MIXED]
    assert seen == [[i for row in ids[n : n + 10] for i in row] for n in (0, 10, 20)]


def test_accumulated_batches_are_one_large_batch_and_padding_free_is_random(toy_base):
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    whole = {way: train(toy_base, MIXED, **how) for way, how in WAYS.items()}
    for way, one in whole.items():
        four = train(toy_base, MIXED, **small, **WAYS[way])
        assert close(one, four, loss=1e-3, grad_norm=1e-3), way
        assert len(one.history) == 3
    assert close(whole["padding-free"], whole["random"], loss=1e-4)


@pytest.mark.parametrize("bf16", [False, True])
def test_same_seed_same_weights_another_seed_others(toy_base, bf16):
    first, second, other = (train(toy_base, MIXED, bf16=bf16, seed=seed) for seed in (5, 5, 6))
    assert equal(first, second)
    assert not equal(first, other)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing_and_is_gone_afterwards(toy_base, method):
    how = {"method": method, "learning_rate": 1e-2}
    kept, again = (train(toy_base, MIXED, gradient_checkpointing=on, **how) for on in (False, True))
    assert close(kept, again, loss=1e-6, grad_norm=1e-5)
    # A learner who trains on with the returned model has a plain one.
    assert not any(getattr(m, "gradient_checkpointing", False) for m in again.model.modules())
    embedded = again.model.get_input_embeddings()(torch.tensor([[5, 6]]))
    assert embedded.requires_grad == (method == "full")


def test_gradients_are_clipped_to_the_norm(toy_base, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad.flatten() for g in self.param_groups for p in g["params"]]
        norms.append(torch.cat(gradients).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    free, clipped = (
        [row["grad_norm"] for row in train(toy_base, MIXED, max_grad_norm=most).history]
        for most in (0, 0.25)
    )
    assert norms == pytest.approx([*free, 0.25, 0.25, 0.25], rel=1e-4)
    assert min(free) > 0.5, "this test needs longer ones"
    assert min(clipped) > 0.25, "logged is the norm before"
