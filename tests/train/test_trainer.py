"""Invariants of a training step, and counts by hand of what it costs: no number was recorded."""

import pytest
import torch
from toy_run import MIXED, QUICK, equal, talk, train
from transformers import AutoConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.chat import IGNORED, setup_chat_template
from sftlab.models import load
from sftlab.train import Batches, Settings, batch_costs, supervised_loss
from sftlab.train.examples import supervise
from sftlab.train.trainer import mean_loss

WAYS = {
    "grouped": {},
    "random": {"train_sampling_strategy": "random"},
    "padding-free": {"train_sampling_strategy": "random", "padding_free": True},
}
EXACT = {name: value for name, value in QUICK.items() if name != "progress"}


@pytest.fixture(scope="module")
def model(toy_base):
    return load(str(toy_base))[0]


def labelled(base, examples):
    model, tokenizer = load(str(base))
    setup_chat_template(model, tokenizer, template="chatml")
    return supervise(examples, tokenizer, Settings(max_length=512))


@pytest.fixture(scope="module")
def rows(toy_base):
    """Labelled rows of different lengths."""
    made = labelled(toy_base, MIXED[:6])
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
        loss = supervised_loss(model, inputs, inputs.pop("labels"))
        assert loss.item() == pytest.approx(own.item(), rel=1e-5)
        torch.testing.assert_close(gradients(model, loss), expected, rtol=1e-3, atol=1e-6)
    for size in (64, 2):
        assert mean_loss(model, rows, 0, batch_size=size) == pytest.approx(own.item(), rel=1e-5)
    again = model(**batch, use_cache=False)
    assert again.logits.shape[:2] == batch["input_ids"].shape, "the hook is gone afterwards"


def test_batches_hold_each_example_once_in_groups_of_like_length():
    lengths = [n % 37 for n in range(1000)]
    order = Batches(lengths, size=16, pool=8, seed=3)
    indices = list(order)
    assert sorted(indices) == list(range(1000))
    cut = [indices[n : n + 16] for n in range(0, 1000, 16)]
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in cut[:56]]
    assert sum(spread) / len(spread) < 6, "of 36 when they are drawn at random"
    assert list(order) == indices
    order.set_epoch(1)
    assert list(order) != indices
    assert list(Batches(lengths, size=16, pool=8, seed=4)) != indices
    means = [sum(batch) for batch in cut[:10]]
    assert means not in (sorted(means), sorted(means, reverse=True)), "batches are shuffled"


def test_accumulated_batches_are_one_large_batch_and_padding_free_is_random(toy_base):
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    whole = {way: train(toy_base, MIXED, **how) for way, how in WAYS.items()}
    for way, one in whole.items():
        four = train(toy_base, MIXED, **small, **WAYS[way])
        assert close(one, four, loss=1e-3, grad_norm=1e-3), way
        assert len(one.history) == 3
    assert close(whole["padding-free"], whole["random"], loss=1e-4)


@pytest.mark.parametrize(
    ("steps", "how", "rates"),
    [  # 11_plain.jsonl of ../shared/field: gpt-neox#1373, verl#3674
        (1, {}, [1]),
        (2, {}, [1 / 2, 1]),
        (3, {}, [1 / 2, 1, 1 / 2]),
        (5, {"warmup_steps": 2.0}, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
        (3, {"warmup_steps": 9.0}, [1 / 3, 2 / 3, 1]),
        (3, {"warmup_steps": 0.0}, [1, 2 / 3, 1 / 3]),
        (3, {"lr_scheduler_type": "cosine"}, [1 / 2, 1, 1 / 2]),
        (3, {"lr_scheduler_type": "constant_with_warmup"}, [1 / 2, 1, 1]),
    ],
)
def test_no_step_of_a_schedule_is_at_zero_and_one_is_at_the_peak(toy_base, steps, how, rates):
    run = train(toy_base, MIXED[:steps], per_device_train_batch_size=1, **how)
    assert [row["learning_rate"] for row in run.history] == pytest.approx([r / 1e3 for r in rates])
    assert run.trained == run.weights


@pytest.mark.parametrize("method", ["full", "lora", "int8", "prefix", "frozen", "gradual"])
def test_a_run_that_changed_no_weight_says_so(toy_base, method):
    with pytest.warns(
        UserWarning, match="no weight changed in 3 steps.*1e-300.*larger learning_rate"
    ):
        run = train(toy_base, method=method, learning_rate=1e-300, adapter_dtype="bfloat16")
    assert run.trained == 0


@pytest.mark.parametrize("bf16", [False, True])
def test_same_seed_same_weights_another_seed_others(toy_base, bf16):
    first, second, other = (train(toy_base, MIXED, bf16=bf16, seed=seed) for seed in (5, 5, 6))
    assert equal(first, second)
    assert not equal(first, other)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing(toy_base, method):
    how = {"method": method, "learning_rate": 1e-2}
    kept, again = (train(toy_base, MIXED, gradient_checkpointing=on, **how) for on in (False, True))
    assert close(kept, again, loss=1e-6, grad_norm=1e-5)


def test_checkpointing_keeps_less_and_multiplies_more(toy_base):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    plain, again = (
        batch_costs(str(toy_base), MIXED, settings=Settings(**EXACT, gradient_checkpointing=on))
        for on in (False, True)
    )
    assert torch.equal(torch.get_rng_state(), before), "the caller's generators are left alone"
    assert len(plain) == len(again) == 1
    assert (again["kept"] < plain["kept"] / 2).all()
    # Forward is a third of a step; what is computed again is the layers, not the head.
    ratio = again["operations"] / plain["operations"]
    assert ratio.between(1.05, 4 / 3).all()


def test_operations_by_hand(toy_base):
    (row,) = labelled(toy_base, [talk("a", "b")])
    learned = [n for n, label in enumerate(row["labels"]) if label != IGNORED]
    n, hidden, mlp = max(learned), 64, 128  # positions up to the last prediction
    found = batch_costs(str(toy_base), [talk("a", "b")], settings=Settings(bf16=False)).iloc[0]
    vocabulary = AutoConfig.from_pretrained(toy_base).vocab_size
    linear = 2 * n * 4 * hidden**2  # q, k, v, o
    linear_of_layers = 2 * (linear + 2 * n * 3 * hidden * mlp)
    attention = 2 * 2 * (2 * n * n * hidden)  # scores and sums, two layers
    head = 2 * len(learned) * hidden * vocabulary
    expected = 3 * (linear_of_layers + head + attention)
    assert found["operations"] == pytest.approx(expected, rel=0.03)
