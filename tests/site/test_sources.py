"""The site of lessons as they are committed: links, structure, ledger; small cases of its parts."""

import base64
import json
import re
import tomllib
from importlib import import_module

import nbformat
import pytest
from site_reader import Tags, faults

from sftlab.course import Record, claims, find_lessons, rows
from sftlab.measure import computed
from sftlab.paths import NOTEBOOKS
from sftlab.show import claim_card
from sftlab.site import build_site
from sftlab.site.building import SiteError
from sftlab.site.conf import plain_docstring
from sftlab.site.sources import repository, write_lesson, write_sources

LESSONS = [lesson.name for lesson in find_lessons()]


def test_no_page_has_a_link_to_nowhere_or_a_picture_without_words(site):
    pages = sorted(site.pages.rglob("*.html"))
    assert {page.stem for page in pages} >= {*LESSONS, "index", "ledger", "glossary", "search"}
    found = {page.name: wrong for page in pages if (wrong := faults(page))}
    assert not found


def test_each_lesson_has_its_neighbors_its_times_and_its_notebook(site):
    for before, name, after in zip(LESSONS, LESSONS[1:], LESSONS[2:], strict=False):
        page = site.read(name)
        assert re.search(rf'class="left-prev"\s+href="{before}.html"', page)
        assert re.search(rf'class="right-next"\s+href="{after}.html"', page)
        assert f'href="notebooks/{name}.ipynb"' in page
    for lesson in find_lessons():
        assert f"Study: about {lesson.study} minutes" in site.read(lesson.name)
        downloaded = (site.pages / f"notebooks/{lesson.name}.ipynb").read_bytes()
        assert downloaded == lesson.path.read_bytes()


def test_sections_tagged_deep_are_folded_and_no_other(site):
    for lesson in find_lessons():
        cells = nbformat.read(lesson.path, as_version=4).cells
        deep = [cell for cell in cells if "deep" in cell.metadata.get("tags", [])]
        page = site.read(lesson.name)
        assert page.count('<details class="deep">') == len(deep)
        assert page.count("<details") == page.count("</details>")


def test_the_ledger_has_every_claim_with_verdict_and_first_expectation(site):
    page = site.read("ledger")
    for claim in claims().values():
        row = re.search(rf'<tr id="{claim.id}".*?</tr>', page, flags=re.DOTALL)[0]
        assert "not measured" in row
        assert f"first expected: {claim.expected}" in row
        assert f'href="{claim.notebook}.html"' in row


def test_glossary_recipes_and_search_are_there(site):
    terms = re.findall(r"^### ", (NOTEBOOKS / "glossary.md").read_text("utf-8"), flags=re.M)
    assert site.read("glossary").count("<h3>") == len(terms)
    recipe = site.read("recipes/05_loss_masks")
    assert "Choose what the loss is computed on" in recipe
    assert f'href="../{LESSONS[5]}.html"' in recipe
    assert "forgetting" in (site.pages / "searchindex.js").read_text("utf-8")


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8) + (400).to_bytes(4, "big")).decode()


def test_what_a_run_left_is_shown_and_linked_both_ways(tmp_path):
    parts = {"continued": computed(0.9, factor=1.01), "answered": computed(0.05, factor=1.01)}
    measured = Record(claim=claims()["B1"], estimates=parts, profile="tiny")
    card = {"text/html": claim_card(measured).html, "text/plain": "B1"}
    figure = {"image/png": PNG, "text/plain": 'Title: base 0%; "tuned" 98%.'}
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/html": "<b>twin</b>",
    }
    cells = [nbformat.v4.new_markdown_cell("# The lesson\n\nA [link](05_x.ipynb#Some-Place).")]
    for data in (card, card, figure, widget):
        output = nbformat.v4.new_output("execute_result", data, execution_count=1)
        cells.append(nbformat.v4.new_code_cell("show()", outputs=[output]))
    (tmp_path / "executed").mkdir()
    book = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(book, tmp_path / f"executed/{LESSONS[1]}.ipynb")
    (tmp_path / "claims.json").write_text(json.dumps(rows({"B1": measured})), encoding="utf-8")

    source = tmp_path / "source"
    write_sources(source, out=tmp_path, api=False)
    page = nbformat.read(source / f"{LESSONS[1]}.ipynb", as_version=4)
    assert "without its results" not in page.cells[0].source
    assert "(05_x.ipynb#some-place)" in page.cells[0].source
    htmls = [cell.outputs[0].data["text/html"] for cell in page.cells[1:]]
    assert [html.count('id="claim-B1"') for html in htmls] == [1, 0, 0, 0]
    assert 'href="ledger.html#B1"' in htmls[0]
    (_, tag), *_ = Tags(htmls[2]).all
    assert (tag["alt"], tag["width"]) == (figure["text/plain"], "200")
    assert (source / "_extra" / tag["src"]).read_bytes() == base64.b64decode(PNG)
    assert htmls[3] == "<b>twin</b>"
    row = re.search(r'<tr id="B1".*?</tr>', (source / "ledger.md").read_text("utf-8"), re.DOTALL)[0]
    assert f'href="{LESSONS[1]}.html#claim-B1"' in row
    assert measured.verdict in row


def test_badges_are_shown_once_there_is_an_address(tmp_path):
    lesson = {"name": "00", "number": "00", "label": "00 Start", "study": 1, "minutes": 1.0}
    lesson |= {"machine": "2 cores", "path": find_lessons(["00"])[0].path}
    for address, count in (
        ("", 0),
        ("https://github.com/someone/lab", 2),
        ("https://x.org/lab", 0),
    ):
        write_lesson(lesson, tmp_path, out=tmp_path, address=address)
        text = nbformat.read(tmp_path / "00.ipynb", as_version=4).cells[0].source
        assert text.count("Open in ") == count
        assert text.count("someone/lab") == count


def test_the_address_is_that_of_the_project():
    urls = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text("utf-8"))["project"][
        "urls"
    ]
    assert repository() == urls.get("Repository", "")


def test_a_site_of_nothing_names_the_remedy(tmp_path):
    with pytest.raises(SiteError, match="run `make course` first"):
        build_site(tmp_path)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("A star * and name_ stay.", "A star \\* and name\\_ stay."),
        ("Code `a * b_` stays.", "Code `a * b_` stays."),
        ("Drawn:\n    a -- *\nEnd.", "Drawn:\n\n::\n\n    a -- *\nEnd."),
        ("Args:\n    x: of a * b.", "Args:\n    x: of a \\* b."),
    ],
)
def test_docstrings_are_read_as_plain_text(written, shown):
    lines = written.splitlines()
    plain_docstring(None, "function", "f", None, None, lines)
    assert "\n".join(lines) == shown


@pytest.mark.slow
def test_the_api_has_a_page_for_each_room_and_names_what_it_hands_on(site):
    write_sources(site.source, out=site.out)
    assert site.build() == []
    for room in ("sftlab", "sftlab.data", "sftlab.measure", "sftlab.show"):
        page = site.read(f"api/{room}")
        missing = [name for name in import_module(room).__all__ if f"{name}</span>" not in page]
        assert not missing
        assert not faults(site.pages / f"api/{room}.html")
