"""Slides: what of a lesson is on them and what in the notes, on paper and in Chromium, where every
deck of the course fits its slides and asks the network for nothing."""

import re
from html import unescape

import nbformat
import pandas as pd
import pypdf
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sftlab.course import find_lessons, record, run_notebooks
from sftlab.measure import computed
from sftlab.show import claim_card, continuations, diagram, plot_curves, plot_loss, plot_runs
from sftlab.site import SlidesError, write_deck, write_pdf

LESSONS = [lesson.name for lesson in find_lessons()]
B1 = {"continued": computed(1.0), "answered": computed(0.0)}
LOOP = "for step in range(3):\n    loss = model(step)\n    loss.backward()"
HISTORY = [{"step": n, "loss": 5 / n} for n in range(1, 41)]
FRAME = pd.DataFrame(
    [(s, e, 3 / (e + s + 1), k) for s in (0, 1) for e in (0, 1, 2) for k in ("training", "base")],
    columns=["seed", "epoch", "loss", "kind"],
)


def picture():
    return plot_runs(FRAME, title="Two losses")


def shown(*values, source="show()", tags=()):
    """A code cell with outputs: things with a rich form, or text that it printed."""
    cell = new_code_cell(source, metadata={"tags": [*tags]})
    for one in values:
        if isinstance(one, str):
            cell.outputs.append(new_output("stream", text=one))
            continue
        frame = isinstance(one, pd.DataFrame)
        data = {"text/html": one.to_html()} if frame else one._repr_mimebundle_()
        data, metadata = data if isinstance(data, tuple) else (data, {})
        if "image/png" in data:
            data = data | {"image/png": "iVBORw0KGgo="}
        cell.outputs.append(new_output("display_data", data=data, metadata=metadata))
    return cell


def read(text, *tags):
    return shown(
        type("Said", (), {"_repr_mimebundle_": lambda _: {"text/markdown": text}})(), tags=tags
    )


def said(text, *tags):
    return new_markdown_cell(text, metadata={"tags": [*tags]})


@pytest.fixture
def deck(tmp_path):
    """Cells of a lesson -> its deck."""

    def write(*cells):
        first = said("# A lesson\n\nIt promises.\n\n**Needs:** time.\n\n1. see one;\n2. see two.")
        path = tmp_path / f"{LESSONS[0]}.ipynb"
        nbformat.write(new_notebook(cells=[first, *cells]), path)
        return write_deck(path, tmp_path / "slides")

    return write


def slides(deck):
    """Sections of a deck after those of its title: (heading, text and code on it, notes)."""
    found = []
    for section in BeautifulSoup(deck.read_text("utf-8"), "html.parser").select("section")[2:]:
        notes = section.aside.extract().get_text(" ")
        found.append((section.h2.text.strip(), section.select_one(".body").get_text(" "), notes))
    return found


def too_full(deck):
    """Slides with over 60 words or 12 lines of code."""
    wrong = []
    for section in BeautifulSoup(deck.read_text("utf-8"), "html.parser").select("section"):
        head = section.select_one("h1, h2").text.strip()
        code = sum(len(one.text.strip("\n").splitlines()) for one in section.select("pre"))
        for part in section.select("aside, script, svg, .row, pre"):
            part.decompose()
        for cell in section.select(".table :is(td, th)"):  # its numbers are a picture
            cell.string = " ".join(
                one for one in cell.text.split() if re.search("[a-z]", one, re.I)
            )
        words = sum(any(c.isalnum() for c in word) for word in section.get_text(" ").split())
        wrong += [f"{head}: {words} words, {code} lines"] if words > 60 or code > 12 else []
    return wrong


