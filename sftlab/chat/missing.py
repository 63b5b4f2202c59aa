r"""Find the texts of a row that its render leaves out, so that no model is trained on them.

    row       user "Hi"   assistant, reasoning "A greeting." and content "Ho"
    render    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n
    missing   message 1, reasoning: "A greeting."

White space, and the `<think>` and `</think>` that templates write anew, are never missing. Where
the contents are not found one after another, `trace` tells which characters were rendered; where
that fails, a text is in the render if it occurs there, as it is or as JSON escapes it.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sftlab.chat.shadow import Trace, followed_texts, trace
from sftlab.chat.templates import REASONING, Template, TemplateError

_THINK = re.compile(r"</?think>")
_SHORT = 8
"""Shorter texts may occur by chance in what a template writes: `user`."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A text of a row that appears nowhere in its render."""

    message: int | None  # the index of its message; None for a tool's definition
    part: str  # "content", "reasoning", "tool call" or "tool"
    text: str  # what is missing, shortened to 60 characters
    learned: bool  # whether it belongs to an answer that should be learned

    def __str__(self) -> str:
        where = "" if self.message is None else f" of message {self.message}"
        return f"{self.part}{where}: {self.text!r}"


def find_missing(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    *,
    text: str,
    tools: Sequence[Any] | None = None,
    learned: Collection[int] = (),
    traced: Trace | None = None,
) -> tuple[Missing, ...]:
    """What of the conversation is not in `text`, its render; `learned` are indices of answers,
    `traced` the trace of all messages and calls, where it has been made already."""
    plain = template.plain(messages)
    texts = [followed_texts(message) for message in plain]
    found = [
        Missing(None, "tool", name, False) for name in _unwritten(template, messages, tools, text)
    ]
    if _in_order(text, [pair for one in texts for pair in one]):
        return tuple(found)
    rendered: list[set[int]] | None = [set() for _ in texts]
    try:
        traced = traced or trace(template, messages, tools=tools, roles=None, calls=True)
        for piece in traced.pieces:
            rendered[piece.message].update(range(piece.first, piece.last + 1))
    except TemplateError:
        rendered = None
    for index, message in enumerate(plain):
        at, lost = 0, {}
        for key, value in texts[index]:
            if rendered is None:
                gone = [piece for piece in _pieces(value) if not _occurs(piece, text)]
            else:
                left = ("\0" if n in rendered[index] else c for n, c in enumerate(value, at))
                gone = [piece for run in "".join(left).split("\0") for piece in _pieces(run)]
            at += len(value)
            lost[key] = lost.get(key, []) + gone
        reasoning = [lost.pop(key) for key in REASONING if key in lost]  # one text under each
        numbers = [
            str(one) for one in _numbers(message.get("tool_calls")) if not _occurs(one, text)
        ]
        parts = {
            "reasoning": min(reasoning, key=len, default=[]),
            "content": lost.get("content"),
            "tool call": lost.get("tool_calls", []) + numbers,
        }
        for part, gone in parts.items():
            if gone:
                longest = max(gone, key=len)
                cut = longest if len(longest) <= 60 else f"{longest[:57]}..."
                found.append(Missing(index, part, cut, index in learned))
    return tuple(found)


def _in_order(text: str, texts: Sequence[tuple[str, str]]) -> bool:
    """Whether there are only contents, none so short that it may occur by chance, all in order."""
    at = 0
    for key, value in texts:
        piece = value.strip()
        place = text.find(piece, at)
        if key != "content" or _THINK.search(value) or 0 < len(piece) < _SHORT or place < 0:
            return False
        at = place + len(piece)
    return True


def _pieces(text: str) -> list[str]:
    """The text without the marks of thinking and the white space around them."""
    return [piece for part in _THINK.split(text) if (piece := part.strip())]


def _occurs(value: Any, text: str) -> bool:
    """Whether it stands in the text as it is, or as JSON writes it."""
    forms = (json.dumps(value, ensure_ascii=only_ascii) for only_ascii in (False, True))
    return any(form in text for form in (str(value), *(form.strip('"') for form in forms)))


def _numbers(value: Any) -> list[int | float]:
    """The numbers and truth values of tool calls, which can't be followed."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _unwritten(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None,
    text: str,
) -> list[str]:
    """Names of the tools whose definitions are not in the render: other names change nothing."""
    names, renamed = {}, []
    for number, tool in enumerate(tools or ()):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            names[name] = f"{name}_renamed_{number}"
            function = {**function, "name": names[name]}
            tool = {**tool, "function": function} if "function" in tool else function
        renamed.append(tool)
    try:
        text = template.render(messages, tools=renamed) if names else ""
    except TemplateError:  # it knows the names: a plain search has to do
        names = {name: name for name in names}
    return [name for name, new in names.items() if new not in text]
