r"""Trace messages through a template: which characters of the render come from which message.

    R   render(messages)          ...<|im_start|>assistant\nHi.<|im_end|>\n
    S   render(shadow messages)   ...<|im_start|>assistant\n░░░<|im_end|>\n

Each ░ is a code point that stands for one character of one message, so S shows where the answer is
in R. This is verified: with each ░ replaced by the character that it stands for, S must equal R.
Otherwise the template does something with a content that can't be followed, and `trace` raises.

A template also looks at a content: does it begin with `<think>`, what is left when it is trimmed?
A `Shadow` answers from the text that it stands for, and cuts itself at the same place, so that both
renders take the same branches:

    content                          <think>so</think>  Hi.
    content.split("</think>")[-1]                       Hi.     real text
                                     ..................░░░░░    shadow: the last five characters
    ... | trim                                         ░░░      the shadow of "Hi."

From top to bottom: the code points (`Alphabet`), the string (`Shadow`), Jinja, and `trace`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from itertools import pairwise, repeat
from typing import Any

import jinja2
import jinja2.compiler
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sftlab.chat.templates import (
    REASONING,
    Template,
    TemplateError,
    frozen_clock,
    jinja_environment,
    plain_messages,
)

_FIRST, _END = 0x40000, 0x110000
"""From the first on, no code point is assigned except tags, variants and private use."""


class Alphabet:
    """Which code point stands for which character of which message, in one render.

        message 1 "Hi."   ->   U+40000 U+40001 U+40002
        message 3 "Ho"    ->   U+40003 U+40004

    Args:
        text: what the template renders; no code point that occurs in it is used.
    """

    current: ContextVar["Alphabet"] = ContextVar("alphabet")
    "That of the conversation that is being rendered."

    def __init__(self, text: str) -> None:
        taken = sorted(point for point in map(ord, set(text)) if point >= _FIRST)
        gaps = pairwise([_FIRST - 1, *taken, _END])
        before, self._end = max(gaps, key=lambda gap: gap[1] - gap[0])
        self._next = before + 1
        self.run = re.compile(f"[{chr(self._next)}-{chr(self._end - 1)}]+")
        "Matches code points of this alphabet."
        self.letters: dict[int, str] = {}
        "The character that a code point stands for."
        self.places: dict[int, tuple[int, int]] = {}
        "Its message, and its index in the message's texts, which come one after another."
        self._written: Counter[int] = Counter()
        self._respelled: dict[tuple[tuple[int, int], str], str] = {}

    def write(self, text: str, message: int) -> str:
        """A code point for each character of a text of the message."""
        points, start = self._take(len(text)), self._written[message]
        self._written[message] += len(text)
        places = zip(repeat(message), range(start, self._written[message]), strict=False)
        self.letters.update(zip(points, text, strict=True))
        self.places.update(zip(points, places, strict=True))
        return "".join(map(chr, points))

    def read(self, value: str) -> str:
        """The text that a string with code points stands for."""
        return str.translate(value, self.letters)

    def spell(self, shadow: str, character: str) -> str:
        """The code point for `character` that comes from the same place as `shadow`."""
        if self.letters[ord(shadow)] == character:
            return shadow
        key = self.places[ord(shadow)], character
        if key not in self._respelled:
            (point,) = self._take(1)
            self.places[point], self.letters[point] = key
            self._respelled[key] = chr(point)
        return self._respelled[key]

    def rewrite(self, value: str, spelling: Callable[[str], str]) -> str:
        """The string with each character that a shadow stands for spelled as `spelling` says."""
        return self.run.sub(
            lambda run: "".join(
                self.spell(shadow, character)
                for shadow in run[0]
                for character in spelling(self.letters[ord(shadow)])
            ),
            str.__str__(value),
        )

    def _take(self, number: int) -> range:
        points = range(self._next, self._next + number)
        if points.stop > self._end:
            raise TemplateError(
                f"the conversation has over {self._end - _FIRST:,} characters, more than can be "
                "followed through a template; split it"
            )
        self._next = points.stop
        return points


class Shadow(str):
    """A string of code points that behaves as the text that it stands for.

    No method returns real text in place of a shadow: where one can't be followed, the shadow comes
    out wrong, and the comparison with the real render finds it.
    """

    @cached_property
    def real(self) -> str:
        """What it stands for."""
        return Alphabet.current.get().read(self)

    def __str__(self) -> "Shadow":
        return self

    def __repr__(self) -> str:
        quote = repr(self.real)[0]

        def spelling(character: str) -> str:
            if character in "'\"":
                return "\\" + character if character == quote else character
            return repr(character)[1:-1]

        return quote + wrap(Alphabet.current.get().rewrite(self, spelling)) + quote

    def __getitem__(self, index: Any) -> str:
        part = wrap(str.__getitem__(self, index))
        if type(part) is Shadow:
            part.real = self.real[index]
        return part

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: str) -> str:
        return wrap(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return wrap(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def join(self, parts: Iterable[str]) -> str:
        return wrap(str.join(self, parts))

    def lstrip(self, chars: str | None = None) -> str:
        return self[len(self) - len(self.real.lstrip(_real(chars))) :]

    def rstrip(self, chars: str | None = None) -> str:
        return self[: len(self.real.rstrip(_real(chars)))]

    def strip(self, chars: str | None = None) -> str:
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> str:
        return self[len(self) - len(self.real.removeprefix(_real(prefix))) :]

    def removesuffix(self, suffix: str) -> str:
        return self[: len(self.real.removesuffix(_real(suffix)))]

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        return self._pieces(self.real.split(_real(sep), maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        return self._pieces(self.real.rsplit(_real(sep), maxsplit), len(sep or ""))

    def partition(self, sep: str) -> tuple[str, ...]:
        return tuple(self._pieces(self.real.partition(_real(sep))))

    def rpartition(self, sep: str) -> tuple[str, ...]:
        return tuple(self._pieces(self.real.rpartition(_real(sep))))

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._pieces(self.real.splitlines(keepends=True))
        bare = self.real.splitlines(keepends)
        return [line[: len(text)] for line, text in zip(whole, bare, strict=True)]

    def _pieces(self, texts: Iterable[str], gap: int = 0) -> list[str]:
        """Shadows of pieces of the text, in order and at least `gap` characters apart."""
        pieces, at = [], 0
        for text in texts:
            at = self.real.index(text, at)
            pieces.append(self[at : at + len(text)])
            at += len(text) + gap
        return pieces

    def replace(self, old: str, new: str, count: int = -1) -> str:
        if not old:
            return wrap(str.replace(self, old, new, count))
        alphabet = Alphabet.current.get()
        pieces, at = self.split(old, count), 0
        parts = []
        for piece in pieces[:-1]:
            at += len(piece)
            shadow, text = str.__getitem__(self, at), new
            # What replaces an answer's words is the answer's: a line break written as `<n>`.
            if alphabet.run.match(shadow) and not alphabet.run.search(new):
                text = "".join(alphabet.spell(shadow, character) for character in new)
            parts += piece, text
            at += len(old)
        return wrap("".join([*parts, pieces[-1]]))


def wrap(value: Any) -> Any:
    """A string that holds code points of the alphabet, as a `Shadow`; anything else as it is."""
    if type(value) is str and not value.isascii() and Alphabet.current.get().run.search(value):
        return Shadow(value)
    return value


def _real(value: Any) -> Any:
    """What an argument of a method stands for."""
    if isinstance(value, Shadow):
        return value.real
    return tuple(map(_real, value)) if isinstance(value, tuple) else value


def _answering(name: str) -> Callable[..., Any]:
    """A method that answers from the real text."""
    method = getattr(str, name)
    return lambda self, *args: method(self.real, *map(_real, args))


def _spelling(name: str) -> Callable[[Shadow], str]:
    """A method that changes single characters, such as `upper`."""
    method = getattr(str, name)

    def spell(self: Shadow) -> str:
        alphabet, new = Alphabet.current.get(), method(self.real)
        if len(new) != len(self):  # one letter became two, such as ß
            return wrap(alphabet.rewrite(self, method))
        pairs = zip(str.__str__(self), new, strict=True)
        return wrap("".join(alphabet.spell(a, b) if alphabet.run.match(a) else b for a, b in pairs))

    return spell


for _name in (
    "__contains__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
    "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "encode",
    "isspace", "isdigit", "isalpha", "isalnum", "islower", "isupper", "istitle", "isnumeric",
    "isdecimal", "isascii", "isidentifier", "isprintable",
):  # fmt: skip
    setattr(Shadow, _name, _answering(_name))
for _name in ("lower", "upper", "title", "capitalize", "swapcase", "casefold"):
    setattr(Shadow, _name, _spelling(_name))


class _Code(jinja2.compiler.CodeGenerator):
    """Joins with `~` through the environment's `concat`, as jinja2 joins everything else."""

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


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # with the marks by which jinja2 knows what to pass
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrap(function(*args, **kwargs))

    return wrapped


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """`tojson` that escapes shadows as it would escape what they stand for."""

    def spelling(character: str) -> str:
        return json.dumps(character, ensure_ascii=ensure_ascii)[1:-1]

    alphabet = Alphabet.current.get()
    text = json.dumps(value, ensure_ascii=False, **options)
    if ensure_ascii:
        text = re.sub(
            "[^\x00-\x7f]",
            lambda found: found[0] if alphabet.run.match(found[0]) else spelling(found[0]),
            text,
        )
    return alphabet.rewrite(text, spelling)


