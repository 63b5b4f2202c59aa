"""Trace messages through a template: which characters of the render come from which message.

    R  render(messages)           ...<|im_start|>assistant\\nHi.<|im_end|>\\n
    S  render(shadowed messages)  ...<|im_start|>assistant\\n░░░<|im_end|>\\n
    read(S) == R, character for character: so the ░ are the answer's place in R, by construction.

When the two differ, the template does something with a content that a shadow can't follow, and
nothing is said about where the content went.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sftlab.chat.alphabet import ALPHABET, Alphabet
from sftlab.chat.rendering import Template, TemplateError
from sftlab.chat.sandbox import OPTIONS, REASONING, compiled, frozen_clock, plain_messages, prepare
from sftlab.chat.shadow import shadow_of, wrap

NON_ASCII = re.compile("[^\x00-\x7f]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters of the render that come from one message, in the message's order."""

    start: int
    """Its first character in the render."""
    end: int
    """The character behind its last."""
    message: int
    """The index of the message."""
    first: int
    """The place of its first character in the message's own texts, which come one after another."""
    last: int
    """The place of its last character there."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A render, and what in it comes from the messages that were followed."""

    text: str
    """The render."""
    pieces: tuple[Piece, ...]
    """Its pieces, from left to right."""


class _Code(jinja2.compiler.CodeGenerator):
    """Joins with `~` by way of the environment, as jinja2 joins everything else."""

    def visit_Concat(self, node: jinja2.nodes.Concat, frame: Any) -> None:
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of chat templates, in which joined shadows stay shadows."""

    code_generator_class = _Code

    @staticmethod
    def concat(parts: Any) -> str:
        return wrap("".join(parts))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        return wrap(super().call(__context, __obj, *args, **kwargs))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`tojson` that escapes shadows as it would escape what they stand for."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )

    def spelling(character: str) -> str:
        return json.dumps(character, ensure_ascii=ensure_ascii)[1:-1]

    alphabet = ALPHABET.get()
    if ensure_ascii:
        text = NON_ASCII.sub(
            lambda found: found[0] if alphabet.found.match(found[0]) else spelling(found[0]), text
        )
    return alphabet.rewrite(text, spelling)


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrap(function(*args, **kwargs))

    return wrapped


@lru_cache(maxsize=256)
def _shadowing(text: str) -> jinja2.Template:
    """The template, compiled once for shadows."""
    environment = prepare(_Environment(**OPTIONS))
    environment.filters["tojson"] = _to_json
    for name, function in environment.filters.items():
        environment.filters[name] = _wrapping(function)
    return environment.from_string(text)


def trace(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    roles: Sequence[str] | None = ("assistant",),
    calls: bool = False,
    add_generation_prompt: bool = False,
) -> Trace:
    """Render the conversation twice, and find the followed messages' characters in it.

    Args:
        roles: the messages to follow by their content; None follows all.
        calls: follow reasoning and tool calls too.
        add_generation_prompt: as for `Template.render`.

    Raises:
        TemplateError: the template refuses, or does what a shadow can't follow.
    """
    with frozen_clock():
        plain = plain_messages(messages)
        variables = template.variables_for(
            plain, tools=tools, add_generation_prompt=add_generation_prompt
        )
        text = template.run(compiled(template.text), variables)
        alphabet = Alphabet(text)
        token = ALPHABET.set(alphabet)
        try:
            variables["messages"] = [
                _shadowed(message, index, calls)
                if roles is None or message.get("role") in roles
                else message
                for index, message in enumerate(plain)
            ]
            shadowed = str.__str__(template.run(_shadowing(template.text), variables))
        except OverflowError as error:
            raise TemplateError(
                f"the conversation has {error}, more than can be followed through a template; "
                "divide it"
            ) from None
        finally:
            ALPHABET.reset(token)
    if (read := alphabet.read(shadowed)) != text:
        raise TemplateError(_difference(template, text, read))
    return Trace(text, tuple(_pieces(shadowed, alphabet)))


def _shadowed(message: dict[str, Any], index: int, calls: bool) -> dict[str, Any]:
    """The message with shadows for its content, and for reasoning and tool calls if asked."""
    copy = dict(message)
    content = copy.get("content")
    if isinstance(content, str):
        copy["content"] = shadow_of(content, index)
    elif isinstance(content, list):
        copy["content"] = [
            {**part, "text": shadow_of(part["text"], index)}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    if calls:
        for key in REASONING:
            if isinstance(copy.get(key), str):
                copy[key] = shadow_of(copy[key], index)
        copy["tool_calls"] = _written(copy["tool_calls"], index) if "tool_calls" in copy else None
        copy = {key: value for key, value in copy.items() if value is not None}
    return copy


def _written(value: Any, index: int) -> Any:
    """Tool calls with shadows for names and arguments; ids and types say nothing to the model."""
    if isinstance(value, str):
        return shadow_of(value, index)
    if isinstance(value, list):
        return [_written(item, index) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key in ("id", "type") else _written(item, index)
            for key, item in value.items()
        }
    return value


def _pieces(shadowed: str, alphabet: Alphabet) -> list[Piece]:
    pieces: list[Piece] = []
    for run in alphabet.found.finditer(shadowed):
        start, end = run.span()
        message, first = alphabet.place(run[0][0])
        same, last = alphabet.place(run[0][-1])
        if same == message and alphabet.straight(run[0]):
            pieces.append(Piece(start, end, message, first, last))
            continue
        for at in range(start, end):
            message, place = alphabet.place(shadowed[at])
            before = pieces[-1] if pieces else None
            if before and (before.end, before.message) == (at, message) and before.last <= place:
                pieces[-1] = Piece(before.start, at + 1, message, before.first, place)
            else:
                pieces.append(Piece(at, at + 1, message, place, place))
    return pieces


def _difference(template: Template, text: str, other: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b),
        min(len(text), len(other)),
    )
    return (
        f"where the answers go can't be told for the chat template {template.name}: it does with "
        "a content what can't be followed character by character; the first difference is at "
        f"character {at} of the text: {text[at : at + 30]!r} became {other[at : at + 30]!r}; put "
        "{% generation %} and {% endgeneration %} around the answer in the template, and train "
        "with TRL's assistant_only_loss"
    )
