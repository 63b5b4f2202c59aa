"""Cards: transcripts, tables and template findings, as HTML with a plain-text twin.

The HTML comes from the templates in `templates/`. It needs no script and no other file, and follows
the theme of the page: JupyterLab, Colab, VS Code and nbconvert's pages say whether it is dark.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from IPython.display import Markdown, display
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sftlab.chat import (
    FAMILIES,
    Diagnosis,
    Messages,
    TemplateError,
    assistant_spans,
    find_template,
    setup_chat_template,
)
from sftlab.course import time_line
from sftlab.models import load
from sftlab.planner import preflight
from sftlab.profiles import Profile

_MARKS = {"error": "✖", "warning": "▲", "note": "●", "ok": "✓"}
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=lambda name: not name.endswith(".md"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template of `templates/` filled in; in HTML every value is escaped."""
    return _ENVIRONMENT.get_template(template).render(**values)


class Card:
    """HTML that a notebook shows, and the same as text for terminals and other readers."""

    def __init__(self, template: str, *, text: str, **values: Any) -> None:
        self.html = render(template, **values)
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}


def table(head: Sequence[str], rows: Sequence[Sequence[str | Markup]], *, label: str) -> Card:
    """A table whose first column names its rows; a cell is text, or markup that is safe."""
    lines = []
    for row in rows:
        cells = (cell.striptags() if isinstance(cell, Markup) else cell for cell in row)
        lines += [f"{name}: {cell}" for name, cell in zip(head, cells, strict=True) if cell]
        lines.append("")
    return Card("table.html", text="\n".join(lines).rstrip(), head=head, rows=rows, label=label)


def sentence(text: str) -> Markdown:
    """A sentence of the lesson with numbers from the run in it."""
    return Markdown(text)


def start_lesson(
    lesson: str, profile: str | Path | Profile, template: str | None = "chatml"
) -> tuple[Any, Any]:
    """Check this machine, say how long the lesson takes, and load its model and tokenizer.

    `lesson` is its file name, such as `06_training`; `template` the chat template to set up, where
    None leaves the base as it is. PreflightError: the profile can't be trained here.
    """
    check = preflight(profile).require()
    display(Markdown(time_line(lesson, check.tokens_per_second)))
    model, tokenizer = load(profile)
    if template:
        setup_chat_template(model, tokenizer, template=template)
    return model, tokenizer


def continuations(prompts: Sequence[str], outputs: Sequence[str], *, label: str = "") -> Card:
    """Prompts, each followed on the same line by what the model added, which is shaded."""
    return _transcript([(label, *both) for both in zip(prompts, outputs, strict=True)])


def conversation(messages: Messages) -> Card:
    """Messages, one below the other; the assistant's are shaded."""
    parts = []
    for message in messages:
        role, text = message["role"], message["content"]
        parts.append((role, "", text) if role == "assistant" else (role, text, ""))
    return _transcript(parts)


def _transcript(parts: Sequence[tuple[str, str, str]]) -> Card:
    """(label, text, shaded text); in the plain text brackets stand for the shade."""
    lines = []
    for label, before, shaded in parts:
        lines.append(f"{label + ': ' if label else ''}{before}{f'[{shaded}]' if shaded else ''}")
    return Card("transcript.html", text="\n".join(lines), parts=parts)


def side_by_side(
    names: Sequence[str], messages: Messages, *, add_generation_prompt: bool = False
) -> Card:
    """One conversation in several templates (whatever `find_template` knows), one a row.

    Bold are the tokens that the template writes, shaded what training would supervise, `↵` is a
    line break; a refusal stands in its row.
    """
    rows = []
    for name in names:
        template = find_template(name)
        try:
            text = template.render(messages, add_generation_prompt=add_generation_prompt)
            answered = any(message["role"] == "assistant" for message in messages)
            spans = assistant_spans(template, messages).spans if answered else ()
        except TemplateError as error:
            # The template's own words out of the message.
            said = str(error).partition("): ")[2].partition(";")[0] or str(error)
            rows.append([template.name, Markup("<em>refused: {}</em>").format(said)])
            continue
        family = FAMILIES[name].control_tokens if name in FAMILIES else ()
        bold = dict.fromkeys([*family, template.bos_token, template.eos_token])
        parts, learned = [], {(span.start, span.end) for span in spans}
        ends = sorted({0, len(text), *(place for span in learned for place in span)})
        for start, end in pairwise(ends):
            part = str(escape(text[start:end]))
            for token in map(str, map(escape, filter(None, bold))):
                part = part.replace(token, f"<b>{token}</b>")
            part = part.replace("\n", '<i class="break">↵</i>\n')
            parts.append(f"<mark>{part}</mark>" if (start, end) in learned else part)
        painted = Markup(f'<div class="text">{"".join(parts)}</div>')
        rows.append([template.name, painted])
    return table(["template", "text"], rows, label="One conversation in several templates")


def findings(*diagnoses: Diagnosis) -> Card:
    """What the template doctor found, the worst first; of what is sound the names only."""
    rows = []
    for found in diagnoses:
        for one in found.problems:
            remedy = Markup(" <br><b>Do:</b> {}").format(one.remedy) if one.remedy else ""
            rows.append([found.template, _level(one.level), escape(one.what) + remedy])
        if sound := [one.code for one in found.findings if one.level == "ok"]:
            rows.append([found.template, _level("ok"), ", ".join(sound)])
    return table(["template", "level", "found"], rows, label="Findings of the template doctor")


def _level(name: str) -> str:
    return f"{_MARKS[name]}\u00a0{name}"  # a space that does not break
