"""A row of any shape as messages (`read_row`), and how a mistake in it is reported.

shape               columns                                becomes
messages            messages: [{role, content}, ...]       as it is
sharegpt            conversations: [{from, value}, ...]    human -> user, gpt -> assistant
prompt-completion   prompt, completion: texts, or lists    user, assistant (a list: its messages)
                    of messages as TRL takes them
alpaca              instruction, input, output             user (instruction, an empty line,
                                                           input), assistant

{"role": "system",    "content": "Be brief."}     optional, only first; or a column `system`
{"role": "user",      "content": "2 + 2?"}        user and assistant take turns, the user begins
{"role": "assistant", "content": "4"}             `"train": False` keeps an answer out of the loss
{"role": "tool",      "content": "..."}           only between two turns of the assistant

data.jsonl, line 17, messages[1].content: the content is empty ('  '); write a text, or drop ...
file        line     field                what                 value    remedy
"""

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pydantic
from pydantic_core import PydanticCustomError

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_ROLE_NAMES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "ai": "assistant", "model": "assistant", "developer": "system", "observation": "tool",
    "function": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
"""Names of roles in other tools; upper and lower case are the same."""
_TURNS = {
    "user": ((None, "assistant"),
             "user and assistant take turns: merge the two messages, or drop one"),
    "assistant": (("user", "tool"),
                  "the user begins, then they take turns: merge, move or drop the message"),
    "tool": (("assistant", "tool"),
             "a tool's result follows the assistant's call: put it after that message"),
}  # fmt: skip
"""Of each role those that it may follow, and the remedy."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 4, 3


def shown(value: Any) -> str:
    """A value in about 60 characters as Python writes it, control characters escaped."""
    if isinstance(value, bytes):
        value = value[:61].decode("utf-8", "backslashreplace")
    return _SHORT.repr(value)


@dataclass(frozen=True)
class Problem:
    """One mistake, with its place and what to do about it."""

    what: str  # in words that are the same for every row, so that mistakes can be counted
    remedy: str
    field: str = ""  # as the file names it: `conversations[2].value`
    value: str | None = None  # what is there, shortened
    file: str = ""
    line: int | None = None  # where the row begins, from 1; None in Parquet and JSON arrays
    row: int | None = None  # from 1; None for what concerns the whole file

    @property
    def place(self) -> str:
        """`line 17`, or `row 17` where there are no lines, or nothing."""
        if self.line is not None:
            return f"line {self.line}"
        return f"row {self.row}" if self.row is not None else ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.file, self.place, self.field) if part)
        value = "" if self.value is None else f" ({self.value})"
        return f"{where}{': ' if where else ''}{self.what}{value}; {self.remedy}"


class RecordsError(ValueError):
    """Data that can't be used as it is: its problems, or the first of `total`."""

    def __init__(self, problems: Sequence[Problem], total: int | None = None):
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        lines = [str(problem) for problem in self.problems[:5]]
        if self.total > len(lines):
            lines.append(f"... and {self.total - len(lines):,} more; `sftlab validate` lists them")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # a sweep sends errors from one process to another
        return type(self), (self.problems, self.total)


def normal_role(value: Any) -> Any:
    """The role by its own name, whatever other tools call it."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return _ROLE_NAMES.get(name, name) if name else value


def _joined(content: Any) -> Any:
    """Text parts joined as chat templates print them; anything else stays, to be refused.

    [{"type": "text", "text": "2 + 2"}, {"type": "text", "text": "?"}]  ->  "2 + 2?"
    """
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, Mapping)
             and part.get("type") == "text" and isinstance(part.get("text"), str)]  # fmt: skip
    return "".join(texts) if texts and len(texts) == len(parts) else content


def _sound(content: str, info: pydantic.ValidationInfo) -> str:
    if not content.strip():
        raise PydanticCustomError("empty", "")
    for token in ("\0", *(info.context or ())):
        if token in content:
            at = content.index(token)
            value = content[max(0, at - 20) : at + 20] if token == "\0" else token
            raise PydanticCustomError("nul" if token == "\0" else "control", "", {"value": value})
    return content


class _ChatMessage(pydantic.BaseModel):
    """A message as a file writes it; keys that are not listed end up in `model_extra`."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    role: Annotated[Literal[ROLES], pydantic.BeforeValidator(normal_role)] = pydantic.Field(
        validation_alias=pydantic.AliasChoices("role", "from")
    )
    content: Annotated[str, pydantic.BeforeValidator(_joined), pydantic.AfterValidator(_sound)] = (
        pydantic.Field(validation_alias=pydantic.AliasChoices("content", "value"))
    )
    train: bool | None = None


