"""The pages of a course run: each executed lesson as HTML, an index, a summary for programs.

Nothing in a page points to the network: no script, style, font or image.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sftlab.course.ledger import rows, stored_records
from sftlab.course.rules import between, in_unit
from sftlab.course.runner import Result
from sftlab.paths import DATA, NOTEBOOKS, cache_folder, write_atomically

VERSIONS = ("sftlab", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
"""Packages that decide the numbers."""
_TOLD = ("id", "verdict", "expected", "baseline", "profile", "reason")
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sftlab.course"),
    autoescape=lambda name: ".html" in name,
    trim_blocks=True,
    keep_trailing_newline=True,
)


def write_page(executed: Path, title: str, *, folder: Path, known: Collection[str]) -> Path:
    """Render the executed notebook to `folder/NAME.html` and return that path.

    A widget needs a kernel: its static twin, which the output holds too, takes its place. Links
    to lessons that are `known`, which have a page, lead to it; of other links the words stay.
    Cells tagged `setup` are left out, and a section whose heading is tagged `deep` is folded.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    notebook = nbformat.read(executed, as_version=4)
    # Keep the last state of each progress bar, as a terminal does; every state is an output.
    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    executed.write_text(without_places(nbformat.writes(notebook), folder), encoding="utf-8")
    notebook = readable(executed)
    notebook.metadata["title"] = title
    _fold(notebook.cells)
    template, *_ = TEMPLATES.loader.get_source(TEMPLATES, "lesson.html.jinja")
    hidden = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    hidden |= {"template_name": "lab", "raw_template": template, "embed_images": True}
    around = _around(executed.stem, known)
    body, _ = HTMLExporter(**hidden).from_notebook_node(notebook, resources={"around": around})
    heads = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body, re.DOTALL)
    heads = [(place, re.sub("<[^>]*>", "", text)) for place, text in heads]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    own = {re.sub(r"\W", "", title) for title in re.findall("^## (.*)", prose, re.MULTILINE)}
    lines = (  # of the lesson, not of a report that a cell shows
        f'<li><a href="#{place}">{text}</a></li>'
        for place, text in heads
        if re.sub(r"\W", "", unescape(text)) in own
    )
    body = body.replace("<!--contents-->", f"<ol>{''.join(lines)}</ol>")
    body = re.sub(
        r'<strong class="ledger">(\w+)</strong>', r'<a href="index.html#\1"><b>\1</b></a>', body
    )
    page = folder / f"{executed.stem}.html"
    page.write_text(_to_pages(body, {*known, "glossary"}), encoding="utf-8")
    return page


def readable(executed: Path) -> Any:
    """An executed notebook as it is read without a kernel: no widgets, which have a static twin in
    the same output, and no cells tagged `setup`."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells = [one for one in notebook.cells if "setup" not in one.metadata.get("tags", [])]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return notebook


def _fold(cells: Sequence[Any]) -> None:
    """Note in the metadata where a fold opens and how many close: a section goes on to the next
    heading of its level or a higher one."""
    heads = []  # number of the cell, its highest level, that heading
    for n, cell in enumerate(cells):
        text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
        found = re.findall(r"^(#+) (.*)", text, re.MULTILINE)
        if cell.cell_type == "markdown" and found:
            heads.append((n, *min(found, key=lambda one: len(one[0]))))
    for n, level, text in heads:
        if "deep" in cells[n].metadata.get("tags", []):
            after = (k for k, other, _ in heads if k > n and len(other) <= len(level))
            last = cells[next(after, len(cells)) - 1].metadata
            cells[n].metadata["fold"] = text
            last["closes"] = last.get("closes", 0) + 1


def _around(lesson: str, known: Collection[str]) -> dict[str, str]:
    """What a lesson's page links to, name -> page: the lesson before, all of them, the next."""
    names = sorted(name for name in {*known, lesson} if re.match(r"[0-9A]\d?_", name))
    here = names.index(lesson) if lesson in names else 0
    before, after = names[:here][-1:], names[here + 1 : here + 2]
    made = {f"← {name.replace('_', ' ')}": name for name in before}
    made |= {"All lessons": "index", "Glossary": "glossary"}
    return made | {f"{name.replace('_', ' ')} →": name for name in after}


