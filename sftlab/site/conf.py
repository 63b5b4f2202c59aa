"""Sphinx's settings for the course site. `build_site` reads this file; all paths are beside it.

Nothing on a page may come from the network: no MathJax, no require.js, no font.
"""

import re
from typing import Any

from docutils import nodes

import sftlab
from sftlab.site.sources import DEEP

project = "SFT Lab"
author = "SFT Lab authors"
project_copyright = author
version = release = sftlab.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = [".*", "_extra"]
templates_path = ["templates"]
default_role = "literal"  # docstrings of the lab write code as `code`

nb_execution_mode = "off"  # lessons were executed by `sftlab run`
nb_ipywidgets_js = {}
nb_render_markdown_format = "gfm"
myst_heading_anchors = 4
myst_heading_slug_func = "sftlab.site.sources.slug"

autodoc_default_options = {"no-value": True}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 110
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
copybutton_selector = "div.cell_input pre, div.highlight-python pre, div.highlight-bash pre"

html_theme = "pydata_sphinx_theme"
html_title = "SFT Lab"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("predict.js", {"defer": "defer"})]
html_show_sourcelink = html_copy_source = html_show_sphinx = False
html_show_search_summary = False  # it would be fetched, which a page opened from disk may not
html_use_index = False
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "**": ["lessons.html"]}
html_theme_options = {
    "logo": {"text": "SFT Lab"},
    "navbar_align": "left",
    "navbar_center": ["navbar.html"],
    "navbar_end": ["theme-switcher"],
    "article_header_start": [],
    "secondary_sidebar_items": ["page-toc"],
    "primary_sidebar_end": [],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 1,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

SECTIONS = re.compile(r"(Args|Attributes|Examples?|Raises|Returns|Yields):$")


def fold_deep_sections(app: Any, doctree: nodes.document) -> None:
    """A section whose heading was tagged `deep` is folded; a link to a place in it opens it."""
    for mark in [node for node in doctree.findall(nodes.raw) if node.astext().strip() == DEEP]:
        section = mark.parent
        opened = '<details class="deep"><summary>Going deeper (optional)</summary>'
        section.replace(mark, nodes.raw("", opened, format="html"))
        section.append(nodes.raw("", "</details>", format="html"))


def plain_docstring(
    app: Any, what: str, name: str, place: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are plain text: what is indented is a drawing, and a star is a star."""
    made, drawing, section = [], False, False
    for line in lines:
        if line.strip() and not line.startswith(" "):
            made += [""] * drawing
            drawing, section = False, bool(SECTIONS.match(line))
        if line.startswith(" ") and not (drawing or section):
            made += ["", "::", ""]
            drawing = True
        # Code between backticks stays; elsewhere the marks of reStructuredText are escaped.
        escaped = re.sub(r"(`[^`]*`)|([*|\\]|(?<=\w)_(?!\w))", _escape, line)
        made.append(line if drawing else escaped)
    lines[:] = made


def _escape(found: re.Match[str]) -> str:
    return found[1] or f"\\{found[2]}"


def setup(app: Any) -> None:
    app.connect("doctree-read", fold_deep_sections)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
