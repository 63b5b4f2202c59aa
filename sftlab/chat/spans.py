r"""Find the characters of a rendered conversation that a model learns, for any chat template.

    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Ho.<|im_end|>]\n
                                                           ^---- Span ----^

A span is what one assistant turn supervises: the answer and what ends the turn, but not the header
before and the line break after, which the program writes. Nothing is searched for in the text: the
template itself shows where it puts each character (`trace`), and how it ends a turn. A span of an
answer with reasoning or tool calls begins where the generation prompt ends (`start`), and has them:

    ...<|im_end|>\n<|im_start|>assistant\n[<think>\nso\n</think>\n\nHo.<tool_call>...<|im_end|>]\n
                  ^-generation prompt---^
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product, takewhile
from typing import Any, Literal, NamedTuple

from sftlab.chat.missing import Missing, find_missing
from sftlab.chat.shadow import Piece, Trace, trace
from sftlab.chat.templates import REASONING, Template, TemplateError, find_template

Messages = Sequence[Mapping[str, Any]]

MARKER = r"<[|｜][^\n]{1,60}?[|｜]>|<[|｜/]?[^\W\d][\w:.-]{0,40}[|｜]?>|\[[|/]?[^\W\d][\w|]{0,40}\]"
"""What looks like a token that structures a conversation: `<|im_end|>`, `</s>`, `[/INST]`."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters that one assistant turn supervises: `text[start:end]`, of `messages[message]`."""

    start: int
    end: int
    message: int


@dataclass(frozen=True, kw_only=True)
class Spans:
    """A rendered conversation, and what of it is supervised."""

    text: str  # the render
    spans: tuple[Span, ...]  # from left to right; at most one a message
    end_of_turn: str | None  # what ends an answer in this template, None where nothing does
    warnings: tuple[str, ...] = ()  # what one should know before training on this
    missing: tuple[Missing, ...] = ()  # texts of the row that appear nowhere in the render


class _Turn(NamedTuple):
    """An answer is `text[start:end]`, and then comes what ends its turn, where that is known."""

    start: int
    end: int
    ending: str | None = None


class _Chat(NamedTuple):
    """A conversation and the template that renders it."""

    template: Template
    messages: Messages
    tools: Sequence[Any] | None = None

    def trace(self, **options: Any) -> Trace:
        return trace(self.template, self.messages, tools=self.tools, **options)

    def render(self, **options: Any) -> str:
        return self.template.render(self.messages, tools=self.tools, **options)

    def first(self, count: int) -> "_Chat":
        return self._replace(messages=self.messages[:count])


def assistant_spans(
    template: str | Template,
    messages: Messages,
    *,
    tools: Sequence[Any] | None = None,
    turns: Literal["all", "last"] = "all",
    start: Literal["auto", "content", "generation"] = "auto",
    end_of_turn: bool = True,
    append_eos: bool = False,
) -> Spans:
    """Render a conversation and find the characters that are to be supervised.

    Args:
        template: whatever `find_template` takes.
        messages: role and content each; one with `train: false` is rendered, and not supervised.
        turns: supervise every assistant turn, or the last one only.
        start: begin each span with the answer's `content`, or where the generation prompt ends;
            "auto" is the latter where an answer to learn has reasoning or tool calls.
        end_of_turn: supervise what ends the turn too; without it a model does not learn to stop.
        append_eos: where nothing ends the last answer, write a supervised `eos_token` after it.

    Raises TemplateError where the template refuses, or the answers can't be located.
    """
    check_choice("turns", turns, ("all", "last"))
    check_choice("start", start, ("auto", "content", "generation"))
    template = template if isinstance(template, Template) else find_template(template)
    wanted = _learned(messages, turns)
    start = start_of(messages, turns) if start == "auto" else start
    chat, last = _Chat(template, messages, tools), len(messages) - 1
    end = find_turn_end(template)
    if start == "content":
        (text, found), traced = _contents(chat, wanted), None
    else:
        text, found, traced = _generated(chat, wanted, end)
    options = {"tools": tools, "learned": wanted, "traced": traced}
    missing = find_missing(template, messages, text=text, **options)
    spans, open_turns = [], []
    # Calls follow the content, and end the turn.
    calls = [i for i in wanted if start == "content" and messages[i].get("tool_calls")]
    for message, turn in sorted(found.items()):
        ending = turn.ending or _ending(template, text, turn.end, message == last, end)
        if end_of_turn and not ending and message not in calls:
            open_turns.append(message)
        spans.append(Span(turn.start, turn.end + len(ending if end_of_turn else ""), message))
    lost, warnings = [i for i in wanted if i not in found], []
    if lost and len(lost) == len(wanted) and any(_has_text(messages[i]) for i in lost):
        raise TemplateError(
            f"the chat template {template.name} renders the content of no answer (messages "
            f"{listed(lost)}); where it takes a content as a list of parts, give "
            '[{"type": "text", "text": ...}], else use another template'
        )
    if append_eos and open_turns and open_turns[-1] == last:
        if not template.eos_token:
            raise ValueError("append_eos needs an eos_token; give the tokenizer's")
        text = text[: found[last].end] + template.eos_token
        spans[-1] = Span(spans[-1].start, len(text), open_turns.pop())
    if said := [i for i in calls if i in found]:
        warnings.append(
            f"the tool calls of messages {listed(said)} are not learned with start='content'; they "
            "are with start='auto' (`--start auto`)"
        )
    if lost:
        warnings.append(
            f"the render has no text of messages {listed(lost)}, so nothing of them is learned; "
            + (
                "an empty answer, reasoning and tool calls are learned with start='generation' "
                "(`--start generation`)"
                if start == "content"
                else "take a template that renders them, such as qwen3"
            )
        )
    if open_turns:
        warnings.append(
            f"nothing ends the turn of messages {listed(open_turns)}, so from them the model can't "
            "learn to stop; end the last one with append_eos=True, or use a template that ends "
            "every turn"
        )
    spans.sort(key=lambda span: span.start)
    return Spans(
        text=text,
        spans=tuple(spans),
        end_of_turn=end.token,
        warnings=tuple(warnings),
        missing=missing,
    )


