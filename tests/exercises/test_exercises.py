"""Every exercise of the course: its solution passes, each wrong answer gets its own diagnosis and
no other's, and its cells stand in the lesson."""

import ast
import copy
import json
import re
from pathlib import Path

import pytest

from sftlab.exercises import exercises
from sftlab.paths import NOTEBOOKS

LESSONS = [f"{n:02}" for n in range(15)]
ALL = [one for lesson in LESSONS for one in exercises(lesson)]
every_exercise = pytest.mark.parametrize("one", ALL, ids=lambda one: one.id)
MISTAKES = [(one, name) for one in ALL for name in one.mistakes]


def as_answer(one, function):
    """What a learner would hand over whose answer is this function."""
    return function(*copy.deepcopy(one.inputs()[0])) if one.is_decision else function


@every_exercise
def test_the_solution_is_right_and_the_stub_not_attempted(one):
    assert one.judge(as_answer(one, one.functions["right"])).kind == "right"
    assert one.judge(one.functions.get("stub", ...)).kind == "not attempted"


@pytest.mark.parametrize(("one", "name"), MISTAKES, ids=lambda v: v if isinstance(v, str) else v.id)
def test_each_wrong_answer_gets_its_own_diagnosis(one, name):
    found = one.judge(as_answer(one, one.mistakes[name]))
    assert (found.kind, found.misconception) == ("misconception", name)


@every_exercise
def test_it_is_whole(one):
    assert len(one.mistakes) >= 3
    assert len(set(one.diagnoses.values())) == len(one.mistakes)
    assert 1 <= len(one.hints) <= 3
    assert 3 <= one.minutes <= 15
    assert one.difficulty in (1, 2, 3)
    if one.is_decision:
        assert repr(one.functions["right"](*one.inputs()[0])) not in one.expects


def stated(value):
    """A value as a message would write it; too short a one stands in any text."""
    return repr(value) if len(repr(value)) > 3 else None


@every_exercise
def test_no_message_before_the_third_hint_holds_the_answer(one):
    """Checked on the misconceptions, and on an answer that nobody foresaw."""
    answers = [as_answer(one, wrong) for wrong in one.mistakes.values()]
    answers.append("unforeseen" if one.is_decision else lambda *_: "unforeseen")
    for answer in answers:
        found = one.judge(answer)
        right = stated(one.functions["right"](*copy.deepcopy(found.inputs)))
        said = one.check(answer).text.replace(repr(found.outcome.value), "")
        for given in found.inputs:  # what is given is not given away
            said = said.replace(repr(given), "")
        assert right is None or right not in said


def test_there_are_enough():
    assert len(ALL) >= 40
    assert len(MISTAKES) >= 120
    few = [lesson for lesson in LESSONS if not 3 <= len(exercises(lesson)) <= 5]
    assert not few


@pytest.mark.parametrize("lesson", LESSONS)
def test_its_cells_stand_in_the_lesson_after_what_they_practise(lesson):
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    cells = json.loads(Path(path).read_text("utf-8"))["cells"]
    section, found = "", []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (head := re.search(r"^## (.+)$", source, re.M)):
            section = head[1]
        if re.match(r"### Exercise ", source) or 'exercise("' in source:
            assert "exercise" in cell["metadata"]["tags"]
            found.append((section, cell["cell_type"], source))
    expected = [(one.after, *cell) for one in exercises(lesson) for cell in one.cells()]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("lesson", LESSONS)
def test_its_cells_take_no_name_of_the_lesson(lesson):
    """A section that runs after an exercise must find its own functions and variables."""
    (path,) = NOTEBOOKS.glob(f"{lesson}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    used = set()
    for cell in cells:
        if cell["cell_type"] == "code" and "exercise" not in cell["metadata"].get("tags", []):
            source = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.M)
            for node in ast.walk(ast.parse(source)):
                used |= {getattr(node, key, None) for key in ("id", "name", "arg")}
    stubs = [one.functions["stub"].__name__ for one in exercises(lesson) if not one.is_decision]
    assert not used & {*stubs, "my_answer"}
