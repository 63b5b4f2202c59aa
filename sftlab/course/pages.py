"""The pages of a course run: each executed lesson as HTML, an index, a summary for programs.

Nothing in a page points to the network: no script, style, font or image.
"""

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jinja2

from sftlab.course.ledger import versions, write_claims
from sftlab.course.rules import CONTRADICTED, INCONCLUSIVE, SUPPORTED, between, in_unit
from sftlab.course.runner import Result
from sftlab.paths import NOTEBOOKS, write_atomically

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sftlab.course"),
    autoescape=lambda name: ".html" in name,
    trim_blocks=True,
    keep_trailing_newline=True,
)
# Quotes in the code of a cell are escaped in a page, so only a real link looks like this.
_LESSON_LINK = re.compile(
    r'<a href="(?P<name>[\w.-]+)\.ipynb(?P<place>(?:#[^"]*)?)"(?P<rest>[^>]*)>(?P<words>.*?)</a>',
    re.DOTALL,
)


def write_page(executed: Path, *, title: str, folder: Path, lessons: Collection[str] = ()) -> Path:
    """Render the executed notebook to `folder/NAME.html` and return that path.

    A widget needs a kernel: its static twin, which the output holds too, takes its place. Links
    to the notebooks named in `lessons` lead to their pages; a link to any other notebook would
    lead nowhere, so only its words stay.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    notebook = nbformat.read(executed, as_version=4)
    # Keep the last state of each progress bar, as a terminal does; every state is an output.
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    nbformat.write(notebook, executed)
    notebook.metadata["title"] = title
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)

    def to_page(link: re.Match[str]) -> str:
        if link["name"] not in lessons:
            return link["words"]
        return f'<a href="{link["name"]}.html{link["place"]}"{link["rest"]}>{link["words"]}</a>'

    template, *_ = TEMPLATES.loader.get_source(TEMPLATES, "lesson.html.jinja")
    exporter = HTMLExporter(template_name="lab", raw_template=template, embed_images=True)
    body, _ = exporter.from_notebook_node(notebook)
    page = folder / f"{executed.stem}.html"
    page.write_text(_LESSON_LINK.sub(to_page, body), encoding="utf-8")
    return page


def write_index(results: Sequence[Result], *, folder: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Write `index.html`, `summary.json` and `claims.json`; returns the index's path.

    Lessons that did not run this time keep their place on the index while their page is there.
    """
    import psutil

    claims = write_claims(results, folder=folder, notebooks=notebooks)
    measured = [row for row in claims if row["parts"]]
    here = {claim_id for result in results for claim_id in result.records}
    pages = {page.name for page in folder.glob("*.html")}
    summary = {
        "notebooks": [_entry(result) for result in results],
        "earlier": _earlier(results, folder / "summary.json", pages),
        "minutes": round(sum(result.minutes for result in results), 2),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": versions(),
        "claims": [
            {key: row[key] for key in ("id", "verdict", "expected", "profile", "reason")}
            for row in measured
            if row["id"] in here
        ],
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    counts = Counter(row["verdict"] for row in measured)
    page = TEMPLATES.get_template("index.html.jinja").render(
        summary=summary,
        claims=claims,
        counts=[f"{counts[v]} {v}" for v in (SUPPORTED, CONTRADICTED, INCONCLUSIVE) if counts[v]],
        kept=[row["id"] for row in measured if row["id"] not in here],
        pages=pages,
        in_unit=in_unit,
        between=between,
    )
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


def _entry(result: Result) -> dict[str, Any]:
    entry = {
        "name": result.lesson.name,
        "title": result.lesson.title,
        "promise": result.lesson.promise,
        "status": result.status,
        "minutes": round(result.minutes, 2),
        "page": result.page.name if result.page else None,
        "parameters": {**result.lesson.defaults, **result.parameters},
    }
    if result.failure:
        error = result.failure.traceback.strip().splitlines()[-1]
        entry["failure"] = {"cell": result.failure.cell, "error": error}
    return entry


def _earlier(results: Sequence[Result], file: Path, pages: set[str]) -> list[dict[str, Any]]:
    """Entries of an earlier summary for lessons that did not run now and whose page is there."""
    ran = {result.name for result in results if result.status != "not run"}
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        entries = [e for e in [*before["earlier"], *before["notebooks"]] if e["page"] in pages]
        kept = {entry["name"]: entry for entry in entries if entry["name"] not in ran}
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or written by another version of the course
    return [kept[name] for name in sorted(kept)]
