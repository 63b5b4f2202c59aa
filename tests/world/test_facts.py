"""Facts are whole, groups and splits fixed, and wordings for tests kept apart."""

import pytest

from sftlab.world import RELATIONS, countries, country, functions, grammar, rows
from sftlab.world.facts import GROUPS


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
    assert country("South Africa").answers("capital")[0] == "Pretoria"
    assert "Cape Town" in country("South Africa").answers("capital")


def test_groups_and_split_are_fixed():
    found = countries()
    assert {one.group for one in found} == set(GROUPS)
    # Supervised examples come from 40% of the countries, all of them asked about in the corpus.
    trained = countries(split="sft")
    assert len(trained) == round(0.4 * len(found))
    assert {one.group for one in trained} == {"asked"}
    assert country("France").split == "held_out"
    for group in ("asked", "stated"):
        continents = {one.continent for one in countries(group=group)}
        assert continents >= {"Africa", "Asia", "Europe", "North America", "South America"}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: countries(group="known"), "asked, stated, unseen"),
        (lambda: countries(split="train"), "sft, held_out"),
        (lambda: country("Frankreich"), "Frankreich"),
        (lambda: country("France").answers("anthem"), "capital, continent"),
        (lambda: rows("planets"), "countries"),
        (lambda: grammar.question(country("France"), "anthem"), "anthem"),
        (lambda: grammar.question(country("France"), "capital", wording="dev"), "'sft' or 'test'"),
        (lambda: grammar.cloze(country("France"), "capital", form=9), "form 9"),
    ],
)
def test_a_mistake_names_what_there_is(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_functions_do_what_their_tests_say():
    for function in functions():
        space = {}
        head = f"def {function['name']}({', '.join(function['arguments'])}):"
        exec(f"{head}\n{function['body']}", space)
        for arguments, expected in function["tests"]:
            assert space[function["name"]](*arguments) == expected, function["name"]


def test_invented_people_are_invented():
    for person in rows("people"):
        assert person["email"].split("@")[1] in {"example.org", "example.com", "example.net"}
        assert "-555-01" in person["phone"]


def test_a_cloze_is_a_statement_cut_before_its_answer():
    for one in countries():
        for relation in RELATIONS:
            for form in range(grammar.CLOZE_FORMS):
                cut = grammar.cloze(one, relation, form=form)
                whole = grammar.statement(one, relation, form=form)
                assert whole == f"{cut} {getattr(one, relation)}."


def test_test_wordings_are_kept_from_examples():
    for relation, wordings in grammar.QUESTIONS.items():
        assert not set(wordings["sft"]) & set(wordings["test"]), relation
        assert all("{x}" in form for forms in wordings.values() for form in forms)


def test_names_take_their_article():
    states = country("United States")
    assert grammar.question(states, "capital") == "What is the capital of the United States?"
    assert grammar.statement(states, "continent").startswith("The United States is")
    assert "the France" not in grammar.question(country("France"), "capital")
    assert grammar.with_article("owl") == "an owl"
