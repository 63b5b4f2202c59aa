"""The site in Chromium, opened from disk with the network cut: each lesson with the outputs that it
left when tests/browser ran it, and the pages around them."""

import shutil

import nbformat
import pytest
from site_reader import faults, look

from sftlab.course import Record, claims, find_lessons, run_notebooks
from sftlab.measure import computed
from sftlab.show import claim_card, show_mask
from sftlab.site.building import run_sphinx
from sftlab.site.sources import describe, write_lesson

old = pytest.mark.filterwarnings("ignore:.*is deprecated. Check CHANGES")  # for MyST
pytestmark = [pytest.mark.browser, old]
LESSONS = [lesson.name for lesson in find_lessons()]


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_with_its_outputs_has_no_fault(name, site, browser, from_browser, tmp_path):
    """Where the browser did not run it before, papermill runs 00; others are as committed."""
    ran = from_browser / name
    if ran.is_dir():
        (tmp_path / "executed").mkdir()
        shutil.copy(ran / f"{name}.ipynb", tmp_path / "executed")
    elif name == LESSONS[0]:
        run_notebooks([name], folder=tmp_path, progress=False)
    (lesson,) = find_lessons([name])
    shown = write_lesson(describe(lesson, {}), site.with_name("source"), out=tmp_path, address="")
    assert run_sphinx(site.with_name("source"), site) == []
    assert not faults(site / f"{name}.html")
    # Code is colored alike on all pages, and half of what a lesson has: that of one is looked at.
    skip = "none" if name == LESSONS[0] else ".cell_input"
    assert not look(browser, (site / f"{name}.html").as_uri(), skip=skip)
    if ran.is_dir():
        recorded = {file.stem for file in (ran / "records").glob("*.json")}
        assert recorded <= shown  # lesson 00 shows a card that it does not record


def test_tokens_of_a_mask_stand_beside_each_other(site, browser, toy_tokenizer):
    """The theme has classes of the same names as the lab's cards: `row`, `card`."""
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    mask = show_mask(talk, tokenizer=toy_tokenizer, template="chatml")
    tab = browser.new_page()
    tab.goto((site / f"{LESSONS[5]}.html").as_uri())
    tab.evaluate("html => { document.querySelector('article').innerHTML = html; }", mask.html)
    tops = tab.evaluate("[...document.querySelectorAll('.row .t')].map(one => one.offsetTop)")
    assert len(set(tops)) <= mask.html.count("<br>") + 1 < len(tops)
    tab.close()


def test_a_prediction_is_marked_on_its_card_and_scored(site, browser, tmp_path):
    measured = {"gain": computed(0.34, factor=1.01)}
    card = claim_card(Record(claim=claims()["B3"], estimates=measured, profile="tiny")).html
    (lesson,) = find_lessons(["01"])
    notebook = nbformat.read(lesson.path, as_version=4)
    shown = [nbformat.v4.new_output("display_data", {"text/html": card})]
    notebook.cells[-1] = nbformat.v4.new_code_cell("card", outputs=shown)
    (tmp_path / "executed").mkdir()
    nbformat.write(notebook, tmp_path / "executed" / lesson.path.name)
    write_lesson(describe(lesson, {}), site.with_name("source"), out=tmp_path, address="")
    assert run_sphinx(site.with_name("source"), site) == []

    tab = browser.new_page()
    tab.goto((site / f"{lesson.name}.html").as_uri())
    form = tab.locator("form.predict:visible")  # that of B3 alone: it has a card
    for low, high, said in (("0.3", "0.15", "low must not"), ("0.15", "0.3", "Marked on the card")):
        form.get_by_label("low").fill(low)
        form.get_by_label("high").fill(high)
        form.get_by_role("button").click()
        assert said in form.locator("output").inner_text()
    text = tab.locator("#claim-B3").inner_text()
    assert "lies 0.04 above it. Its width is 0.15, its interval score 0.55" in text
    places = {"line.bound": "x1", "circle.value": "cx", "rect.predicted": "x"}
    places = [tab.locator(one).get_attribute(at).rstrip("%") for one, at in places.items()]
    bound, value, low = map(float, places)  # they stand for 0.1, 0.34, 0.15
    tab.close()
    assert (low - bound) / (value - bound) == pytest.approx(0.05 / 0.24, abs=0.01)


PAGES = {
    "index.html": "How to start",
    "ledger.html": "What articles",
    "glossary.html": "zero-shot",
    "recipes/05_loss_masks.html": "Explained in",
    "search.html?q=forgetting": "08 Forgetting",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_around_have_no_fault(page, site, browser):
    assert not look(browser, f"{site.as_uri()}/{page}", text=PAGES[page])


def test_the_ledger_is_filtered_by_its_script_and_whole_without(site, browser):
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts)
        tab = context.new_page()
        tab.goto(f"{site.as_uri()}/ledger.html")
        rows = tab.locator("table.ledger tbody tr")
        shown = tab.locator("table.ledger tbody tr:visible")
        assert shown.count() == rows.count() > 80
        assert tab.locator("form.filter").is_visible() == scripts
        if scripts:
            tab.select_option("select[name=lesson]", LESSONS[8])
            assert {row.get_attribute("data-lesson") for row in shown.all()} == {LESSONS[8]}
            tab.select_option("select[name=verdict]", "surprise")
            assert shown.count() == 0  # nothing was measured here
            tab.evaluate("location.hash = 'B1'")
            tab.locator("#B1:visible").wait_for()
        context.close()
