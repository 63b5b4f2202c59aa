from copy import deepcopy

import pytest

from sftlab.data.flaws import FORMATS, cluttered, in_formats, wrong_answers
from sftlab.data.rows import part_of
from sftlab.world import country_rows, is_true

ROWS = country_rows(60, seed=1)


@pytest.mark.parametrize(
    "flaw",
    [
        lambda r, s: wrong_answers(r, share=0.5, seed=s),
        lambda r, s: cluttered(r, seed=s),
        lambda r, s: in_formats(r, seed=s),
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
    kinds = {part_of(row, "answer") for row in country_rows(300)}
    assert all(
        part_of(row, "answer") in kinds | {part_of(r, "answer") for r in ROWS}
        for row in made
        if is_true(row)
    )
    assert [part_of(row, "prompt") for row in made] == [part_of(row, "prompt") for row in ROWS]


def test_clutter_keeps_the_question_and_the_answer():
    for clean, row in zip(ROWS, cluttered(ROWS), strict=True):
        prompt, question = part_of(row, "prompt"), part_of(clean, "prompt")
        assert question.lower() in prompt.lower()
        assert prompt.lower() != question.lower()
        assert part_of(row, "answer") == part_of(clean, "answer")


def test_formats_come_alike_often_and_hold_the_question():
    made = in_formats(ROWS)
    assert sum(row == clean for row, clean in zip(made, ROWS, strict=True)) == 12
    for clean, row in zip(ROWS, made, strict=True):
        forms = {form.format(q=part_of(clean, "prompt")) for form in FORMATS}
        assert part_of(row, "prompt") in forms