def start_of(messages: Messages, turns: str = "all") -> Literal["content", "generation"]:
    """What `start="auto"` stands for: where what is learned of the conversation begins."""
    written = (messages[i].get(key) for i in _learned(messages, turns) for key in _WRITTEN)
    return "generation" if any(written) else "content"


_WRITTEN = (*REASONING, "tool_calls")  # what an answer may hold beside its content


def _learned(messages: Messages, turns: str) -> list[int]:
    """The answers that are to be learned."""
    answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
    return [i for i in (answers[-1:] if turns == "last" else answers) if _trained(messages[i])]


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; use {' or '.join(map(repr, known))}")


def _trained(message: Mapping[str, Any]) -> bool:
    value = message.get("train")
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"train of a message is {value!r}; use true or false")
    return value is not False


def _has_text(message: Mapping[str, Any]) -> bool:
    """Whether the content is more than white space."""
    content = message.get("content")
    return bool(content.strip() if isinstance(content, str) else content)


def listed(items: Sequence[Any], most: int = 5, written: Callable[[Any], str] = str) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(written, items[:most])) + more


def _contents(chat: _Chat, wanted: Sequence[int]) -> tuple[str, dict[int, _Turn]]:
    """The render, and where the content of each wanted answer is, if it is in it."""
    traced, found = chat.trace(), {}
    for message in wanted:
        pieces = [piece for piece in traced.pieces if piece.message == message]
        if not pieces:
            continue
        first, end = pieces[0], pieces[-1].end
        # What a template writes between the pieces of one answer is a part of it (the `</think>`
        # between thoughts and answer), unless it repeats the answer, or puts others' words there.
        twice = any(after.first <= before.last for before, after in pairwise(pieces))
        others = chat.trace(roles=None).pieces if len(pieces) > 1 and not twice else ()
        if twice or any(p.message != message and first.start <= p.start < end for p in others):
            raise TemplateError(
                f"the chat template {chat.template.name} writes the content of message {message} "
                f"in more than one place (characters {first.start} to {first.end}, and from "
                f"{pieces[1].start}), so it is unclear which of them the model answers with; use a "
                "template that writes it once"
            )
        start, content = first.start, chat.messages[message].get("content")
        if isinstance(content, str):
            # A template may cut off an answer's first words, such as `<think>`, and write its own.
            cut, before = content[: first.first].strip(), traced.text[:start].rstrip()
            start = len(before) - len(cut) if cut and before.endswith(cut) else start
        found[message] = _Turn(start, end)
    return traced.text, found


