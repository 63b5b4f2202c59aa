"""A 4-bit base stays as it is: an evaluation leaves the training after it exact, everywhere.

bitsandbytes lays weights out anew for inference only where the processor has AVX512-BF16. Here each
layer is told that it has, before the base is loaded: without the guard these tests fail anywhere.
"""

import pytest
import torch
from toy_run import EXAMPLES, train

from sftlab import models
from sftlab.measure import token_losses
from sftlab.models import Profile
from sftlab.train import load_run
from sftlab.train.trainer import SupervisedTrainer

nn = pytest.importorskip("bitsandbytes.nn")


@pytest.fixture
def packing_processor(monkeypatch):
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)


@pytest.fixture(scope="module")
def base(toy_base):
    return str(toy_base)


def layers(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear4bit)]


def held(model):
    """The bytes of every 4-bit layer, and how they are to be read."""
    states = [(one.weight.data, one.weight.quant_state) for one in layers(model)]
    return [
        (data.tolist(), state.absmax.tolist(), getattr(state, "packing_format_for_cpu", False))
        for data, state in states
    ]


def adapters(run):
    return {n: w.clone() for n, w in run.model.state_dict().items() if "lora_" in n}


def evaluate(model):
    token_losses(model, [5, 6, 7, 8])
    model.eval()
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


@pytest.mark.usefixtures("packing_processor")
@pytest.mark.parametrize("double", [True, False])
def test_evaluation_leaves_the_weights_as_they_were(base, double):
    profile = Profile(name="base", source=base, method="qlora")
    model, _ = models.load(profile, bnb_4bit_use_double_quant=double)
    assert layers(model)
    before, first = held(model), evaluate(model)
    assert before == held(model)
    assert torch.equal(first, evaluate(model))


@pytest.mark.usefixtures("packing_processor")
def test_without_the_guard_an_evaluation_changes_them(base, monkeypatch):
    # What the guard is there for: should bitsandbytes stop doing so, it can go.
    monkeypatch.setattr(models, "keep_layout", lambda model: None)
    model, _ = models.load(Profile(name="base", source=base, method="qlora"))
    before = held(model)
    evaluate(model)
    assert before != held(model)


@pytest.mark.usefixtures("packing_processor")
@pytest.mark.parametrize(("method", "bf16"), [("qlora", True), ("qlora", False), ("int8", True)])
def test_evaluated_before_and_during_the_training_it_ends_at_the_same_bits(
    base, monkeypatch, method, bf16
):
    asked = {"num_train_epochs": 2, "method": method, "bf16": bf16}
    plain = train(base, **asked)
    ordinary = SupervisedTrainer.train

    def evaluate_first(self, **options):
        evaluate(self.model)
        return ordinary(self, **options)

    monkeypatch.setattr(SupervisedTrainer, "train", evaluate_first)
    watched = train(base, eval_dataset=EXAMPLES[:5], **asked)
    assert len(watched.validation) == 2
    assert plain.history == watched.history
    one, other = adapters(plain), adapters(watched)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(evaluate(plain.model), evaluate(watched.model))


@pytest.mark.usefixtures("packing_processor")
def test_training_goes_on_after_an_opened_run_was_evaluated(base, tmp_path):
    made = train(base, method="qlora")
    opened = load_run(made.save(tmp_path / "run"))
    evaluate(opened.model)
    grown = []
    for run in (made, opened):
        run.model.set_requires_grad("default")
        run.model.train()
        loss = run.model(torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss
        loss.backward()
        grown.append([w.grad for n, w in run.model.named_parameters() if "lora_B" in n])
    assert all(torch.equal(a, b) for a, b in zip(*grown, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in grown[0])


@pytest.mark.parametrize(
    ("method", "adapter_dtype", "found"),
    [
        ("lora", None, "float32"),
        ("lora", "bfloat16", "bfloat16"),
        ("qlora", None, "bfloat16"),
        ("qlora", "float32", "float32"),
        ("int8", None, "bfloat16"),
    ],
)
def test_precision_of_adapters_is_as_asked_and_is_kept(
    base, tmp_path, method, adapter_dtype, found
):
    made = train(base, method=method, adapter_dtype=adapter_dtype)
    assert made.settings.adapter_dtype == found
    opened = load_run(made.save(tmp_path / "run"))
    for run in (made, opened):
        assert {weight.dtype for weight in adapters(run).values()} == {getattr(torch, found)}
    assert torch.equal(evaluate(made.model), evaluate(opened.model))


@pytest.mark.parametrize(("double", "bf16"), [(True, True), (False, False)])
def test_layers_are_quantised_and_compute_as_asked(base, double, bf16):
    how = {"method": "qlora", "bnb_4bit_use_double_quant": double, "bf16": bf16}
    made = layers(train(base, EXAMPLES[:8], **how).model)
    assert {layer.compute_dtype for layer in made} == {torch.bfloat16 if bf16 else torch.float32}
    states = [layer.weight.quant_state for layer in made]
    assert {(state.nested, state.quant_type) for state in states} == {(double, "nf4")}
