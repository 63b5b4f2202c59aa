r"""Say which characters of a rendered conversation a model is to learn, for any chat template.

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Ho.<|im_end|>]\n
                                                           ^---- Span ----^

The answer's characters and what ends the turn are learned; the header before and the line break
after are written by the program. Nothing is searched for in the text: the template itself shows
where it puts each character (`tracing`), and how it ends a turn (`turn_ends`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from sftlab.chat.generation import Turn, generated
from sftlab.chat.rendering import Template, TemplateError, has_text
from sftlab.chat.sandbox import frozen_clock
from sftlab.chat.templates import find_template
from sftlab.chat.tracing import Piece, Trace, trace
from sftlab.chat.turn_ends import TurnEnd, find_turn_end, next_token

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Span:
    """Characters that one answer supervises: `text[start:end]`."""

    start: int
    "The first character."
    end: int
    "The character behind the last."
    message: int
    "The index of the message whose answer this is."


@dataclass(frozen=True, kw_only=True)
class Spans:
    """A rendered conversation, and what of it is to be learned."""

    text: str
    "The render."
    spans: tuple[Span, ...]
    "What is supervised, from left to right; at most one span a message."
    end_of_turn: str | None
    "What ends an answer in this template, None where nothing does."
    warnings: tuple[str, ...] = ()
    "What the user should know before training on this."


def assistant_spans(
    template: str | Template,
    messages: Messages,
    *,
    tools: Sequence[Any] | None = None,
    turns: Literal["all", "last"] = "all",
    start: Literal["content", "generation"] = "content",
    end_of_turn: bool = True,
    bos_token: str | None = None,
    eos_token: str | None = None,
    append_eos: bool = False,
) -> Spans:
    """Render a conversation and find the characters that are to be supervised.

    A message with `train: false` is rendered, and not supervised.

    Args:
        template: a Jinja text as in tokenizer_config.json, or whatever `find_template` knows.
        messages: role and content each; a content is a string or a list of parts with texts.
        tools: as for `Template.render`.
        turns: supervise every answer, or the last one only.
        start: begin each span with the answer's `content`, or where the generation prompt ends:
            then reasoning and tool calls are in it.
        end_of_turn: supervise what ends the turn too; without it a model learns no stopping.
        bos_token: what the template's `bos_token` renders as.
        eos_token: what the template's `eos_token` renders as.
        append_eos: where nothing ends the last answer, write `eos_token` behind it, supervised.

    Raises:
        TemplateError: the template refuses the conversation, or where its answers go can't be told.
        ValueError: an option has no such value.
    """
    for name, value, known in (
        ("turns", turns, ("all", "last")),
        ("start", start, ("content", "generation")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; use {' or '.join(map(repr, known))}")
    if not isinstance(template, Template) or bos_token is not None or eos_token is not None:
        template = find_template(template, bos_token=bos_token, eos_token=eos_token)
    answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    wanted = [i for i in (answers if turns == "all" else answers[-1:]) if _trained(messages[i])]
    with frozen_clock():
        if start == "content":
            traced = trace(template, messages, tools=tools)
            found = _contents(template, messages, tools, traced, wanted)
        end = find_turn_end(template, messages, tools=tools)
        if start == "generation":
            traced, found = generated(template, messages, tools, wanted, end)
    spans, unended = [], []
    for message, turn in sorted(found.items()):
        final = message == len(messages) - 1
        ending = turn.ending or _ending(template, traced.text, turn.end, final, end)
        if end_of_turn and not ending:
            unended.append(message)
        spans.append(Span(turn.start, turn.end + len(ending if end_of_turn else ""), message))
    text, warnings = traced.text, []
    lost = [i for i in wanted if i not in found]
    if lost and len(lost) == len(wanted) and any(has_text(messages[i]) for i in lost):
        raise TemplateError(
            f"the chat template {template.name} renders the content of no answer (messages "
            f"{_listed(lost)}); where it takes a content as a list of parts, give "
            '[{"type": "text", "text": ...}], else use another template'
        )
    if append_eos and unended and unended[-1] == len(messages) - 1:
        if not template.eos_token:
            raise ValueError("append_eos needs an eos_token; give the tokenizer's")
        spans[-1] = Span(spans[-1].start, spans[-1].end + len(template.eos_token), unended.pop())
        text = text[: found[spans[-1].message].end] + template.eos_token
    if lost:
        warnings.append(
            f"the render has no text of messages {_listed(lost)}, so nothing of them is learned; "
            "an empty answer, reasoning and tool calls are learned with start='generation'"
        )
    if unended:
        warnings.append(_unended(template, unended, end))
    spans.sort(key=lambda span: span.start)
    return Spans(text=text, spans=tuple(spans), end_of_turn=end.token, warnings=tuple(warnings))


def _trained(message: Mapping[str, Any]) -> bool:
    value = message.get("train")
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"train of a message is {value!r}; use true or false")
    return value is not False


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def _contents(
    template: Template,
    messages: Messages,
    tools: Sequence[Any] | None,
    traced: Trace,
    wanted: Sequence[int],
) -> dict[int, Turn]:
    """Where the content of each wanted answer stands, if it does."""
    all_pieces: dict[int, list[Piece]] = {}
    for piece in traced.pieces:
        all_pieces.setdefault(piece.message, []).append(piece)
    found = {}
    for message in wanted:
        pieces = all_pieces.get(message)
        if not pieces:
            continue
        if len(pieces) > 1:
            _check_order(template, messages, tools, pieces)
        first = _rewritten(traced.text, pieces[0], messages[message])
        found[message] = Turn(first, pieces[-1].end)
    return found


def _check_order(
    template: Template, messages: Messages, tools: Sequence[Any] | None, pieces: Sequence[Piece]
) -> None:
    """What a template writes between the pieces of one answer is a part of it (the `</think>`
    between thoughts and answer), unless it repeats the answer, or puts others' words there."""
    message, start, end = pieces[0].message, pieces[0].start, pieces[-1].end
    twice = any(b.first <= a.last for a, b in pairwise(pieces))
    others = () if twice else trace(template, messages, tools=tools, roles=None).pieces
    if twice or any(p.message != message and start <= p.start < end for p in others):
        raise TemplateError(
            f"the chat template {template.name} writes the content of message {message} in more "
            f"than one place (characters {pieces[0].start} to {pieces[0].end}, and from "
            f"{pieces[1].start}), so which of them the model answers with can't be told; use a "
            "template that writes it once"
        )


