"""What is counted of a training, held against counts by hand."""

import pytest
import torch
from toy_run import MIXED, QUICK, WAYS, talk, train
from transformers import AutoConfig

from sftlab.train import SettingsError, batch_costs, batches
from sftlab.train.trainer import SupervisedTrainer

EXACT = {name: value for name, value in QUICK.items() if name != "progress"}


def test_batches_are_those_of_the_training_and_as_by_hand(toy_base, monkeypatch):
    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append(int(inputs["attention_mask"].sum()))
        return compute_loss(self, model, inputs, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "compute_loss", spy)
        run = train(toy_base, MIXED)
    lengths = []  # tokens, and tokens up to the last prediction, of each example
    for row in MIXED:
        how = {"return_dict": True, "return_assistant_tokens_mask": True}
        out = run.tokenizer.apply_chat_template(row["messages"], **how)
        learned = [place for place, m in enumerate(out["assistant_masks"]) if m]
        lengths.append((len(out["input_ids"]), max(learned)))
    ways = {**WAYS, "sequential": {"train_sampling_strategy": "sequential"}}
    frames = {way: batches(str(toy_base), MIXED, **how, **EXACT) for way, how in ways.items()}
    for frame in frames.values():
        assert frame["tokens"].sum() == sum(tokens for tokens, _ in lengths)
        assert frame["examples"].tolist() == [8] * 3
    cut = [lengths[n : n + 8] for n in (0, 8, 16)]
    exact = frames["sequential"]
    assert exact["batch"].tolist() == [1, 2, 3]
    assert exact["tokens"].tolist() == [sum(t for t, _ in rows) for rows in cut]
    assert exact["positions"].tolist() == [8 * max(last for _, last in rows) for rows in cut]
    assert frames["grouped"]["tokens"].tolist() == seen
    positions = {kind: frame["positions"].sum() for kind, frame in frames.items()}
    assert positions["random"] > positions["grouped"]
    assert (frames["padding-free"]["positions"] <= frames["padding-free"]["tokens"]).all()


def test_checkpointing_keeps_less_and_multiplies_more(toy_base):
    plain, again = (
        batch_costs(str(toy_base), MIXED, steps=2, gradient_checkpointing=on, **EXACT)
        for on in (False, True)
    )
    assert len(plain) == len(again) == 2
    assert (again["kept"] < plain["kept"] / 2).all()
    # Forward is a third of a step; what is computed again is the layers, not the head.
    ratio = again["operations"] / plain["operations"]
    assert ratio.between(1.05, 4 / 3).all()


def test_operations_by_hand(toy_base):
    row = talk("a", "b")
    found = batch_costs(str(toy_base), [row], per_device_train_batch_size=1, bf16=False).iloc[0]
    n, hidden, mlp = found["positions"], 64, 128
    vocabulary = AutoConfig.from_pretrained(toy_base).vocab_size
    assert found["examples"] == 1
    predicted = 2  # the answer and its end
    linear = 2 * n * 4 * hidden**2  # q, k, v, o
    linear_of_layers = 2 * (linear + 2 * n * 3 * hidden * mlp)
    attention = 2 * 2 * (2 * n * n * hidden)  # scores and sums, two layers
    head = 2 * predicted * hidden * vocabulary
    forward = linear_of_layers + attention + head
    assert found["operations"] == pytest.approx(3 * forward, rel=0.03)


def test_attention_on_long_rows_is_counted_too(toy_base):
    long = [talk("a b " * 150, "b")] * 2
    how = {"bf16": False, "per_device_train_batch_size": 2}
    found = (batch_costs(str(toy_base), long, **how, **WAYS[way]) for way in WAYS)
    _, apart, packed = (frame.iloc[0] for frame in found)
    assert apart["positions"] <= 2 * 512 < packed["positions"] + 512
    assert packed["operations"] > 1.1 * apart["operations"], "the square of a row twice as long"


def test_the_callers_generators_are_left_alone_and_a_wrong_setting_is_refused(toy_base):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batch_costs(str(toy_base), MIXED, dropout=0.1, **EXACT)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(SettingsError, match="no setting 'lr'"):
        batches(str(toy_base), MIXED, lr=1)
