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
"""

import json
import math
import reprlib
import string
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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
_FOLLOWS = {
    "user": (None, "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}  # fmt: skip
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
_PROBLEMS = tomllib.loads(Path(__file__).with_name("problems.toml").read_text(encoding="utf-8"))
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 4, 3


def shown(value: Any) -> str:
    """A value in about 60 characters as Python writes it, control characters escaped."""
    return _SHORT.repr(value)


@dataclass(frozen=True)
class Problem:
    """One mistake, with its place and what to do about it."""

    what: str  # in words that are the same for every row, so that mistakes can be counted
    remedy: str
    field: str = ""  # as the file names it: `conversations[2].value`
    value: str | None = None  # what is there, shortened
    file: str = ""
    line: int | None = None  # where the row begins, from 1; None in Parquet and JSON documents
    row: int | None = None  # from 1; None for what concerns the whole file

    @property
    def place(self) -> str:
        """`line 17`, or `row 17` where there are no lines, or nothing."""
        if self.line is not None:
            return f"line {self.line}"
        return f"row {self.row}" if self.row is not None else ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.file, self.place, self.field)))
        value = f" ({self.value})" if self.value else ""
        return ": ".join(filter(None, (where, f"{self.what}{value}; {self.remedy}")))


def problem(kind: str, field: str = "", value: str | None = None, **words: Any) -> Problem:
    """The problem of a kind of problems.toml, its $words filled in."""
    what, remedy = (string.Template(text).substitute(words) for text in _PROBLEMS[kind])
    return Problem(what, remedy, field, value)


class RecordsError(ValueError):
    """Data that can't be used as it is: its problems, or the first of `total`.

    data.jsonl, line 17, messages[1].content: the content is empty ('  '); write a text, or ...
    """

    def __init__(self, problems: Sequence[Problem], total: int | None = None):
        self.problems, self.total = tuple(problems), total or len(problems)
        lines = [str(problem) for problem in self.problems[:5]]
        if self.total > len(lines):
            lines.append(f"... and {self.total - len(lines):,} more; `sftlab validate` lists them")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # a sweep sends errors from one process to another
        return type(self), (self.problems, self.total)


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
        return Conversation(problems=[problem("row-type", value=shown(row))])
    shape, columns = _detect(row)
    found = Conversation(shape=shape)
    there = f"it has {shown(', '.join(map(str, row)) or 'no column')}"
    if shape is None:
        kind = "one-message" if {"role", "content"} <= row.keys() else "no-shape"
        return replace(found, problems=[problem(kind, "", there)])
    if None in columns:
        missing = SHAPES[shape][columns.index(None)][0]
        return replace(found, problems=[problem("column-missing", missing, there, shape=shape)])
    entries: list[tuple[str, Mapping]] = []  # of each message its place, and what is there
    for column, role in zip(columns, ("user", "assistant"), strict=False):
        value = row[column]
        pairs = isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
        if len(columns) == 1 or (pairs and shape == "prompt-completion"):
            entries += _listed(column, value, found.problems)
        else:
            entries.append((column, {"role": role, "content": value}))
    used = {*columns, "messages"}
    if shape == "alpaca":
        name = next((name for name in _INPUTS if row.get(name) not in _NOTHING), _INPUTS[0])
        used.add(name)
        added = row.get(name) or ""
        if not isinstance(added, str):
            found.problems.append(problem("input-type", name, shown(added)))
        elif added.strip() and isinstance(entries[0][1]["content"], str):
            entries[0][1]["content"] += f"\n\n{added}"
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
    _check_messages(found, entries, answered=answered, control=control)
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


def _listed(column: str, value: Any, problems: list[Problem]) -> list[tuple[str, Mapping]]:
    """The messages of a list, each with its place; in a CSV the list is the JSON text of one."""
    if isinstance(value, str):
        value, wrong = parse_json(value)
        if wrong:
            remedy = "a cell with messages holds JSON: write it with json.dumps, not with str"
            problems += [replace(one, field=column, line=None, remedy=remedy) for one in wrong]
            return []
    if not isinstance(value, list | tuple) or not value:
        kind = "no-messages" if value in ([], ()) else "messages-type"
        problems.append(problem(kind, column, shown(value)))
        return []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            problems.append(problem("message-type", f"{column}[{index}]", shown(item)))
    return [(f"{column}[{index}].{{}}", item) for index, item in enumerate(value)]


def normal_role(value: Any) -> Any:
    """The role by its own name, whatever other tools call it."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return _ROLE_NAMES.get(name, name) if name else value


def _sound(content: str, info: pydantic.ValidationInfo) -> str:
    if not content.strip():
        raise PydanticCustomError("empty", "")
    for token in ("\0", *(info.context or ())):
        if token in content:
            raise PydanticCustomError("nul" if token == "\0" else "control", "", {"value": token})
    return content


