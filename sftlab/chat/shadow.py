"""Shadow text: a string whose every character says which character of which message it stands for.

    message 1 "Hi."   ->   U+40000 U+40001 U+40002       one unassigned code point a character

A template prints the shadow and thereby shows where the message's characters go. But a template
also asks: does the content begin with `<think>`, where is `</think>`, what is left when it is
trimmed? A `Shadow` answers from the text that it stands for, and cuts itself at the same place, so
that the render with shadows takes the same branches as the render of the real text:

    content                          <think>so</think>  Hi.
    content.split("</think>")[-1]                       Hi.     real
                                     ..................░░░░░    shadow: the last five characters
    ... | trim                                         ░░░      the shadow of "Hi."

Nothing here ever hands out real text in place of a shadow: where a method can't be followed, the
shadow comes out wrong, and the comparison with the real render finds it.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import pairwise
from typing import Any

ALPHABET: "ContextVar[Alphabet]" = ContextVar("alphabet")
"""The alphabet of the conversation that is being rendered."""

FIRST, END = 0x40000, 0x110000
"""From the first on no code point is assigned but for tags, variants and private use."""
RARE = re.compile(f"[{chr(FIRST)}-{chr(END - 1)}]+")


@lru_cache(maxsize=4)
def _codes(first: int, count: int) -> str:
    return "".join(map(chr, range(first, first + count)))


class Alphabet:
    """Which code point stands for which character; one for each conversation.

    Args:
        text: what the template renders; no code point that occurs in it is used.
    """

    def __init__(self, text: str) -> None:
        self.first, self.end, self.found = FIRST, END, RARE
        if taken := RARE.findall(text):
            edges = pairwise((FIRST - 1, *sorted(map(ord, "".join(taken))), END))
            before, self.end = max(edges, key=lambda edge: edge[1] - edge[0])
            self.first = before + 1
            self.found = re.compile(f"[{chr(self.first)}-{chr(self.end - 1)}]+")
        self._text = ""
        self._starts: list[int] = []
        self._owners: list[int] = []
        self._bases: dict[int, int] = {}
        self._again: dict[tuple[int, str], int] = {}
        self._other: dict[int, tuple[int, str]] = {}

    def write(self, text: str, message: int) -> "str | Shadow":
        """The shadow of a text of the message; code points rise from text to text.

        Raises:
            OverflowError: the conversation has more characters than there are code points.
        """
        if not text:
            return text
        start = len(self._text)
        self._text += text
        self._starts.append(start)
        self._owners.append(message)
        self._bases.setdefault(message, start)
        shadow = Shadow(self._consecutive(start, len(self._text)))
        shadow._real = text
        return shadow

    def wrap(self, value: Any) -> Any:
        """A string that holds shadows, as a `Shadow`; anything else as it is."""
        if type(value) is str and not value.isascii() and self.found.search(value):
            return Shadow(value)
        return value

    def read(self, value: str) -> str:
        """The text that a string with shadows stands for."""
        return self.found.sub(self._read, str.__str__(value))

    def _read(self, found: re.Match[str]) -> str:
        run = found[0]
        if self.straight(run):
            start = ord(run[0]) - self.first
            return self._text[start : start + len(run)]
        return "".join(map(self.letter, run))

    def straight(self, run: str) -> bool:
        """Whether the run of shadows stands for characters that follow one another."""
        start, end = ord(run[0]) - self.first, ord(run[-1]) - self.first + 1
        return end <= len(self._text) and run == self._consecutive(start, end)

    def letter(self, shadow: str) -> str:
        """The character that a shadow stands for."""
        code = ord(shadow) - self.first
        return self._text[code] if code < len(self._text) else self._other[code][1]

    def spell(self, shadow: str, character: str) -> str:
        """The code point that says `character` where `shadow` said another, from the same place."""
        if self.letter(shadow) == character:
            return shadow
        key = self._origin(shadow), character
        if key not in self._again:
            # From the end downwards, where texts that are still to be written do not come.
            code = self.end - self.first - 1 - len(self._again)
            self._again[key] = self._room(code)
            self._other[code] = key
        return chr(self._again[key] + self.first)

    def rewrite(self, value: str, spelling: Callable[[str], str]) -> str:
        """The string with each shadow spelled anew: `spelling` maps a character to several."""
        return self.found.sub(
            lambda run: "".join(
                self.spell(shadow, character)
                for shadow in run[0]
                for character in spelling(self.letter(shadow))
            ),
            str.__str__(value),
        )

    def place(self, shadow: str) -> tuple[int, int]:
        """The message of a shadow, and its place in the texts written for the message."""
        code = self._origin(shadow)
        message = self._owners[bisect_right(self._starts, code) - 1]
        return message, code - self._bases[message]

    def _origin(self, shadow: str) -> int:
        code = ord(shadow) - self.first
        return code if code < len(self._text) else self._other[code][0]

    def _room(self, code: int) -> int:
        if code < len(self._text):
            raise OverflowError(f"{len(self._text) + len(self._again)} characters")
        return code

    def _consecutive(self, start: int, end: int) -> str:
        self._room(self.end - self.first - 1 - len(self._again))
        count = 4096
        while count < end:
            count *= 2
        return _codes(self.first, min(count, self.end - self.first))[start:end]


class Shadow(str):
    """A string that holds shadows, and behaves as the text that it stands for."""

    __slots__ = ("_real",)

    @property
    def real(self) -> str:
        try:
            return self._real
        except AttributeError:
            self._real = ALPHABET.get().read(self)
            return self._real

    def __str__(self) -> "Shadow":
        return self

    def __repr__(self) -> str:
        quote = repr(self.real)[0]

        def spelling(character: str) -> str:
            if character in "'\"":
                return "\\" + character if character == quote else character
            return repr(character)[1:-1]

        return quote + _wrap(ALPHABET.get().rewrite(self, spelling)) + quote

    def __getitem__(self, index: Any) -> "str | Shadow":
        part = _wrap(str.__getitem__(self, index))
        if type(part) is Shadow:
            part._real = self.real[index]
        return part

    def __iter__(self) -> "Iterator[str | Shadow]":
        return (self[index] for index in range(len(self)))

    def __add__(self, other: str) -> "str | Shadow":
        return _wrap(str.__add__(self, other))

    def __radd__(self, other: str) -> "str | Shadow":
        return _wrap(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def join(self, parts: Iterable[str]) -> "str | Shadow":
        return _wrap(str.join(self, parts))

    def strip(self, chars: str | None = None) -> "str | Shadow":
        real, chars = self.real, _real(chars)
        start = len(real) - len(real.lstrip(chars))
        return self[start : start + len(real.strip(chars))]

    def lstrip(self, chars: str | None = None) -> "str | Shadow":
        return self[len(self) - len(self.real.lstrip(_real(chars))) :]

    def rstrip(self, chars: str | None = None) -> "str | Shadow":
        return self[: len(self.real.rstrip(_real(chars)))]

    def removeprefix(self, prefix: str) -> "str | Shadow":
        return self[len(self) - len(self.real.removeprefix(_real(prefix))) :]

    def removesuffix(self, suffix: str) -> "str | Shadow":
        return self[: len(self.real.removesuffix(_real(suffix)))]

    def split(self, sep: str | None = None, maxsplit: int = -1) -> "list[str | Shadow]":
        return self._pieces(self.real.split(_real(sep), maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> "list[str | Shadow]":
        return self._pieces(self.real.rsplit(_real(sep), maxsplit), len(sep or ""))

    def partition(self, sep: str) -> "tuple[str | Shadow, ...]":
        return tuple(self._pieces(self.real.partition(_real(sep))))

    def rpartition(self, sep: str) -> "tuple[str | Shadow, ...]":
        return tuple(self._pieces(self.real.rpartition(_real(sep))))

    def splitlines(self, keepends: bool = False) -> "list[str | Shadow]":
        whole = self._pieces(self.real.splitlines(keepends=True))
        bare = self.real.splitlines(keepends)
        return [line[: len(text)] for line, text in zip(whole, bare, strict=True)]

    def _pieces(self, texts: Iterable[str], gap: int = 0) -> "list[str | Shadow]":
        """Shadows of pieces of the text, in order and `gap` characters apart; white space is not
        counted, as `split()` without a separator drops any number of it."""
        pieces, at = [], 0
        for text in texts:
            at = self.real.index(text, at)
            pieces.append(self[at : at + len(text)])
            at += len(text) + gap
        return pieces

    def replace(self, old: str, new: str, count: int = -1) -> "str | Shadow":
        if not old:
            return _wrap(str.replace(self, old, new, count))
        pieces, size, at = self.split(old, count), len(old), 0
        parts: list[str] = []
        for piece in pieces[:-1]:
            at += len(piece)
            # What replaces an answer's words is the answer's: a line break written as `<n>`.
            parts += piece, _spelled(str.__getitem__(self, at), new)
            at += size
        return _wrap("".join([*parts, pieces[-1]]))


def _spelled(shadow: str, text: str) -> str:
    """The text as if it stood where the shadow stands."""
    alphabet = ALPHABET.get()
    if not alphabet.found.match(shadow) or alphabet.found.search(text):
        return text
    return "".join(alphabet.spell(shadow, character) for character in text)


def _wrap(value: Any) -> Any:
    return ALPHABET.get().wrap(value)


def _real(value: Any) -> Any:
    """What an argument of a method stands for."""
    if isinstance(value, Shadow):
        return value.real
    return tuple(map(_real, value)) if isinstance(value, tuple) else value


def _asking(name: str) -> Callable[..., Any]:
    """A method that answers from the real text."""
    method = getattr(str, name)

    def ask(self: Shadow, *args: Any) -> Any:
        return method(self.real, *map(_real, args))

    return ask


def _spelling(name: str) -> Callable[[Shadow], "str | Shadow"]:
    """A method that changes single characters, such as `upper`."""
    method = getattr(str, name)

    def spell(self: Shadow) -> "str | Shadow":
        new = method(self.real)
        if len(new) != len(self):
            return _wrap(ALPHABET.get().rewrite(self, method))
        alphabet, plain = ALPHABET.get(), str.__str__(self)
        return _wrap(
            "".join(
                alphabet.spell(old, now) if alphabet.found.match(old) else now
                for old, now in zip(plain, new, strict=True)
            )
        )

    return spell


for _name in (
    "__contains__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
    "startswith", "endswith", "find", "rfind", "index", "rindex", "count", "encode",
    "isspace", "isdigit", "isalpha", "isalnum", "islower", "isupper", "istitle", "isnumeric",
    "isdecimal", "isascii", "isidentifier", "isprintable",
):  # fmt: skip
    setattr(Shadow, _name, _asking(_name))
for _name in ("lower", "upper", "title", "capitalize", "swapcase", "casefold"):
    setattr(Shadow, _name, _spelling(_name))
