"""A change that is known is found, and its largest directions can be kept alone."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftlab.measure import WeightChanges

NAME = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def base(toy_base):
    return AutoModelForCausalLM.from_pretrained(toy_base)


@pytest.fixture
def trained(base):
    """Each matrix has moved by a change with the singular values 4 and 1."""
    model = copy.deepcopy(base)
    for layer in model.model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data[0, 0] += 4
            layer.weight.data[1, 1] -= 1
    return model


def test_a_known_change_is_found(trained, base):
    frame = WeightChanges(trained, base).frame(rank=1).set_index("matrix")
    assert len(frame) == 2 * 7
    row = frame.loc[NAME]
    assert (row["layer"], row["kind"], row["directions"]) == (1, "up_proj", 1)
    norm = base.get_submodule(NAME).weight.norm().item()
    assert row["moved"] == pytest.approx(17**0.5 / norm, rel=1e-5)
    assert frame["held"].tolist() == pytest.approx([16 / 17] * 14, rel=1e-5)


def test_the_spectrum_of_noise_is_beside_that_of_the_change(trained, base):
    spectrum = WeightChanges(trained, base).spectrum()
    assert spectrum["directions"].iloc[[0, -1]].tolist() == [1, 64]
    assert spectrum["held"].iloc[:2].tolist() == pytest.approx([16 / 17, 1], rel=1e-4)
    assert spectrum["random"].iloc[-1] == pytest.approx(1)
    assert 0.02 < spectrum["random"].iloc[0] < 0.1


def test_kept_directions_are_put_back_afterwards(trained, base):
    trained.model.norm.weight.data += 1  # no linear layer: it stays as trained
    changes = WeightChanges(trained, base)
    weight = trained.get_submodule(NAME).weight
    before = base.get_submodule(NAME).weight
    whole = weight.detach().clone()
    with changes.kept(0):
        assert torch.equal(weight, before)
        assert torch.equal(trained.model.norm.weight, base.model.norm.weight + 1)
    with changes.kept(1):
        left = weight - before
        assert left[0, 0].item() == pytest.approx(4, rel=1e-4)
        assert left.norm().item() == pytest.approx(4, rel=1e-4)
    with pytest.raises(RuntimeError, match="stop"), changes.kept(1):
        raise RuntimeError("stop")
    assert torch.equal(weight, whole)
