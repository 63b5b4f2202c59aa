"""Examples and replay: as much as requested, from the right countries, the same for a seed."""

import re

import pytest

from sftlab.measure import items, subjects
from sftlab.world import (
    QUESTIONS,
    RELATIONS,
    broad_examples,
    countries,
    country_examples,
    country_shots,
    every_question,
    grammar,
    mixed,
    passage_examples,
    replay_examples,
)


def parts(row):
    question, answer = row["messages"]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    return question["content"], answer["content"]


def whole(row):
    return " ".join(parts(row))


def test_examples_are_on_the_countries_of_the_split_and_nothing_held_out():
    questions = {parts(row)[0] for row in country_examples(1000)}
    assert questions <= every_question(countries(split="sft"))
    assert not questions & every_question(countries(split="held_out"))
    assert not questions & {
        grammar.question(one, relation, wording="test", form=form)
        for one in countries()
        for relation in RELATIONS
        for form in range(2)
    }


def test_every_pair_comes_once_before_any_comes_twice():
    among = countries(split="sft")[:5]
    answers = sorted(parts(row)[1] for row in country_examples(20, among=among))
    assert answers == sorted(getattr(one, r) for one in among for r in RELATIONS)
    assert len({parts(row)[0] for row in country_examples(500)}) == 500


def test_too_many_or_none_is_an_error_with_the_limit():
    one = countries(split="sft")[:1]
    most = sum(len(QUESTIONS[r]["sft"]) for r in RELATIONS)
    assert len(country_examples(most, among=one)) == most
    for count in (0, most + 1):
        with pytest.raises(ValueError, match=f"1 to {most}"):
            country_examples(count, among=one)


def test_shots_take_turns_over_the_relations():
    for (question, _), relation in zip(country_shots(4), RELATIONS, strict=True):
        assert relation in question
    assert len({question for question, _ in country_shots(8)}) == 8


@pytest.mark.parametrize(
    "make", [country_examples, country_shots, passage_examples, replay_examples, broad_examples]
)
def test_a_seed_gives_the_same_rows_and_another_seed_others(make):
    assert make(20, seed=3) == make(20, seed=3) != make(20, seed=4)


def test_a_passage_stands_before_each_question_of_the_plain_examples():
    lengths = set()
    for row, plain in zip(passage_examples(80), country_examples(80), strict=True):
        (prompt, answer), (question, expected) = parts(row), parts(plain)
        assert prompt.endswith(question)
        assert answer == expected
        lengths.add(len(prompt) - len(question))
    assert 0 in lengths
    assert len(lengths) > 20
    assert passage_examples(20, sentences=0) == country_examples(20)
    with pytest.raises(ValueError, match="sentences=-1; give 0 or more"):
        passage_examples(20, sentences=-1)


def test_passages_name_no_country_that_is_held_out():
    names = [f" {one.name}" for one in countries(split="held_out")]
    trained = [one.name for one in countries(split="sft")]
    for row in passage_examples(80, seed=3):
        prompt = " " + parts(row)[0]
        for name in names:  # Guinea is a part of Guinea-Bissau
            assert name not in prompt or any(name.strip() in other for other in trained)


def test_nothing_measured_is_replayed():
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
    texts = [whole(row) for row in replay_examples(400, avoid=subjects())]
    assert not [text for text in texts if named.search(text)]
    assert any(named.search(whole(row)) for row in replay_examples(400)), "else nothing was avoided"
    measured = {
        " ".join(f"{one.prompt} {one.answers[0]}".split())
        for one in items()
        if one.skill in ("stories", "corpus")
    }
    assert not measured & {" ".join(text.split()) for text in texts}
    stories = [one.prompt.split("\n\n")[0] for one in items() if one.skill == "stories"]
    assert any("In the end" in text for text in texts)
    assert not any(story in text for story in stories for text in texts)


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.2, 0.3])
def test_the_share_is_of_the_whole(share):
    task = country_examples(40)
    rows = mixed(task, share=share, avoid=subjects())
    assert rows[:40] == task
    assert (len(rows) - 40) / len(rows) == pytest.approx(share, abs=0.01)


def test_numbers_that_can_not_be():
    assert replay_examples(0) == []
    with pytest.raises(ValueError, match="count=-1; give 0 or more"):
        replay_examples(-1)
    for share in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match="from 0 to below 1"):
            mixed(country_examples(4), share=share)


def test_no_bare_question_about_a_country_is_continued_with_another():
    openings = tuple(
        form.split("{x}")[0]
        for kinds in QUESTIONS.values()
        for form in kinds["sft"]
        if not form.startswith("In ")
    )
    for row in replay_examples(400):
        first, rest = parts(row)
        assert first.strip()
        assert rest.strip()
        assert not (first.startswith(openings) and rest.startswith(openings)), whole(row)


def test_broad_examples_are_of_many_kinds_and_avoid_the_same_names():
    rows = broad_examples(200, avoid=subjects())
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
    assert len(rows) == 200
    others = [whole(row) for row in rows[100:]]
    assert not [text for text in others if named.search(text)]
    for kind in ("atomic number", "kind of animal", " + "):
        assert any(kind in text for text in others), kind
    assert len(broad_examples(7)) == 7
