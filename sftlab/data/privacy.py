"""Personal data in rows: found by pattern and checksum, and replaced by typed placeholders.

`card.md` says in each data card what this search cannot find.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

from stdnum import iban, luhn

from sftlab.data.rows import Row, RowsError, checked, texts_of

KINDS = ("EMAIL", "IBAN", "CARD", "IP", "PHONE", "NAME")
"""What is searched for, in this order: what an earlier kind took, a later one does not see."""

_LOCAL = r"[\w!#$%'*+^`~-]+"
_EMAIL = (
    rf"(?<![\w.+%-])\w(?:{_LOCAL})?(?:\.{_LOCAL})*@(?:[^\W_](?:[\w-]*\w)?\.)+"
    r"(?:xn--[\w-]+|[^\W\d_]{2,})"
)
_IBAN = r"(?<!\w)[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?!\w)"
_CARD = r"(?<![\d+])(?<!\d\.)[1-9]\d{3}(?:[ -]?\d){9,15}(?!\d|\.\d)"
# The library phonenumbers, given no country, finds one of the eight numbers in our tests.
_REST = r"(?:[ ./-]?(?:\(\d{1,4}\)|\d)){5,14}(?!\w)"
_PHONES = (
    rf"(?<![\w.+])(?:\+|00 ?)[1-9]{_REST}",  # a country code
    rf"(?<![\w.+])(?!\d\d[./-]\d\d[./-]\d{{4}})(?:\(0\d{{1,5}}\)|0(?=[1-9])){_REST}",
    r"(?<![\w.+])(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w)",  # North America
)
_IPV6 = r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.\d{1,3}){3})?(?!\w)"
_IPV4 = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"


def _is_card(text: str) -> bool:
    return len(digits := re.sub(r"\D", "", text)) >= 13 and luhn.is_valid(digits)


def _length_if(valid: Callable[[str], bool], text: str) -> int | None:
    """The longest opening that is valid: the pattern also takes words and digits that follow."""
    ends = [match.end() for match in re.finditer(r"\w(?!\w)", text)]
    return next((end for end in reversed(ends) if valid(text[:end])), None)


def _length_of_address(text: str) -> int | None:
    text = text if text.endswith("::") else text.rstrip(":")
    if re.fullmatch(r"\d{0,3}::\d{0,3}", text):
        return None  # valid as IPv6, but a slice of a list in code: x[1::2]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return len(text)


def _length_of_phone(text: str) -> int | None:
    digits = sum(character.isdigit() for character in text)
    return len(text) if digits >= (7 if text.startswith("+") else 9) else None


# For each kind its patterns, each with the number of characters of a match that are one.
_SEARCHES = [
    ("EMAIL", re.compile(_EMAIL), len),
    ("IBAN", re.compile(_IBAN), partial(_length_if, iban.is_valid)),
    ("CARD", re.compile(_CARD), partial(_length_if, _is_card)),
    *(("IP", re.compile(form), _length_of_address) for form in (_IPV6, _IPV4)),
    *(("PHONE", re.compile(form), _length_of_phone) for form in _PHONES),
]


def find_in_text(text: str, names: Iterable[str] = ()) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each piece of personal data, in order; names are whole words."""
    names = listed(names)
    searches = [*_SEARCHES, ("NAME", _form_of_names(names), len)] if names else _SEARCHES
    found: list[tuple[int, int, str]] = []
    hidden = text
    for kind, form, length_of in searches:
        at = 0
        while match := form.search(hidden, at):
            start, at = match.span()
            if length := length_of(match[0]):  # of the first in the match: another may follow in it
                at = start + length
                found.append((start, at, kind))
                hidden = hidden[:start] + "\0" * length + hidden[at:]
    return sorted(found)


def listed(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple, empty ones left out; raises RowsError for one string."""
    if isinstance(names, str):
        raise RowsError(f"names={names!r}: give a list of names, not one string")
    return tuple(name for name in names if name.strip())


@cache
def _form_of_names(names: tuple[str, ...]) -> re.Pattern:
    longest_first = sorted(names, key=len, reverse=True)  # Anna Maria before Anna
    either = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest_first)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")


def redact_text(text: str, names: Iterable[str] = ()) -> str:
    """The text with each finding replaced by [KIND]."""
    for start, end, kind in reversed(find_in_text(text, names)):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def redact(rows: Iterable[Row], *, names: Iterable[str] = ()) -> tuple[list[Row], dict[str, int]]:
    """(new rows with [EMAIL] and the like, how many of each kind)."""
    names, made, kinds = listed(names), [], Counter()
    for row in checked(rows):
        messages = []
        for one in row["messages"]:
            texts = texts_of(one)
            for text in texts.values():
                kinds.update(kind for _, _, kind in find_in_text(text, names))
            messages.append({**one, **{key: _redacted(one[key], names) for key in texts}})
        made.append({**row, "messages": messages})
    return made, {kind: kinds[kind] for kind in KINDS if names or kind != "NAME"}


def _redacted(value: Any, names: Iterable[str]) -> Any:
    """A text, or all texts within calls of tools, without personal data."""
    if isinstance(value, dict):
        return {redact_text(key, names): _redacted(one, names) for key, one in value.items()}
    if isinstance(value, int | float) and (text := redact_text(str(value), names)) != str(value):
        return text
    if isinstance(value, list):
        return [_redacted(one, names) for one in value]
    return redact_text(value, names) if isinstance(value, str) else value
