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
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property, lru_cache, wraps
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import jinja2

from sftlab.chat.templates import REASONING, Template, TemplateError, jinja_environment

_FIRST, _END = 0x40000, 0x110000
"""From the first on, no code point is assigned except tags, variants and private use."""


class Alphabet:
    """Which code point stands for which character of which message, in one render.

    `run` matches its code points, none of which is in `text`, the render; `letters` has the
    characters that they stand for, `places` the message of each and its index in its texts.
    """

    current: ContextVar["Alphabet"] = ContextVar("alphabet")
    "That of the conversation that is being rendered."

    def __init__(self, text: str) -> None:
        taken = sorted(point for point in map(ord, set(text)) if point >= _FIRST)
        gaps = pairwise([_FIRST - 1, *taken, _END])
        before, self._end = max(gaps, key=lambda gap: gap[1] - gap[0])
        self._next = before + 1
        self.run = re.compile(f"[{chr(self._next)}-{chr(self._end - 1)}]+")
        self.letters: dict[int, str] = {}
        self.places: dict[int, tuple[int, int]] = {}
        self._written: Counter[int] = Counter()

    def shadow(self, text: str, message: int) -> str:
        """The shadow of a text of the message: a new code point for each character."""
        if not text:
            return text
        points, start = self._take(len(text)), self._written[message]
        self._written[message] += len(text)
        places = zip(repeat(message), range(start, self._written[message]), strict=False)
        self.letters.update(zip(points, text, strict=True))
        self.places.update(zip(points, places, strict=True))
        return Shadow("".join(map(chr, points)))

    def read(self, value: str) -> str:
        """The text that a string with code points stands for."""
        return str.translate(value, self.letters)

    def spell(self, shadow: str, character: str) -> str:
        """A code point for `character` that comes from the same place as `shadow`."""
        if self.letters[ord(shadow)] == character:
            return shadow
        (point,) = self._take(1)
        self.places[point], self.letters[point] = self.places[ord(shadow)], character
        return chr(point)

    def rewrite(self, value: str, spelling: Callable[[str], str]) -> str:
        """The string with each character that a shadow stands for spelled as `spelling` says."""

        def spelled(run: re.Match) -> str:
            pairs = ((shadow, spelling(self.letters[ord(shadow)])) for shadow in run[0])
            return "".join(self.spell(shadow, letter) for shadow, new in pairs for letter in new)

        return self.run.sub(spelled, str.__str__(value))

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
    """A string of code points that behaves as the text that it stands for; more in `_METHODS`.

    Where it can't, it comes out wrong, and the comparison with the real render finds it.
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
        return wrap(str.__getitem__(self, index))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: str) -> str:
        return wrap(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return wrap(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def join(self, parts: Iterable[str]) -> str:
        return wrap(str.join(self, parts))

    def strip(self, chars: str | None = None) -> str:
        return self.lstrip(chars).rstrip(chars)

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


def _cutting(name: str) -> Callable[..., str]:
    """A method that cuts off the beginning or the end of the text."""
    method, first = getattr(str, name), name in ("lstrip", "removeprefix")

    def cut(self: Shadow, *args: Any) -> str:
        left = len(method(self.real, *map(_real, args)))
        return self[len(self) - left :] if first else self[:left]

    return cut


def _splitting(name: str) -> Callable[..., Any]:
    """A method that gives pieces of the text, with separators or without."""
    method, between = getattr(str, name), name.endswith("split")

    def split(self: Shadow, sep: str | None = None, *args: Any, **options: Any) -> Any:
        texts = method(self.real, _real(sep), *args, **options)
        return type(texts)(self._pieces(texts, len(sep or "") if between else 0))

    return split


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


_METHODS = {
    _answering: "__contains__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ startswith "
    "endswith find rfind index rindex count encode isspace isdigit isalpha isalnum islower "
    "isupper istitle isnumeric isdecimal isascii isidentifier isprintable",
    _cutting: "lstrip rstrip removeprefix removesuffix",
    _splitting: "split rsplit partition rpartition",
    _spelling: "lower upper title capitalize swapcase casefold",
}
for _kind, _names in _METHODS.items():
    for _name in _names.split():
        setattr(Shadow, _name, _kind(_name))


def _wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # with the marks by which jinja2 knows what to pass
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrap(function(*args, **kwargs))

    return wrapped


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """`tojson` that escapes shadows as it would escape what they stand for."""

    def spelling(character: str) -> str:
        return json.dumps(character, ensure_ascii=ensure_ascii)[1:-1]

    def escaped(found: re.Match) -> str:
        return found[0] if alphabet.run.match(found[0]) else spelling(found[0])

    alphabet = Alphabet.current.get()
    text = json.dumps(value, ensure_ascii=False, **options)
    if ensure_ascii:
        text = re.sub("[^\x00-\x7f]", escaped, text)
    return alphabet.rewrite(text, spelling)


@lru_cache(maxsize=1)
def _shadow_environment() -> jinja2.Environment:
    """The sandbox of chat templates, in which joined shadows stay shadows."""
    environment = jinja_environment().overlay()
    environment.concat = _wrapping(environment.concat)
    environment.call = _wrapping(environment.call)
    filters = environment.filters | {"tojson": _to_json}
    environment.filters = {name: _wrapping(function) for name, function in filters.items()}
    return environment


class Piece(NamedTuple):
    """Characters `text[start:end]` of the render that come from one message: its own from `first`
    to `last`, its texts coming one after another."""

    start: int
    end: int
    message: int
    first: int
    last: int


class Trace(NamedTuple):
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
    """Render the conversation twice, and find the characters of messages of these roles (None: of
    all) in it: of their contents, and with `calls` of reasoning and tool calls too.

    Raises TemplateError where the template refuses, or does what a shadow can't follow.
    """
    options = {"tools": tools, "add_generation_prompt": add_generation_prompt}
    text = template.render(messages, **options)
    alphabet = Alphabet(text)
    token = Alphabet.current.set(alphabet)
    try:
        shadows = [
            _shadowed(message, calls, lambda key, text, index=index: alphabet.shadow(text, index))
            if roles is None or message.get("role") in roles
            else message
            for index, message in enumerate(template.plain(messages))
        ]
        render = template.render_in(_shadow_environment(), shadows, **options)
    finally:
        Alphabet.current.reset(token)
    shadowed = str.__str__(render)
    if (read := alphabet.read(shadowed)) == text:
        return Trace(text, tuple(_pieces(shadowed, alphabet)))
    shorter = min(len(text), len(read))
    at = next((i for i in range(shorter) if text[i] != read[i]), shorter)
    raise TemplateError(
        f"the answers can't be located for the chat template {template.name}: it does something "
        "with a content that can't be followed character by character; the first difference is at "
        f"character {at} of the text: {text[at : at + 30]!r} became {read[at : at + 30]!r}; put "
        "{% generation %} and {% endgeneration %} around the answer in the template, and train "
        "with TRL's assistant_only_loss"
    )


def followed_texts(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and text of what `trace` follows in a message, in the order in which `Piece` counts."""
    found: list[tuple[str, str]] = []
    _shadowed(message, True, lambda key, text: found.append((key, text)) or text)
    return found


