"""The base models that ship: what they are, and that their model cards are true."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.course import HELD_OUT_BARS, SEEDS, measure_base, measure_tunes
from sftlab.models import weights_hash
from sftlab.paths import DATA
from sftlab.world import RESERVED
from sftlab.world import corpus_text as corpus

NAMES = ("tiny", "small", "tiny-early")
MODELS = DATA / "models"


def card(name):
    return json.loads((MODELS / name / "card.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "least", "most"), [("tiny", 2e6, 4e6), ("small", 5e6, 9e6), ("tiny-early", 2e6, 4e6)]
)
def test_plain_transformers_loads_it(name, least, most):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    config = model.config
    assert model.dtype == torch.float32
    assert least <= sum(p.numel() for p in model.parameters()) <= most
    assert config.model_type == "llama"
    assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    assert len(tokenizer) == config.vocab_size == model.get_input_embeddings().weight.shape[0]
    assert all(len(tokenizer.encode(t)) == 1 for t in RESERVED)
    assert tokenizer.chat_template is None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == config.eos_token_id
    text = "Nuku'alofa costs 12 pa'anga.\n  def f(x):\n\treturn x"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_they_are_small_and_share_one_tokenizer_and_one_corpus():
    files = [file for file in MODELS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40e6
    assert not [f for f in files if f.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    assert len({(MODELS / name / "tokenizer.json").read_bytes() for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_card_and_log_are_of_these_weights_and_meet_the_bars(name):
    log = json.loads((MODELS / name / "training_log.json").read_text(encoding="utf-8"))
    assert log["corpus"] == corpus.recorded()
    assert (log["recipe"]["steps_done"] == log["recipe"]["steps"]) is (name != "tiny-early")
    found = card(name)
    assert found["weights"] == weights_hash(MODELS / name)
    text = (MODELS / name / "README.md").read_text(encoding="utf-8")
    assert not [row for row in found["measures"] if f"{row['value']:.1%}" not in text]
    tuned = [row for row in found["measures"] if row["seeds"]]
    assert {len(row["seeds"]) for row in tuned} == {len(SEEDS)}
    barred = [row for row in found["measures"] if row["bar"] is not None]
    assert len(barred) == (4 + 2 + 4 + 2 + 4 + 4 + 1 if name in HELD_OUT_BARS else 0)
    assert not [row for row in barred if not row["met"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", HELD_OUT_BARS)
def test_the_bars_of_a_base_hold_here_too(name):
    """Measured again on this machine."""
    for measure in measure_base(name):
        assert measure.met is not False, (measure.what, measure.part, str(measure.share))


@pytest.mark.slow
def test_the_bars_of_a_fine_tune_hold_here_too():
    """Measured again on this machine, with one SFT seed; another processor may round otherwise."""
    name = "tiny"
    recorded = {
        (row["what"], row["part"]): row["seeds"][0]
        for row in card(name)["measures"]
        if row["seeds"]
    }
    for measure in measure_tunes(name, seeds=SEEDS[:1])[0]:
        if measure.bar is not None and not measure.at_least:
            # A run that falls apart magnifies every rounding: two threads end elsewhere than one.
            assert measure.share.value <= measure.bar, (measure.what, str(measure.share))
        elif measure.bar is not None:
            key = (measure.what, measure.part)
            assert abs(measure.share.value - recorded[key]) <= 0.06, (key, str(measure.share))