def _rewritten(text: str, piece: Piece, message: Mapping[str, Any]) -> int:
    """Where an answer begins whose first words the template took off and wrote itself, such as
    the `<think>` that opens a content."""
    content = message.get("content")
    if not isinstance(content, str):
        return piece.start
    dropped = content[: piece.first].strip()
    before = text[: piece.start].rstrip()
    return len(before) - len(dropped) if dropped and before.endswith(dropped) else piece.start


def _ending(template: Template, text: str, at: int, final: bool, end: TurnEnd) -> str:
    """What ends the turn whose last character stands before `at`, with white space before it."""
    for candidate in (end.last, end.middle) if final else (end.middle, end.last):
        if candidate and text.startswith(candidate, at):
            return candidate
    for candidate in (end.last, end.middle):
        if candidate and (
            found := re.compile(rf"\s*{re.escape(candidate.strip())}").match(text, at)
        ):
            return found[0]
    return next_token(text, at, template) if end.borrowed and not final else ""


def _unended(template: Template, messages: Sequence[int], end: TurnEnd) -> str:
    what = f"nothing ends the turn of messages {_listed(messages)}"
    if "eos_token" in template.text and not template.eos_token:
        return f"{what}: the template writes eos_token there, and none was given; give eos_token"
    if end.token:
        what += f" (others end with {end.token!r})"
    return (
        f"{what}, so from them the model can't learn to stop; end the last one with "
        "append_eos=True, or use a template that ends every turn"
    )
