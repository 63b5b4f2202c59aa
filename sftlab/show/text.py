"""Sentences and transcripts that a notebook shows, in light and dark themes."""

from collections.abc import Sequence
from html import escape

from IPython.display import HTML, Markdown

from sftlab.course import recorded_minutes

_BORDER = "var(--jp-border-color2, #d0d0d0)"
_ROW = f"border-left:4px solid {_BORDER};padding:.35em .8em;margin:.45em 0;max-width:46em"
_LABEL = "font-size:.8em;opacity:.72;font-family:sans-serif"
_BODY = "white-space:pre-wrap;font-family:var(--jp-code-font-family, monospace);font-size:.93em"
_NEW = "background:rgba(0,114,178,.16);border-radius:3px;box-decoration-break:clone;padding:.05em 0"


def sentence(text: str) -> Markdown:
    """A sentence of the lesson with figures from the run in it."""
    return Markdown(text)


def continuations(prompts: Sequence[str], outputs: Sequence[str], *, label: str = "") -> HTML:
    """Prompts, each followed on the same line by what the model added, which is shaded."""
    rows = [
        f'<div style="{_ROW}">{_caption(label)}<div style="{_BODY}">{escape(prompt)}'
        f'<span style="{_NEW}">{escape(output)}</span></div></div>'
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    return HTML("".join(rows))


def conversation(messages: Sequence[dict[str, str]]) -> HTML:
    """Role messages, one below the other; the assistant's are shaded."""
    rows = []
    for message in messages:
        shade = _NEW if message["role"] == "assistant" else ""
        body = f'<span style="{shade}">{escape(message["content"])}</span>'
        role = _caption(message["role"])
        rows.append(f'<div style="{_ROW}">{role}<div style="{_BODY}">{body}</div></div>')
    return HTML("".join(rows))


def _caption(label: str) -> str:
    return f'<div style="{_LABEL}">{escape(label)}</div>' if label else ""


def time_note(lesson: str) -> Markdown:
    """How long a lesson takes, from the last recorded run of the course."""
    minutes = recorded_minutes(lesson)
    if minutes is None:
        return Markdown("Running time: not measured yet on this copy of the course.")
    machine = recorded_minutes("machine")
    return Markdown(f"Running time: {minutes:.1f} minutes on {machine}, as last measured.")
