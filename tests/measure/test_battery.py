"""The meter: what generation would write, nothing for noise, the same for a new adapter."""

import copy

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.measure import battery
from sftlab.measure.completion import complete
from sftlab.measure.old_skills import SKILLS, WORLDLY, items
from sftlab.measure.probes import text_loss
from sftlab.models import load


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


@pytest.fixture(scope="module")
def whole(tiny):
    return battery.read(*tiny)


@pytest.fixture(scope="module")
def shaken(tiny):
    """The base with a little noise on its weights: it knows some things and not others."""
    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.42)
    return model, tokenizer


def shares(frame):
    rows = frame[frame["skill"] != "corpus"]
    return rows["right"].astype(float).groupby(rows["skill"]).mean()


def test_the_base_has_every_skill(whole):
    assert list(whole["skill"].unique()) == list(SKILLS)
    assert shares(whole).min() >= 0.8
    assert shares(whole)[list(WORLDLY)].min() >= 0.95


def test_random_weights_have_none(tiny):
    model = AutoModelForCausalLM.from_config(tiny[0].config).eval()
    frame = battery.read(model, tiny[1])
    assert shares(frame).max() <= 0.05
    assert frame["nats"].min() > 3


def test_a_new_adapter_changes_nothing(tiny, whole):
    model = get_peft_model(copy.deepcopy(tiny[0]), LoraConfig(r=8, target_modules="all-linear"))
    frame = battery.read(model.eval(), tiny[1])
    pd.testing.assert_frame_equal(frame, whole, atol=1e-4)


def test_right_is_what_greedy_generation_writes(shaken):
    frame = battery.read(*shaken)
    asked = [one for one in items() if one.skill != "corpus"]
    written = complete(*shaken, [one.prompt for one in asked], max_new_tokens=14)
    right = [
        any(
            text[1:].startswith(answer) and not text[1 + len(answer) :][:1].isalnum()
            for answer in one.answers
        )
        for one, text in zip(asked, written, strict=True)
    ]
    assert frame["right"].dropna().astype(bool).tolist() == right
    assert 0.2 < sum(right) / len(right) < 0.8, "nothing is tested by all alike"
    outputs = frame.loc[frame["skill"] != "corpus", "output"]
    assert all(text.startswith(output) for text, output in zip(written, outputs, strict=True))


def test_loss_of_the_documents_is_that_of_text_loss(tiny, whole):
    for one, nats in zip(items()[-3:], whole["nats"].iloc[-3:], strict=True):
        loss = text_loss(*tiny, [one.answers[0]], max_length=battery.LONGEST)
        assert nats == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize(("name", "value"), [("ROWS", 1), ("LOGITS", 300_000), ("LONGER", 9)])
def test_what_shares_a_batch_does_not_matter(name, value, tiny, whole, monkeypatch):
    monkeypatch.setattr(battery, name, value)
    pd.testing.assert_frame_equal(battery.read(*tiny), whole, atol=1e-4)


def test_a_model_that_is_not_ours_is_asked_for_the_worlds_facts(toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32).eval()
    frame = battery.read(model, AutoTokenizer.from_pretrained(toy_base), known_corpus=False)
    assert set(frame["skill"]) == set(WORLDLY)
    assert len(frame) == len(items(known_corpus=False))


def test_a_prefix_is_read_behind(toy_base):
    model = AutoModelForCausalLM.from_pretrained(toy_base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(toy_base)
    plain = battery.read(model.eval(), tokenizer)
    tuned = get_peft_model(
        model, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    ).eval()
    frame = battery.read(tuned, tokenizer)
    assert len(frame) == len(plain)
    assert (frame["nats"] - plain["nats"]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("written", "right"), [("8 9 10.", True), ("8 9 100", False), ("8 9 10", True)]
)
def test_an_answer_ends_where_its_word_does(written, right, tiny):
    ids = tiny[1](" 8 9 10", add_special_tokens=False)["input_ids"]
    likeliest = tiny[1](f" {written}", add_special_tokens=False)["input_ids"]
    likeliest = [*likeliest, tiny[1].eos_token_id][: len(ids) + 1]
    found = battery._judged(tiny[1], ids, 0, likeliest, [0.1] * len(ids))
    assert found[0] is right


def test_readings_are_compared_item_by_item(whole):
    after = pd.concat([whole.assign(seed=seed, right=seed == 1) for seed in (0, 1)])
    both = battery.compare(whole, after.astype({"right": "boolean"}))
    assert len(both) == 2 * len(whole)
    assert (both["right_before"].dropna()).mean() > 0.9
    assert both.loc[both["seed"] == 0, "right"].mean() == 0
    told = battery.summary(both)
    assert list(told.index) == list(SKILLS)
    assert told.loc["facts", "right"] == 0.5
    assert (told["nats"] == told["nats_before"]).all()


def test_readings_of_other_items_are_refused(whole):
    with pytest.raises(ValueError, match="not of the same items"):
        battery.compare(whole[whole["skill"] == "facts"], whole)
    with pytest.raises(ValueError, match="not of the same items"):
        battery.compare(whole, whole.iloc[:10])
