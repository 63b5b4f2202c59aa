"""The shapes in which supervised examples come, and how each row becomes messages: `read_row`.

shape               columns                                becomes
messages            messages: [{role, content}, ...]       as it is
sharegpt            conversations: [{from, value}, ...]    human -> user, gpt -> assistant
prompt-completion   prompt, completion: texts, or lists    user, assistant (a list: its messages)
                    of messages as TRL takes them
alpaca              instruction, input, output             user (instruction, an empty line,
                                                           input), assistant

A column `system` or `system_prompt` opens the conversation when nothing else does. Other columns
are kept as `meta`.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftlab.data.messages import Message, Problem, RecordsError, check_messages, normal_role, shown

SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("messages",),),
    "sharegpt": (("conversations", "conversation"),),
    "prompt-completion": (("prompt", "question"), ("completion", "response", "answer")),
    "alpaca": (("instruction",), ("output", "response")),
}
"""The columns that each shape needs, with the names that mean the same."""
COLUMNS = {name for columns in SHAPES.values() for names in columns for name in names}
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
DEEP = Problem("the nesting is too deep", "flatten or drop the row")
_ONE_LINE = "write each row with json.dumps on one line"


@dataclass
class Conversation:
    """One row, converted as far as possible."""

    messages: list[Message] = field(default_factory=list)  # not to be used if there are problems
    shape: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)  # the other columns
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # keys of messages: `messages[].name`


def convert(row: Mapping[str, Any], *, shape: str | None = None) -> list[Message]:
    """The messages of one row.

    Args:
        row: a row in one of `SHAPES`.
        shape: the shape to read it as; by default the row's columns decide.

    Raises:
        RecordsError: the row has no known shape, or its conversation is not sound.
        ValueError: `shape` is not one of `SHAPES`.
    """
    found = read_row(row, shape=shape)
    if found.problems:
        raise RecordsError(found.problems)
    return found.messages


def read_row(
    row: Any, *, shape: str | None = None, answered: bool = True, control: Sequence[str] = ()
) -> Conversation:
    """One row as messages, with all that is wrong with it.

    Args:
        row, shape: as for `convert`.
        answered: require an answer at the end; a conversation to be continued needs none.
        control: tokens of a chat template, which no content may contain.
    """
    if shape is not None and shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")
    if not isinstance(row, Mapping):
        remedy = 'write each row as an object: {"messages": [...]}'
        return Conversation(problems=[Problem("the row is not an object", remedy, "", shown(row))])
    shape, columns = _detect(row, shape)
    found = Conversation(shape=shape)
    if shape is None or None in columns:
        found.problems.append(_unfit(row, shape, columns))
        return found
    entries: list[tuple[str, Mapping[str, Any]]] = []
    for column, role in zip(columns, ("user", "assistant"), strict=False):
        value = row[column]
        pairs = isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
        if len(columns) == 1 or (pairs and shape == "prompt-completion"):
            entries += _listed(column, value, found.problems)
        else:
            entries.append((column, {"role": role, "content": value}))
    used = {*columns, "messages"}
    if shape == "alpaca":
        used.add(_add_input(row, entries[0][1], found.problems))
    if found.problems:
        return found
    system = next((name for name in _SYSTEMS if _filled(row, name)), None)
    first = entries[0][1]
    if system is None:
        used.update(_SYSTEMS)
    elif normal_role(first.get("role") or first.get("from")) != "system":
        used.add(system)
        entries.insert(0, (system, {"role": "system", "content": row[system]}))
    found.meta = {key: value for key, value in row.items() if key not in used}
    if found.meta.keys() == {"meta"} and isinstance(found.meta["meta"], Mapping):
        found.meta = dict(found.meta["meta"])  # the lab's own rows come back as they were
    found.messages, found.problems, found.left_out = check_messages(
        entries, answered=answered, control=control
    )
    return found


def _filled(row: Mapping[str, Any], name: str) -> bool:
    # A CSV has an empty cell, and a Parquet a null, where a row has no such column.
    return row.get(name) not in (None, "")


def _detect(row: Mapping[str, Any], shape: str | None) -> tuple[str | None, list[str | None]]:
    """The shape and the row's names of its columns, `None` for one that is missing."""

    def columns(known: str, present) -> list[str | None]:
        return [next(filter(present, names), None) for names in SHAPES[known]]

    among = list(SHAPES) if shape is None else [shape]
    for known in among:
        if None not in (whole := columns(known, lambda name: _filled(row, name))):
            return known, whole
    # None is complete: the one of which most is there, for the message.
    partly = {known: columns(known, row.__contains__) for known in among}
    best = max(
        among, key=lambda known: sum(c is not None for c in partly[known]) / len(partly[known])
    )
    return (best, partly[best]) if any(partly[best]) or shape else (None, [])


