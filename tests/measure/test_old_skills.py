"""The meter's items: frozen, true, and about nothing that examples are about."""

import hashlib
import re
from collections import Counter

import pytest

from sftlab.measure.old_skills import EACH, SKILLS, WORLDLY, items, subjects
from sftlab.world import country_examples, facts

FROZEN = "23c0fd1abce16c378ab740302d42e11861d54db49618e0a668f64a2a09d2be08"


def test_items_are_frozen():
    """Readings compare only on the same items: who changes one makes all older readings void."""
    told = [(one.skill, one.relation, one.item, one.prompt, one.answers) for one in items()]
    assert hashlib.sha256(repr(told).encode()).hexdigest() == FROZEN


def test_every_skill_is_about_as_many_things():
    things = {skill: {one.item for one in items() if one.skill == skill} for skill in SKILLS}
    assert {skill: len(found) for skill, found in things.items()} == dict.fromkeys(SKILLS, EACH)
    about = Counter(name for found in things.values() for name in found)
    assert set(about.values()) == {1}, "rows about one thing are in one skill"


def test_without_the_known_corpus_only_the_world_is_asked_about():
    assert {one.skill for one in items(known_corpus=False)} == set(WORLDLY)
    assert "France" in subjects()


def test_answers_are_the_worlds():
    for one in items(known_corpus=False):
        if one.skill in ("facts", "few-shot"):
            assert one.answers == facts.country(one.item).answers(one.relation)
            assert one.item in one.prompt
        else:
            rows = [*facts.rows("animals"), *facts.rows("elements")]
            (row,) = [row for row in rows if one.item in row.values() and one.relation in row]
            assert one.answers == (row[one.relation],)


@pytest.mark.parametrize("relation", ["where", "how", "who"])
def test_a_storys_answer_is_in_the_story(relation):
    found = [one for one in items() if (one.skill, one.relation) == ("stories", relation)]
    assert found
    for one in found:
        assert re.search(rf"\b{re.escape(one.answers[0])}\b", one.prompt.split("\n\n")[0])


def test_sums_and_runs_are_right():
    for one in (one for one in items() if one.skill == "counting"):
        if one.relation == "sum":
            a, b = map(int, one.item.split(" + "))
            assert one.answers == (str(a + b),)
            assert one.prompt.endswith(f"\n{one.item} =")
        else:
            numbers = list(map(int, f"{one.prompt} {one.answers[0]}".split()))
            assert numbers == list(range(numbers[0], numbers[0] + 8))


def test_no_example_names_what_an_item_is_about():
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b")
    for row in country_examples(1_800):
        question, answer = (message["content"] for message in row["messages"])
        assert not named.search(question.replace("Guinea-Bissau", "")), question
        assert answer