_KEPT = {"role", "content", "train"}
_ERRORS = {
    "role missing": ("the role is missing", f"use one of {', '.join(ROLES)}"),
    "literal_error": ("the role is unknown", f"use one of {', '.join(ROLES)}"),
    "content missing": ("the content is missing", "write a text, or drop the row"),
    "empty": ("the content is empty", "write a text, or drop the message or the row"),
    "string_type": ("the content must be a string",
                    'write a string, or a list of {"type": "text", "text": ...}'),
    "string_unicode": ("half of a surrogate pair is not a character",
                       "write the character whole, or remove it"),
    "nul": ("the content contains the character U+0000",
            "remove it: no text needs it, and some libraries end the text there"),
    "control": ("the content contains a token of the chat template",
                "remove it, or the text would end its own turn"),
    "bool_type": ("train must be true or false", "write true or false, or leave it out"),
}  # fmt: skip
"""By pydantic's type of error, or ours: what is wrong, and the remedy."""


def check_messages(
    entries: Sequence[tuple[str, Mapping[str, Any]]], *, answered: bool, control: Sequence[str]
) -> tuple[list[Message], list[Problem], Counter[str]]:
    """The messages, all that is wrong with them, and the keys not kept.

    Of each message `entries` has the place in the row, such as `messages[0].{}`, and what is there.
    """
    messages, problems, left_out, roles = [], [], Counter(), []
    for place, item in entries:
        # A Dataset fills keys that only other messages have with None.
        filled = {key: value for key, value in item.items() if value is not None}
        if filled.get("weight") in (0, 1):
            filled["train"] = bool(filled.pop("weight"))
        roles.append(normal_role(filled.get("role", filled.get("from"))))
        at_role = place.format("from" if "from" in item and "role" not in filled else "role")
        problems += _out_of_turn(roles, at_role)
        if call := next((key for key in ("tool_calls", "function_call") if filled.get(key)), None):
            what = "a message calls a tool outside its content"
            remedy = "write the call into the content as text, or drop the row"
            problems.append(Problem(what, remedy, place.format(call), shown(filled[call])))
        else:
            try:
                message = _ChatMessage.model_validate(filled, context=control)
                left_out.update(f"{place.partition('[')[0]}[].{key}" for key in message.model_extra)
                messages.append(message.model_dump(include=_KEPT, exclude_unset=True))
            except pydantic.ValidationError as error:
                # The role comes first; where it is wrong, the rest of the message is not read.
                wrong = error.errors(include_url=False)[: None if roles[-1] in ROLES else 1]
                problems += [_as_problem(one, place) for one in wrong]
        if roles[-1] not in ROLES:
            return messages, problems, left_out  # the order can't be judged any further
    if answered:
        problems += _without_answer(roles, messages, at_role, place.format("train"))
    return messages, problems, left_out


def _as_problem(error: Mapping[str, Any], place: str) -> Problem:
    key, kind, value = str(error["loc"][0]), error["type"], error["input"]
    kind = f"{key} missing" if kind == "missing" else kind
    what, remedy = _ERRORS.get(kind, (error["msg"], "write it as other messages do"))
    given = shown(error.get("ctx", {}).get("value", value))
    if kind == "string_type":
        given = f"got {type(value).__name__}: {given}"
    return Problem(what, remedy, place.format(key), None if "missing" in kind else given)


def _out_of_turn(roles: Sequence[Any], at_role: str) -> Iterator[Problem]:
    *earlier, role = roles
    before = next((one for one in reversed(earlier) if one != "system"), None)
    if role == "system" and earlier:
        remedy = "only the first message may be one: move or drop it"
        yield Problem("a system message comes after the first message", remedy, at_role)
    elif isinstance(role, str) and role in _TURNS and before not in _TURNS[role][0]:
        what = f"a message of the role {role} follows one of the role {before}"
        if before is None:
            what = f"the conversation begins with the role {role}"
        elif before == role:
            what = f"two {role} messages follow each other"
        yield Problem(what, _TURNS[role][1], at_role)


