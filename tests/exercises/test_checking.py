"""Judging an answer by its outputs."""

import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from sftlab.exercises import Exercise, ExerciseError, exercise


def mean_exercise():
    """The mean of numbers, with two mistakes."""
    one = Exercise("99.1", "Mean", after="1.", minutes=5, difficulty=1, task="", hints=("", "", ""))

    @one.draw
    def numbers(random):
        return ([random.randint(1, 9) for _ in range(random.randint(2, 5))],)

    @one.stub
    def mean_of(numbers):
        """The mean."""
        return ...

    @one.right
    def mean(numbers):
        return sum(numbers) / len(numbers)

    @one.wrong("That is the sum.")
    def total(numbers):
        return sum(numbers)

    @one.wrong("That is one of the numbers in the middle.")
    def middle(numbers):
        return sorted(numbers)[len(numbers) // 2]

    return one


def test_the_verdicts():
    def drops_one(numbers):
        numbers.pop()
        return sum(numbers)

    def sorts_first(numbers):
        numbers.sort()
        return sum(numbers) / len(numbers)

    def fails(numbers):
        return numbers["a"]

    def rounds(numbers):
        return round(sum(numbers) / len(numbers))

    def nothing(numbers):
        sum(numbers) / len(numbers)

    one = mean_exercise()
    kinds = {
        f: one.judge(f).kind for f in (drops_one, sorts_first, fails, rounds, nothing, np.mean, sum)
    }
    assert list(kinds.values()) == [
        "wrong", "changes its input", "raises", "wrong", "wrong", "right", "misconception",
    ]  # fmt: skip
    assert one.judge(sum).misconception == "total"
    assert "Is a `return` missing?" in one.check(nothing).text
    assert "also changes its input" in one.check(drops_one).text
    assert "TypeError" in one.check(fails).text


def test_a_mistake_is_named_where_only_part_of_the_answer_has_it():
    def sometimes_total(numbers):
        return sum(numbers) if len(numbers) == 3 else sum(numbers) / len(numbers)

    one = mean_exercise()
    assert one.judge(sometimes_total).misconception == "total"
    assert "Where your answer is wrong, it does the same" in one.check(sometimes_total).text
    assert "Where your answer is wrong" not in one.check(sum).text


def test_the_smallest_failing_input_is_shown_and_the_answer_is_not_before_the_third_hint():
    one = mean_exercise()
    found = one.judge(lambda numbers: -1)
    assert len(repr(found.inputs)) == min(len(repr(given)) for given in one.inputs())
    said = one.check(lambda numbers: -1).text
    right = sum(found.inputs[0]) / len(found.inputs[0])
    assert repr(found.inputs[0]) in said
    assert repr(right) not in said
    hints = [one.hint().text for _ in range(4)]
    assert [repr(right) in text for text in hints] == [False, False, True, True]
    assert "There are no more hints" in hints[3]


def test_not_attempted_is_the_stub_or_an_ellipsis_and_its_cells_say_so():
    one = mean_exercise()
    assert one.judge(...).kind == one.judge(lambda numbers: ...).kind == "not attempted"
    (_, text), (_, code) = one.cells()
    assert text.startswith("### Exercise 99.1: Mean\n\n*Easy, about 5 minutes.*\n\n")
    assert code.startswith("def mean_of(numbers):")
    assert code.endswith('exercise("99.1").check(mean_of)')
    shown = {}
    exec(code.partition("\n\n\n")[0], shown)
    assert one.judge(shown["mean_of"]).kind == "not attempted"
    assert "def mean_of(numbers):\n    return sum(numbers) / len(numbers)" in one.solution().text


def test_what_is_no_answer_is_refused():
    with pytest.raises(ExerciseError, match="pass mean_of itself, without calling it"):
        mean_exercise().judge(3)
    assert mean_exercise().check(3).text.startswith("99.1 Mean: not checked")
    with pytest.raises(ExerciseError, match=r"no exercise '05\.99'; there are 05\.1"):
        exercise("05.99")
    with pytest.raises(ExerciseError, match="there is no exercise 'labels'"):
        exercise("labels")


def test_a_decision_is_a_value():
    one = Exercise(
        "99.2", "Largest", after="1.", minutes=5, difficulty=2, task="", hints=("",), expects="5"
    )

    @one.draw
    def table(random):
        return (pd.DataFrame({"name": ["a", "b", "c"], "share": [0.2, 0.9, 0.5]}),)

    @one.right
    def largest(table):
        return set(table.name[table.share > 0.4])

    @one.wrong("That is the first row.")
    def first(table):
        return {table.name[0]}

    assert [one.judge(answer).kind for answer in ({"c", "b"}, {"a"}, {"z"}, ...)] == [
        "right", "misconception", "wrong", "not attempted",
    ]  # fmt: skip
    assert one.given().columns.tolist() == ["name", "share"]
    assert [kind for kind, _ in one.cells()] == ["markdown", "code", "code"]
    assert "is missing." in one.check({"b"}).text
    assert "something that you name" not in one.check({"b"}).text
    two = one.judge({"a", "z"})
    assert (two.kind, two.misconception, two.partly) == ("misconception", "first", True)
    assert "Part of what is wrong looks like this mistake" in one.check({"a", "z"}).text
    assert one.check(["a", "b", "c"]).text.splitlines()[1].endswith("name does not belong.")
    assert "is missing, and something that you name" in one.check({"a", "b"}).text
    assert "Asked for: 5." in one.check("b").text
    assert not re.search(r"\b[bc]\b", one.check({"z"}).text.partition("\n")[2])


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ([1, 2], torch.tensor([1, 2]), True),
        ([1, 2], (1, 2.0), True),
        (np.array([[0.1]]), [[0.1 + 1e-9]], True),
        (1, True, False),
        (float("nan"), np.float64("nan"), True),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": 1}, {"b": 1}, False),
        ("1", 1, False),
        ([1, 2], [1], False),
        ({1, 2}, {2, 1}, True),
        ({1, 2}, [2, 1], True),
        ({1, 2}, [2, 3], False),
        (None, 0, False),
        (Fraction(1, 4), 0.25, True),
    ],
)
def test_equal_values_are_equal_in_whatever_they_are_kept(left, right, equal):
    from sftlab.exercises.checking import same

    assert same(left, right) is same(right, left) is equal


def test_a_generator_is_as_good_as_its_list():
    from sftlab.exercises.checking import judge

    found = judge(lambda xs: (x + 1 for x in xs), lambda xs: [x + 1 for x in xs], {}, [([1, 2],)])
    assert found.kind == "right"


def test_a_list_is_compared_entry_by_entry():
    one = Exercise("99.3", "Rows", after="", minutes=5, difficulty=1, task="", hints=("",))
    one.draw(lambda random: ("a text",))
    one.right(lambda text: ["a", "b", "c", "d"])

    @one.wrong("You take the first for z.")
    def first(text):
        return ["z", "b", "c", "d"]

    assert one.judge(["z", "b", "c", "z"]).misconception == "first"
    assert "2 of 4 are wrong" in one.check(["a", "b", "x", "y"]).text
    assert one.judge(["a"]).kind == one.judge([["a"], [], [], []]).kind == "wrong"
    assert "Asked for" in one.check([["a"], [], [], []]).text
