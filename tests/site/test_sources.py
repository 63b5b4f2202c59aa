"""The site of lessons as they are committed: links, structure, ledger; small cases of its parts."""

import base64
import json
import re
import shutil
import sys
from email.message import Message
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from site_reader import Tags, faults

from sftlab.course import Record, claims, find_lessons, rows
from sftlab.machine import MissingExtra
from sftlab.measure import computed
from sftlab.paths import NOTEBOOKS
from sftlab.show import claim_card
from sftlab.site import build_site
from sftlab.site.building import SiteError, run_sphinx
from sftlab.site.conf import plain_docstring
from sftlab.site.sources import describe, repository, write_lesson, write_sources

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Check CHANGES")  # for MyST
LESSONS = [lesson.name for lesson in find_lessons()]


def read(site, name):
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_no_page_has_a_link_to_nowhere_or_a_picture_without_words(site):
    pages = [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]
    assert {page.stem for page in pages} >= {*LESSONS, "index", "ledger", "glossary", "search"}
    assert not {page.name: wrong for page in pages if (wrong := faults(page))}


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_its_neighbors_times_notebook_and_folds(name, site):
    page, n = read(site, name), LESSONS.index(name)
    assert n == 0 or re.search(rf'class="left-prev"\s+href="{LESSONS[n - 1]}.html"', page)
    assert name == LESSONS[-1] or re.search(rf'"right-next"\s+href="{LESSONS[n + 1]}.html"', page)
    (lesson,) = find_lessons([name])
    assert page.count(f"Study time:</strong> about {lesson.study} minutes") == 1
    assert (site / f"notebooks/{name}.ipynb").read_bytes() == lesson.path.read_bytes()
    cells = nbformat.read(lesson.path, as_version=4).cells
    deep = [cell for cell in cells if "deep" in cell.metadata.get("tags", [])]
    assert page.count('<details class="deep">') == len(deep)


def test_the_ledger_has_every_claim_with_its_first_expectation(site):
    for claim in claims().values():
        row = re.search(rf'<tr id="{claim.id}".*?</tr>', read(site, "ledger"), re.DOTALL)[0]
        said = ("not measured", f"expected: {claim.expected}", f'href="{claim.notebook}.html"')
        assert all(text in row for text in said)


def test_glossary_and_recipes_are_whole(site):
    terms = re.findall(r"^### ", (NOTEBOOKS / "glossary.md").read_text("utf-8"), flags=re.M)
    assert read(site, "glossary").count("<h3>") == len(terms)
    assert "Choose what the loss is computed on" in read(site, "recipes/05_loss_masks")


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def test_what_a_run_left_is_shown_and_linked_both_ways(tmp_path):
    parts = {"continued": computed(0.9, factor=1.01), "answered": computed(0.05, factor=1.01)}
    measured = Record(claim=claims()["B1"], estimates=parts, profile="tiny")
    card = {"text/html": claim_card(measured).html, "text/plain": "B1"}
    figure = {"image/png": PNG, "text/plain": 'Title: base 0%; "tuned" 98%.'}
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/html": "<b>twin</b>"}
    cells = [nbformat.v4.new_markdown_cell("# The lesson\n\nA [link](05_x.ipynb#Some-Place).")]
    for data in (card, card, figure, widget):
        about = {"image/png": {"width": 200}} if data is figure else {}
        output = nbformat.v4.new_output("execute_result", data, metadata=about)
        cells.append(nbformat.v4.new_code_cell("show()", outputs=[output]))
    for text in ("runs of tiny: 100%|###| 7/7 [00:12<00:00]\n", "100%|\nkept\n"):
        output = nbformat.v4.new_output("stream", text=text)
        cells.append(nbformat.v4.new_code_cell("run()", outputs=[output]))
    (tmp_path / "executed").mkdir()
    book = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(book, tmp_path / f"executed/{LESSONS[1]}.ipynb")
    ledger = [row | {"reason": "</details><script>"} for row in rows({"B1": measured})]
    (tmp_path / "claims.json").write_text(json.dumps(ledger), encoding="utf-8")

    source = tmp_path / "source"
    (source / "recipes").mkdir(parents=True)
    for stale in ("15_deleted.ipynb", "recipes/15_deleted.md"):
        (source / stale).touch()
    write_sources(source, out=tmp_path, api=False)
    page = nbformat.read(source / f"{LESSONS[1]}.ipynb", as_version=4)
    assert "without its results" not in page.cells[0].source
    assert "(05_x.ipynb#some-place)" in page.cells[0].source
    htmls = [cell.outputs[0].data["text/html"] for cell in page.cells[1:5]]
    assert [len(cell.outputs) for cell in page.cells[5:]] == [0, 1]
    assert [html.count('id="claim-B1"') for html in htmls] == [1, 0, 0, 0]
    assert 'href="ledger.html#B1"' in htmls[0]
    (_, tag), *_ = Tags(htmls[2]).all
    assert (tag["alt"], tag["width"]) == (figure["text/plain"], "200")
    assert (source / "_extra" / tag["src"]).read_bytes() == base64.b64decode(PNG)
    assert htmls[3] == "<b>twin</b>"
    row = re.search(r'<tr id="B1".*?</tr>', (source / "ledger.md").read_text("utf-8"), re.DOTALL)[0]
    assert f'href="{LESSONS[1]}.html#claim-B1"' in row
    assert measured.verdict in row
    assert "</summary>&lt;/details&gt;&lt;script&gt;</details>" in row
    assert not [*source.rglob("15_deleted.*")]
    before = {file: file.stat().st_mtime_ns for file in source.rglob("*")}
    write_sources(source, out=tmp_path, api=False)
    assert {file: file.stat().st_mtime_ns for file in source.rglob("*")} == before


