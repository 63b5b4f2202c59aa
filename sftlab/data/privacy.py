"""Personal data in rows: found by pattern and checksum, and replaced by typed placeholders."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sftlab.data.checksums import IBAN_LENGTHS, luhn, mod97
from sftlab.data.parts import Row, RowsError, checked

KINDS = ("EMAIL", "IBAN", "CARD", "IP", "PHONE", "NAME")
"""What is searched for, in this order: what an earlier kind took, a later one does not see."""

LIMITS = (
    "The search knows e-mail addresses, IBANs and payment cards with a right checksum, IP "
    "addresses, phone numbers in their usual forms, and names from the list it is given. It cannot "
    "find names that are not on the list, streets, dates of birth, numbers of passports, patients "
    "or plates, user names, what is misspelt, spelled out or split over two messages, or what "
    "tells who someone is without any of these; it looks at the text of messages only, not at "
    "`meta` or tools. It also takes numbers that only look alike, such as a version 1.2.3.4: read "
    "the findings before you redact."
)

PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(KINDS)})\]")
_LOCAL = r"[\w!#$%'*+^`~-]+"
EMAIL = re.compile(
    rf"(?<![\w.+%-])\w(?:{_LOCAL})?(?:\.{_LOCAL})*@(?:[^\W_](?:[\w-]*\w)?\.)+"
    r"(?:xn--[\w-]+|[^\W\d_]{2,})"
)
# Whole, or in the groups printed on a card: 4-4-4-4, with 3 more, 4-6-5 and 4-6-4.
CARDS = tuple(
    re.compile(rf"(?<![\d+])(?<!\d\.){digits}(?!\d|\.\d)")
    for digits in (
        r"[1-9]\d{12,18}",
        r"[1-9]\d{3}([ -])\d{4}\1\d{4}\1\d{4}\1\d{3}",
        r"[1-9]\d{3}([ -])\d{4}\1\d{4}\1\d{4}",
        r"[1-9]\d{3}([ -])\d{6}\1\d{4,5}",
    )
)
_REST = r"(?:[ ./-]?(?:\(\d{1,4}\)|\d)){5,14}(?!\w)"
PHONES = (
    re.compile(rf"(?<![\w.+])(?:\+|00 ?)[1-9]{_REST}"),  # a country code
    re.compile(rf"(?<![\w.+])(?!\d\d[./-]\d\d[./-]\d{{4}})(?:\(0\d{{1,5}}\)|0(?=[1-9])){_REST}"),
    re.compile(r"(?<![\w.+])(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w)"),  # North America
)
IPV6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.\d{1,3}){3})?(?!\w)"
)
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)")
SLICE = re.compile(r"\d{0,3}::\d{0,3}")
"""Valid as IPv6, but a slice of a list in code: `x[1::2]`."""
IBAN_START = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}")


@dataclass(frozen=True)
class Finding:
    """One piece of personal data."""

    row: int
    """Index of the row."""
    message: int
    """Index of the message in its row."""
    start: int
    """Where it begins in the message's content, in characters."""
    end: int
    """Where it ends, exclusive."""
    kind: str
    """One of `KINDS`."""
    text: str
    """What stands there."""