def _generated(
    chat: _Chat, wanted: Sequence[int], end: "TurnEnd"
) -> tuple[str, dict[int, _Turn], Trace | None]:
    """The render, the wanted turns that have something in it, and the trace if it has calls too.

    The turns begin where the generation prompt ends, which is looked for only between the message
    before and this one: a template may write earlier turns differently later on.
    """
    follows_calls, turns = True, {}
    try:
        traced = chat.trace(roles=None, calls=True)
    except TemplateError:
        traced, follows_calls = chat.trace(roles=None), False
    for index in wanted:
        calls = bool(chat.messages[index].get("tool_calls"))
        others = [piece for piece in traced.pieces if piece.message != index]
        # Without repetitions: a called tool's name is written again before the tool's result.
        own: list[Piece] = []
        for piece in (piece for piece in traced.pieces if piece.message == index):
            if not any(piece.first <= seen.last and seen.first <= piece.last for seen in own):
                own.append(piece)
        if own:
            start, stop = own[0].start, own[-1].end
        elif _has_text(chat.messages[index]) or (calls and follows_calls):
            continue
        else:
            start = stop = max((p.end for p in others if p.message < index), default=0)
        before = max((p for p in others if p.end <= start), key=lambda p: p.end, default=None)
        begin = _start_of_turn(chat.first(index), traced.text, before, own)
        turns[index] = _Turn(begin, max(begin, stop) if own else begin)
        if calls or (own and not _has_text(chat.messages[index])):
            after = min((p.start for p in others if p.start >= stop), default=len(traced.text))
            until = chat.first(index + 1)
            turns[index] = _with_calls(until, traced.text[:after], turns[index], end)
        inside = (p for p in others if turns[index].start <= p.start < turns[index].end)
        if piece := next(inside, None):
            raise TemplateError(
                f"the chat template {chat.template.name} writes text of message {piece.message} "
                f"inside message {index} (at character {piece.start} of the text), so what the "
                "model wrote is not in one place; use another template, or leave out that "
                "answer's content or its tool calls"
            )
    return traced.text, turns, traced if follows_calls else None


def _start_of_turn(earlier: _Chat, text: str, before: Piece | None, own: Sequence[Piece]) -> int:
    """Where the generation prompt of this turn ends in the whole text."""
    prompt = earlier.render(add_generation_prompt=True)
    if text.startswith(prompt):
        return len(prompt)
    traced = earlier.trace(roles=None, add_generation_prompt=True)
    last = before and (before.message, before.last)
    same = [piece for piece in traced.pieces if (piece.message, piece.last) == last]
    if not before or not same:
        raise TemplateError(
            f"the chat template {earlier.template.name} renders the messages before message "
            f"{len(earlier.messages)} differently once it is there, so where the model began to "
            "write can't be found; use start='content' (`--start content`)"
        )
    header = _units(earlier.template, prompt[same[-1].end :])
    region = text[before.end : own[0].start if own else len(text)]
    # Where the header is written differently here, the longest end of it that is found counts.
    for skipped in range(len(header)):
        ending = "".join(header[skipped:])
        if ending.strip() and ending in region:
            return before.end + region.index(ending) + len(ending)
    same = 0
    for unit in header:
        if not region.startswith(unit, same):
            break
        same += len(unit)
    return before.end + same


def _with_calls(until: _Chat, text: str, turn: _Turn, end: "TurnEnd") -> _Turn:
    """The turn with all of its calls, or its `</think>`, whose last characters are the template's:
    `until` is the conversation up to this message, `text` the render up to the next content."""
    endings = [e.strip() for e in (end.middle, end.last) if e and not end.borrowed]
    whole = until.render().rstrip()
    same = text.startswith(whole) and len(whole) >= turn.end
    written = whole[turn.end :] if same else text[turn.end :]
    at = min((written.find(ending) for ending in endings if ending in written), default=None)
    if at is not None:
        return turn._replace(end=turn.end + len(written[:at].rstrip()))
    if not same:
        raise TemplateError(
            f"where the calls or thoughts of message {len(until.messages) - 1} end can't be found "
            f"for the chat template {until.template.name}: it renders them differently once a "
            "message follows; use another template, such as qwen3_training (`--template "
            "qwen3_training`)"
        )
    if end.borrowed:  # the next message's first token ends the turn, not the call's own last
        return _Turn(turn.start, len(whole))
    marker = re.search(rf"\s*(?:{MARKER})\Z", written)
    return _Turn(turn.start, len(whole) - (len(marker[0]) if marker else 0), marker and marker[0])


class TurnEnd(NamedTuple):
    r"""What a template writes from an answer's last character to the end of its turn.

    It is found by rendering a conversation of four messages:

        <|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA
        ^------opener-----^                                    [<|im_end|>]\n<|im_start|>user\nQ
                                                               ^---------between---------^
        ...<|im_start|>assistant\nA
                                  [<|im_end|>]\n
                                  ^---final---^

    What `between` and `final` share, up to the header of the next message (which `between` and
    `opener` share at their ends), is the end of turn. The `middle` of a conversation may end an
    answer differently from its `last` (gpt-oss: `<|end|>`, `<|return|>`), not at all (Alpaca's
    form: None), or with the token that opens the next message, `borrowed` (GLM-4).
    """

    middle: str | None = None
    last: str | None = None
    borrowed: bool = False

    @property
    def token(self) -> str | None:
        """What stops the model, without the white space before it."""
        end = self.middle or self.last
        return end.strip() if end else None


