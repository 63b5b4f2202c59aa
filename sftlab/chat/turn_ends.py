r"""Find what ends an answer in a chat template, by rendering a conversation of four messages.

    <|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA
    ^------opener-----^                                    [<|im_end|>]\n<|im_start|>user\nQ
                                                           ^----------middle----------^
    ...<|im_start|>assistant\nA
                              [<|im_end|>]\n
                              ^----last---^

What `middle` and `last` have in common, up to the header of the next message (which is what
`middle` and `opener` have in common at their ends), is the end of turn. A turn in the middle may
end otherwise than the last one (gpt-oss: `<|end|>` and `<|return|>`), not at all (Alpaca's form),
or with the token that opens the next message (GLM-4), which is then what stops the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sftlab.chat.rendering import Template, TemplateError
from sftlab.chat.tracing import Trace, trace

MARKER = r"<[|｜][^\n]{1,60}?[|｜]>|<[|｜/]?[^\W\d][\w:.-]{0,40}[|｜]?>|\[[|/]?[^\W\d][\w|]{0,40}\]"
"""What looks like a token that structures a conversation: `<|im_end|>`, `</s>`, `[/INST]`."""

ROUND = (("user", "What is it?"), ("assistant", "It is so."))
SYSTEM = (("system", "Be brief."),)


@dataclass(frozen=True, kw_only=True)
class TurnEnd:
    """What a template writes from an answer's last character to the end of its turn."""

    middle: str | None = None
    """Behind an answer that another message follows; None where nothing ends it."""
    last: str | None = None
    """Behind the last answer."""
    borrowed: bool = False
    """Whether `middle` is the token that opens the next message."""

    @property
    def token(self) -> str | None:
        """What stops the model, without the white space before it."""
        end = self.middle or self.last
        return end.strip() if end else None


def find_turn_end(
    template: Template,
    messages: Sequence[Mapping[str, Any]] = (),
    *,
    tools: Sequence[Any] | None = None,
) -> TurnEnd:
    """The end of turn, tried out once for each template.

    Args:
        messages: the conversation to try it out on, where the template renders none of ours.
        tools: as for `Template.render`, for that conversation.
    """
    if known := _usual(template):
        return known
    try:
        return turn_end_of(template, messages, tools=tools)
    except TemplateError:
        return TurnEnd()


@lru_cache(maxsize=256)
def _usual(template: Template) -> TurnEnd | None:
    for before in ((), SYSTEM):
        for parts in (False, True):
            messages = [
                {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
                for role, text in (*before, *ROUND, *ROUND)
            ]
            try:
                return turn_end_of(template, messages)
            except TemplateError:
                continue  # It wants another form.
    return None


def turn_end_of(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
) -> TurnEnd:
    """The end of turn as this conversation shows it.

    Raises:
        TemplateError: it does not render, or the answers are not in the render.
    """
    traced = trace(template, messages, tools=tools, roles=None)
    ends = {piece.message: piece.end for piece in traced.pieces}
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    rendered = [i for i in answers if i in ends]
    if not rendered:
        raise TemplateError(f"the chat template {template.name} does not render the answers")
    first, final = rendered[0], rendered[-1]
    last = traced.text[ends[final] :] if final == len(messages) - 1 else ""
    if first == final:
        return _ends(template, "", last, "", "")
    prompt = ends.get(first - 1, 0)
    return _ends(
        template,
        traced.text[ends[first] : _next(traced, ends[first])],
        last,
        traced.text[: _next(traced, 0)],
        traced.text[prompt : _next(traced, prompt)],
    )


def units_of(text: str, template: Template) -> list[str]:
    """The text in pieces that are never cut: markers, words, white space."""
    marker = _marker(template)
    return re.findall(rf"{marker}|\s+|(?:(?!{marker})\S)+", text)


def next_token(text: str, at: int, template: Template) -> str:
    """White space and a marker at a place of the text, or nothing."""
    found = re.compile(rf"\s*(?:{_marker(template)})").match(text, at)
    return found[0] if found else ""


def _next(traced: Trace, at: int) -> int:
    return min(
        (piece.start for piece in traced.pieces if piece.start >= at), default=len(traced.text)
    )


def _marker(template: Template) -> str:
    return (re.escape(template.eos_token) + "|" if template.eos_token else "") + MARKER


def _ends(template: Template, middle: str, last: str, opener: str, prompt: str) -> TurnEnd:
    """`prompt` is what stands between a question and its answer."""
    if last.strip() and middle.startswith(last.rstrip()):
        return TurnEnd(middle=last.rstrip(), last=last.rstrip())
    marker = re.compile(_marker(template))
    between, final = units_of(middle, template), units_of(last, template)
    before = units_of(opener.removeprefix(template.bos_token), template)
    shared = _shared(between[::-1], before[::-1])
    own = between[: len(between) - shared]
    if any(_word(unit, marker) for unit in before[: len(before) - shared]):
        # There is a system prompt, whose end may look like the answer's, so that `shared` has it:
        # but the next header begins with what opens the system prompt.
        openers = _leading(before, marker)
        at = next((i for i, unit in enumerate(between) if unit in openers), len(own))
        own = between[: max(at, len(own))]
    common = own[: _shared(own, final)]
    if "".join(common).strip():
        end = "".join(common).rstrip()
        return TurnEnd(middle=end, last=end)
    # A template may write the next answer's header even when it is not asked to.
    written = "" if prompt.rstrip().endswith(last.strip()) else last
    end = "".join(_to_first(units_of(written, template), marker)) or None
    mine = "".join(own).rstrip() if _to_first(own, marker) else None
    if mine or end:
        return TurnEnd(middle=mine, last=end)
    borrowed = "".join(_to_first(between, marker))
    if borrowed.lstrip().startswith("<") and borrowed.strip() != template.bos_token:
        return TurnEnd(middle=borrowed, borrowed=True)
    return TurnEnd()


def _word(unit: str, marker: re.Pattern[str]) -> bool:
    return bool(unit.strip()) and not marker.fullmatch(unit)


def _leading(units: Sequence[str], marker: re.Pattern[str]) -> set[str]:
    """The markers with which a text begins."""
    words = (index for index, unit in enumerate(units) if _word(unit, marker))
    return {unit for unit in units[: next(words, None)] if unit.strip()}


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many units two sequences have in common at their beginnings."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _to_first(units: Sequence[str], marker: re.Pattern[str]) -> list[str]:
    """The units up to the first that is no white space, if that one is a marker."""
    for index, unit in enumerate(units):
        if unit.strip():
            return list(units[: index + 1]) if marker.fullmatch(unit) else []
    return []
