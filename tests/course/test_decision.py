"""The decision guide: its rules, and that what it says about itself is true."""

import random
from dataclasses import fields, replace

import pytest

from sftlab.course import ARCHETYPES, CHOICES, TASKS, Situation, decide
from sftlab.course.decision import SituationError

# Everything that fine-tuning needs; each test below changes what it is about.
SCORES = {"prompt_score": 0.6, "needed_score": 0.9, "base_knows": True}
READY = Situation(task="domain", examples=6_000, model_billions=8, memory_gb=24, **SCORES)


def random_situations(count):
    pick = random.Random(0).choice
    for _ in range(count):
        yield Situation(
            task=pick(list(TASKS)),
            examples=pick([0, 60, 199, 200, 499, 500, 2_000, 5_000, 9_000]),
            prompt_score=pick([None, 0.0, 0.4, 0.8, 1.0]),
            base_knows=pick([None, True, False]),
            needed_score=pick([None, 0.0, 0.4, 0.9, 1.0]),
            prompt_fits=pick([True, False]),
            stable_weeks=pick([0, 1, 9.5, 10, 52]),
            model_billions=pick([0.0037, 0.2, 0.6, 8, 70]),
            memory_gb=pick([0, 6, 12, 24, 80]),
        )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "fine-tune"),
        ({"task": "format", "examples": 200}, "fine-tune"),
        ({"examples": 499}, "collect data first"),
        ({"task": "format", "examples": 199}, "collect data first"),
        ({"prompt_score": 0.9}, "prompt"),
        ({"prompt_score": 0.9, "prompt_fits": False}, "fine-tune"),
        ({"prompt_score": None}, "measure a prompt first"),
        ({"needed_score": None}, "measure a prompt first"),
        ({"base_knows": None}, "measure a prompt first"),
        ({"task": "format", "base_knows": None}, "fine-tune"),
        ({"base_knows": False}, "retrieve"),
        ({"base_knows": False, "prompt_score": 0.95}, "prompt"),
        ({"task": "format", "prompt_score": 1.0}, "prompt"),
        ({"task": "format", "prompt_score": 1.0, "prompt_fits": False}, "fine-tune"),
        ({"task": "facts", "prompt_score": 1.0}, "retrieve"),
        ({"task": "assistant"}, "neither"),
        ({"task": "reasoning", "examples": 4_999}, "neither"),
        ({"task": "reasoning", "examples": 5_000}, "fine-tune"),
        ({"stable_weeks": 9}, "prompt"),
        ({"memory_gb": 11}, "neither"),
        ({"memory_gb": 12}, "fine-tune"),
        ({"memory_gb": 0, "model_billions": 0.0037}, "fine-tune"),
    ],
)
def test_advice(changed, expected):
    assert decide(replace(READY, **changed)).choice == expected


def test_archetypes_show_every_choice_and_print_as_text():
    assert {decide(s).choice for s in ARCHETYPES.values()} == set(CHOICES)
    text = str(decide(ARCHETYPES["Price list of the week"]))
    assert text.startswith("retrieve: ")
    assert "no single answer" in text


def test_every_reason_names_a_field_and_a_change_really_changes_the_advice():
    reasons = decide(replace(READY, examples=120)).reasons
    changes = list(map(str, decide(READY).would_change))
    assert changes[0] == "prompt_score at least 0.9 → prompt"
    assert changes[-1] == "memory_gb under 12 → neither"
    assert "examples is 120, under 500" in reasons[0]
    assert any("prompt_score is 0.6 and needed_score is 0.9" in reason for reason in reasons)
    assert any("model_billions is 8 and memory_gb is 24" in reason for reason in reasons)
    names = {f.name for f in fields(Situation)}
    for situation in random_situations(400):
        advice = decide(situation)
        assert advice.reasons
        assert advice.next_steps
        for reason in advice.reasons:
            assert any(f"{name} " in reason for name in names), reason
        for change in advice.would_change:
            flipped = decide(replace(situation, **{change.field: change.value}))
            assert flipped.choice == change.choice != advice.choice, change


def test_would_change_misses_nothing():
    shares = [n / 50 for n in range(51)]
    values = {
        "examples": [0, *range(99, 6_000, 50)],
        "prompt_score": shares,
        "needed_score": shares,
        "prompt_fits": [True, False],
        "base_knows": [True, False],
        "stable_weeks": [0, 5, 9.9, 10, 100],
        "model_billions": [0.001, 0.2, 0.21, 1, 4, 8, 16, 50, 500],
        "memory_gb": [0, 1, 6, 12, 24, 105, 1_000],
    }
    for situation in random_situations(60):
        advice = decide(situation)
        listed = {(change.field, change.choice) for change in advice.would_change}
        for name, tried in values.items():
            for value in tried:
                other = decide(replace(situation, **{name: value})).choice
                assert other == advice.choice or (name, other) in listed, (situation, name, value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "poetry"}, "poetry.*choose one of format"),
        ({"prompt_score": 62}, "prompt_score is 62.*62% is 0.62"),
        ({"needed_score": float("nan")}, "needed_score is nan"),
    ],
)
def test_wrong_answers_are_named_with_a_remedy(changed, said):
    with pytest.raises(SituationError, match=said):
        replace(READY, **changed)