def test_results_are_on_slides_and_prose_in_the_notes(deck):
    heads = said("## 1. One\n\nThe reason.\n\n### A part\n\nMore prose.")
    made = deck(
        said("Set-up."), heads, shown(picture()), read("It fell."), said("## 2. Two\n\nFew.")
    )
    assert slides(made)[0][0] == "1. One"
    (_, _, reason), (part, text, notes), (_, first, _) = slides(made)
    assert "The reason." in reason
    assert part == "A part"
    assert "It fell." in text
    assert "More prose." in notes
    assert first.strip() == "Few."
    assert "Set-up" not in made.read_text("utf-8")


def test_deep_parts_set_up_and_tags(deck):
    made = deck(
        said("## 1. One"),
        read("A secret.", "skip"),
        read("For the speaker.", "notes"),
        shown(
            "4\n",
            source="import os\n\ndef four():\n    return 4\n\n\nfour()\nfour()",
            tags=["slide"],
        ),
        shown("5\n", source="1\n2\n3\n5"),
        shown(source=LOOP),
        said("## Deeper: two", "deep"),
        read("Deep."),
        said("## 3. Three\n\nTaught.", "slide"),
    )
    code, five, loop, three = [(text, notes) for _, text, notes in slides(made)]
    assert code[0].split()[:2] == ["def", "four"]
    assert "import" not in code[0]
    assert five[0].split() == ["5"]
    assert "loss.backward()" in " ".join(loop[0].split()).replace(" . ", ".").replace(" ()", "()")
    assert three[0].strip() == "Taught."
    assert "two" in three[1]
    page = unescape(made.read_text("utf-8"))
    assert "For the speaker." in code[1] + five[1] + loop[1] or "For the speaker." in page
    assert "A secret" not in page
    assert "Deep." not in page


def test_long_results_are_cut_to_what_can_be_read(deck):
    frame = pd.DataFrame({"a": range(30), "b": ["word"] * 30})
    long = "This is one sentence of seven words. " * 12
    bullets = "\n".join(f"- Point {n} has quite a few words to say." for n in range(12))
    carries = "| here | there | why |\n| --- | --- | --- |\n" + "| one | two | because |\n" * 20
    made = deck(
        said("## 1. One"),
        shown(frame),
        read(long),
        shown("\n".join(map(str, range(50)))),
        shown(continuations(["word " * 30] * 3, ["more"] * 3)),
        said(f"## What carries over\n\n{carries}"),
        said(f"## Summary\n\n{bullets}"),
    )
    assert not too_full(made)
    found = slides(made)
    assert re.search(r"\b\d+ of 30 rows", found[0][1])
    summary = " ".join(text for head, text, _ in found if head == "Summary")
    assert all(f"Point {n} " in summary for n in range(12))
    carried = [text for head, text, _ in found if head == "What carries over"]
    assert " ".join(carried).count("two") == 20
    assert not any("because" in text for text in carried)


def test_a_claim_is_short_and_a_drawing_whole(deck):
    card = claim_card(record("B1", B1, profile="tiny"))
    made = deck(said("## 1. One"), shown(card), shown(diagram("shift")))
    claim, _ = slides(made)
    assert "Claim B1" in claim[1]
    assert "Supported" in claim[1]
    assert "First expected" not in claim[1]


def test_predictions_and_quizzes_ask_the_room_and_exercises_are_notes(deck):
    made = deck(
        said("## 1. One\n\nPredict: what comes? Think."),
        said("### Exercise 00.1: A title\n\nDo it.", "exercise"),
        shown(plot_loss(HISTORY, title="Loss")),
        said("## Recall"),
        shown("", source='quiz("00")', tags=["exercise"]),
    )
    asked, replay, *quiz = slides(made)
    assert asked[1].strip() == "What comes?"
    assert "Exercise 00.1" in asked[2]
    assert "What comes?" in replay[1]
    assert len(quiz) >= 6
    assert all("Right" in notes or "Not right" in notes for _, _, notes in quiz if notes.strip())


