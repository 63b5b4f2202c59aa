"""Invariants of a training step, and counts by hand of what it costs: no number was recorded."""

import pytest
import torch
from toy_run import MIXED, QUICK, equal, talk, train
from transformers import AutoConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sftlab.chat import setup_chat_template
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


@pytest.fixture(scope="module")
def rows(toy_base):
    """Labelled rows of different lengths."""
    model, tokenizer = load(str(toy_base))
    setup_chat_template(model, tokenizer, template="chatml")
    made = supervise(MIXED[:6], tokenizer, Settings(max_length=512))
    assert len({len(row["input_ids"]) for row in made}) > 3
    return made


def rendered(run):
    """The ids of each example, and the places of those that are learned, by the template's mask."""
    how = {"return_dict": True, "return_assistant_tokens_mask": True}
    for row in MIXED:
        out = run.tokenizer.apply_chat_template(row["messages"], **how)
        yield out["input_ids"], [place for place, one in enumerate(out["assistant_masks"]) if one]


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


def test_batches_are_as_by_hand(toy_base):
    # Tokens, and tokens up to the last prediction, of each example.
    examples = rendered(train(toy_base, MIXED))
    lengths = [(len(ids), max(learned)) for ids, learned in examples]
    ways = {**WAYS, "sequential": {"train_sampling_strategy": "sequential"}}
    frames = {
        way: batch_costs(str(toy_base), MIXED, steps=3, **how, **EXACT) for way, how in ways.items()
    }
    cut = [lengths[n : n + 8] for n in (0, 8, 16)]
    exact = frames["sequential"]
    assert exact["batch"].tolist() == [1, 2, 3]
    assert exact["positions"].tolist() == [8 * max(last for _, last in rows) for rows in cut]
    positions = {kind: frame["positions"].sum() for kind, frame in frames.items()}
    assert positions["random"] > positions["grouped"]
    assert positions["padding-free"] <= sum(tokens for tokens, _ in lengths)


def test_checkpointing_keeps_less_and_multiplies_more(toy_base):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    how = {"steps": 2, "dropout": 0.1, **EXACT}
    plain, again = (
        batch_costs(str(toy_base), MIXED, gradient_checkpointing=on, **how) for on in (False, True)
    )
    assert torch.equal(torch.get_rng_state(), before), "the caller's generators are left alone"
    assert len(plain) == len(again) == 2
    assert (again["kept"] < plain["kept"] / 2).all()
    # Forward is a third of a step; what is computed again is the layers, not the head.
    ratio = again["operations"] / plain["operations"]
    assert ratio.between(1.05, 4 / 3).all()


@pytest.mark.parametrize(
    ("rows", "predicted", "backward"),
    [
        ([talk("a", "b")], 2, 2),  # the answer and its end
        ([talk("a b " * 150, "b")] * 2, 4, 2.5),  # in a row too long to keep all of attention
    ],
)
def test_operations_by_hand(toy_base, rows, predicted, backward):
    how = {"per_device_train_batch_size": 2, "bf16": False, "padding_free": True}
    found = batch_costs(str(toy_base), rows, **how).iloc[0]
    n, hidden, mlp = found["positions"], 64, 128
    vocabulary = AutoConfig.from_pretrained(toy_base).vocab_size
    linear = 2 * n * 4 * hidden**2  # q, k, v, o
    linear_of_layers = 2 * (linear + 2 * n * 3 * hidden * mlp)
    attention = 2 * 2 * (2 * n * n * hidden)  # scores and sums, two layers
    head = 2 * predicted * hidden * vocabulary
    expected = 3 * (linear_of_layers + head) + (1 + backward) * attention
    assert found["operations"] == pytest.approx(expected, rel=0.03)
