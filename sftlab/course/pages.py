"""What a course run leaves to read: a page per lesson, an index, and a summary for programs.

Nothing in a page points to the network: no script, style, font or picture.
"""

import html
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sftlab.course.execution import Result

_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{#- require.js, widgets, MathJax and Mermaid come from other hosts: none of them here -#}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
main > nav { margin: 0 0 1rem 0.6rem; font: 0.95rem system-ui, sans-serif; }
.jp-RenderedImage img { max-width: 100%; height: auto; }
</style>
{%- endblock -%}
{%- block body_header -%}{{ super() }}
<nav><a href="index.html">All lessons</a></nav>{%- endblock -%}
"""

# Quotes in a cell's code are escaped in a page, so only a real link looks like this.
_LESSON_LINK = re.compile(
    r'<a href="(?P<name>[\w.-]+)\.ipynb(?P<place>(?:#[^"]*)?)"(?P<rest>[^>]*)>(?P<words>.*?)</a>',
    re.DOTALL,
)

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SFT Lab: this course run</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2128; --soft: #57606a; --ground: #ffffff;
  --card: #f6f8fa; --line: #d0d7de; --link: #0550ae; --good: #116329; --bad: #a40e26; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6edf3; --soft: #9da7b3;
  --ground: #0d1117; --card: #161b22; --line: #30363d; --link: #79b8ff; --good: #56d364;
  --bad: #ff7b72; }} }}
body {{ margin: 0 auto; max-width: 48rem; padding: 2rem 1rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
h1 {{ line-height: 1.2; margin: 0; }}
p {{ margin: 0.3rem 0; }}
.soft {{ color: var(--soft); font-size: 0.92rem; }}
ol {{ list-style: none; padding: 0; margin: 1.5rem 0; }}
li {{ background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem;
  padding: 0.9rem 1.1rem; margin: 0.8rem 0; }}
li h2 {{ font-size: 1.15rem; margin: 0; }}
a {{ color: var(--link); }}
.passed {{ color: var(--good); }} .failed, .interrupted {{ color: var(--bad); }}
</style>
</head>
<body>
<h1>SFT Lab</h1>
<p>Every number in these lessons was measured in this run, on this machine.</p>
<p class="soft">{facts}</p>
<ol>
{lessons}
</ol>
<p class="soft">The executed notebooks are in <code>executed/</code>; <code>summary.json</code> has
these figures for programs. To work in the lessons yourself: <code>make lab</code>, or
<code>python -m sftlab lab</code>.</p>
</body>
</html>
"""


def write_page(executed: Path, *, title: str, folder: Path, lessons: Collection[str] = ()) -> Path:
    """Render the executed notebook to `folder/NAME.html` and return that path.

    A widget needs a kernel, so its output is left out; a lesson shows a picture beside it. Links
    to the notebooks named in `lessons` lead to their pages; a link to any other notebook would
    lead nowhere, so only its words stay.
    """
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata["title"] = title
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            ]
    exporter = HTMLExporter(template_name="lab", raw_template=_TEMPLATE, embed_images=True)
    body, _ = exporter.from_notebook_node(notebook)
    page = folder / f"{executed.stem}.html"
    page.write_text(_LESSON_LINK.sub(lambda link: _to_page(link, lessons), body), encoding="utf-8")
    return page


def _to_page(link: re.Match[str], lessons: Collection[str]) -> str:
    if link["name"] not in lessons:
        return link["words"]
    return f'<a href="{link["name"]}.html{link["place"]}"{link["rest"]}>{link["words"]}</a>'


def write_index(results: Sequence[Result], *, folder: Path) -> Path:
    """Write `index.html` and `summary.json` for `results`; returns the index's path."""
    summary = {
        "notebooks": [_record(result) for result in results],
        "minutes": round(sum(result.minutes for result in results), 2),
        "machine": machine(),
        "versions": versions(),
        "claims": [],
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    facts = " · ".join(
        [
            f"{summary['minutes']:.1f} minutes in all",
            f"{summary['machine']['cores']} cores",
            summary["machine"]["system"],
            *(f"{name} {version}" for name, version in list(summary["versions"].items())[:4]),
        ]
    )
    index = folder / "index.html"
    lessons = "\n".join(_card(result) for result in results)
    index.write_text(_INDEX.format(facts=html.escape(facts), lessons=lessons), encoding="utf-8")
    return index


def machine() -> dict[str, Any]:
    """System, processor, cores and memory in GiB; `None` where the platform does not say."""
    processor = platform.processor() or None
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1) if memory else None,
    }


def versions() -> dict[str, str]:
    """Versions of what decides the numbers; a package that is not installed is left out."""
    names = ("sftlab", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _record(result: Result) -> dict[str, Any]:
    record = {
        "name": result.name,
        "title": result.lesson.title,
        "status": result.status,
        "minutes": round(result.minutes, 2),
        "cells": result.cells,
        "parameters": {**result.lesson.defaults, **result.parameters},
    }
    if result.failure:
        record["failure"] = {
            "cell": result.failure.cell,
            "error": result.failure.traceback.strip().splitlines()[-1],
        }
    return record


def _card(result: Result) -> str:
    title = html.escape(result.lesson.title)
    if result.page:
        title = f'<a href="{html.escape(result.page.name)}">{title}</a>'
    took = f" · {result.minutes:.1f} minutes" if result.status != "not run" else ""
    status = f'<span class="{result.status.replace(" ", "-")}">{result.status}</span>'
    if result.failure and result.failure.cell:
        status += f" in cell {result.failure.cell}"
    return (
        f"<li><h2>{title}</h2><p>{html.escape(result.lesson.promise)}</p>"
        f'<p class="soft">{status}{took} · <code>{html.escape(result.name)}</code></p></li>'
    )
