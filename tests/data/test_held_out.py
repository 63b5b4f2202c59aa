"""Rows held out: what must stand together does, the size of the part, and what is said of it."""

import pytest

from sftlab.data.rows import RowsError
from sftlab.data.splits import hold_out


def row(question, answer, **meta):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "meta": meta}


def different(count):
    """Rows that have next to nothing in common."""
    return [row(f"{n * 7919:x} {n**3:x} {n * n:o} stands for?", f"{n**5:x}") for n in range(count)]


def side(found, index):
    assert (index in found.train) != (index in found.held_out)
    return index in found.held_out


@pytest.mark.parametrize(("rows", "held"), [(8, 2), (40, 10), (100, 20), (300, 30)])
def test_a_tenth_is_held_out_and_more_of_few_rows(rows, held):
    found = hold_out(different(rows))
    assert abs(len(found.held_out) - held) <= 1
    assert sorted(found.train + found.held_out) == list(range(rows))
    assert found.notes == ()
    assert found == hold_out(different(rows))


def test_rows_that_repeat_or_have_the_same_prompt_are_on_one_side():
    rows = different(30)
    twins = []
    for n in range(0, 30, 2):
        question, answer = (message["content"] for message in rows[n]["messages"])
        long = f" of {(n + 50) ** 60:x}"
        rows[n] = row(question + long, answer)
        near = row(question.replace("stands", "stood") + long, answer)
        other = row(question.upper() + long, "another answer altogether")
        for twin in (near, other, row(question + long, answer)):
            twins.append((n, len(rows)))
            rows.append(twin)
    found = hold_out(rows)
    assert found.near_together
    assert found.repeats == 15
    assert found.near >= 15
    assert all(side(found, one) == side(found, other) for one, other in twins)
    assert len({side(found, one) for one, _ in twins}) == 2


def test_a_column_does_not_cross():
    rows = [{**one, "meta": {"customer": n % 10}} for n, one in enumerate(different(60))]
    found = hold_out(rows, group="customer")
    held = {rows[n]["meta"]["customer"] for n in found.held_out}
    assert held
    assert held.isdisjoint(rows[n]["meta"]["customer"] for n in found.train)
    with pytest.raises(RowsError, match="'city'"):
        hold_out(rows, group="city")


def test_too_few_rows_are_all_learned_from_with_a_note():
    found = hold_out(different(7))
    assert (found.train, found.held_out) == (list(range(7)), [])
    assert "7 groups of rows are too few" in found.notes[0]
    copies = hold_out([row("What?", "That.")] * 50)
    assert copies.held_out == []
    assert "1 groups" in copies.notes[0]


def test_rows_of_one_wording_are_split_with_a_note():
    wording = "Dear help desk, how do I send back the {} that I ordered from you last week?"
    answer = "Please write to us with the number of your order, and we will take back the {}."
    goods = ["lamp", "desk", "kettle", "phone", "chair", "radio", "knife", "shelf", "rug", "clock"]
    rows = [row(wording.format(one), answer.format(one)) for one in goods]
    found = hold_out(rows)
    assert len(found.held_out) in (2, 3)
    assert not found.near_together
    assert "nearly alike" in found.notes[0]
    assert found.overlaps == len(found.held_out)


def test_one_question_with_many_answers_is_split_with_a_note():
    rows = [row("Tell me a joke.", one["messages"][1]["content"] * 3) for one in different(40)]
    found = hold_out(rows)
    assert len(found.held_out) == 10
    assert any("the same prompt" in note for note in found.notes)
