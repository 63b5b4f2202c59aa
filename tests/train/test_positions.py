"""What is left out of a step changes neither loss nor gradient."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from sftlab.train.positions import last_mlp_at, shifted, trimmed
from sftlab.train.step import supervised_loss

LABELS = torch.tensor([[-100, -100, 5, 6, -100, -100], [-100, 7, -100, -100, -100, -100]])
IDS = torch.tensor([[1, 2, 5, 6, 3, 4], [8, 7, 9, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_position_predicts_the_label_after_it():
    assert shifted(LABELS).tolist() == [
        [-100, 5, 6, -100, -100, -100],
        [7, -100, -100, -100, -100, -100],
    ]


def test_columns_right_of_the_last_prediction_are_cut():
    inputs, targets = trimmed({"input_ids": IDS, "attention_mask": MASK}, shifted(LABELS))
    assert targets.tolist() == [[-100, 5, 6], [7, -100, -100]]
    assert inputs["input_ids"].tolist() == [[1, 2, 5], [8, 7, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_nothing_is_cut_where_an_input_has_another_shape():
    given = {"input_ids": IDS, "bounds": torch.tensor([0, 3, 6])}
    inputs, targets = trimmed(given, shifted(LABELS))
    assert inputs is given
    assert targets.shape == IDS.shape


def test_a_batch_that_teaches_nothing_is_left_whole():
    _, targets = trimmed({"input_ids": IDS}, torch.full_like(IDS, -100))
    assert targets.shape == IDS.shape


@pytest.mark.parametrize("again", [False, True], ids=["plain", "checkpointed"])
def test_loss_and_gradient_are_the_models_own(llama, again):
    llama.train()
    if again:
        llama.activation_checkpointing_enable()
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    kept = shifted(LABELS)[:, :3] != -100
    seen = []
    mlp = llama.model.layers[-1].mlp
    hook = mlp.gate_proj.register_forward_hook(lambda _, given, out: seen.append(out.shape[1]))
    try:
        with last_mlp_at(llama, kept):
            loss, _ = supervised_loss(llama, inputs, LABELS)
            found = gradients(llama, loss)
    finally:
        hook.remove()
        llama.activation_checkpointing_disable()
    assert seen == [3] * (1 + again), "three predictions, and again on the way back"
    own = llama(**inputs, labels=LABELS, use_cache=False).loss
    wanted = gradients(llama, own)
    assert loss.item() == pytest.approx(own.item(), rel=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    assert not mlp._forward_hooks
    assert not mlp._forward_pre_hooks


def test_a_forward_of_another_shape_is_computed_whole(llama):
    with torch.no_grad():
        whole = llama(IDS).logits
        with last_mlp_at(llama, torch.ones(3, 9, dtype=torch.bool)):
            assert torch.equal(llama(IDS).logits, whole)


def test_an_mlp_of_another_make_is_computed_whole():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)).eval()
    with torch.no_grad():
        whole = model(IDS).logits
        with last_mlp_at(model, torch.zeros_like(IDS, dtype=torch.bool)):
            assert torch.equal(model(IDS).logits, whole)
