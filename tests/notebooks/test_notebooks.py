"""Every lesson runs from top to bottom on the embedded profile, leaves a clean page, and shows
the effects that its words describe.

Effects are read from the pictures: each tells its rows and percentages in its text for those who
cannot see it, such as "Title: base model answered rightly 0%; fine-tuned answered rightly 98%."
"""

import functools
import re

import nbformat
import pytest

from sftlab.course.runner import run_notebooks
from sftlab.places import NOTEBOOKS
from sftlab.world.facts import RELATIONS

LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Name -> result of that lesson, which is executed once."""

    @functools.cache
    def run(name):
        folder = tmp_path_factory.mktemp(name)
        (done,) = run_notebooks(
            [name], parameters={"profile": "tiny"}, folder=folder, progress=False
        )
        return done

    return run


@pytest.fixture(params=LESSONS)
def result(request, run):
    return run(request.param)


def test_there_are_lessons():
    assert LESSONS


def test_lesson_runs_to_its_end(result):
    assert result.status == "passed", result.failure and result.failure.traceback


def test_nothing_is_written_to_stderr_and_nothing_warns(result):
    notebook = nbformat.read(result.executed, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", f"cell {number}: {output['text']}"
            shown = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"\b\w*Warning\b", shown), f"cell {number}: {shown}"


def test_page_has_no_traceback(result):
    page = result.page.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" not in page
    assert result.lesson.title.split("&")[0].strip() in page


class Told:
    """The percentages that one picture tells, by row."""

    def __init__(self, text):
        self.rows = {
            label: float(number)
            for label, number in re.findall(
                r"(.+?) (\d+(?:\.\d+)?)%(?:; |\.$)", text.partition(": ")[2]
            )
        }
        assert len(self.rows) == text.count("%") > 0, f"not every row can be read: {text}"

    def __getitem__(self, words):
        """The percentage of the only row with all these words, separated by " & "."""
        found = [label for label in self.rows if all(word in label for word in words.split(" & "))]
        assert len(found) == 1, f"{words!r} is in {len(found)} rows of {list(self.rows)}"
        return self.rows[found[0]]


def told(result, word):
    """What the only picture with `word` in its title tells."""
    notebook = nbformat.read(result.executed, as_version=4)
    texts = [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    found = [text for text in texts if word in text.partition(": ")[0]]
    assert len(found) == 1, f"{len(found)} pictures of {result.name} have {word!r} in the title"
    return Told(found[0])


def test_picture_text_is_read_row_by_row():
    read = Told("Ways: Q: / A: 100%; a b 7%; temperature 0.7 b 0%.")
    assert read.rows == {"Q: / A:": 100, "a b": 7, "temperature 0.7 b": 0}
    assert read["0.7 & b"] == 0
    for words in ("b", "absent"):
        with pytest.raises(AssertionError, match="rows of"):
            read[words]
    with pytest.raises(AssertionError, match="can be read"):
        Told("Ways: a 7%; b nan%.")


def test_00_base_continues_and_fine_tuned_answers(run):
    shares = told(run("00_start_here"), "held-out")
    assert shares["base & answered"] <= 5
    assert shares["base & continued"] >= 80
    assert shares["fine-tuned & answered"] >= 90


def test_01_base_knows_and_does_not_answer(run):
    lesson = run("01_base_model_problem")
    facts = told(lesson, "Facts").rows
    assert set(facts) == set(RELATIONS)
    assert min(facts.values()) >= 95
    bare = told(lesson, "bare questions")
    assert bare["answered"] <= 5
    assert bare["continued"] >= 80


def test_01_sampling_does_not_answer(run):
    ways = told(run("01_base_model_problem"), "decoding")
    assert ways["greedy & answered"] <= 5
    answered = [percent for label, percent in ways.rows.items() if "answered" in label]
    assert len(answered) >= 3
    assert max(answered) <= 10


def test_01_shots_answer_and_their_wording_decides(run):
    worded = told(run("01_base_model_problem"), "ways of writing")
    assert worded["Q: / A:"] >= 50 + min(worded.rows.values())


def test_01_fine_tuning_brings_out_what_is_there(run):
    tuned = told(run("01_base_model_problem"), "after fine-tuning")
    asked, stated = tuned["asked & capital"], tuned["stated & capital"]
    assert asked > stated > tuned["never & capital"]
