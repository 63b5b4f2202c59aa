"""The page of a lesson: its executed notebook as HTML.

Nothing in a page points to the network: no script, style, font or picture.
"""

import re
from collections.abc import Collection
from pathlib import Path

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