def _without_answer(
    roles: Sequence[str], messages: Sequence[Message], at_role: str, at_train: str
) -> Iterator[Problem]:
    trained = [one.get("train", True) for one in messages if one["role"] == "assistant"]
    if "assistant" not in roles:
        what = "there is no message of the assistant"
        yield Problem(what, "add the answer that is to be learned, or drop the row", at_role)
    elif roles[-1] != "assistant":
        remedy = "end it with a message of the assistant: drop what comes after the last answer"
        yield Problem("the conversation ends without an answer", remedy, at_role, shown(roles[-1]))
    elif len(trained) == roles.count("assistant") and not any(trained):
        what = "every answer has train: false, so nothing would be learned"
        yield Problem(what, "train on at least one answer, or drop the row", at_train)


SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("messages",),),
    "sharegpt": (("conversations", "conversation"),),
    "prompt-completion": (("prompt", "question"), ("completion", "response", "answer")),
    "alpaca": (("instruction",), ("output", "response")),
}
"""The columns that each shape needs, with the names that mean the same."""
COLUMNS = {name for columns in SHAPES.values() for names in columns for name in names}
_INPUTS, _SYSTEMS = ("input", "context"), ("system", "system_prompt")
_NOTHING = (None, "")  # where a row has no such column, a Parquet has a null, a CSV an empty cell
_ONE_LINE = "write each row with json.dumps on one line"


@dataclass
class Conversation:
    """One row, converted as far as possible."""

    messages: list[Message] = field(default_factory=list)  # not to be used if there are problems
    shape: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)  # the other columns
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # keys of messages: `messages[].name`


def convert(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row in one of `SHAPES`; RecordsError with all that is wrong with it."""
    found = read_row(row)
    if found.problems:
        raise RecordsError(found.problems)
    return found.messages


def read_row(row: Any, *, answered: bool = True, control: Sequence[str] = ()) -> Conversation:
    """One row as messages, with all that is wrong with it.

    Args:
        answered: require an answer to learn at the end; a conversation to be continued needs none.
        control: tokens of a chat template, which no content may contain.
    """
    if not isinstance(row, Mapping):
        remedy = 'write each row as an object: {"messages": [...]}'
        return Conversation(problems=[Problem("the row is not an object", remedy, "", shown(row))])
    shape, columns = _detect(row)
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
    system = next((name for name in _SYSTEMS if row.get(name) not in _NOTHING), None)
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


def _detect(row: Mapping[str, Any]) -> tuple[str | None, list[str | None]]:
    """The shape and the row's names of its columns, `None` for one that is missing.

    By cells with a value, or else by columns; of an incomplete shape most must be there.
    """
    for present in (lambda name: row.get(name) not in _NOTHING, row.__contains__):
        found = {s: [next(filter(present, n), None) for n in SHAPES[s]] for s in SHAPES}
        for shape, columns in found.items():
            if None not in columns:
                return shape, columns
    shape, columns = max(found.items(), key=lambda one: sum(map(bool, one[1])))
    return (shape, columns) if any(columns) else (None, [])


def _unfit(row: Mapping[str, Any], shape: str | None, columns: list[str | None]) -> Problem:
    value = f"it has {shown(', '.join(map(str, row)) or 'no column')}"
    if shape is not None:
        missing = SHAPES[shape][columns.index(None)][0]
        what = f"a row of the shape {shape} lacks a column"
        return Problem(what, "add what is missing, or drop the row", missing, value)
    if {"role", "content"} <= row.keys():
        remedy = 'put all messages of a conversation into one row: {"messages": [...]}'
        return Problem("the row is one message, not a conversation", remedy, "", value)
    remedy = (
        'a row needs "messages", "conversations", "prompt" and "completion", or '
        '"instruction" and "output": rename the columns'
    )
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
            what, remedy = "a message is not an object", 'write it as {"role": ..., "content": ...}'
            problems.append(Problem(what, remedy, f"{column}[{index}]", shown(item)))
    return [(f"{column}[{index}].{{}}", item) for index, item in enumerate(value)]


def _add_input(row: Mapping[str, Any], message: dict, problems: list[Problem]) -> str:
    """Alpaca's input is added to the instruction; returns its column."""
    name = next((name for name in _INPUTS if row.get(name) not in _NOTHING), _INPUTS[0])
    value = row.get(name) or ""
    if not isinstance(value, str):
        remedy = "write a string, or leave it empty"
        problems.append(Problem("the input must be a string", remedy, name, shown(value)))
    elif value.strip() and isinstance(message["content"], str):
        message["content"] += f"\n\n{value}"
    return name


def parse_json(text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, and what is wrong with it that Python's decoder lets pass."""
    problems: list[Problem] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            value = shown([value for other, value in pairs if other == key])
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
        return Problem("the nesting is too deep", "flatten or drop the row", "", shown(text[:61]))
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
