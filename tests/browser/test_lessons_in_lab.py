"""Every lesson, opened in JupyterLab and run, shows no error and no warning on the screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_reader import TROUBLE, WIDGET, Reader, complaints
from lab_server import ROOT

pytestmark = pytest.mark.browser

LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()"
SLIDER = """import ipywidgets as widgets
from IPython.display import display
@widgets.interact(rank=(1, 8), method=["full", "LoRA"])
def show(rank=4, method="full"):
    print(f"{method} of rank {rank}")"""
BAR = """from tqdm.auto import tqdm
for step in tqdm(range(20), desc="Training"):
    pass
for step in tqdm(range(20), leave=False):
    pass"""
SOUND = [
    "# A lesson\nA sentence, and a formula: $p = \\frac{k}{n}$.",
    ("code", FIGURE),
    ("code", SLIDER),
    ("code", BAR),
    ("code", "print('Error bars are 95% intervals')"),
    ("code", ""),
]
# Each line: a cell, and the complaint about it that has to come.
FAULTS = {
    "import warnings\nwarnings.warn('old name')": "writes to stderr",
    "print('UserWarning: old name')": "shows the word 'UserWarning'",
    "import sys\nprint('a note', file=sys.stderr)": "writes to stderr",
    "import matplotlib.pyplot as plt\nplt.figure().savefig('blank.png')\nplt.close()\n"
    "from IPython.display import Image\nImage('blank.png')": "has an empty picture",
    "from IPython.display import HTML\nHTML('<img src=missing.png>')": "has an empty picture",
    "from IPython.display import display\n"
    "display({'application/vnd.jupyter.widget-view+json': {'model_id': 'gone',"
    " 'version_major': 2, 'version_minor': 0}}, raw=True)": "shows the word 'Error",
    "import ipywidgets as widgets\nslider = widgets.IntSlider(3)\n"
    "slider.observe(lambda change: 1 / 0, 'value')\nslider": "log: ZeroDivisionError",
    "HTML('<img src=https://example.org/picture.png>')": "network: asks for https://example.org",
    "int('three')": "raised ValueError: invalid literal",
    "print('never reached')": "was not run to its end",
}


def write(path: Path, cells: list[Any]) -> str:
    """A notebook of `cells`: strings are prose, ("code", text) pairs are code."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for cell in cells:
        new = nbformat.v4.new_markdown_cell if isinstance(cell, str) else nbformat.v4.new_code_cell
        book.cells.append(new(cell if isinstance(cell, str) else cell[1]))
    nbformat.write(book, path)
    return path.name


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_without_an_error_or_a_warning_on_screen(
    lesson: str, assert_nothing_wrong: Callable[[str], None]
) -> None:
    assert_nothing_wrong(lesson)


def test_a_kernel_that_is_not_there_is_seen(reader: Reader) -> None:
    path = reader.lab.folder / "kernelless.ipynb"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    book.metadata["kernelspec"] = {"name": "julia-9", "display_name": "Julia 9"}
    nbformat.write(book, path)
    assert any(found.startswith("dialog: ") for found in complaints(reader.run(path.name)))


def test_a_sound_notebook_raises_no_complaint(
    reader: Reader, assert_nothing_wrong: Callable[[str], None]
) -> None:
    assert_nothing_wrong(write(reader.lab.folder / "sound.ipynb", SOUND))
    text = reader.page.locator(".jp-Cell-outputArea").all_inner_texts()
    assert any("LoRA of rank 5" in part for part in text), "the widgets were not touched"


@pytest.fixture(scope="module")
def faulty(reader: Reader) -> list[str]:
    """The complaints about a notebook in which every cell has a fault of its own."""
    cells = [("code", source) for source in FAULTS]
    return complaints(reader.run(write(reader.lab.folder / "faulty.ipynb", cells)))


@pytest.mark.parametrize("index", range(len(FAULTS)), ids=[*FAULTS.values()])
def test_each_fault_is_seen(index: int, faulty: list[str]) -> None:
    expected = list(FAULTS.values())[index]
    if not expected.startswith(("log: ", "network: ")):
        expected = f"cell {index}: {expected}"
    assert any(found.startswith(expected) for found in faulty), "\n".join(faulty)


def test_a_widget_without_its_extension_is_seen() -> None:
    view = {"output_type": "display_data", "data": {WIDGET: {}, "text/plain": "IntSlider"}}
    cell = {"index": 0, "code": True, "source": "slider", "count": 1, "waiting": False}
    cell |= {"outputs": [view], "mimes": ["text/plain"], "widgets": 0, "text": "IntSlider"}
    cell |= {"pictures": [], "badMath": 0}
    seen = {key: [] for key in ("dialogs", "toasts", "hidden", "strangers")} | {"late": None}
    assert complaints(seen | {"cells": [cell]}) == ["cell 0: shows a widget as plain text"]


def test_words_of_trouble_are_told_from_those_that_only_look_like_it() -> None:
    trouble = "Traceback (most recent call last)|FutureWarning: x|WARNING:root:x|Error: no file"
    for text in [*trouble.split("|"), "[WARNING|trainer.py:12]"]:
        assert TROUBLE.search(text), text
    for text in "the standard error|Error bars are intervals|terrors, warnings, errors".split("|"):
        assert not TROUBLE.search(text), text
