"""Every lesson runs from top to bottom on the embedded profile, and leaves a clean page."""

import re

import nbformat
import pytest

from sftlab.course.runner import run_notebooks
from sftlab.places import NOTEBOOKS

LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture(scope="module", params=LESSONS)
def result(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (done,) = run_notebooks(
        [request.param], parameters={"profile": "tiny"}, folder=folder, progress=False
    )
    return done


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
