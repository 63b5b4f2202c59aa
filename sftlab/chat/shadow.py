"""Shadow text: a string whose every character says which character of which message it stands for.

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

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sftlab.chat.alphabet import ALPHABET


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

        return quote + wrap(ALPHABET.get().rewrite(self, spelling)) + quote

    def __getitem__(self, index: Any) -> "str | Shadow":
        part = wrap(str.__getitem__(self, index))
        if type(part) is Shadow:
            part._real = self.real[index]
        return part

    def __iter__(self) -> "Iterator[str | Shadow]":
        return (self[index] for index in range(len(self)))

    def __add__(self, other: str) -> "str | Shadow":
        return wrap(str.__add__(self, other))

    def __radd__(self, other: str) -> "str | Shadow":
        return wrap(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def join(self, parts: Iterable[str]) -> "str | Shadow":
        return wrap(str.join(self, parts))

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
            return wrap(str.replace(self, old, new, count))
        pieces, size, at = self.split(old, count), len(old), 0
        parts: list[str] = []
        for piece in pieces[:-1]:
            at += len(piece)
            # What replaces an answer's words is the answer's: a line break written as `<n>`.
            parts += piece, _spelled(str.__getitem__(self, at), new)
            at += size
        return wrap("".join([*parts, pieces[-1]]))


def _spelled(shadow: str, text: str) -> str:
    """The text as if it stood where the shadow stands."""
    alphabet = ALPHABET.get()
    if not alphabet.found.match(shadow) or alphabet.found.search(text):
        return text
    return "".join(alphabet.spell(shadow, character) for character in text)


def shadow_of(text: str, message: int) -> str:
    """The shadow of a text of the message.

    Raises:
        OverflowError: the conversation has more characters than there are code points.
    """
    if not text:
        return text
    shadow = Shadow(ALPHABET.get().write(text, message))
    shadow._real = text
    return shadow


def wrap(value: Any) -> Any:
    """A string that holds shadows, as a `Shadow`; anything else as it is."""
    if type(value) is str and ALPHABET.get().occurs_in(value):
        return Shadow(value)
    return value


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
            return wrap(ALPHABET.get().rewrite(self, method))
        alphabet, plain = ALPHABET.get(), str.__str__(self)
        return wrap(
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
