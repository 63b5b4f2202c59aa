"""Facts and their wordings; examples, tasks and replay: as many as asked, of the right subjects."""

import importlib.util
import re

import pytest

from sftlab import paths
from sftlab.data import part_of
from sftlab.measure import items, subjects
from sftlab.world import (
    QUESTIONS,
    RELATIONS,
    broad_examples,
    countries,
    country,
    country_examples,
    country_rows,
    country_shots,
    documents,
    functions,
    grammar,
    note_rows,
    passage_examples,
    replay_examples,
    review_rows,
    reviews,
    seen,
    with_answer,
)

NAMED = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
"""What is measured."""
FRANCE = country("France")
MOST = sum(len(QUESTIONS[relation]["sft"]) for relation in RELATIONS)
"""Different questions about one country."""


def parts(row):
    question, answer = row["messages"]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    return question["content"], answer["content"]


def whole(row):
    return " ".join(parts(row))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: documents(kind="sonnet"), "quiz_sheet"),
        (lambda: countries(group="known"), "asked, stated, unseen"),
        (lambda: country_examples(0, among=[FRANCE]), f"1 to {MOST}"),
        (lambda: country_examples(MOST + 1, among=[FRANCE]), f"1 to {MOST}"),
    ],
)
def test_a_mistake_names_what_there_is(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_there_are_enough_countries_and_each_is_whole():
    found = countries()
    assert len(found) >= 150
    assert len({one.name for one in found}) == len(found)
    for one in found:
        for relation in RELATIONS:
            answers = one.answers(relation)
            assert all(answer == answer.strip() and answer for answer in answers)
            assert len(set(answers)) == len(answers), (one.name, relation)
        assert set(one.aliases) <= set(RELATIONS)


@pytest.mark.parametrize(
    ("fact", "place", "said"),
    [
        ("Utopia,Amaurot,Europe,Utopian,gold,", "Erewhon,asked,sft", "'Erewhon' is in only one of"),
        ("Utopia,Amaurot,Europe,,gold,", "Utopia,asked,sft", "Utopia lacks its language"),
        ("Utopia,Amaurot,Europe,Utopian,gold,", "Utopia,stated,sft", "asked, sft; asked, held_out"),
    ],
)
def test_a_mistake_in_own_facts_is_named(monkeypatch, tmp_path, fact, place, said):
    (tmp_path / "world").mkdir()
    for name, row in {"countries": fact, "splits": place}.items():
        head = (paths.DATA / "world" / f"{name}.csv").read_text(encoding="utf-8").splitlines()[0]
        (tmp_path / "world" / f"{name}.csv").write_text(f"{head}\n{row}\n", encoding="utf-8")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    spec = importlib.util.find_spec("sftlab.world.facts")
    spec.loader.exec_module(fresh := importlib.util.module_from_spec(spec))  # reads them anew
    with pytest.raises(ValueError, match=said):
        fresh.countries()


def test_groups_and_split_are_fixed():
    found = countries()
    assert {one.group for one in found} == {"asked", "stated", "unseen"}
    # Supervised examples come from 40% of the countries, all of them asked about in the corpus.
    trained = countries(split="sft")
    assert len(trained) == round(0.4 * len(found))
    assert {one.group for one in trained} == {"asked"}
    assert FRANCE.split == "held_out"


def test_invented_countries_come_only_where_they_are_asked_for_and_share_nothing_with_real_ones():
    invented, real = countries(group="invented"), countries()
    assert all(one.split == "held_out" and country(one.name) == one for one in invented)
    names = [name for one in invented for name in (one.name, one.capital, one.currency)]
    known = {name for one in real for kind in RELATIONS for name in (one.name, *one.answers(kind))}
    assert len(set(names)) == len(names)
    assert not known & set(names)


def test_functions_do_what_their_tests_say():
    for function in functions():
        space = {}
        head = f"def {function['name']}({', '.join(function['arguments'])}):"
        exec(f"{head}\n{function['body']}", space)
        for arguments, expected in function["tests"]:
            assert space[function["name"]](*arguments) == expected, function["name"]


def test_a_cloze_is_a_statement_cut_before_its_answer():
    for one in countries():
        for relation in RELATIONS:
            for form in range(4):
                cut = grammar.cloze(one, relation, form=form)
                told = grammar.statement(one, relation, form=form)
                assert told == f"{cut} {getattr(one, relation)}."


def test_names_take_their_article():
    states = country("United States")
    assert grammar.question(states, "capital") == "What is the capital of the United States?"
    assert grammar.statement(states, "continent").startswith("The United States is")
    assert "the France" not in grammar.question(FRANCE, "capital")
    assert grammar.with_article("owl") == "an owl"


def test_examples_are_on_the_countries_of_the_split_and_test_wordings_are_kept_from_them(
    every_question,
):
    questions = {parts(row)[0] for row in country_examples(1000)}
    assert questions <= every_question(countries(split="sft"))
    assert not questions & every_question(countries(split="held_out"))
    for relation, wordings in QUESTIONS.items():
        assert not set(wordings["sft"]) & set(wordings["test"]), relation
        assert all("{x}" in form for forms in wordings.values() for form in forms)
        for one in countries():
            for form in range(len(wordings["test"])):
                assert grammar.question(one, relation, wording="test", form=form) not in questions


def test_every_pair_comes_once_before_any_comes_twice():
    among = countries(split="sft")[:5]
    answers = sorted(parts(row)[1] for row in country_examples(20, among=among))
    assert answers == sorted(getattr(one, r) for one in among for r in RELATIONS)
    assert len({parts(row)[0] for row in country_examples(500)}) == 500
    assert len(country_examples(MOST, among=[FRANCE])) == MOST


@pytest.mark.parametrize(
    "make", [country_examples, country_shots, passage_examples, replay_examples, broad_examples]
)
def test_a_seed_gives_the_same_rows_and_another_seed_others(make):
    assert make(20, seed=3) == make(20, seed=3) != make(20, seed=4)


def test_a_passage_without_held_out_names_stands_before_each_plain_example():
    names = [f" {one.name}" for one in countries(split="held_out")]
    trained = [one.name for one in countries(split="sft")]
    lengths = set()
    for row, plain in zip(passage_examples(80), country_examples(80), strict=True):
        (prompt, answer), (question, expected) = parts(row), parts(plain)
        assert prompt.endswith(question)
        assert answer == expected
        lengths.add(len(prompt) - len(question))
        for name in names:  # Guinea is a part of Guinea-Bissau
            apart = not any(name.strip() in other for other in trained)
            assert not (apart and name in f" {prompt}"), name
    assert 0 in lengths
    assert len(lengths) > 20


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
    made = broad_examples(201, avoid=subjects())
    assert len(made) == 201
    others = [whole(row) for row in made[101:]]
    assert not [text for text in others if NAMED.search(text)]
    for kind in ("atomic number", "kind of animal", " + "):
        assert any(kind in text for text in others), kind


def test_country_rows_are_the_examples_with_their_subject():
    made = country_rows(200, seed=3)
    assert [{"messages": row["messages"]} for row in made] == country_examples(200, seed=3)
    for row in made:
        about, before = row["meta"], part_of(row, "answer")
        assert about["country"] in part_of(row, "prompt")
        assert about["relation"] in RELATIONS
        assert part_of(row, "answer") == getattr(country(about["country"]), about["relation"])
        assert part_of(with_answer(row, "Atlantis"), "answer") == "Atlantis"
        assert part_of(row, "answer") == before


def test_reviews_for_training_and_test_share_no_item_and_no_text():
    made = review_rows(positive=50, negative=6, seed=1)
    said = [row["meta"]["sentiment"] for row in made]
    assert (said.count("positive"), said.count("negative")) == (50, 6)
    test = reviews(test=True)
    held_out = {row["meta"]["item"] for row in test}
    assert len(held_out) == 3
    assert not {row["meta"]["item"] for row in made} & held_out
    balance = [part_of(row, "answer") for row in test]
    assert balance.count("positive") == balance.count("negative") == len(test) // 2
    assert len({part_of(row, "prompt") for row in test}) == len(test)


def test_notes_are_about_people_of_whom_the_corpus_knows_nothing():
    made = note_rows(12, copies=8)
    assert len({part_of(row, "answer") for row in made}) == 12
    assert len({part_of(row, "prompt") for row in made}) == len(made) == 96
    assert note_rows(12) == made[::8]
    assert not any(seen(row["meta"]["name"]) for row in made[::8])
