"""Code points that stand for the characters of a conversation, one for each.

    message 1 "Hi."   ->   U+40000 U+40001 U+40002
    message 3 "Ho"    ->   U+40003 U+40004

So a code point says which character of which message it stands for. Those of the planes from 4 on
are taken: unassigned but for tags, variants and private use, and those that occur in the text are
left out.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from itertools import pairwise

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

    def write(self, text: str, message: int) -> str:
        """A code point for each character of a text of the message, rising from text to text.

        Raises:
            OverflowError: the conversation has more characters than there are code points.
        """
        start = len(self._text)
        self._text += text
        self._starts.append(start)
        self._owners.append(message)
        self._bases.setdefault(message, start)
        return self._consecutive(start, len(self._text))

    def occurs_in(self, value: str) -> bool:
        """Whether the string holds a code point of this alphabet."""
        return not value.isascii() and self.found.search(value) is not None

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
