"""The templates of this room: pages, decks, the boxes that answer, the instructor's kit."""

from typing import Any

import jinja2

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("sftlab.site"),
    autoescape=lambda name: ".html" in name,  # the others make Markdown
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def fill(template: str, **values: Any) -> str:
    """A template of `templates/` filled in; in HTML every value is escaped."""
    return _TEMPLATES.get_template(template).render(**values)
