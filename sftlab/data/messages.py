"""The one message type of the lab, what a conversation must be, and how a mistake is reported.

{"role": "system",    "content": "Be brief."}     optional, only first
{"role": "user",      "content": "2 + 2?"}        user and assistant take turns, the user begins
{"role": "assistant", "content": "4"}             `"train": False` keeps an answer out of the loss
{"role": "tool",      "content": "..."}           only between two turns of the assistant

data.jsonl, line 17, messages[1].content: the content is empty ('  '); write a text, or drop ...
file        line     field                what                 value    remedy
"""

import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)  # fmt: skip
from pydantic_core import PydanticCustomError

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_ROLE_NAMES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "ai": "assistant", "model": "assistant", "developer": "system", "observation": "tool",
    "function": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
"""Names of roles in other tools; upper and lower case are the same."""
_MAY_FOLLOW = {
    "user": (None, "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
_TURNS = {
    "user": "user and assistant take turns: merge the two messages, or drop one",
    "assistant": "the user begins, then they take turns: merge, move or drop the message",
    "tool": "a tool's result follows the assistant's call: put it after that message",
}

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 4, 3


def shown(value: Any) -> str:
    """A value in about 60 characters as Python writes it, control characters escaped."""
    if isinstance(value, bytes):
        value = value[:61].decode("utf-8", "backslashreplace")
    try:
        return _SHORT.repr(value)
    except RecursionError:
        return f"<a deeply nested {type(value).__name__}>"


@dataclass(frozen=True)
class Problem:
    """One mistake, with its place and what to do about it."""

    what: str  # in words that are the same for every row, so that mistakes can be counted
    remedy: str
    field: str = ""  # as the file names it: `conversations[2].value`
    value: str | None = None  # what is there, shortened
    file: str = ""
    line: int | None = None  # where the row begins, from 1; None in Parquet, which has no lines
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
    """Data that can't be used as it is.

    Args:
        problems: the reasons, or the first of them.
        total: how many there are.
    """

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
    name = value.strip().lower() if isinstance(value, str) else value
    return _ROLE_NAMES.get(name, name) if isinstance(name, str) else name


def _joined(content: Any) -> Any:
    """Text parts joined as chat templates print them; anything else stays, to be refused.

    [{"type": "text", "text": "2 + 2"}, {"type": "text", "text": "?"}]  ->  "2 + 2?"
    """
    parts = content if isinstance(content, list) else []
    texts = [p["text"] for p in parts if isinstance(p, Mapping) and {"type", "text"} <= p.keys()
             and p["type"] == "text" and isinstance(p["text"], str)]  # fmt: skip
    return "".join(texts) if texts and len(texts) == len(parts) else content


def _sound(content: str, info: ValidationInfo) -> str:
    if not content or content.isspace():
        raise PydanticCustomError("empty", "")
    if "\0" in content:
        at = content.index("\0")
        raise PydanticCustomError("nul", "", {"value": content[max(0, at - 20) : at + 20]})
    for token in info.context or ():
        if token in content:
            raise PydanticCustomError("control", "", {"value": token})
    return content


class _ChatMessage(BaseModel):
    """A message as a file writes it; keys that are not listed end up in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow")
    role: Annotated[Literal[ROLES], BeforeValidator(normal_role)] = Field(
        validation_alias=AliasChoices("role", "from")
    )
    content: Annotated[str, BeforeValidator(_joined), AfterValidator(_sound)] = Field(
        validation_alias=AliasChoices("content", "value")
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
"""pydantic's types of error, and ours: what is wrong, and the remedy."""


def check_messages(
    entries: Sequence[tuple[str, Mapping[str, Any]]], *, answered: bool, control: Sequence[str]
) -> tuple[list[Message], list[Problem], Counter[str]]:
    """The messages of a conversation, all that is wrong with them, and the keys not kept.

    Args:
        entries: for each message its place in the row, such as `messages[0].{}` with the key to
            be filled in, and the message as the row has it.
        answered: require an answer to learn: an assistant's message at the end, and at least one
            without `train: False`.
        control: tokens of a chat template, which no content may contain.
    """
    messages, problems, left_out, roles = [], [], Counter(), []
    for place, item in entries:
        # A Dataset fills keys that only other messages have with None.
        filled = {key: value for key, value in item.items() if value is not None}
        if filled.get("weight") in (0, 1):
            filled["train"] = bool(filled.pop("weight"))
        roles.append(normal_role(filled.get("role", filled.get("from"))))
        at_role = place.format("from" if "from" in item and "role" not in filled else "role")
        problems += [Problem(*one, at_role) for one in _out_of_turn(roles)]
        if call := next((key for key in ("tool_calls", "function_call") if filled.get(key)), None):
            what = "a message calls a tool outside its content"
            remedy = "write the call into the content as text, or drop the row"
            problems.append(Problem(what, remedy, place.format(call), shown(filled[call])))
        else:
            try:
                message = _ChatMessage.model_validate(filled, context=control)
                left_out.update(f"{place.partition('[')[0]}[].{key}" for key in message.model_extra)
                messages.append(message.model_dump(include=_KEPT, exclude_unset=True))
            except ValidationError as error:
                wrong = error.errors(include_url=False)
                if roles[-1] not in ROLES:
                    wrong = wrong[:1]  # the role, which comes first
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


def _out_of_turn(roles: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the place of the last role, and the remedy."""
    *earlier, role = roles
    before = next((one for one in reversed(earlier) if one != "system"), None)
    if role == "system" and earlier:
        remedy = "only the first message may be one: move or drop it"
        yield "a system message comes after the first message", remedy
    elif isinstance(role, str) and role in _MAY_FOLLOW and before not in _MAY_FOLLOW[role]:
        what = f"a message of the role {role} follows one of the role {before}"
        if before is None:
            what = f"the conversation begins with the role {role}"
        elif before == role:
            what = f"two {role} messages follow each other"
        yield what, _TURNS[role]


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
