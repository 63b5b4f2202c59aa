"""The pages of a course run: each executed lesson as HTML, an index, a summary for programs.

Nothing in a page points to the network: no script, style, font or image.
"""

import json
import os
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from sftlab.course.ledger import versions, write_claims
from sftlab.course.rules import CONTRADICTED, INCONCLUSIVE, SUPPORTED, between, in_unit
from sftlab.course.runner import Result
from sftlab.paths import NOTEBOOKS, write_atomically

# Quotes in the code of a cell are escaped in a page, so only a real link looks like this.
_LESSON_LINK = re.compile(
    r'<a href="(?P<name>[\w.-]+)\.ipynb(?P<place>(?:#[^"]*)?)"(?P<rest>[^>]*)>(?P<words>.*?)</a>',
    re.DOTALL,
)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("sftlab.course"), autoescape=True, trim_blocks=True
    )


@cache
def _exporter() -> Any:
    """nbconvert's exporter; it compiles its templates when it is made."""
    from nbconvert import HTMLExporter

    template = jinja2.PackageLoader("sftlab.course").get_source(_templates(), "lesson.html.jinja")
    return HTMLExporter(template_name="lab", raw_template=template[0], embed_images=True)


def write_page(executed: Path, *, title: str, folder: Path, lessons: Collection[str] = ()) -> Path:
    """Render the executed notebook to `folder/NAME.html` and return that path.

    A widget needs a kernel: its static twin, which the output holds too, takes its place. Links
    to the notebooks named in `lessons` lead to their pages; a link to any other notebook would
    lead nowhere, so only its words stay.
    """
    import nbformat
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

    body, _ = _exporter().from_notebook_node(notebook)
    page = folder / f"{executed.stem}.html"
    page.write_text(_LESSON_LINK.sub(to_page, body), encoding="utf-8")
    return page


def write_index(results: Sequence[Result], *, folder: Path, notebooks: Path = NOTEBOOKS) -> Path:
    """Write `index.html`, `summary.json` and `claims.json`; returns the index's path.

    Lessons that did not run this time keep their place on the index while their page is there.
    """
    claims = write_claims(results, folder=folder, notebooks=notebooks)
    here = {claim_id for result in results for claim_id in result.records}
    ran = {result.name for result in results if result.status != "not run"}
    summary = {
        "notebooks": [_entry(result) for result in results],
        "earlier": _earlier(folder, ran),
        "minutes": round(sum(result.minutes for result in results), 2),
        "machine": machine(),
        "versions": versions(),
        "claims": [
            {key: row[key] for key in ("id", "verdict", "expected", "profile", "reason")}
            for row in claims
            if row["parts"] and row["id"] in here
        ],
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    measured = [_measured(row, folder) for row in claims if row["parts"]]
    verdicts = [row["verdict"] for row in measured]
    counts = {verdict: verdicts.count(verdict) for verdict in _VERDICTS}
    page = (
        _templates()
        .get_template("index.html.jinja")
        .render(
            summary=summary,
            measured=measured,
            counts=[f"{number} {verdict}" for verdict, number in counts.items() if number],
            kept=[row["id"] for row in measured if row["id"] not in here],
            profiles=list(dict.fromkeys(row["profile"] for row in measured)),
            open_claims=[row for row in claims if not row["parts"]],
            total=len(claims),
        )
    )
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


_VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE)


def machine() -> dict[str, Any]:
    """System, processor, cores and memory in GiB; `None` where the platform does not say."""
    import psutil

    processor = platform.processor() or None
    if Path("/proc/cpuinfo").is_file():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, flags=re.M):
            processor = found[1]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _entry(result: Result) -> dict[str, Any]:
    entry = {
        "name": result.name,
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


def _earlier(folder: Path, now: set[str]) -> list[dict[str, Any]]:
    """Entries of an earlier summary for lessons that did not run now and whose page is there."""
    try:
        before = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        entries = {e["name"]: e for e in [*before["earlier"], *before["notebooks"]] if e["page"]}
        kept = [e for e in entries.values() if (folder / e["page"]).is_file()]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none, or written by another version of the course
    return sorted((e for e in kept if e["name"] not in now), key=lambda entry: entry["name"])


def _measured(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A measured claim as the index shows it."""
    page = f"{row['notebook']}.html"
    return {
        **row,
        "effect": in_unit(row["effect"], row["unit"]),
        "ends": between(row["low"], row["high"], row["unit"]),
        "part": row["part"] if len(row["parts"]) > 1 else "",
        "surprise": {row["verdict"], row["expected"]} == {SUPPORTED, CONTRADICTED},
        "page": page if (folder / page).is_file() else None,
    }
