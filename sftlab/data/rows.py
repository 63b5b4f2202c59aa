"""The text of one part of a row `{"messages": [...], "meta": {...}}`, or a value of it.

system     You are brief.            ┐
user       Capital of France?        │ ┐
assistant  Paris.                    │ │
user       And of Italy?             │ ┘ prompt: before the last answer, without system
assistant  Rome.    <- answer        ┘ conversation: all of it; context: all before the answer
"""

import json
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from sftlab.data.problems import shown

Row = Mapping[str, Any]
Key = str | Callable[[Row], Hashable]
PARTS = ("prompt", "context", "answer", "conversation")


class RowsError(ValueError):
    """Rows that can't be measured: the message names the row, what is wrong, and the remedy."""


def checked(rows: Iterable[Row], *, name: str = "rows") -> list[Row]:
    """The rows as a list; RowsError if there is none, or one has no messages of role and text."""
    found = list(rows)
    if not found:
        raise RowsError(f"{name}: the list is empty: give at least one row")
    for index, row in enumerate(found):
        messages = row.get("messages") if isinstance(row, Mapping) else None
        texts = [
            one.get(key) if isinstance(one, Mapping) else None
            for one in messages or ()
            for key in ("role", "content")
        ]
        if not texts or not all(isinstance(text, str) for text in texts):
            what, remedy = "must be a dict with 'messages' of role and text", "sftlab.data.convert"
            raise RowsError(f"{name}[{index}] {what}, got {shown(row)}: use {remedy}")
    return found


def part_of(row: Row, part: str) -> str:
    """The text of one of `PARTS`, its messages joined by a newline; a row without an assistant
    message is all prompt."""
    if part not in PARTS:
        raise RowsError(f"part={part!r}: use one of {', '.join(PARTS)}")
    messages = row["messages"]
    if part != "conversation":
        turns = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
        last = turns[-1] if turns else len(messages)
        messages = messages[last : last + 1] if part == "answer" else messages[:last]
    if part == "prompt":
        messages = [message for message in messages if message["role"] != "system"]
    return "\n".join(text for message in messages for text in texts_of(message).values())


def texts_of(message: Mapping[str, Any]) -> dict[str, str]:
    """What a message says, by its keys: reasoning, content, and tool calls as JSON."""
    calls = message.get("tool_calls")
    found = {"reasoning_content": message.get("reasoning_content"), "content": message["content"]}
    text = json.dumps(calls, ensure_ascii=False) if calls else None
    found["tool_calls"] = text and re.sub(r"\\[nrt]", " ", text)  # no letter is added to a word
    return {key: text for key, text in found.items() if text} or {"content": ""}


def normalise(text: str) -> str:
    """The text without differences of case, white space and Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"\w+(?:['’]\w+)*", normalise(text))


def pieces(text: str, *, size: int, unit: str = "words") -> list[str]:
    """All runs of `size` neighbouring words or characters, in order; a shorter text whole."""
    units = words(text) if unit == "words" else list(normalise(text))
    joint = " " if unit == "words" else ""
    return [joint.join(units[n : n + size]) for n in range(max(len(units) - size, 0) + 1)]


def values_of(rows: Iterable[Row], key: Key, *, name: str = "rows") -> list[Hashable]:
    """A value of each row: what a function returns, or what `meta` or the row has by that name."""
    found = []
    for n, row in enumerate(rows):
        columns = {k: v for k, v in row.items() if k not in ("messages", "meta")}
        columns |= row.get("meta") or {}
        value = key(row) if callable(key) else columns.get(key)
        if value is None:
            known = ", ".join(map(repr, columns)) or "only messages"
            raise RowsError(f"{name}[{n}] has no {key!r}, but {known}: use one, or a function")
        if not isinstance(value, Hashable):
            remedy = "give one with single values, or a function"
            raise RowsError(f"{name}[{n}]: {key!r} is {shown(value)}, not one value: {remedy}")
        found.append(value)
    return found
