"""A change that is known is found, and its largest directions can be kept alone."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from sftlab.measure.weight_changes import WeightChanges

NAME = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def base(toy_base):
    return AutoModelForCausalLM.from_pretrained(toy_base)


@pytest.fixture
def trained(base):
    """One matrix has moved by a change with the singular values 4 and 1, all others are at rest."""
    model = copy.deepcopy(base)
    weight = model.get_submodule(NAME).weight
    change = torch.zeros_like(weight)
    change[0, 0], change[1, 1] = 4.0, -1.0
    with torch.no_grad():
        weight += change
    return model


def test_a_known_change_is_found(trained, base):
    frame = WeightChanges(trained, base).frame(rank=1).set_index("matrix")
    assert len(frame) == 2 * 7
    row = frame.loc[NAME]
    assert (row["layer"], row["kind"], row["directions"]) == (1, "up_proj", 1)
    norm = base.get_submodule(NAME).weight.norm().item()
    assert row["moved"] == pytest.approx(17**0.5 / norm, rel=1e-5)
    assert row["held"] == pytest.approx(16 / 17, rel=1e-5)
    still = frame.drop(NAME)
    assert (still["moved"] == 0).all()
    assert (still["held"] == 1).all()


def test_the_spectrum_of_noise_is_beside_that_of_the_change(trained, base):
    spectrum = WeightChanges(trained, base).spectrum()
    assert spectrum["directions"].iloc[[0, -1]].tolist() == [1, 64]
    # 13 of 14 matrices hold nothing.
    assert spectrum["held"].iloc[1] == pytest.approx(1 / 14, rel=1e-4)
    assert spectrum["random"].iloc[-1] == pytest.approx(1)
    assert 0.02 < spectrum["random"].iloc[0] < 0.1


def test_kept_directions_are_put_back_afterwards(trained, base):
    with torch.no_grad():
        trained.model.norm.weight += 1  # no linear layer: it stays as trained
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
    assert torch.equal(weight, whole)
    with pytest.raises(RuntimeError, match="stop"), changes.kept(1):
        raise RuntimeError("stop")
    assert torch.equal(weight, whole)


def test_an_unchanged_model_and_another_base_are_refused(trained, base):
    with pytest.raises(ValueError, match="merge adapters"):
        WeightChanges(copy.deepcopy(base), base)
    other = copy.deepcopy(base)
    other.model.layers = other.model.layers[:1]
    with pytest.raises(ValueError, match="not in the base"):
        WeightChanges(trained, other)