def write_glossary(folder: Path, *, known: Collection[str]) -> None:
    """Render `notebooks/glossary.md` to `folder/glossary.html`; links as in `write_page`."""
    from nbconvert.filters import markdown2html

    body = markdown2html((NOTEBOOKS / "glossary.md").read_text(encoding="utf-8"))
    # Lessons link to the term in lower case, which stands as an anchor of its own in the file.
    body = re.sub(r'<a id="[^"]*"></a>', "", body)
    body = re.sub(r'(<h3 id="|href="#)([^"]+)', lambda m: m[1] + m[2].lower(), body)
    page = TEMPLATES.get_template("glossary.html.jinja").render(body=Markup(_to_pages(body, known)))
    write_atomically(folder / "glossary.html", page)


def _to_pages(body: str, known: Collection[str]) -> str:
    """HTML in which links to notebooks and texts lead to their pages, where these are known."""
    # Quotes in the code of a cell are escaped in a page, so only a real link looks like this.
    return re.sub(
        r'<a href="([\w.-]+)\.(?:ipynb|md)((?:#[^"]*)?")(.*?)>(.*?)</a>',
        lambda m: f'<a href="{m[1]}.html{m[2]}{m[3]}>{m[4]}</a>' if m[1] in known else m[4],
        body,
        flags=re.DOTALL,
    )


def without_places(text: str, folder: Path) -> str:
    """The text of a notebook, a page or JSON, with short names of the folders of this machine.

    file://<clone>/build/work/00/x.txt       file://build/work/00/x.txt
    /tmp/ipykernel_7/12.py:1: UserWarning    TMP/ipykernel_7/12.py:1: UserWarning
    """
    here, temporary = Path(__file__).resolve().parents[2], Path(tempfile.gettempdir())
    short = {Path.home(): "~", temporary: "TMP", Path(sys.prefix): "python", here: "sft-lab"}
    short |= {DATA: "data", NOTEBOOKS: "notebooks", cache_folder(): "cache", folder: "build"}
    # Also by the name without links, as /tmp on a Mac, and as JSON writes it.
    names = {
        json.dumps(f"{path}", ensure_ascii=False)[1:-1]: name
        for one, name in short.items()
        for path in (one.absolute(), one.resolve())
    }
    roots = sorted(names.keys() - {"/", "/usr", "/usr/local"}, key=len, reverse=True)
    before = r"^|[^\w.~-]|\[[\d;]*m|\\[nrt]"  # a colour of the terminal, a line's end in JSON
    pattern = rf"({before})({'|'.join(map(re.escape, roots))})(?![\w-])"
    return re.sub(pattern, lambda m: m[1] + names[m[2]], text, flags=re.MULTILINE)


def write_index(results: Sequence[Result], *, folder: Path) -> Path:
    """Write `index.html`, `summary.json` and `claims.json`; returns the index's path.

    Lessons that did not run this time keep their place while their page is there, and claims that
    were measured on the same model stay: `sftlab run 01` after the whole course keeps the rest.
    """
    import psutil

    here = {claim_id for result in results for claim_id in result.records}
    passed = {result.name for result in results if result.status == "passed"}
    stored = stored_records(results[0].profile).items()
    # What a lesson that has just passed did not record is of an earlier state of it.
    claims = rows({k: one for k, one in stored if k in here or one.claim.notebook not in passed})
    pages = {page.name for page in folder.glob("*.html")}
    file = folder / "summary.json"
    notebooks = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # none is there, or another program's
        earlier = json.loads(file.read_text(encoding="utf-8"))["notebooks"]
        notebooks = {entry["name"]: entry for entry in earlier if entry["page"] in pages}
    for result in results:
        if result.status not in ("not run", "skipped") or result.name not in notebooks:
            notebooks[result.name] = _entry(result)
    summary = {
        "notebooks": [notebooks[name] for name in sorted(notebooks)],
        "minutes": round(sum(result.minutes for result in results), 2),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in VERSIONS},
        "claims": [{key: row[key] for key in _TOLD} for row in claims if row["id"] in here],
    }
    for path, content in {file: summary, folder / "claims.json": claims}.items():
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(path, without_places(text, folder))
    page = TEMPLATES.get_template("index.html.jinja").render(
        summary=summary,
        claims=claims,
        here=here,
        counts=Counter(row["verdict"] for row in claims),
        pages=pages,
        in_unit=in_unit,
        between=between,
    )
    write_atomically(folder / "index.html", without_places(page, folder))
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