def _shadowed(
    message: dict[str, Any], calls: bool, shadow_of: Callable[[str, str], str]
) -> dict[str, Any]:
    """The message with shadows for its content, and for reasoning and tool calls if `calls`."""

    def shadow(value: Any, key: str) -> Any:
        """Of each string, except a tool call's id and type, which the model does not write."""
        if isinstance(value, str):
            return shadow_of(key, value)
        if isinstance(value, list):
            return [shadow(item, key) for item in value]
        if isinstance(value, dict):
            return {k: v if k in ("id", "type") else shadow(v, key) for k, v in value.items()}
        return value

    copy = dict(message)
    content = copy.get("content")
    if isinstance(content, str):
        copy["content"] = shadow(content, "content")
    elif isinstance(content, list):
        copy["content"] = [
            {**part, "text": shadow(part["text"], "content")}
            if isinstance(part, dict) and isinstance(part.get("text"), str)
            else part
            for part in content
        ]
    if calls:
        keys = (key for key in (*REASONING, "tool_calls") if key in copy)
        copy |= {key: shadow(copy[key], key) for key in keys}
    return copy


def _pieces(shadowed: str, alphabet: Alphabet) -> Iterator[Piece]:
    for run in alphabet.run.finditer(shadowed):
        places = [alphabet.places[point] for point in map(ord, run[0])]
        breaks = [
            at
            for at, (before, place) in enumerate(pairwise(places), start=1)
            if before[0] != place[0] or place[1] - before[1] not in (0, 1)
        ]
        for first, stop in pairwise([0, *breaks, len(places)]):
            (message, place), (_, last) = places[first], places[stop - 1]
            yield Piece(run.start() + first, run.start() + stop, message, place, last)
