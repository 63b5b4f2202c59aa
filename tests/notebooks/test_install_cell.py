"""The first cell of each lesson: it installs the package where it is missing, or says how."""

import importlib.util
import json
import re
import sys
import tomllib
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from sftlab.paths import NOTEBOOKS

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


def first_cell(lesson):
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a cell in a folder without the package; gives the magics that it calls."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "course" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(source):
        calls, space = [], {}

        def magic(name, line):
            calls.append((name, line.format(**space)))

        space["get_ipython"] = lambda: SimpleNamespace(run_line_magic=magic)
        exec(TransformerManager().transform_cell(source), space)
        return calls

    return run


def test_every_lesson_has_the_same_first_cell_with_the_project_s_address():
    """Set in one place, `[project.urls]`; a missing package can't be asked for it."""
    (cell,) = {first_cell(lesson) for lesson in LESSONS}
    project = NOTEBOOKS.parent / "pyproject.toml"
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {})
    assert re.search(r'address = "(.*?)"', cell)[1] == urls.get("Repository", "")


def test_it_installs_from_a_public_address_a_wheel_or_the_clone_and_else_says_what_to_do(
    run, tmp_path
):
    cell, course = first_cell(LESSONS[0]), tmp_path / "course"
    parts = ("ipykernel", "ipython", "tornado", "traitlets")  # pip may not replace a running kernel
    kept = " ".join(f"{part}=={version(part)}" for part in parts)
    with pytest.raises(ModuleNotFoundError, match="wheel"):
        run(cell)
    public = cell.replace('address = ""', 'address = "https://example.org/x"')
    assert run(public) == [("pip", f"install --quiet git+https://example.org/x {kept}")]
    wheel = course / "notebooks" / "sftlab-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert run(cell) == [("pip", f"install --quiet {wheel.name} {kept}")]
    wheel.unlink()
    (course / "sftlab").mkdir()
    assert run(cell) == [("pip", f"install --quiet --editable .. {kept}")]
    assert sys.path[0] == str(course)  # a running kernel does not see an editable install by itself


def test_it_is_folded_in_every_lesson_and_left_out_of_the_pages():
    for lesson in LESSONS:
        cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
        first = next(cell for cell in cells if cell["cell_type"] == "code")
        assert first["metadata"]["tags"] == ["setup"], lesson.name
        assert first["metadata"]["jupyter"] == {"source_hidden": True}, lesson.name
