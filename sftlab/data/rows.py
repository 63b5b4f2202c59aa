"""The text of one part of a row `{"messages": [...], "meta": {...}}`, or a value of it.

system     You are brief.            ┐
user       Capital of France?        │ ┐
assistant  Paris.                    │ │
user       And of Italy?             │ ┘ prompt: before the last answer, without system
assistant  Rome.    <- answer        ┘ conversation: all of it; context: all before the answer
"""

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from sftlab.data.messages import shown

Row = Mapping[str, Any]
Key = str | Callable[[Row], Hashable]
PARTS = ("prompt", "context", "answer", "conversation")


class RowsError(ValueError):
    """Rows that can't be measured: the message names the row, what is wrong, and the remedy."""


def checked(rows: Iterable[Row], *, name: str = "rows") -> list[Row]:
    """The rows as a list; RowsError if there is none, or one has no messages of role and text."""
    if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable):
        remedy = "read a file with sftlab.data.read, or take one split of a DatasetDict"
        raise RowsError(f"{name} must be a list of rows, got {shown(rows)}: {remedy}")
    found = list(rows)
    if not found:
        raise RowsError(f"{name}: the list is empty: give at least one row")
    for index, row in enumerate(found):
        messages = row.get("messages") if isinstance(row, Mapping) else None
        if not isinstance(messages, list | tuple) or not messages:
            what, remedy = "must be a dict with a list of 'messages'", "use sftlab.data.convert"
            raise RowsError(f"{name}[{index}] {what}, got {shown(row)}: {remedy}")
        for place, one in enumerate(messages):
            values = [one.get("role"), one.get("content")] if isinstance(one, Mapping) else [None]
            if not all(isinstance(value, str) for value in values):
                raise RowsError(
                    f"{name}[{index}]: messages[{place}] must have a role and a content that are "
                    f"strings, got {shown(one)}: `sftlab validate` lists all such rows of a file"
                )
    return found


def part_of(row: Row, part: str) -> str:
    """The text of one of `PARTS`, its messages joined by a newline.

    A row without an assistant message has the answer "" and is all prompt.
    """
    if part not in PARTS:
        raise RowsError(f"part={part!r}: use one of {', '.join(PARTS)}")
    messages = row["messages"]
    if part != "conversation":
        turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        last = turns[-1] if turns else len(messages)
        messages = messages[last : last + 1] if part == "answer" else messages[:last]
    if part == "prompt":
        messages = [message for message in messages if message["role"] != "system"]
    return "\n".join(message["content"] for message in messages)


def normalise(text: str) -> str:
    """The text without differences of case, white space and Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+(?:['’]\w+)*", normalise(text))


def pieces(text: str, *, size: int, unit: str = "words") -> list[str]:
    """All runs of `size` neighbouring words or characters, in order; a shorter text whole."""
    if size < 1 or unit not in ("words", "characters"):
        raise RowsError(f"size={size}, unit={unit!r}: give 1 or more words or characters")
    units = words(text) if unit == "words" else list(normalise(text))
    joint = " " if unit == "words" else ""
    return [joint.join(units[n : n + size]) for n in range(max(len(units) - size, 0) + 1)]


def values_of(rows: Iterable[Row], key: Key, *, name: str = "rows") -> list[Hashable]:
    """A value of each row: what a function returns, or what `meta` or the row has by that name."""
    found = []
    for n, row in enumerate(rows):
        columns = {k: v for k, v in row.items() if k not in ("messages", "meta")}
        columns |= row.get("meta") or {}
        if not callable(key) and key not in columns:
            known = ", ".join(map(repr, columns)) or "only messages"
            raise RowsError(f"{name}[{n}] has no {key!r}, but {known}: use one, or a function")
        value = key(row) if callable(key) else columns[key]
        if value is None or not isinstance(value, Hashable):
            what = key if isinstance(key, str) else getattr(key, "__name__", "the function")
            remedy = "each row needs a value that can be counted, such as a string"
            raise RowsError(f"{name}[{n}]: {what} is {shown(value)}: {remedy}")
        found.append(value)
    return found
