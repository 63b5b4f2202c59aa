"""What is counted of a training, held against counts by hand."""

import pytest
import torch

from sftlab.train.finetuning import finetune
from sftlab.train.inspection import batch_costs, batches, neighbour_effect
from sftlab.train.settings import SettingsError

EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": "the capital of France is " * (1 + 7 * n % 5)},
            {"role": "assistant", "content": ["Paris", "Oslo is the capital"][n % 2]},
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
def run(toy_base):
    return finetune(str(toy_base), EXAMPLES, progress=False, **EXACT)


@pytest.fixture(scope="module")
def lengths(run):
    """(tokens, tokens up to the last prediction) of each example."""
    found = []
    for row in EXAMPLES:
        out = run.tokenizer.apply_chat_template(
            row["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        learned = [place for place, m in enumerate(out["assistant_masks"]) if m]
        found.append((len(out["input_ids"]), max(learned)))
    return found


def test_batches_by_hand(toy_base, lengths):
    frame = batches(str(toy_base), EXAMPLES, train_sampling_strategy="sequential", **EXACT)
    cut = [lengths[n : n + 8] for n in (0, 8, 16)]
    assert frame["batch"].tolist() == [1, 2, 3]
    assert frame["examples"].tolist() == [8] * 3
    assert frame["tokens"].tolist() == [sum(t for t, _ in rows) for rows in cut]
    assert frame["positions"].tolist() == [8 * max(last for _, last in rows) for rows in cut]


def test_the_three_batchings_hold_the_same_tokens_on_fewer_and_fewer_positions(toy_base, lengths):
    frames = {
        kind: batches(str(toy_base), EXAMPLES, **WAYS[kind], **EXACT)
        for kind in ("random", "grouped", "padding-free")
    }
    for frame in frames.values():
        assert frame["tokens"].sum() == sum(tokens for tokens, _ in lengths)
        assert frame["examples"].tolist() == [8] * 3
    positions = {kind: frame["positions"].sum() for kind, frame in frames.items()}
    assert positions["random"] > positions["grouped"]
    assert (frames["packed"]["positions"] <= frames["packed"]["tokens"]).all()


def test_the_batches_are_those_of_the_training(toy_base, monkeypatch):
    from sftlab.train.step import SupervisedTrainer

    seen = []
    compute_loss = SupervisedTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append(int(inputs["attention_mask"].sum()))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    finetune(str(toy_base), EXAMPLES, progress=False, **EXACT)
    assert batches(str(toy_base), EXAMPLES, **EXACT)["tokens"].tolist() == seen


def test_checkpointing_keeps_less_and_multiplies_more(toy_base):
    plain, again = (
        batch_costs(str(toy_base), EXAMPLES, steps=2, gradient_checkpointing=on, **EXACT)
        for on in (False, True)
    )
    assert len(plain) == len(again) == 2
    assert (again["kept"] < plain["kept"] / 2).all()
    # Forward is a third of a step; what is computed again is the layers, not the head.
    ratio = again["operations"] / plain["operations"]
    assert ratio.between(1.05, 4 / 3).all()


def test_products_by_hand(toy_base):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    found = batch_costs(str(toy_base), [row], per_device_train_batch_size=1, bf16=False).iloc[0]
    n, hidden, mlp, vocabulary = found["positions"], 64, 128, _vocabulary(toy_base)
    assert found["examples"] == 1
    predicted = 2  # the answer and its end
    linear = 2 * n * 4 * hidden**2  # q, k, v, o
    linear_of_layers = 2 * linear + 2 * (n + predicted) * 3 * hidden * mlp  # the last MLP at two
    attention = 2 * 2 * (2 * n * n * hidden)  # scores and sums, two layers
    head = 2 * predicted * hidden * vocabulary
    forward = linear_of_layers + attention + head
    assert found["operations"] == pytest.approx(3 * forward, rel=0.03)


def _vocabulary(folder):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder).vocab_size


def test_attention_on_long_rows_is_counted_too(toy_base):
    long = [
        {
            "messages": [
                {"role": "user", "content": "a b " * 150},
                {"role": "assistant", "content": "b"},
            ]
        }
    ]
    found = [
        batch_costs(
            str(toy_base), [row] * 2, bf16=False, **WAYS[kind], per_device_train_batch_size=2
        ).iloc[0]
        for row in long
        for kind in ("random", "padding-free")
    ]
    apart, packed = found
    assert apart["positions"] <= 2 * 512 < packed["positions"] + 512
    assert packed["operations"] > 1.1 * apart["operations"], "the square of a row twice as long"


def test_the_callers_generators_are_left_alone(toy_base):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batch_costs(str(toy_base), EXAMPLES, dropout=0.1, **EXACT)
    assert torch.equal(torch.get_rng_state(), before)


def test_packed_neighbours_matter_only_when_they_are_not_kept_apart(run):
    assert neighbour_effect(run, EXAMPLES[:3]) == 0
    assert neighbour_effect(run, EXAMPLES[:3], apart=False) > 1e-3
    with pytest.raises(ValueError, match="give two or more"):
        neighbour_effect(run, EXAMPLES[:1])


def test_a_wrong_setting_is_refused(toy_base):
    with pytest.raises(SettingsError, match="no setting 'lr'"):
        batches(str(toy_base), EXAMPLES, lr=1)
