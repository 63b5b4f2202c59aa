"""Dropout: where it falls, that it has a seed, and that nothing of it is left behind."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sftlab.models import load
from sftlab.train.dropout import dropping
from sftlab.train.finetuning import finetune
from sftlab.train.settings import SettingsError

EXAMPLES = [
    {
        "messages": [
            {"role": "user", "content": f"What is {n}?"},
            {"role": "assistant", "content": ["Paris", "Rome, Italy"][n % 2]},
        ]
    }
    for n in range(24)
]
EXACT = {
    "bf16": False,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
}


def train(base, **settings):
    return finetune(str(base), EXAMPLES, progress=False, **{**EXACT, **settings})


def equal(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.fixture
def model(toy_base):
    return load(str(toy_base))[0].train()


IDS = torch.arange(5, 25)[None]


def logits(model):
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def test_none_is_none_bit_for_bit(model):
    before = logits(model)
    with dropping(model, 0.0):
        assert torch.equal(logits(model), before)


def test_it_falls_in_training_alone_and_comes_from_the_global_generator(model):
    plain = logits(model)
    with dropping(model, 0.3):
        torch.manual_seed(1)
        first = logits(model)
        second = logits(model)
        torch.manual_seed(1)
        assert torch.equal(logits(model), first)
        assert not torch.equal(second, first)
        model.eval()
        assert torch.equal(logits(model), plain)
        model.train()
    assert torch.equal(logits(model), plain), "nothing is left"


@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_what_a_sublayer_adds_is_dropped_by_the_share_and_scaled(model, part):
    seen = []
    with dropping(model, 0.25):
        # Called after the hook that drops, so it sees what the stream gets.
        module = getattr(model.model.layers[0], part)
        hook = module.register_forward_hook(lambda m, given, out: seen.append(out))
        torch.manual_seed(0)
        logits(model)
        hook.remove()
        with torch.no_grad():
            given = torch.ones(1, 400, 64)
            if part == "mlp":
                torch.manual_seed(2)
                dropped, whole = module(given), module.eval()(given)
                zero = dropped == 0
                assert 0.2 < zero.float().mean() < 0.3
                torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)
    first = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert 0.15 < (first == 0).float().mean() < 0.35


def test_attention_drops_by_the_models_own_code(model):
    attention = model.model.layers[1].self_attn
    with dropping(model, 0.25):
        assert attention.attention_dropout == 0.25
    assert attention.attention_dropout == 0.0
    assert model.config.attention_dropout == 0.0, "a saved model would drop ever after"


def test_a_model_with_dropout_of_its_own_uses_that_one():
    own = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=40)).train()
    drops = [m for m in own.modules() if isinstance(m, torch.nn.Dropout)]
    assert {m.p for m in drops} == {0.1}
    for share in (0.0, 0.3):
        with dropping(own, share):
            assert {m.p for m in drops} == {share}
            assert not any(m._forward_hooks for m in own.modules())
    assert {m.p for m in drops} == {0.1}


def test_a_model_without_known_layers_is_refused():
    with pytest.raises(SettingsError, match="Linear has its layers is not known"):
        dropping(torch.nn.Linear(2, 2), 0.1).__enter__()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_with_it_has_a_seed_and_leaves_no_trace(toy_base, method):
    settings = {"method": method, "learning_rate": 1e-2, "num_train_epochs": 2}
    plain = train(toy_base, **settings)
    none = train(toy_base, dropout=0.0, **settings)
    name = "lora_dropout" if method == "lora" else "dropout"
    first, second = (train(toy_base, **{name: 0.2}, **settings) for _ in range(2))
    assert equal(none, plain)
    assert equal(first, second)
    assert not equal(first, plain)
    if method == "lora":
        assert first.model.peft_config["default"].lora_dropout == 0.2
    else:
        first.model.train()
    assert torch.equal(logits(first.model), logits(first.model.eval()))


def test_checkpointed_layers_drop_the_same_again(toy_base):
    kept = train(toy_base, dropout=0.2)
    again = train(toy_base, dropout=0.2, gradient_checkpointing=True)
    for first, second in zip(kept.history, again.history, strict=True):
        assert first["loss"] == second["loss"]
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-6)


def test_it_is_off_while_validation_is_measured(toy_base):
    made = finetune(
        str(toy_base),
        EXAMPLES,
        eval_dataset=EXAMPLES,
        progress=False,
        **{**EXACT, "learning_rate": 1e-9, "dropout": 0.5},
    )
    plain = finetune(
        str(toy_base),
        EXAMPLES,
        eval_dataset=EXAMPLES,
        progress=False,
        **{**EXACT, "learning_rate": 1e-9},
    )
    assert made.history[0]["loss"] != plain.history[0]["loss"]
    assert made.validation[0]["loss"] == pytest.approx(plain.validation[0]["loss"], rel=1e-5)