@lru_cache(maxsize=1)
def _shadow_environment() -> jinja2.Environment:
    base = jinja_environment()
    environment = _Environment(
        trim_blocks=base.trim_blocks,
        lstrip_blocks=base.lstrip_blocks,
        extensions=[type(extension) for extension in base.extensions.values()],
    )
    environment.globals = base.globals
    filters = base.filters | {"tojson": _to_json}
    environment.filters = {name: _wrapping(function) for name, function in filters.items()}
    return environment


@lru_cache(maxsize=256)
def _compiled(text: str) -> jinja2.Template:
    return _shadow_environment().from_string(text)


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters `text[start:end]` of the render that come from one message, in its order.

    `first` and `last` are the places of its first and last character in the message's own texts,
    which come one after another.
    """

    start: int
    end: int
    message: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A render, and from left to right what in it comes from the messages that were followed."""

    text: str
    pieces: tuple[Piece, ...]


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
        text = template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)
        alphabet = Alphabet(text)
        token = Alphabet.current.set(alphabet)
        try:
            shadows = [
                _shadowed(message, index, calls)
                if roles is None or message.get("role") in roles
                else message
                for index, message in enumerate(plain)
            ]
            variables = template.variables_for(shadows, tools, add_generation_prompt)
            shadowed = str.__str__(template.run(_compiled(template.text), variables))
        finally:
            Alphabet.current.reset(token)
    if (read := alphabet.read(shadowed)) != text:
        raise TemplateError(_difference(template, text, read))
    return Trace(text, tuple(_pieces(shadowed, alphabet)))


