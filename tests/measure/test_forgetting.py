"""The meter: frozen items, what generation would write, the same for a new adapter."""

import copy
import hashlib
import re

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from sftlab.measure import complete, items, read_meter, subjects, summary
from sftlab.measure.forgetting import SKILLS, WORLDLY
from sftlab.models import load
from sftlab.world import country_examples

FROZEN = "23c0fd1abce16c378ab740302d42e11861d54db49618e0a668f64a2a09d2be08"


@pytest.fixture(scope="module")
def tiny():
    return load("tiny")


@pytest.fixture(scope="module")
def whole(tiny):
    return read_meter(*tiny)


def test_items_are_frozen_and_every_skill_is_about_as_many_things():
    """Readings compare only on the same items: a changed one makes all older readings void."""
    each = [(one.skill, one.relation, one.item, one.prompt, one.answers) for one in items()]
    assert hashlib.sha256(repr(each).encode()).hexdigest() == FROZEN
    things = {skill: {one.item for one in items() if one.skill == skill} for skill in SKILLS}
    assert {skill: len(found) for skill, found in things.items()} == dict.fromkeys(SKILLS, 16)
    assert len(set().union(*things.values())) == 16 * len(SKILLS), "none is in two"
    assert {one.skill for one in items(known_corpus=False)} == set(WORLDLY)


def test_no_example_names_what_an_item_is_about():
    assert "France" in subjects()
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b")
    for row in country_examples(1_800):
        question = row["messages"][0]["content"]
        assert not named.search(question.replace("Guinea-Bissau", "")), question


def test_the_base_has_every_skill_and_random_weights_have_none(tiny, whole):
    had = summary(whole)["right"].drop("corpus")
    assert list(had.index) == [skill for skill in SKILLS if skill != "corpus"]
    assert had.min() >= 0.8
    assert had[list(WORLDLY)].min() >= 0.95
    model = AutoModelForCausalLM.from_config(tiny[0].config).eval()
    frame = read_meter(model, tiny[1])
    assert summary(frame)["right"].max() <= 0.05
    assert frame["nats"].min() > 3


def test_a_new_adapter_changes_nothing(tiny, whole):
    model = get_peft_model(copy.deepcopy(tiny[0]), LoraConfig(r=8, target_modules="all-linear"))
    pd.testing.assert_frame_equal(read_meter(model.eval(), tiny[1]), whole, atol=1e-4)


def test_right_is_what_greedy_generation_writes(tiny):
    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    torch.manual_seed(0)
    with torch.no_grad():  # a little noise on its weights: it knows some things and not others
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * 0.42)
    frame = read_meter(model, tokenizer)
    each = [one for one in items() if one.skill != "corpus"]
    written = complete(model, tokenizer, [one.prompt for one in each], max_new_tokens=14)
    right = [
        any(re.match(rf"{re.escape(answer)}(?![^\W_])", text[1:]) for answer in one.answers)
        for one, text in zip(each, written, strict=True)
    ]
    assert frame["right"].dropna().astype(bool).tolist() == right
    assert 0.2 < sum(right) / len(right) < 0.8, "nothing is tested by all alike"
    outputs = frame.loc[frame["skill"] != "corpus", "output"]
    assert all(text.startswith(output) for text, output in zip(written, outputs, strict=True))


def test_a_prefix_is_read_before_the_text(toy_base):
    model, tokenizer = load(toy_base)
    plain = read_meter(model, tokenizer, known_corpus=False)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    frame = read_meter(get_peft_model(model, config).eval(), tokenizer, known_corpus=False)
    assert set(frame["skill"]) == set(WORLDLY)
    assert len(frame) == len(plain)
    assert (frame["nats"] - plain["nats"]).abs().max() > 1e-4
