"""Diagrams in Chromium: their text fits and can be read, and their colours follow the theme."""

import pytest

from sftlab.show import diagram

pytestmark = pytest.mark.browser
NAMES = "journey shift causal_mask labels generation_prompt padding packing group_split lora"
FAULTS = """svg => {
  const [width, height] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBBox()]);
  const boxes = [...svg.querySelectorAll('rect')].map(r => r.getBBox());
  const found = [];
  for (const [i, [words, a]] of texts.entries()) {
    const [right, bottom] = [a.x + a.width, a.y + a.height];
    if (a.x < 1 || right > width - 1 || a.y < 0 || bottom > height) found.push(`cut: ${words}`);
    for (const [other, b] of texts.slice(i + 1))
      if (a.x < b.x + b.width - 1 && b.x < right - 1 && a.y + 3 < b.y + b.height - 3
          && b.y + 3 < bottom - 3) found.push(`overlap: ${words} | ${other}`);
    const [x, y] = [a.x + a.width / 2, a.y + a.height / 2];
    for (const b of boxes)
      if (b.x < x && x < b.x + b.width && b.y < y && y < b.y + b.height
          && (a.x < b.x + 1 || right > b.x + b.width - 1)) found.push(`too wide: ${words}`);
  }
  const small = Math.min(...[...svg.querySelectorAll('text')].map(
    t => parseFloat(getComputedStyle(t).fontSize))) * svg.getBoundingClientRect().width / width;
  return [found, small];
}"""


@pytest.fixture
def page(browser):
    """A page as wide as a phone."""
    page = browser.new_page(viewport={"width": 400, "height": 900})
    yield page
    page.close()


@pytest.mark.parametrize("name", NAMES.split())
def test_text_fits_and_can_be_read_on_a_phone(page, name):
    page.set_content(diagram(name).svg)
    faults, smallest = page.eval_on_selector("svg", FAULTS)
    assert not faults
    assert smallest > 10


GROUNDS = """() => ['html', 'svg', 'svg text', 'svg rect.learned'].map(
  (one, n) => getComputedStyle(document.querySelector(one))[n == 1 ? 'backgroundColor' : 'fill'])"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(21, 24, 28)"


@pytest.mark.parametrize(
    ("system", "page_says", "ground"),
    [
        ("dark", '<body data-jp-theme-light="true">', LIGHT),
        ("light", '<body data-jp-theme-light="false">', DARK),
        ("dark", "<style>:root{color-scheme:light dark}</style>", DARK),
        ("light", "<style>:root{color-scheme:light dark}</style>", LIGHT),
        ("dark", "<p>a page that knows no dark", LIGHT),
    ],
)
def test_colours_follow_the_theme(page, system, page_says, ground):
    page.emulate_media(color_scheme=system)
    page.set_content(page_says + diagram("shift").svg)
    _, found, ink, learned = page.evaluate(GROUNDS)
    assert found == ground
    assert (brightness(ink) > brightness(learned) > brightness(found)) == (ground == DARK)


def brightness(colour):
    return sum(int(part) for part in colour[4:-1].split(","))