def shadow_of(text: str, message: int) -> str:
    """The shadow of a text of the message, in the current alphabet."""
    if not text:
        return text
    shadow = Shadow(Alphabet.current.get().write(text, message))
    shadow.real = text
    return shadow


def _shadowed(message: dict[str, Any], index: int, calls: bool) -> dict[str, Any]:
    """The message with shadows for its content, and for reasoning and tool calls if `calls`."""
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
        for key in (*REASONING, "tool_calls"):
            if key in copy:
                copy[key] = _all_shadowed(copy[key], index)
    return copy


def _all_shadowed(value: Any, index: int) -> Any:
    """Each string as a shadow, except a tool call's id and type, which the model does not write."""
    if isinstance(value, str):
        return shadow_of(value, index)
    if isinstance(value, list):
        return [_all_shadowed(item, index) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key in ("id", "type") else _all_shadowed(item, index)
            for key, item in value.items()
        }
    return value


def _pieces(shadowed: str, alphabet: Alphabet) -> Iterator[Piece]:
    for run in alphabet.run.finditer(shadowed):
        places = [alphabet.places[point] for point in map(ord, run[0])]
        breaks = [
            at
            for at, (before, place) in enumerate(pairwise(places), start=1)
            if before > place or before[0] != place[0]
        ]
        for first, stop in pairwise([0, *breaks, len(places)]):
            (message, place), (_, last) = places[first], places[stop - 1]
            yield Piece(run.start() + first, run.start() + stop, message, place, last)


def _difference(template: Template, text: str, other: str) -> str:
    shorter = min(len(text), len(other))
    at = next((i for i in range(shorter) if text[i] != other[i]), shorter)
    return (
        f"the answers can't be located for the chat template {template.name}: it does something "
        "with a content that can't be followed character by character; the first difference is at "
        f"character {at} of the text: {text[at : at + 30]!r} became {other[at : at + 30]!r}; put "
        "{% generation %} and {% endgeneration %} around the answer in the template, and train "
        "with TRL's assistant_only_loss"
    )
