"""The site in Chromium, opened from disk with the network cut: each lesson with the outputs that it
left when tests/browser ran it, and the pages around them."""

import shutil

import pytest
from site_reader import faults, look

from sftlab.course import find_lessons, run_notebooks
from sftlab.show import show_mask
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
