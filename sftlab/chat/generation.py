r"""Find what a model itself writes in each of its turns: from the generation prompt to its end.

    ...<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[<think>\nso\n</think>\n\nHo.<|im_end|>]\n
                       previous ends ^------ prompt ---------^

What `add_generation_prompt=True` renders behind the messages before is compared with the render of
the whole conversation, from the last character of the previous message on. So it does not matter
that a template writes earlier turns differently once a later one has come.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.chat.rendering import Template, TemplateError, has_text
from sftlab.chat.tracing import Piece, Trace, trace
from sftlab.chat.turn_ends import MARKER, TurnEnd

Messages = Sequence[Mapping[str, Any]]


def generated(
    template: Template,
    messages: Messages,
    tools: Sequence[Any] | None,
    wanted: Sequence[int],
    end: TurnEnd,
) -> tuple[Trace, dict[int, tuple[int, int]]]:
    """The render, and where each wanted turn begins and what stands in it ends, the end of turn
    apart.

    Raises:
        TemplateError: the template refuses a part of the conversation, or renders it so differently
            that the place can't be told.
    """
    try:
        traced = trace(template, messages, tools=tools, roles=None, calls=True)
    except TemplateError:
        traced = trace(template, messages, tools=tools, roles=None)
    bounds = {}
    for message in wanted:
        own = [piece for piece in traced.pieces if piece.message == message]
        if not own and has_text(messages[message]):
            continue
        before, after = _neighbours(traced, message, own)
        start = _start(template, messages[:message], tools, traced.text, before, own)
        done = max([start, *(piece.end for piece in own)])
        text = traced.text[: after.start] if after else traced.text
        if messages[message].get("tool_calls") or not own:
            done = _behind_calls(template, messages[: message + 1], tools, text, done, end)
        bounds[message] = start, done
    return traced, bounds


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
    """Where the generation prompt for this turn ends in the whole text."""
    prompt = template.render(earlier, tools=tools, add_generation_prompt=True)
    if text.startswith(prompt):
        return len(prompt)
    asked = trace(template, earlier, tools=tools, roles=None, add_generation_prompt=True)
    same = [
        p for p in asked.pieces if before and (p.message, p.last) == (before.message, before.last)
    ]
    if not before or not same:
        raise TemplateError(
            f"the chat template {template.name} renders the messages before message "
            f"{len(earlier)} in another way once it has come, so where the model began to write "
            "can't be told; use start='content'"
        )
    header = prompt[same[-1].end :]
    shared = _common(header, text[before.end : own[0].start if own else len(text)])
    if 0 < shared < len(header):
        # The two part company: not within a marker, of which they may share the first letters.
        cut = next((m for m in re.finditer(MARKER, header) if m.start() < shared < m.end()), None)
        shared = cut.start() if cut else shared
    return before.end + shared


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginnings."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _behind_calls(
    template: Template,
    until: Messages,
    tools: Sequence[Any] | None,
    text: str,
    done: int,
    end: TurnEnd,
) -> int:
    """Where a turn's tool calls end, whose last characters are the template's own."""
    for candidate in () if end.borrowed else (end.middle, end.last):
        at = text.find(candidate.lstrip(), done) if candidate else -1
        if at >= 0:
            return done + len(text[done:at].rstrip())
    whole = template.render(until, tools=tools).rstrip()
    return max(done, len(whole)) if text.startswith(whole) else done
