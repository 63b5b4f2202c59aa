"""Examples, tasks and replay: as many as requested, of the right subjects, the same for a seed."""

import re

import pytest

from sftlab.data import part_of
from sftlab.measure import items, probe_questions, subjects
from sftlab.world import (
    OLD_CURRENCIES,
    QUESTIONS,
    RELATIONS,
    broad_examples,
    countries,
    country_examples,
    country_rows,
    country_shots,
    every_question,
    exam_rows,
    grammar,
    is_true,
    mixed,
    note_rows,
    outdated_rows,
    passage_examples,
    replay_examples,
    review_rows,
    reviews,
    seen,
    with_answer,
)

NAMED = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
"""What is measured."""


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
    texts = [whole(row) for row in replay_examples(400, avoid=subjects())]
    assert not [text for text in texts if NAMED.search(text)]
    assert any(NAMED.search(whole(row)) for row in replay_examples(400)), "else nothing was avoided"
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
    assert len(rows) == 200
    others = [whole(row) for row in rows[100:]]
    assert not [text for text in others if NAMED.search(text)]
    for kind in ("atomic number", "kind of animal", " + "):
        assert any(kind in text for text in others), kind
    assert len(broad_examples(7)) == 7


def test_country_rows_are_the_examples_with_their_subject():
    made = country_rows(200, seed=3)
    assert [{"messages": row["messages"]} for row in made] == country_examples(200, seed=3)
    for row in made:
        about, before = row["meta"], part_of(row, "answer")
        assert about["country"] in part_of(row, "prompt")
        assert about["relation"] in RELATIONS
        assert is_true(row)
        assert not is_true(with_answer(row, "Atlantis"))
        assert part_of(with_answer(row, "x"), "answer") == "x"
        assert part_of(row, "answer") == before
    assert len({row["meta"]["country"] for row in made}) > 40


def test_exam_rows_are_word_for_word_the_questions_of_the_probe():
    among = countries(group="stated")[:7]
    rows = exam_rows(among, relations=["capital", "currency"])
    questions = []
    probe_questions(
        lambda given: questions.extend(given) or [""] * len(given),
        among=among,
        relations=["capital", "currency"],
    )
    assert [part_of(row, "prompt") for row in rows] == questions
    assert set(questions) <= every_question(among)
    assert all(map(is_true, rows))


def test_outdated_rows_are_false_today_and_of_the_split_for_training():
    rows = outdated_rows(48)
    names = {row["meta"]["country"] for row in rows}
    assert len(names) == 12
    assert names <= {one.name for one in countries(split="sft")}
    assert {row["meta"]["relation"] for row in rows} == {"currency"}
    assert not any(map(is_true, rows))
    assert {one.currency for one in countries() if one.name in OLD_CURRENCIES} == {"euro"}


def test_reviews_for_training_and_test_share_no_item_and_no_text():
    rows = review_rows(positive=50, negative=6, seed=1)
    said = [row["meta"]["sentiment"] for row in rows]
    assert (said.count("positive"), said.count("negative")) == (50, 6)
    test = reviews(test=True)
    held_out = {row["meta"]["item"] for row in test}
    assert len(held_out) == 3
    assert not {row["meta"]["item"] for row in rows} & held_out
    balance = [part_of(row, "answer") for row in test]
    assert balance.count("positive") == balance.count("negative") == len(test) // 2
    assert len({part_of(row, "prompt") for row in test}) == len(test)
    with pytest.raises(ValueError, match="positive=999: there are 0 to 56"):
        review_rows(positive=999, negative=1)


def test_notes_are_about_people_of_whom_the_corpus_knows_nothing():
    rows = note_rows(12, copies=8)
    assert len(rows) == 96
    notes = {part_of(row, "answer") for row in rows}
    assert len(notes) == 12
    assert len({part_of(row, "prompt") for row in rows}) == 96
    assert note_rows(12) == rows[::8]
    assert not any(seen(row["meta"]["name"]) for row in rows[::8])
    with pytest.raises(ValueError, match="1 to 30 people, 1 to 8 copies"):
        note_rows(31)
    with pytest.raises(ValueError, match="copies=9"):
        note_rows(1, copies=9)
