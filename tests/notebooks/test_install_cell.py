"""The first cell of each lesson: it installs the package where it is missing, or says how."""

import importlib.util
import json
import re
import sys
import tomllib

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from sftlab.paths import NOTEBOOKS

LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


def first_cell(lesson):
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


class Shell:
    """Stands for IPython: notes the magics that a cell calls."""

    def __init__(self, space):
        self.calls, self.user_ns = [], space

    def run_line_magic(self, name, line):
        self.calls.append((name, line.format(**self.user_ns)))


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "course" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(source):
        space = {}
        shell = Shell(space)
        space["get_ipython"] = lambda: shell
        exec(TransformerManager().transform_cell(source), space)
        return shell.calls

    return run


def test_every_lesson_has_the_same_first_cell():
    assert len({first_cell(lesson) for lesson in LESSONS}) == 1


def test_the_address_is_the_projects():
    """Set in one place, `[project.urls]`; a missing package can't be asked for it."""
    project = NOTEBOOKS.parent / "pyproject.toml"
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {})
    written = re.search(r'address = "(.*?)"', first_cell(LESSONS[0]))[1]
    assert written == urls.get("Repository", "")


def test_a_public_address_is_installed_from(run):
    source = first_cell(LESSONS[0]).replace('address = ""', 'address = "https://example.org/x"')
    assert run(source) == [("pip", "install --quiet git+https://example.org/x")]


def test_a_clone_is_installed_from_itself(run, tmp_path):
    (tmp_path / "course" / "sftlab").mkdir()
    assert run(first_cell(LESSONS[0])) == [("pip", "install --quiet --editable ..")]
    # A running kernel does not see an editable install by itself.
    assert sys.path[0] == str(tmp_path / "course")


def test_a_wheel_beside_the_notebook_is_installed(run, tmp_path):
    wheel = tmp_path / "course" / "notebooks" / "sftlab-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert run(first_cell(LESSONS[0])) == [("pip", f"install --quiet {wheel.name}")]


def test_without_either_it_says_what_to_do(run):
    with pytest.raises(ModuleNotFoundError, match="wheel"):
        run(first_cell(LESSONS[0]))