_ROUNDS = [("user", "What is it?"), ("assistant", "It is so.")] * 2


@lru_cache(maxsize=256)
def find_turn_end(template: Template) -> TurnEnd:
    """The end of turn, tried out once for each template."""
    for system, parts in product(([], [("system", "Be brief.")]), (False, True)):
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if parts else text}
            for role, text in system + _ROUNDS
        ]
        with suppress(TemplateError):  # It needs another form.
            return _turn_end(_Chat(template, messages))
    return TurnEnd()


def _turn_end(chat: _Chat) -> TurnEnd:
    """The end of turn as this conversation shows it; TemplateError where it shows no answers."""
    template, traced = chat.template, chat.trace(roles=None)
    ends = {piece.message: piece.end for piece in traced.pieces}
    answers = [i for i, m in enumerate(chat.messages) if m["role"] == "assistant" and i in ends]
    if not answers:
        raise TemplateError(f"the chat template {template.name} does not render the answers")

    def text_from(at: int) -> str:
        """The text up to the next piece of a message."""
        starts = (piece.start for piece in traced.pieces if piece.start >= at)
        return traced.text[at : min(starts, default=len(traced.text))]

    final = traced.text[ends[answers[-1]] :] if answers[-1] == len(chat.messages) - 1 else ""
    between, prompt = text_from(ends[answers[0]]), text_from(ends.get(answers[0] - 1, 0))
    return _compared(template, between, final, text_from(0), prompt)


def _compared(template: Template, between: str, final: str, opener: str, prompt: str) -> TurnEnd:
    """The end of turn from the texts that `TurnEnd` draws, unit by unit, so that no marker is cut;
    `prompt` is between question and answer."""
    if final.strip() and between.startswith(final.rstrip()):
        return TurnEnd(middle=final.rstrip(), last=final.rstrip())
    middle, last, before = (
        _units(template, text) for text in (between, final, opener.removeprefix(template.bos_token))
    )
    is_marker = re.compile(_marker(template)).fullmatch

    def is_word(unit: str) -> bool:
        return bool(unit.strip()) and not is_marker(unit)

    def to_first_marker(units: Sequence[str]) -> str:
        """The text up to the first unit that is not white space, if that is a marker."""
        at = next((index for index, unit in enumerate(units) if unit.strip()), None)
        return "".join(units[: at + 1]) if at is not None and is_marker(units[at]) else ""

    same = shared(middle[::-1], before[::-1])
    own = middle[: len(middle) - same]
    if any(map(is_word, before[: len(before) - same])):
        # There is a system prompt, whose end may look like the answer's, so that `same` has it:
        # but the next header begins with what opens the system prompt.
        openers = {unit for unit in takewhile(lambda u: not is_word(u), before) if unit.strip()}
        at = next((index for index, unit in enumerate(middle) if unit in openers), len(own))
        own = middle[: max(at, len(own))]
    common = "".join(own[: shared(own, last)]).rstrip()
    if common:
        return TurnEnd(middle=common, last=common)
    # A template may write the next answer's header even without add_generation_prompt.
    end = None if prompt.rstrip().endswith(final.strip()) else to_first_marker(last) or None
    mine = "".join(own).rstrip() if to_first_marker(own) else None
    if mine or end:
        return TurnEnd(middle=mine, last=end)
    borrowed = to_first_marker(middle)
    if borrowed.lstrip().startswith("<") and borrowed.strip() != template.bos_token:
        return TurnEnd(middle=borrowed, borrowed=True)
    return TurnEnd()


def _ending(template: Template, text: str, at: int, final: bool, end: TurnEnd) -> str:
    """What ends the turn whose last character is before `at`, with white space before it."""
    ends = (end.last, end.middle) if final else (end.middle, end.last)
    patterns = [re.escape(one) for one in ends if one]
    patterns += [rf"\s*{re.escape(one.strip())}" for one in (end.last, end.middle) if one]
    if end.borrowed and not final:
        patterns.append(rf"\s*(?:{_marker(template)})")
    found = (re.compile(pattern).match(text, at) for pattern in patterns)
    return next((match[0] for match in found if match), "")


def _marker(template: Template) -> str:
    return (re.escape(template.eos_token) + "|" if template.eos_token else "") + MARKER


def _units(template: Template, text: str) -> list[str]:
    """The text in pieces that are never cut: markers, words, white space."""
    marker = _marker(template)
    return re.findall(rf"{marker}|\s+|(?:(?!{marker})\S)+", text)


def shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items two sequences, or characters two texts, have in common at their beginnings."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
