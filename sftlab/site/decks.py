"""A deck in one HTML file, from an executed lesson, and its PDF.

    deck = write_deck(Path("build/executed/08_forgetting.ipynb"), Path("build/site/slides"))
    write_pdf(deck)

reveal.js comes from the wheel of sphinx-revealjs. A deck asks for nothing outside its file.
"""

import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from sftlab.course import find_lessons, readable, recorded_minutes
from sftlab.paths import write_atomically
from sftlab.site.filling import fill
from sftlab.site.kit import by_section, plan_of
from sftlab.site.slides import markdown, read_slides

CHROMIUM = "chromium chromium-browser google-chrome google-chrome-stable chrome msedge".split()


class SlidesError(ValueError):
    """A deck that can't be made here; the message says what is missing."""


def write_deck(executed: Path, folder: Path) -> Path:
    """Write the deck of an executed lesson to `folder/NAME.html`; returns that path.

    SlidesError: there is no such notebook, or reveal.js is not installed.
    """
    name = executed.stem
    if not executed.is_file():
        raise SlidesError(f"{executed} is not there; make it: sftlab run {name.partition('_')[0]}")
    try:
        reveal = files("sphinx_revealjs") / "_static" / "revealjs"
    except ModuleNotFoundError:
        raise SlidesError('slides need reveal.js: pip install "sftlab[site]"') from None
    (lesson,), notebook = find_lessons([name]), readable(executed)
    slides = read_slides(notebook, name.partition("_")[0])
    if minutes := recorded_minutes(name):
        slides[0].notes.append(f"All cells of the lesson run in {minutes:.1f} minutes.")
    slides[0].notes.append(plan_of(lesson.name[:2]))
    for title, core, *_ in by_section(lesson):
        for slide in [slide for slide in slides if slide.section == title][:1]:
            slide.notes.insert(0, f"**About {core} minutes** of study for this section.")
    shown = [
        output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    cards = "".join(data.get("text/html", "") for data in shown)
    styles = dict.fromkeys(re.findall(r"<style>(.*?)</style>", cards, flags=re.DOTALL))
    here = files("sftlab.site") / "templates"
    parts = [reveal / "dist" / "reset.css", reveal / "dist" / "reveal.css", here / "slides.css"]
    reset, core, own = (part.read_text(encoding="utf-8") for part in parts)
    scripts = [reveal / "dist" / "reveal.js", reveal / "plugin" / "notes" / "notes.js"]
    script = "\n".join(part.read_text(encoding="utf-8") for part in scripts)
    page = fill(
        "slides.html.jinja",
        lesson=lesson,
        slides=slides,
        markdown=markdown,
        style=Markup("\n".join([reset, core, *styles, own])),
        # The end of a script in a string of it would end the script of the page.
        script=Markup(script.replace("</script", r"<\/script")),
        replay=Markup((here / "replay.js").read_text(encoding="utf-8")),
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.html", page)
    return folder / f"{name}.html"


def find_chromium() -> str:
    """The browser named by `SFTLAB_CHROMIUM`, or the first on PATH. SlidesError: there is none."""
    named = os.environ.get("SFTLAB_CHROMIUM")
    for name in [named] if named else CHROMIUM:
        if path := shutil.which(name):
            return path
    raise SlidesError(
        "no Chromium on PATH: install it (Debian and Ubuntu: apt-get install chromium), or put the "
        "path of one, or of Chrome or Edge, into SFTLAB_CHROMIUM; to leave out tests that need it: "
        'pytest -m "not browser"'
    )


def write_pdf(deck: Path) -> Path:
    """Print a deck to a PDF beside it, a page a slide, with Chromium. SlidesError: it failed."""
    pdf = deck.with_suffix(".pdf").resolve()
    command = [find_chromium(), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={pdf}"]
    command += [f"{deck.resolve().as_uri()}?paper"]
    pdf.unlink(missing_ok=True)
    options = {"capture_output": True, "text": True, "errors": "replace", "timeout": 300}
    try:
        said = subprocess.run(command, **options).stderr.strip()[-300:]
    except subprocess.TimeoutExpired:
        said = "it had not ended after five minutes; try again when less runs here"
    if not pdf.is_file():
        raise SlidesError(f"Chromium wrote no PDF of {deck}: {said}")
    return pdf