class _ChatMessage(pydantic.BaseModel):
    """A message as a file writes it; keys that are not listed end up in `model_extra`."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    role: Annotated[Literal[ROLES], pydantic.BeforeValidator(normal_role)] = pydantic.Field(
        validation_alias=pydantic.AliasChoices("role", "from")
    )
    content: Annotated[str, pydantic.AfterValidator(_sound)] = pydantic.Field(
        validation_alias=pydantic.AliasChoices("content", "value")
    )
    train: bool | None = None


def _check_messages(
    found: Conversation,
    entries: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    answered: bool,
    control: Sequence[str],
) -> None:
    """Add the messages, all that is wrong with them, and the keys not kept, to what was found."""
    roles, problems = [], found.problems
    for place, item in entries:
        # A Dataset fills keys that only other messages have with None.
        filled = {key: value for key, value in item.items() if value is not None}
        if filled.get("weight") in (0, 1):
            filled["train"] = bool(filled.pop("weight"))
        roles.append(normal_role(filled.get("role", filled.get("from"))))
        at_role = place.format("from" if "from" in item and "role" not in filled else "role")
        problems += _out_of_turn(roles, at_role)
        if call := next((key for key in ("tool_calls", "function_call") if filled.get(key)), None):
            problems.append(problem("tool-call", place.format(call), shown(filled[call])))
        else:
            try:
                message = _ChatMessage.model_validate(filled, context=control)
                keys = (f"{place.partition('[')[0]}[].{key}" for key in message.model_extra)
                found.left_out.update(keys)
                kept = message.model_dump(include={"role", "content", "train"}, exclude_unset=True)
                found.messages.append(kept)
            except pydantic.ValidationError as error:
                # The role comes first; where it is wrong, the rest of the message is not read.
                for one in error.errors()[: None if roles[-1] in ROLES else 1]:
                    key, kind = one["loc"][0], one["type"]
                    given = shown(one.get("ctx", {}).get("value", one["input"]))
                    if kind == "missing":
                        kind, given = f"{key}-missing", None
                    known = kind if kind in _PROBLEMS else "other"
                    problems.append(problem(known, place.format(key), given, what=one["msg"]))
        if roles[-1] not in ROLES:
            return  # the order can't be judged any further
    if answered and "assistant" not in roles:
        problems.append(problem("no-assistant", at_role))
    elif answered and roles[-1] != "assistant":
        problems.append(problem("no-answer", at_role, shown(roles[-1])))
    elif answered and not problems:
        answers = [message for message in found.messages if message["role"] == "assistant"]
        if all(message.get("train") is False for message in answers):
            problems.append(problem("no-training", place.format("train")))


def _out_of_turn(roles: Sequence[Any], at_role: str) -> list[Problem]:
    *earlier, role = roles
    before = next((one for one in reversed(earlier) if one != "system"), None)
    if role == "system":
        return [problem("system-late", at_role)] if earlier else []
    if role not in ROLES or before in _FOLLOWS[role]:
        return []
    order = f"a message of the role {role} follows one of the role {before}"
    if before is None:
        order = f"the conversation begins with the role {role}"
    elif before == role:
        order = f"two {role} messages follow each other"
    return [problem(f"{role}-turn", at_role, order=order)]


def parse_json(text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, and what is wrong with it that Python's decoder lets pass."""
    problems: list[Problem] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            value = shown([value for other, value in pairs if other == key])
            problems.append(problem("same-key", shown(key), value))
        return made

    def number(digits: str) -> int | float | None:
        whole = digits.lstrip("-").isdigit()
        value = int(digits) if whole and len(digits) < 21 else float(digits)
        if math.isfinite(value) and (not whole or -(2**63) <= value < 2**63):
            return value
        problems.append(problem("large-number", value=shown(digits)))
        return None

    def constant(name: str) -> None:
        problems.append(problem("nan", value=name))

    hooks = {"object_pairs_hook": unique, "parse_constant": constant}
    try:
        value = json.loads(text, **hooks, parse_int=number, parse_float=number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        return value, problems
    except UnicodeEncodeError as error:
        near = shown(error.object[max(0, error.start - 20) : error.end + 20])
        return value, [*problems, problem("string_unicode", value=near)]
    except RecursionError:
        return None, [problem("deep", value=shown(text[:61]))]
    except json.JSONDecodeError as error:
        return None, [_not_json(error, text)]


def _not_json(error: json.JSONDecodeError, text: str) -> Problem:
    """Why a text is not JSON, with the place in it."""
    at, end, kind = error.pos, len(text.rstrip()), "not-json"
    near = f"{shown(text[max(0, at - 20) : at + 30])}: {error.msg}"
    if error.msg == "Extra data":
        kind, near = "text-follows", shown(text[at:][:61])
    elif error.msg.startswith("Unterminated") or at >= end:
        kind, at, near = "cut-off", end, shown(text[:end][-60:])
    elif "control character" in error.msg:
        kind = "raw-control"
    found = problem(kind, f"column {at - text.rfind(chr(10), 0, at)}", near)
    return replace(found, line=text.count("\n", 0, at) + 1)
