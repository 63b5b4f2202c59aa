"""What the measures of this room ask of a row: the text of one of its parts, or a value of it.

A row is `{"messages": [{"role": ..., "content": ...}, ...]}`, with an optional dict `meta`. Its
parts, on a conversation of two turns:

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

Row = Mapping[str, Any]
Key = str | Callable[[Row], Hashable]
PARTS = ("prompt", "context", "answer", "conversation")
UNITS = ("words", "characters")


class RowsError(ValueError):
    """Rows that can't be measured: the message names the row, what is wrong, and the remedy."""


def checked(rows: Iterable[Row], *, name: str = "rows") -> list[Row]:
    """The rows as a list, each with messages of a role and a text.

    Raises RowsError for no rows at all, and for the first row that is not of that form.
    """
    if isinstance(rows, Mapping):
        inside = ", ".join(map(repr, rows))
        raise RowsError(f"{name}: a list of rows is wanted, not a dict: take one of {inside}")
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        remedy = "read a file with sftlab.data.records.read"
        raise RowsError(f"{name}: a list of rows is wanted, not {_short(rows)}: {remedy}")
    found = list(rows)
    if not found:
        raise RowsError(f"{name}: the list is empty: give at least one row")
    for index, row in enumerate(found):
        problem = _problem(row)
        if problem:
            raise RowsError(f"{name}[{index}]: {problem}")
    return found


def _problem(row: Row) -> str | None:
    remedy = "convert it with sftlab.data.shapes.convert"
    if not isinstance(row, Mapping):
        return f"a dict with 'messages' is wanted, not {_short(row)}: {remedy}"
    if "messages" not in row:
        return f"no key 'messages' (it has {', '.join(map(repr, row)) or 'none'}): {remedy}"
    messages = row["messages"]
    if not isinstance(messages, list | tuple) or not messages:
        return f"'messages' is {_short(messages)}: it must be a list of at least one message"
    for place, message in enumerate(messages):
        for field in ("role", "content"):
            value = message.get(field) if isinstance(message, Mapping) else None
            if not isinstance(value, str):
                return (
                    f"messages[{place}] has the {field} {_short(value)}: it must be a string: "
                    "`sftlab validate` lists every such row of a file"
                )
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    """The words of a text in lower case, without punctuation.

    A language written without spaces gives one word a clause: count its characters instead.
    """
    return re.findall(r"\w+(?:['’]\w+)*", normalise(text))


def pieces(text: str, *, size: int, unit: str = "words") -> list[str]:
    """All runs of `size` neighbouring words or characters, in their order; a shorter text whole.

    Raises RowsError for a size below one or a unit not in `UNITS`.
    """
    if unit not in UNITS:
        raise RowsError(f"unit={unit!r}: use one of {', '.join(UNITS)}")
    if size < 1:
        raise RowsError(f"size={size}: a piece has at least 1 of the {unit}")
    units = words(text) if unit == "words" else list(normalise(text))
    joint = " " if unit == "words" else ""
    return [joint.join(units[n : n + size]) for n in range(max(len(units) - size, 0) + 1)]


def value_of(row: Row, key: Key, *, name: str = "row") -> Hashable:
    """A value of a row: what a function gives for it, or what `meta` or the row hold by that name.

    Raises RowsError when neither has the name, or the value can't be counted.
    """
    if callable(key):
        value = key(row)
    else:
        meta = row.get("meta") or {}
        if key not in meta and key not in row:
            known = [repr(k) for k in (*meta, *row) if k not in ("messages", "meta")]
            raise RowsError(
                f"{name}: no {key!r} in its meta or beside it (there: "
                f"{', '.join(known) or 'nothing but messages'}): name one of those, or give a "
                "function of the row"
            )
        value = meta[key] if key in meta else row[key]
    if value is None or not isinstance(value, Hashable):
        what = key if isinstance(key, str) else getattr(key, "__name__", "the function")
        raise RowsError(
            f"{name}: {what} is {_short(value)}: each row needs a value that can be counted, such "
            "as a string; 'unknown' is one"
        )
    return value


def values_of(rows: Iterable[Row], key: Key, *, name: str = "rows") -> list[Hashable]:
    """`value_of` for each row; errors name the row."""
    return [value_of(row, key, name=f"{name}[{n}]") for n, row in enumerate(rows)]
