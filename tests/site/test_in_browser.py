"""The site in Chromium, opened from disk with the network cut: each lesson with the outputs that it
left when tests/browser ran it, and the pages around them."""

import shutil
from pathlib import Path

import pytest
from site_reader import faults, look

from sftlab.course import find_lessons, run_notebooks
from sftlab.site.sources import describe, write_lesson

pytestmark = pytest.mark.browser
LESSONS = [lesson.name for lesson in find_lessons()]


@pytest.fixture
def run(tmp_path: Path, from_browser: Path):
    """Name -> a folder with the executed lesson. One that the browser did not run before in this
    process is shown as it is committed, except 00, which papermill runs."""

    def run(name: str) -> Path:
        if (saved := from_browser / name / f"{name}.ipynb").is_file():
            (tmp_path / "executed").mkdir()
            shutil.copy(saved, tmp_path / "executed")
        elif name.startswith("00"):
            run_notebooks([name], folder=tmp_path, progress=False)
        return tmp_path

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_with_its_outputs_has_no_fault(name, site, run, browser, from_browser):
    out = run(name)
    (lesson,) = find_lessons([name])
    shown = write_lesson(describe(lesson, {}), site.source, out=out, address="")
    assert site.build() == []
    page = site.pages / f"{name}.html"
    assert not faults(page)
    assert not look(browser, page.as_uri())
    if (out / "executed").is_dir():
        records = from_browser / name / "records"
        assert shown == {file.stem for file in records.glob("*.json")} or not records.is_dir()


@pytest.mark.parametrize("name", ["index", "ledger", "glossary", "recipes/05_loss_masks"])
def test_the_pages_around_have_no_fault(name, site, browser):
    assert not look(browser, (site.pages / f"{name}.html").as_uri())


def test_search_answers_from_disk(site, browser):
    page = site.pages / "search.html"
    assert not look(browser, page.as_uri() + "?q=forgetting")
    tab = browser.new_page()
    tab.goto(page.as_uri() + "?q=forgetting")
    tab.wait_for_selector("#search-results li a")
    assert "08 Forgetting" in tab.locator("#search-results").inner_text()
    tab.close()


def test_the_ledger_is_filtered_and_a_link_to_a_claim_shows_it(site, browser):
    tab = browser.new_page()
    tab.goto((site.pages / "ledger.html").as_uri())
    rows = tab.locator("table.ledger tbody tr")
    every = rows.count()
    tab.select_option("select[name=lesson]", "08_forgetting")
    seen = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(seen) < every
    assert all(row.get_attribute("data-lesson") == "08_forgetting" for row in seen)
    tab.evaluate("location.hash = 'B1'")
    tab.wait_for_function("!document.getElementById('B1').hidden")
    tab.select_option("select[name=verdict]", "surprise")
    assert not [row for row in rows.all() if row.is_visible()]  # nothing was measured here
    tab.close()


def test_without_scripts_the_ledger_shows_all_claims(site, browser):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((site.pages / "ledger.html").as_uri())
    assert all(row.is_visible() for row in tab.locator("table.ledger tbody tr").all())
    assert not tab.locator("form.filter").is_visible()
    context.close()