def _unfit(row: Mapping[str, Any], shape: str | None, columns: list[str | None]) -> Problem:
    value = f"it has {shown(', '.join(map(str, row)) or 'no column')}"
    if shape is not None:
        missing = SHAPES[shape][columns.index(None)][0]
        what = f"a row of the shape {shape} lacks a column"
        return Problem(what, "add what is missing, or drop the row", missing, value)
    if {"role", "content"} <= row.keys():
        remedy = 'put all messages of a conversation into one row: {"messages": [...]}'
        return Problem("the row is one message, not a conversation", remedy, "", value)
    remedy = ('a row needs "messages", "conversations", "prompt" and "completion", or '
              '"instruction" and "output": rename the columns')  # fmt: skip
    return Problem("the row has no known shape", remedy, "", value)


def _listed(column: str, value: Any, problems: list[Problem]) -> list[tuple[str, Mapping]]:
    """The messages of a list, each with its place; in a CSV the list is the JSON text of one."""
    if isinstance(value, str):
        value, wrong = parse_json(value)
        if wrong:
            remedy = "a cell with messages holds JSON: write it with json.dumps, not with str"
            problems += [replace(one, field=column, remedy=remedy) for one in wrong]
            return []
    if not isinstance(value, list | tuple) or not value:
        remedy = 'give a list of {"role": ..., "content": ...}, or drop the row'
        what = "the list of messages is empty" if value in ([], ()) else "messages must be a list"
        problems.append(Problem(what, remedy, column, shown(value)))
        return []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            remedy = 'write it as {"role": ..., "content": ...}'
            field = f"{column}[{index}]"
            problems.append(Problem("a message is not an object", remedy, field, shown(item)))
    return [(f"{column}[{index}].{{}}", item) for index, item in enumerate(value)]


def _add_input(row: Mapping[str, Any], message: dict, problems: list[Problem]) -> str:
    """Alpaca's input is added to the instruction; returns its column."""
    name = next((name for name in _INPUTS if _filled(row, name)), _INPUTS[0])
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        remedy = "write a string, or leave it empty"
        problems.append(Problem("the input must be a string", remedy, name, shown(value)))
    elif value and value.strip() and isinstance(message["content"], str):
        message["content"] += f"\n\n{value}"
    return name


def parse_json(text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, and what is wrong with it by the standard.

    Python's own decoder lets duplicate keys (the last one wins), NaN, and numbers beyond 64 bits
    pass, and half surrogate pairs, which no file can be written with.
    """
    problems: list[Problem] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            key = next(k for k, times in Counter(k for k, _ in pairs).items() if times > 1)
            value = shown([value for k, value in pairs if k == key])
            remedy = "keep one of them: a reader would silently drop the others"
            problems.append(Problem("an object has the same key twice", remedy, shown(key), value))
        return made

    def constant(name: str) -> None:
        remedy = "write null, or drop the key (pandas: df.to_json writes null)"
        problems.append(Problem("NaN and Infinity are not JSON", remedy, "", name))

    def number(digits: str) -> int | float | None:
        whole = digits.lstrip("-").isdigit()
        value = int(digits) if whole and len(digits) < 21 else float(digits)
        if math.isfinite(value) and (not whole or -(2**63) <= value < 2**63):
            return value
        remedy = "write it as a string: 64 bits do not hold it"
        problems.append(Problem("a number is too large", remedy, "", shown(digits)))
        return None

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant,
                           parse_int=number, parse_float=number)  # fmt: skip
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value, problems
    except UnicodeEncodeError as error:
        near = shown(error.object[max(0, error.start - 20) : error.end + 20])
        what = "half of a surrogate pair is not a character"
        return None, [Problem(what, "write the character whole, or remove it", "", near)]
    except (json.JSONDecodeError, RecursionError) as error:
        return None, [explain(error, text)]


def explain(error: json.JSONDecodeError | RecursionError, text: str) -> Problem:
    """Why a text is not JSON, with the place in it."""
    if isinstance(error, RecursionError):
        return replace(DEEP, value=shown(text[:61]))
    at, end = error.pos, len(text.rstrip())
    near = shown(text[max(0, at - 20) : at + 30])
    if error.msg == "Extra data":
        what, near, remedy = "text follows the row's end", shown(text[at:]), _ONE_LINE
    elif error.msg.startswith("Unterminated") or at >= end:
        at, near, what = end, shown(text[:end][-60:]), "the JSON ends before it is complete"
        remedy = f"the row is cut off or spread over lines: complete it, {_ONE_LINE}"
    elif "control character" in error.msg:
        what = "a raw control character stands in a string"
        remedy = f"write it escaped: {_ONE_LINE}"
    else:
        what, near = "not JSON", f"{near}: {error.msg}"
        remedy = f"strings and keys need double quotes, true, false, null lower case: {_ONE_LINE}"
    return Problem(what, remedy, f"column {at + 1}", near)
