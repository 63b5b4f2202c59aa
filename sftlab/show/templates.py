"""Conversations in several templates side by side, and what the template doctor says, as HTML."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from IPython.display import HTML

from sftlab.chat import FAMILIES, Diagnosis, TemplateError, assistant_spans, find_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CELL = (
    "padding:.45em .8em;vertical-align:top;text-align:left;"
    "border-bottom:1px solid rgba(128,128,128,.35)"
)
_TEXT = "white-space:pre-wrap;font-family:var(--jp-code-font-family,monospace);font-size:.93em"
_LEARNED = (
    "background:rgba(0,114,178,.16);color:inherit;border-radius:3px;box-decoration-break:clone"
)
_LEVELS = {"error": "✖ error", "warning": "▲ warning", "note": "● note", "ok": "✓ ok"}


def side_by_side(
    names: Sequence[str],
    messages: Sequence[Mapping[str, str]],
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    add_generation_prompt: bool = False,
) -> HTML:
    """One conversation in several templates, one a row.

    Bold are the tokens that the template writes, shaded what training would supervise, `↵` is a
    line break. A template that refuses the conversation says so in its row.

    Args:
        names: whatever `find_template` knows.
        messages: the conversation.
        tokenizer: whose bos and eos the templates write, and who counts the tokens; without it
            those of the published families are written and nothing is counted.
        add_generation_prompt: end with the header of the answer that is to come.
    """
    rows = []
    for name in names:
        template = find_template(name, tokenizer=tokenizer)
        try:
            text = template.render(messages, add_generation_prompt=add_generation_prompt)
            learned = _learned(template, messages)
        except TemplateError as error:
            rows.append([escape(template.name), f"<i>{escape(_refusal(error))}</i>", ""])
            continue
        count = tokenizer and len(tokenizer(text, add_special_tokens=False)["input_ids"])
        bold = [*_control(name), template.bos_token, template.eos_token]
        rows.append([escape(template.name), _painted(text, learned, bold), str(count or "")])
    heads = ["template", "text", "tokens"] if tokenizer else ["template", "text"]
    return _table(heads, [row[: len(heads)] for row in rows], text=1)


def findings(*diagnoses: Diagnosis) -> HTML:
    """What the doctor found, the worst first; of what is sound the names only."""
    rows = []
    for found in diagnoses:
        for one in found.problems:
            remedy = f"<br><b>Do:</b> {escape(one.remedy)}" if one.remedy else ""
            rows.append([escape(found.template), _level(one.level), escape(one.what) + remedy])
        sound = [finding.code for finding in found.findings if finding.level == "ok"]
        if sound:
            rows.append([escape(found.template), _level("ok"), escape(", ".join(sound))])
    return _table(["template", "", "found"], rows)


def _level(level: str) -> str:
    return f'<span style="white-space:nowrap">{_LEVELS[level]}</span>'


def _control(name: str) -> tuple[str, ...]:
    return FAMILIES[name].control_tokens if name in FAMILIES else ()


def _learned(template, messages) -> list[tuple[int, int]]:
    if not any(message["role"] == "assistant" for message in messages):
        return []
    return [(span.start, span.end) for span in assistant_spans(template, messages).spans]


def _painted(text: str, learned: Sequence[tuple[int, int]], bold: Sequence[str]) -> str:
    """The text with what is learned shaded, and the tokens in `bold` bold."""
    ends = sorted({0, len(text), *(end for span in learned for end in span)})
    parts = []
    for start, end in pairwise(ends):
        part = escape(text[start:end])
        for token in filter(None, dict.fromkeys(bold)):
            part = part.replace(escape(token), f"<b>{escape(token)}</b>")
        part = part.replace("\n", '<span style="opacity:.55">↵</span>\n')
        if any(first <= start and end <= last for first, last in learned):
            part = f'<mark style="{_LEARNED}">{part}</mark>'
        parts.append(part)
    return "".join(parts)


def _refusal(error: TemplateError) -> str:
    """The template's own words out of the message."""
    text = str(error)
    return "refused: " + text.partition("): ")[2].partition(";")[0] if "): " in text else text


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, text: int | None = None) -> HTML:
    # pandas' own style would right-align; a table of its own keeps line breaks and wraps long text.
    head = "".join(f'<th style="{_CELL}">{one}</th>' for one in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{_CELL};{_TEXT if place == text else "white-space:normal"}">{cell}</td>'
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table style="border-collapse:collapse;max-width:60em"><tr>{head}</tr>{body}</table>'
    return HTML(table)