def test_curves_are_carried_beside_the_picture():
    mime = "application/vnd.sftlab.curves+json"
    lines = {"full": {0.0: 0.1, 0.1: 0.5, 1.0: 0.9}}
    for one in (picture(), plot_loss(HISTORY, title="Loss"), plot_curves(lines, title="T", x="x")):
        data, _ = one._repr_mimebundle_()
        assert {"image/png", "text/plain"} < data.keys()
        for series in data[mime]["series"]:
            assert {len(seed) for seed in series["seeds"]} == {len(series["x"])}
    assert [s["name"] for s in picture().curves["series"]] == ["training", "base"]
    assert picture().curves["series"][0]["seeds"] == [[3.0, 1.5, 1.0], [1.5, 1.0, 0.75]]


def test_what_is_missing_is_said_with_a_remedy(tmp_path, monkeypatch):
    with pytest.raises(SlidesError, match="sftlab run 08"):
        write_deck(tmp_path / "08_forgetting.ipynb", tmp_path)
    monkeypatch.setenv("SFTLAB_CHROMIUM", "no-such-browser")
    with pytest.raises(SlidesError, match="install it"):
        write_pdf(tmp_path / "deck.html")


OVERFLOW = """() => Reveal.getSlides().flatMap(slide => {
  const {h, v} = Reveal.getIndices(slide); Reveal.slide(h, v);
  return [slide.querySelector('.page'), slide.querySelector('.body')].filter(
    one => one.scrollHeight > one.clientHeight || one.scrollWidth > one.clientWidth
  ).map(one => slide.innerText.slice(0, 60)); })"""


@pytest.fixture
def open_deck(browser):
    """Opens a deck from disk without a network, at a projector's size; at the end nothing was asked
    for and no script complained."""
    wrong, contexts = [], []

    def open_it(deck):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 720}))
        contexts[-1].set_offline(True)
        tab = contexts[-1].new_page()
        tab.on("console", lambda told: wrong.extend([told.text] * (told.type == "error")))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda asked: wrong.extend(re.findall("^(?!file:|data:).*", asked.url)))
        tab.goto(deck.as_uri())
        tab.wait_for_function("Reveal.isReady()")
        return tab

    yield open_it
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS)
def test_the_deck_of_a_lesson_fits_its_slides(name, open_deck, from_browser, tmp_path):
    """Where the browser did not run it before, papermill runs 00."""
    executed = from_browser / name / f"{name}.ipynb"
    if not executed.is_file():
        if name != LESSONS[0]:
            pytest.skip("was not executed here: tests/browser and test_real_model do it")
        (done,) = run_notebooks([name], folder=tmp_path, progress=False)
        executed = done.executed
    made = write_deck(executed, tmp_path)
    assert not too_full(made)
    assert all(img["alt"] for img in BeautifulSoup(made.read_text("utf-8"), "html.parser")("img"))
    count = open_deck(made).evaluate(OVERFLOW)
    assert count == []
    if name == LESSONS[0]:
        sections = made.read_text("utf-8").count("<section ")
        assert len(pypdf.PdfReader(write_pdf(made)).pages) == sections > 20


@pytest.mark.browser
def test_s_opens_the_notes_and_a_replay_waits_for_the_presenter(deck, open_deck):
    made = deck(said("## 1. One\n\nFor the speaker."), shown(picture()), read("It fell."))
    tab = open_deck(made)
    tab.keyboard.press("End")
    drawn = "() => Math.max(...[...document.querySelectorAll('.stage path[stroke]')].map("
    drawn += "one => one.getAttribute('d').length))"
    assert tab.evaluate(drawn) == 0
    reading = tab.locator(".present .block.text")
    assert reading.text_content().strip() == "It fell."
    assert reading.evaluate("one => getComputedStyle(one).opacity") == "0"
    tab.keyboard.press("Space")
    tab.wait_for_function(f"({drawn})() > 20")
    tab.keyboard.press("Space")
    tab.wait_for_function(
        "getComputedStyle(document.querySelector('.block.text.visible')).opacity > 0"
    )
    with tab.expect_popup() as opened:
        tab.keyboard.press("s")
    opened.value.get_by_text("For the speaker.").wait_for()
