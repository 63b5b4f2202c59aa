"""A 4-bit base stays as it is: an evaluation leaves the training after it exact, everywhere.

bitsandbytes lays weights out anew for inference only where the processor has AVX512-BF16. Here each
layer is told that it has, before the base is loaded: without the guard these tests fail anywhere.
"""

import pytest
import torch
from toy_run import EXAMPLES, logits, same, train

from sftlab.measure import token_losses
from sftlab.train import load_run
from sftlab.train.trainer import SupervisedTrainer

nn = pytest.importorskip("bitsandbytes.nn")


@pytest.fixture
def packing_processor(monkeypatch):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)


def layers(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear4bit)]


def adapters(run):
    return {n: w.clone() for n, w in run.model.state_dict().items() if "lora_" in n}


def evaluate(model):
    token_losses(model, [5, 6, 7, 8])
    return logits(model.eval(), [5, 6, 7, 8])


@pytest.mark.usefixtures("packing_processor")
@pytest.mark.parametrize(("method", "bf16"), [("qlora", True), ("qlora", False), ("int8", True)])
def test_evaluated_before_and_during_the_training_it_ends_at_the_same_bits(
    toy_base, monkeypatch, method, bf16
):
    asked = {"num_train_epochs": 2, "method": method, "bf16": bf16}
    plain = train(toy_base, **asked)
    ordinary = SupervisedTrainer.train

    def evaluate_first(self, **options):
        evaluate(self.model)
        return ordinary(self, **options)

    monkeypatch.setattr(SupervisedTrainer, "train", evaluate_first)
    watched = train(toy_base, eval_dataset=EXAMPLES[:5], **asked)
    assert len(watched.validation) == 2
    assert plain.history == watched.history
    assert same(adapters(plain), adapters(watched))
    assert torch.equal(evaluate(plain.model), evaluate(watched.model))


@pytest.mark.parametrize(
    ("method", "adapter_dtype", "found"),
    [
        ("lora", None, "float32"),
        ("lora", "bfloat16", "bfloat16"),
        ("qlora", "float32", "float32"),
        ("int8", None, "bfloat16"),
    ],
)
def test_precision_of_adapters_is_as_asked_and_is_kept(
    toy_base, tmp_path, method, adapter_dtype, found
):
    made = train(toy_base, EXAMPLES[:8], method=method, adapter_dtype=adapter_dtype)
    assert made.settings.adapter_dtype == found
    opened = load_run(made.save(tmp_path / "run"))
    for run in (made, opened):
        assert {weight.dtype for weight in adapters(run).values()} == {getattr(torch, found)}
    assert torch.equal(evaluate(made.model), evaluate(opened.model))


@pytest.mark.parametrize(("double", "bf16"), [(True, True), (False, False)])
def test_layers_are_quantised_and_compute_as_asked(toy_base, double, bf16):
    how = {"method": "qlora", "bnb_4bit_use_double_quant": double, "bf16": bf16}
    made = layers(train(toy_base, EXAMPLES[:8], **how).model)
    assert {layer.compute_dtype for layer in made} == {torch.bfloat16 if bf16 else torch.float32}
    states = [layer.weight.quant_state for layer in made]
    assert {(state.nested, state.quant_type) for state in states} == {(double, "nf4")}
