"""Replay: as much as was asked for, and nothing of what is measured later."""

import re

import pytest

from sftlab.measure import items, subjects
from sftlab.world import QUESTIONS, broad_examples, country_examples, mixed, replay_examples


def whole(row):
    return " ".join(message["content"] for message in row["messages"])


def test_nothing_measured_is_replayed():
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
    rows = replay_examples(400, avoid=subjects())
    assert not [whole(row) for row in rows if named.search(whole(row))]
    asked = {" ".join(f"{one.prompt} {one.answers[0]}".split()) for one in items()
             if one.skill in ("stories", "corpus")}  # fmt: skip
    replayed = {" ".join(whole(row).split()) for row in rows}
    assert not asked & replayed
    assert any(named.search(whole(row)) for row in replay_examples(400)), "else nothing was avoided"


def test_stories_that_are_asked_about_are_not_told():
    told = [one.prompt.split("\n\n")[0] for one in items() if one.skill == "stories"]
    rows = [whole(row) for row in replay_examples(400, avoid=subjects())]
    assert any("In the end" in row for row in rows)
    assert not any(story in row for story in told for row in rows)


@pytest.mark.parametrize("share", [0, 0.05, 0.1, 0.2, 0.3])
def test_the_share_is_of_the_whole(share):
    task = country_examples(40)
    rows = mixed(task, share=share, avoid=subjects())
    assert rows[:40] == task
    assert (len(rows) - 40) / len(rows) == pytest.approx(share, abs=0.01)


def test_a_seed_draws_the_same_again_and_more_of_the_same():
    assert replay_examples(20, seed=3) == replay_examples(20, seed=3)
    assert replay_examples(20, seed=3) != replay_examples(20, seed=4)
    assert replay_examples(20, seed=3)[:5] == replay_examples(5, seed=3)
    assert replay_examples(0) == []


def test_no_bare_question_about_a_country_is_gone_on_with_another():
    openings = tuple(form.split("{x}")[0] for kinds in QUESTIONS.values() for form in kinds["sft"]
                     if not form.startswith("In "))  # fmt: skip
    for row in replay_examples(400):
        first, rest = (message["content"] for message in row["messages"])
        assert first.strip()
        assert rest.strip()
        assert not (first.startswith(openings) and rest.startswith(openings)), whole(row)


def test_numbers_that_can_not_be():
    with pytest.raises(ValueError, match="count=-1; give 0 or more"):
        replay_examples(-1)
    for share in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match="from 0 to below 1"):
            mixed(country_examples(4), share=share)


def test_broad_examples_are_of_many_kinds_and_avoid_the_same_names():
    rows = broad_examples(200, avoid=subjects())
    named = re.compile(rf"\b(?:{'|'.join(map(re.escape, subjects()))})\b", re.IGNORECASE)
    assert len(rows) == 200
    others = [whole(row) for row in rows[100:]]
    assert not [text for text in others if named.search(text)]
    for kind in ("atomic number", "kind of animal", " + "):
        assert any(kind in text for text in others), kind
    assert broad_examples(7, seed=2) == broad_examples(7, seed=2)
    assert len(broad_examples(7)) == 7
