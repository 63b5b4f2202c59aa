"""The instructor's kit: what is in the bundles, and whether the solutions are right."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from sftlab.course import find_lessons
from sftlab.exercises import exercises
from sftlab.paths import NOTEBOOKS
from sftlab.site import write_kit
from sftlab.site.kit import by_section

DOCS = NOTEBOOKS.parent / "docs"
if not DOCS.is_dir():
    pytest.skip("the kit is made in a clone", allow_module_level=True)
LESSONS = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
PRACTICED = [name for name in LESSONS if exercises(name[:2])]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    wheel = folder / "sftlab-0-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    return write_kit(folder / "kit", wheel=wheel)


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def imports_of(notebook):
    """What the lesson's own cells import, as an exercise finds it."""
    found = {}
    for cell in notebook:
        if cell["cell_type"] == "code" and "setup" not in cell["metadata"].get("tags", []):
            code = re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.M)
            kept = [n for n in ast.parse(code).body if isinstance(n, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(kept, []), "imports", "exec"), found)
    return found


@pytest.mark.parametrize("name", LESSONS)
def test_students_get_the_lesson_as_it_is(kit, name):
    assert (kit / "student/notebooks" / name).read_bytes() == (NOTEBOOKS / name).read_bytes()


@pytest.mark.parametrize("name", LESSONS)
def test_solutions_change_the_answers_of_exercises_alone(kit, name):
    ours, solved = cells(NOTEBOOKS / name), cells(kit / "solutions/notebooks" / name)
    assert len(ours) == len(solved)
    changed = [n for n, cell in enumerate(ours) if cell != solved[n]]
    assert len(changed) == len(exercises(name[:2]))
    for n in changed:
        assert "exercise" in ours[n]["metadata"]["tags"]
        assert {**ours[n], "source": solved[n]["source"]} == solved[n]


@pytest.mark.parametrize("name", PRACTICED)
def test_every_check_of_the_solutions_says_right(kit, name):
    solved, said = cells(kit / "solutions/notebooks" / name), []
    names = imports_of(solved)
    for cell in solved:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and 'exercise("' in source and ".check(" in source:
            *body, check = ast.parse(source).body
            exec(compile(ast.Module(body, []), name, "exec"), names)
            said.append(eval(compile(ast.Expression(check.value), name, "eval"), names).text)
    assert len(said) == len(exercises(name[:2]))
    assert all(text.endswith(": right\nRight.") for text in said), said


@pytest.mark.parametrize("name", PRACTICED)
def test_no_solution_can_be_read_in_the_student_bundle(kit, name):
    texts = ["".join(cell["source"]) for cell in cells(kit / "student/notebooks" / name)]
    for one in exercises(name[:2]):
        assert one.cells(solved=True)[-1][1] not in texts
        if not one.is_decision:
            body = one.cells(solved=True)[-1][1].partition("\n    ")[2].rpartition("\n\n\n")[0]
            assert body not in "\n".join(texts)
    assert not [text for text in texts if "my_answer = " in text and "my_answer = ..." not in text]


def test_the_bundles_are_zipped_with_all_that_a_lesson_links_to(kit):
    for bundle in ("student", "solutions"):
        names = ZipFile(kit / f"{bundle}.zip").namelist()
        assert f"{bundle}/notebooks/sftlab-0-py3-none-any.whl" in names
        for name in LESSONS:
            text = (NOTEBOOKS / name).read_text("utf-8")
            for link in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md|py))[#)]", text):
                target = Path("notebooks", link).as_posix().replace("notebooks/../", "")
                assert f"{bundle}/{target}" in names, link
    assert "solutions/quiz-answers.md" in names


def test_the_plan_has_every_lesson_with_its_minutes_and_mistakes(kit):
    text = (kit / "teaching.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^### (\w\w) (.*?)(?=^##|\Z)", text, flags=re.M | re.S))
    for name in LESSONS:
        part, (lesson,) = parts[name[:2]], find_lessons([name[:2]])
        sections = by_section(lesson)
        assert all(f"| {title} |" in part for title, *_ in sections)
        assert sum(row[3] for row in sections) == sum(one.minutes for one in exercises(name[:2]))
        assert all(said in part for one in exercises(name[:2]) for said in one.diagnoses.values())
        assert sum(line.startswith(("1. ", "2. ", "3. ")) for line in part.splitlines()) == 3


def test_minutes_are_divided_by_words_and_what_is_folded_comes_on_top(tmp_path):
    def cell(kind, source, *tags):
        return {"cell_type": kind, "source": source, "metadata": {"tags": tags}}

    texts = [cell("markdown", "# T\nw w w"), cell("markdown", "## A\n```\n## no\n```\nw w")]
    texts += [cell("code", "x = 1\ny = 2"), cell("code", "x\n" * 9, "exercise")]
    texts += [cell("markdown", "## B\nw w w", "deep"), cell("markdown", "### b\nw")]
    texts += [cell("markdown", "## C\nw w w")]
    path = tmp_path / "99_x.ipynb"
    path.write_text(json.dumps({"cells": texts}), encoding="utf-8")
    found = by_section(SimpleNamespace(name=path.stem, path=path, study=38))
    assert found == [("Beginning", 5, 0, 0), ("A", 28, 0, 0), ("B", 0, 8, 0), ("C", 5, 0, 0)]


def test_a_wheel_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="is not a wheel"):
        write_kit(tmp_path / "kit", wheel=tmp_path / "none.whl")
    assert not (tmp_path / "kit").exists()
