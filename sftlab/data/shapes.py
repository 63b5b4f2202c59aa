"""The shapes in which supervised examples come, and how each becomes messages.

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

from collections.abc import Mapping, Sequence
from typing import Any

from sftlab.data.messages import Message, faults
from sftlab.data.problems import Problem, RecordsError, shown
from sftlab.data.turns import Conversation

SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("messages",),),
    "sharegpt": (("conversations", "conversation"),),
    "prompt-completion": (("prompt", "question"), ("completion", "response", "answer")),
    "alpaca": (("instruction",), ("output", "response")),
}
"""The columns that each shape needs, with the names that are taken for the same."""
INPUTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")
FORMS = (
    'a row needs "messages", "conversations", "prompt" and "completion", or "instruction" and '
    '"output": rename the columns'
)


def convert(row: Mapping[str, Any], *, shape: str | None = None) -> list[Message]:
    """The messages of one row, in the lab's message type.

    Args:
        row: a row in one of `SHAPES`.
        shape: take it for this one; otherwise the row's columns tell.

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

    Arguments as for `convert` and for `faults`.
    """
    if shape is not None and shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")
    found = Conversation()
    if not isinstance(row, Mapping):
        remedy = 'write each row as an object: {"messages": [...]}'
        found.fault("the row is no object", "", row, remedy)
        return found
    found.shape, columns = _detect(row, shape)
    if found.shape is None or None in columns:
        found.problems.append(_unfit(row, found.shape, columns))
        return found
    used = list(columns)
    if found.shape in ("messages", "sharegpt"):
        found.add_list(columns[0], row[columns[0]])
    else:
        asked, answer = columns
        before = len(found.messages)
        _add_side(found, asked, "user", row[asked])
        if found.shape == "alpaca" and len(found.messages) > before:
            used += _add_input(found, row)
        _add_side(found, answer, "assistant", row[answer])
    used += _add_system(found, row)
    found.meta = {key: row[key] for key in row if key not in used and key != "messages"}
    if found.meta.keys() == {"meta"} and isinstance(found.meta["meta"], Mapping):
        found.meta = dict(found.meta["meta"])  # the lab's own rows come back as they were
    if not found.problems:
        found.problems += faults(
            found.messages, answered=answered, control=control, name=found.name
        )
    return found


def _filled(row: Mapping[str, Any], name: str) -> bool:
    # A CSV has an empty cell, and a Parquet a null, where a row has no such column.
    return row.get(name) not in (None, "")


def _detect(row: Mapping[str, Any], shape: str | None) -> tuple[str | None, list[str | None]]:
    """The shape, and its columns by the row's own names, `None` for one that is missing."""
    among = SHAPES if shape is None else {shape: SHAPES[shape]}
    for known, needed in among.items():
        columns = [next((n for n in names if _filled(row, n)), None) for names in needed]
        if None not in columns:
            return known, columns
    best = (shape, [None] * len(SHAPES[shape] if shape else ()))
    most = 0
    for known, needed in among.items():
        columns = [next((n for n in names if n in row), None) for names in needed]
        there = sum(name is not None for name in columns)
        if there / len(columns) > most:
            best, most = (known, columns), there / len(columns)
    return best


def _unfit(row: Mapping[str, Any], shape: str | None, columns: list[str | None]) -> Problem:
    has = ", ".join(map(str, row)) if row else "no column"
    if shape is None and {"role", "content"} <= row.keys():
        return Problem(
            what="the row is one message, not a conversation",
            value=f"it has {shown(has)}",
            remedy='put all messages of a conversation into one row: {"messages": [...]}',
        )
    if shape is None:
        return Problem(
            what="the row has no known shape", value=f"it has {shown(has)}", remedy=FORMS
        )
    missing = SHAPES[shape][columns.index(None)][0]
    return Problem(
        what=f"a row of the shape {shape} lacks a column",
        field=missing,
        value=f"it has {shown(has)}",
        remedy="add what is missing, or drop the row",
    )


def _add_side(found: Conversation, column: str, role: str, value: Any) -> None:
    """A column that is one side of the conversation: a text, or a list of messages."""
    listed = isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
    if listed and found.shape == "prompt-completion":
        found.add_list(column, value)
    else:
        found.add(column, role, value)


def _add_input(found: Conversation, row: Mapping[str, Any]) -> list[str]:
    name = next((name for name in INPUTS if _filled(row, name)), None)
    if name is None:
        return [name for name in INPUTS[:1] if name in row]
    value, asked = row[name], found.messages[-1]
    if not isinstance(value, str):
        remedy = "write it as a string, or leave it empty"
        problem = Problem(
            what="the input is no text", field=name, value=shown(value), remedy=remedy
        )
        found.problems.append(problem)
    elif isinstance(asked["content"], str) and value.strip():
        asked["content"] = f"{asked['content']}\n\n{value}"
    return [name]


def _add_system(found: Conversation, row: Mapping[str, Any]) -> list[str]:
    name = next((name for name in SYSTEMS if _filled(row, name)), None)
    if name is None:
        return [name for name in SYSTEMS if name in row]
    if found.messages and found.messages[0]["role"] == "system":
        return []
    found.messages.insert(0, {"role": "system", "content": row[name]})
    found.places.insert(0, (name, "", ""))
    return [name]
