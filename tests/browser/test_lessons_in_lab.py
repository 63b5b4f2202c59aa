"""Every lesson, opened in JupyterLab and run, shows no error and no warning on the screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_reader import Reader, complaints

from sftlab.course import find_lessons

pytestmark = pytest.mark.browser

# Lesson 14's model is not there before `make real`.
LESSONS = [one.path.name for one in find_lessons() if one.defaults.get("profile", "tiny") == "tiny"]
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
    "import matplotlib.pyplot as plt\nplt.figure().savefig('blank.png')\nplt.close()\n"
    "from IPython.display import Image\nImage('blank.png')": "has an empty picture",
    "from IPython.display import display\n"
    "display({'application/vnd.jupyter.widget-view+json': {'model_id': 'gone',"
    " 'version_major': 2, 'version_minor': 0}}, raw=True)": "shows the word 'Error",
    "import ipywidgets as widgets\nslider = widgets.IntSlider(3)\n"
    "slider.observe(lambda change: 1 / 0, 'value')\nslider": "log: ZeroDivisionError",
    "from IPython.display import HTML\n"
    "HTML('<img src=https://example.org/picture.png>')": "network: asks for https://example.org",
    "int('three')": "raised ValueError: invalid literal",
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
    lesson: str, reader: Reader, assert_nothing_wrong: Callable[[str], None]
) -> None:
    assert_nothing_wrong(lesson)
    reader.close()  # what is tested next has the memory


def test_a_sound_notebook_raises_no_complaint(
    reader: Reader, assert_nothing_wrong: Callable[[str], None]
) -> None:
    assert_nothing_wrong(write(reader.lab.folder / "sound.ipynb", SOUND))
    text = reader.page.locator(".jp-Cell-outputArea").all_inner_texts()
    assert any("LoRA of rank 5" in part for part in text), "the widgets were not touched"


def test_each_fault_is_seen(reader: Reader) -> None:
    cells = [("code", source) for source in FAULTS]
    seen = complaints(reader.run(write(reader.lab.folder / "faulty.ipynb", cells)))
    for index, expected in enumerate(FAULTS.values()):
        if not expected.startswith(("log: ", "network: ")):
            expected = f"cell {index}: {expected}"
        assert any(found.startswith(expected) for found in seen), "\n".join(seen)