def listed(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple, empty ones left out; raises RowsError for one string."""
    if isinstance(names, str):
        raise RowsError(f"names={names!r}: a list of names is wanted, not one string")
    return tuple(name for name in names if name.strip())


def _asked(kinds: Sequence[str] | None, names: tuple[str, ...]) -> list[str]:
    """The kinds to search for, in the order of `KINDS`."""
    if kinds is None:
        return [kind for kind in KINDS if names or kind != "NAME"]
    for kind in kinds:
        if kind not in KINDS:
            raise RowsError(f"kind {kind!r}: use one of {', '.join(KINDS)}")
    if "NAME" in kinds and not names:
        raise RowsError("kind 'NAME': only names from a list are found: give `names`")
    return [kind for kind in KINDS if kind in kinds]


def find_in_text(
    text: str, *, names: Iterable[str] = (), kinds: Sequence[str] | None = None
) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each piece of personal data, in order; none overlap.

    Placeholders such as [EMAIL] are left alone. Names are whole words, upper and lower case as
    given. By default all kinds are searched for, names only when there are any.

    Raises RowsError for a kind not in `KINDS`, and for NAME without names.
    """
    names = listed(names)
    kinds = _asked(kinds, names)
    form = _form_of_names(names)
    searches = {**_SEARCHES, "NAME": [(form, re.Match.end)]}
    found: list[tuple[int, int, str]] = []
    hidden = PLACEHOLDER.sub(lambda match: _blank(match.span()), text)
    # Again until nothing new shows: what is hidden ends a word, as its placeholder will.
    while True:
        before = len(found)
        for kind in kinds:
            for form, end_of in searches[kind]:
                for match in form.finditer(hidden):
                    start, end = match.start(), end_of(match)
                    if end and hidden[start] != "\0":
                        found.append((start, end, kind))
                        hidden = hidden[:start] + _blank((start, end)) + hidden[end:]
        if len(found) == before:
            return sorted(found)


def _blank(span: tuple[int, int]) -> str:
    return "\0" * (span[1] - span[0])


def find_pii(
    rows: Iterable[Row], *, names: Iterable[str] = (), kinds: Sequence[str] | None = None
) -> list[Finding]:
    """All personal data that is found in the messages (`LIMITS` says what is not)."""
    names = listed(names)
    return [
        Finding(index, place, start, end, kind, message["content"][start:end])
        for index, row in enumerate(checked(rows))
        for place, message in enumerate(row["messages"])
        for start, end, kind in find_in_text(message["content"], names=names, kinds=kinds)
    ]


def redact_text(text: str, *, names: Iterable[str] = (), kinds: Sequence[str] | None = None) -> str:
    """The text with each finding replaced by [KIND]; redacting twice changes nothing more."""
    return _replaced(text, find_in_text(text, names=names, kinds=kinds))


def _replaced(text: str, found: list[tuple[int, int, str]]) -> str:
    for start, end, kind in reversed(found):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def redact(
    rows: Iterable[Row], *, names: Iterable[str] = (), kinds: Sequence[str] | None = None
) -> tuple[list[Row], dict[str, int]]:
    """(new rows with [EMAIL] and the like, how many of each kind); the rows given stay as they are.

    Redacting what is redacted changes nothing and counts nothing.
    """
    names = listed(names)
    counts, new = dict.fromkeys(_asked(kinds, names), 0), []
    for row in checked(rows):
        messages = []
        for message in row["messages"]:
            found = find_in_text(message["content"], names=names, kinds=kinds)
            for *_, kind in found:
                counts[kind] += 1
            messages.append({**message, "content": _replaced(message["content"], found)})
        new.append({**row, "messages": messages})
    return new, counts


def _end_of_iban(start: re.Match) -> int | None:
    length = IBAN_LENGTHS.get(start[0][:2].upper())
    if length is None:
        return None
    rest = re.compile(rf"(?:[ -]?[A-Za-z0-9]){{{length - 4}}}(?!\w)").match(
        start.string, start.end()
    )
    return rest.end() if rest and mod97(start[0] + rest[0]) else None


def _end_of_address(match: re.Match) -> int | None:
    text = match[0] if match[0].endswith("::") else match[0].rstrip(":")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if SLICE.fullmatch(text) else match.start() + len(text)


def _end_of_phone(match: re.Match) -> int | None:
    digits = sum(character.isdigit() for character in match[0])
    return match.end() if digits >= (7 if match[0].startswith("+") else 9) else None


_SEARCHES = {
    "EMAIL": [(EMAIL, re.Match.end)],
    "IBAN": [(IBAN_START, _end_of_iban)],
    "CARD": [(form, lambda match: luhn(match[0]) and match.end()) for form in CARDS],
    "IP": [(IPV6, _end_of_address), (IPV4, _end_of_address)],
    "PHONE": [(form, _end_of_phone) for form in PHONES],
}


@cache
def _form_of_names(names: tuple[str, ...]) -> re.Pattern:
    longest_first = sorted(names, key=len, reverse=True)  # Anna Maria before Anna
    either = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest_first)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")
