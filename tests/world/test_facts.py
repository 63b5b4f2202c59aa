import csv

import pytest

from sftlab.paths import DATA
from sftlab.world import facts


def test_countries_have_the_published_columns():
    with (DATA / "world" / "countries.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert header == ["country", "capital", "continent", "language", "currency", "aliases"]


def test_there_are_enough_countries_and_each_is_whole():
    found = facts.countries()
    assert len(found) >= 150
    assert len({c.name for c in found}) == len(found)
    for country in found:
        for relation in facts.RELATIONS:
            answers = country.answers(relation)
            assert all(answer == answer.strip() and answer for answer in answers)
            assert len(set(answers)) == len(answers), (country.name, relation)
        assert set(country.aliases) <= set(facts.RELATIONS)


def test_groups_and_split_are_fixed():
    found = facts.countries()
    assert {c.group for c in found} == set(facts.GROUPS)
    # Supervised examples come from 40% of the countries, all of them asked about in the corpus.
    trained = facts.countries(split="sft")
    assert len(trained) == round(0.4 * len(found))
    assert {c.group for c in trained} == {"asked"}
    assert facts.country("France").split == "held_out"


def test_every_group_of_seen_countries_spans_the_continents():
    for group in ("asked", "stated"):
        found = {c.continent for c in facts.countries(group=group)}
        assert found >= {"Africa", "Asia", "Europe", "North America", "South America", "Oceania"}


def test_aliases_are_other_right_answers():
    answers = facts.country("South Africa").answers("capital")
    assert answers[0] == "Pretoria"
    assert "Cape Town" in answers


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: facts.countries(group="known"), "asked, stated, unseen"),
        (lambda: facts.countries(split="train"), "sft, held_out"),
        (lambda: facts.country("Frankreich"), "Frankreich"),
        (lambda: facts.country("France").answers("anthem"), "capital, continent"),
        (lambda: facts.rows("planets"), "countries"),
    ],
)
def test_a_mistake_names_what_there_is(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_functions_do_what_their_tests_say():
    for function in facts.functions():
        space = {}
        exec(
            f"def {function['name']}({', '.join(function['arguments'])}):\n{function['body']}",
            space,
        )
        for arguments, expected in function["tests"]:
            assert space[function["name"]](*arguments) == expected, function["name"]


def test_invented_people_are_invented():
    for person in facts.rows("people"):
        assert person["email"].split("@")[1] in {"example.org", "example.com", "example.net"}
        assert "-555-01" in person["phone"]