def test_a_lesson_that_stopped_says_so_and_has_no_minutes_of_it(tmp_path):
    entry, (lesson,) = {"name": LESSONS[0], "minutes": 77.7}, find_lessons(["00"])
    for status, count in {"passed": 0, "failed": 1, "interrupted": 1}.items():
        run = {"notebooks": [entry | {"status": status}], "machine": {"cores": 2}}
        write_lesson(describe(lesson, run), tmp_path, out=tmp_path, address="")
        text = nbformat.read(tmp_path / f"{LESSONS[0]}.ipynb", as_version=4).cells[0].source
        assert text.count("stopped before its end") == count
        assert text.count("77.7 minutes on 2 cores") == 1 - count


def test_badges_are_shown_once_there_is_an_address(tmp_path, monkeypatch):
    stated = Message()
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: stated)
    assert repository() == ""
    stated["Project-URL"] = "Changes, https://github.com/an/lab/changes"
    stated["Project-URL"] = "Repository, https://github.com/an/lab.git/"
    assert repository() == "https://github.com/an/lab"
    lesson = describe(find_lessons(["00"])[0], {})
    for address, count in (("", 0), ("https://github.com/an/lab", 2), ("https://x.org/lab", 0)):
        write_lesson(lesson, tmp_path, out=tmp_path, address=address)
        text = nbformat.read(tmp_path / f"{LESSONS[0]}.ipynb", as_version=4).cells[0].source
        assert text.count("Open in ") == count
        assert text.count("an/lab") == count


def test_a_site_of_nothing_names_the_remedy(tmp_path):
    with pytest.raises(SiteError, match="run `make course` first"):
        build_site(tmp_path)


def test_outputs_of_a_lesson_that_failed_are_text_where_they_are_no_html(tmp_path):
    said = "</script></pre><script>alert(1)</script>"
    new = nbformat.v4.new_output
    outputs = [new("stream", name="stdout", text=said), new("error", traceback=[f"\x1b[31m{said}"])]
    outputs += [new("execute_result", {"text/plain": said})]
    outputs += [new("display_data", {"image/png": PNG, "text/plain": said})]
    cells = [nbformat.v4.new_markdown_cell("# The lesson\n\nText.")]
    cells += [nbformat.v4.new_code_cell(f"print({said!r})", outputs=outputs)]
    (tmp_path / "executed").mkdir()
    book, (lesson,) = nbformat.v4.new_notebook(cells=cells), find_lessons([LESSONS[1]])
    nbformat.write(book, tmp_path / f"executed/{LESSONS[1]}.ipynb")
    write_lesson(describe(lesson, {}), tmp_path / "source", out=tmp_path, address="")
    (tmp_path / "source/index.md").write_text(f"# All\n\n```{{toctree}}\n{LESSONS[1]}\n```\n")
    assert run_sphinx(tmp_path / "source", tmp_path / "site") == []
    page = read(tmp_path / "site", LESSONS[1])
    assert (page.count("alert"), page.count("<script>alert")) == (5, 0)


@pytest.mark.parametrize("library", ["sphinx", "myst_nb", "nbconvert"])
def test_without_its_extra_the_site_names_it(library, tmp_path, monkeypatch):
    (tmp_path / "executed").mkdir()
    (tmp_path / "executed" / f"{LESSONS[0]}.ipynb").touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r'pip install "sftlab\[site\]"'):
        build_site(tmp_path)
    assert [*tmp_path.iterdir()] == [tmp_path / "executed"]


def test_docstrings_are_read_as_plain_text():
    lines = ["A star * and name_:", "    a -- *", "Code `a * b_`.", "Args:", "    x: of a * b."]
    plain_docstring(None, "function", "f", None, None, lines)
    drawing = ["", "::", "", "    a -- *", ""]
    rest = ["Code `a * b_`.", "Args:", "    x: of a \\* b."]
    assert lines == ["A star \\* and name\\_:", *drawing, *rest]


@pytest.mark.slow
def test_a_whole_site_has_all_parts_and_the_names_of_each_room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("build")
    (out / "executed").mkdir(parents=True)
    shutil.copy(NOTEBOOKS / f"{LESSONS[0]}.ipynb", out / "executed")
    first = build_site(out)
    site = first.parent
    assert (first.is_file(), site.parent) == (True, out.resolve())
    deck = f"slides/{LESSONS[0]}.html"
    assert (site / deck).is_file()
    assert deck in read(site, LESSONS[0])
    models = [site / "_static" / f"living-{name}.js" for name in ("tokenizer", "base", "tuned")]
    assert all(script.is_file() for script in models)
    for room in ("sftlab", "sftlab.data", "sftlab.measure", "sftlab.show"):
        page = read(site, f"api/{room}")
        for name in import_module(room).__all__:
            assert f'="{room}.{name}"' in page or f">{name}<" in page, name
        assert not faults(site / f"api/{room}.html")
