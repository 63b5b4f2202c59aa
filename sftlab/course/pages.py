"""The page of a lesson: its executed notebook as HTML.

Nothing in a page points to the network: no script, style, font or picture.
"""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

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

_COLOURED = '<div class=" highlight hl-'
"""How code begins that nbconvert has coloured."""


def write_page(executed: Path, *, title: str, folder: Path, lessons: Collection[str] = ()) -> Path:
    """Render the executed notebook to `folder/NAME.html` and return that path.

    A widget needs a kernel, so its output is left out; a lesson shows a picture beside it. Links
    to the notebooks named in `lessons` lead to their pages; a link to any other notebook would
    lead nowhere, so only its words stay.
    """
    import nbformat

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
    body = _html(notebook)
    page = folder / f"{executed.stem}.html"
    page.write_text(_LESSON_LINK.sub(lambda link: _to_page(link, lessons), body), encoding="utf-8")
    return page


@cache
def _exporter() -> Any:
    """nbconvert's exporter: one, as it compiles its templates anew for each page otherwise."""
    from nbconvert import HTMLExporter

    return HTMLExporter(
        template_name="lab",
        raw_template=_TEMPLATE,
        embed_images=True,
        optimistic_validation=True,  # once, not after each of a dozen preprocessors
    )


def _html(notebook: Any) -> str:
    """The page that nbconvert makes of `notebook`, byte for byte, in a third of its time.

    Three quarters of a page's tags are the colours of its code, which come from Pygments, escaped.
    nbconvert sanitises them, and parses the page to add attributes elsewhere: both in pure Python.
    So they stay out until the end, a comment in the place of each, and are then written as that
    parser would have: no space before a class, none after a block.
    """
    from nbconvert.filters import clean_html

    coloured: dict[str, str] = {}

    def set_aside(text: str) -> str:
        if not text.startswith(_COLOURED):
            return clean_html(text)
        key = f"<!--{uuid4().hex}-->"
        coloured[key] = text.strip().replace(_COLOURED, _COLOURED.replace('" ', '"'), 1)
        return key

    exporter = _exporter()
    exporter.register_filter("clean_html", set_aside)
    body, _ = exporter.from_notebook_node(notebook)
    return re.sub("<!--[0-9a-f]{32}-->", lambda key: coloured.get(key[0], key[0]), body)


def _to_page(link: re.Match[str], lessons: Collection[str]) -> str:
    if link["name"] not in lessons:
        return link["words"]
    return f'<a href="{link["name"]}.html{link["place"]}"{link["rest"]}>{link["words"]}</a>'
