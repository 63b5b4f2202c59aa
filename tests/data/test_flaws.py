from copy import deepcopy

import pytest

from sftlab.data.flaws import cluttered, wrong_answers
from sftlab.data.rows import part_of
from sftlab.world import country, country_rows

ROWS = country_rows(60, seed=1)


def is_true(row):
    about = row["meta"]
    return part_of(row, "answer") in country(about["country"]).answers(about["relation"])


@pytest.mark.parametrize(
    "flaw",
    [
        lambda r, s: wrong_answers(r, share=0.5, seed=s),
        lambda r, s: cluttered(r, seed=s),
    ],
)
def test_a_seed_gives_the_same_flaws_and_the_rows_stay_as_they_are(flaw):
    before = deepcopy(ROWS)
    made = flaw(ROWS, 4)
    assert before == ROWS
    assert made == flaw(ROWS, 4) != flaw(ROWS, 5)
    assert made != ROWS
    assert [row["meta"] for row in made] == [row["meta"] for row in ROWS]


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_the_share_of_wrong_answers_is_what_was_requested(share):
    made = wrong_answers(ROWS, share=share)
    assert sum(not is_true(row) for row in made) == round(share * 60)
    right = [(one, row) for one, row in zip(ROWS, made, strict=True) if is_true(row)]
    assert all(part_of(one, "answer") == part_of(row, "answer") for one, row in right)
    assert [part_of(row, "prompt") for row in made] == [part_of(row, "prompt") for row in ROWS]


def test_clutter_keeps_the_question_and_the_answer():
    for clean, dirty in zip(ROWS, cluttered(ROWS), strict=True):
        prompt, question = part_of(dirty, "prompt").lower(), part_of(clean, "prompt").lower()
        assert question in prompt != question
        assert part_of(dirty, "answer") == part_of(clean, "answer")
