r"""Find what a model itself writes in each of its turns: from the generation prompt to its end.

    ...<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[<think>\nso\n</think>\n\nHo.<|im_end|>]
         last character here ^---------- header ------------^

The header is what `add_generation_prompt=True` renders behind the messages before. It is looked for
only between the last character of the message before and the first of this one, so it does not
matter that a template writes earlier turns differently once a later one has come.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sftlab.chat.rendering import Template, TemplateError, has_text
from sftlab.chat.tracing import Piece, Trace, trace
from sftlab.chat.turn_ends import MARKER, TurnEnd, units_of

Messages = Sequence[Mapping[str, Any]]


class Turn(NamedTuple):
    """Where an answer stands in a render."""

    start: int
    "Its first character."
    end: int
    "The character behind its last, before what ends the turn."
    ending: str | None = None
    "What ends the turn, where that is known."


def generated(
    template: Template,
    messages: Messages,
    tools: Sequence[Any] | None,
    wanted: Sequence[int],
    end: TurnEnd,
) -> tuple[Trace, dict[int, Turn]]:
    """The render, and the wanted turns that have something in it.

    Raises:
        TemplateError: the template refuses a part of the conversation, or renders it so differently
            that the place can't be told.
    """
    follow = ("content", "calls")
    try:
        traced = trace(template, messages, tools=tools, roles=None, calls=True)
    except TemplateError:
        traced, follow = trace(template, messages, tools=tools, roles=None), ("content",)
    turns = {}
    for index in wanted:
        message, own = messages[index], _own(traced, index)
        calls = bool(message.get("tool_calls"))
        if not own and (has_text(message) or (calls and "calls" in follow)):
            continue
        before, after = _neighbours(traced, index, own)
        start = _start(template, messages[:index], tools, traced.text, before, own)
        turn = Turn(start, max([start, *(piece.end for piece in own)]))
        if calls:
            text = traced.text[: after.start] if after else traced.text
            turn = _with_calls(template, messages[: index + 1], tools, text, turn, end)
        turns[index] = turn
    return traced, turns


def _own(traced: Trace, message: int) -> list[Piece]:
    """The message's pieces, without repetitions: the name of a called tool stands again before
    what the tool answers."""
    own: list[Piece] = []
    for piece in traced.pieces:
        if piece.message == message and not any(
            piece.first <= seen.last and seen.first <= piece.last for seen in own
        ):
            own.append(piece)
    return own


def _neighbours(
    traced: Trace, message: int, own: Sequence[Piece]
) -> tuple[Piece | None, Piece | None]:
    """The last piece of others before this turn, and their first behind it."""
    others = [piece for piece in traced.pieces if piece.message != message]
    if own:
        start, stop = own[0].start, own[-1].end
    else:
        start = stop = max((p.end for p in others if p.message < message), default=0)
    return (
        max((p for p in others if p.end <= start), key=lambda p: p.end, default=None),
        min((p for p in others if p.start >= stop), key=lambda p: p.start, default=None),
    )


def _start(
    template: Template,
    earlier: Messages,
    tools: Sequence[Any] | None,
    text: str,
    before: Piece | None,
    own: Sequence[Piece],
) -> int:
    """Where the header of this turn ends in the whole text."""
    prompt = template.render(earlier, tools=tools, add_generation_prompt=True)
    if text.startswith(prompt):
        return len(prompt)
    asked = trace(template, earlier, tools=tools, roles=None, add_generation_prompt=True)
    last = before and (before.message, before.last)
    again = [piece for piece in asked.pieces if (piece.message, piece.last) == last]
    if not before or not again:
        raise TemplateError(
            f"the chat template {template.name} renders the messages before message "
            f"{len(earlier)} in another way once it has come, so where the model began to write "
            "can't be told; use start='content'"
        )
    header = units_of(prompt[again[-1].end :], template)
    region = text[before.end : own[0].start if own else len(text)]
    # Where the two part company, the header's end may still come: the longest that does counts.
    for skipped in range(len(header)):
        ending = "".join(header[skipped:])
        if ending.strip() and ending in region:
            return before.end + region.index(ending) + len(ending)
    shared = 0
    for unit in header:
        if not region.startswith(unit, shared):
            break
        shared += len(unit)
    return before.end + shared


def _with_calls(
    template: Template,
    until: Messages,
    tools: Sequence[Any] | None,
    text: str,
    turn: Turn,
    end: TurnEnd,
) -> Turn:
    """The turn with all of its tool calls, whose last characters are the template's own.

    Args:
        text: the render up to the next message's first character.
    """
    endings = [e.strip() for e in (end.middle, end.last) if e and not end.borrowed]
    whole = template.render(until, tools=tools).rstrip()
    told = text.startswith(whole) and len(whole) >= turn.end
    written = whole[turn.end :] if told else text[turn.end :]
    at = min((written.find(ending) for ending in endings if ending in written), default=None)
    if at is not None:
        return turn._replace(end=turn.end + len(written[:at].rstrip()))
    if not told:
        raise TemplateError(
            f"where the tool calls of message {len(until) - 1} end can't be told for the chat "
            f"template {template.name}: it renders them in another way once a message follows; "
            "use start='content'"
        )
    marker = re.search(rf"\s*(?:{MARKER})\Z", written)
    return Turn(turn.start, len(whole) - (len(marker[0]) if marker else 0), marker and marker[0])
