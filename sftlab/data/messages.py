"""The messages of a row in one form, however other tools write them, and what is wrong with them.

{"role": "system",    "content": "Be brief."}      optional, only first
{"role": "user",      "content": "2 + 2?"}         user and assistant take turns, the user begins
{"role": "assistant", "content": "4",              empty only beside reasoning or calls
 "train": false,                                   keeps an answer out of the loss
 "reasoning_content": "Two and two.",              what the model thinks before it answers
 "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}]}
{"role": "tool",      "content": "4"}              a call's result, between two answers

Every key is used, carried along by name, or refused by name.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from sftlab.data.problems import PROBLEMS, Problem, parse_json, problem, shown

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
NAMES = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
"""What other tools' files call things."""
_FOLLOWS = {
    "user": (None, "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}  # fmt: skip
FLAGS = "train weight loss loss_weight training trainable train_on_turn".split()
"""Keys by which tools say whether an answer is learned; true and false, or 1 and 0."""
REASONING = ("reasoning_content", "thinking", "reasoning")
DEEPEST = 40
"""Levels of nesting in a call or a definition of a tool; templates render by recursion."""


class Entry(NamedTuple):
    """A message as a row has it: its place (`messages[1].{}`, or a column), and what is there."""

    place: str
    item: Mapping[str, Any]
    prompt: bool = False  # of a prompt, whose answers are not learned


@dataclass
class Conversation:
    """One row, converted as far as possible."""

    messages: list[Message] = field(default_factory=list)  # not to be used if there are problems
    shape: str | None = None
    tools: list[dict[str, Any]] | None = None  # definitions, in OpenAI's form
    meta: dict[str, Any] = field(default_factory=dict)  # what is carried along, by name
    problems: list[Problem] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # columns, and keys such as `messages[].train`


def normal_role(value: Any) -> Any:
    """The role by its own name, whatever other tools call it."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return NAMES["roles"].get(name, name) if name else value


def is_nothing(value: Any) -> bool:
    """Whether it says nothing: null in a Parquet, an empty cell in a CSV, NaN in pandas."""
    empty = isinstance(value, str | list | tuple | Mapping) and not value
    return value is None or empty or (isinstance(value, float) and value != value)


def unsound(value: Any, control: Sequence[str] = ()) -> tuple[str, str] | None:
    """The kind of problem of a text somewhere in a value, and that text; None if all are sound."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                inner += [*one, *one.values()]
            elif isinstance(one, list | tuple):
                inner += one
            elif isinstance(one, str):
                held = next((token for token in ("\0", *control) if token in one), None)
                if held is not None:
                    return ("nul" if held == "\0" else "control"), held
                try:
                    one.encode()
                except UnicodeEncodeError as error:
                    return "string_unicode", one[max(0, error.start - 20) : error.end + 20]
        if not inner:
            return None
        level = inner
    return "deep", "..."


class _Function(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    name: Annotated[str, pydantic.Field(min_length=1)]
    arguments: dict[str, Any] = {}


class _Call(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    type: Literal["function"] = "function"
    id: str | None = None
    function: _Function


class _ChatMessage(pydantic.BaseModel):
    """A message whose keys have their own names; those that are not listed are in `model_extra`."""

    model_config = pydantic.ConfigDict(strict=True, extra="allow")
    role: Literal[ROLES]
    content: str
    train: bool | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


_KEYS = {
    "user": ("role", "content", "train"),
    "system": ("role", "content", "train"),
    "assistant": ("role", "content", "train", "reasoning_content", "tool_calls"),
    "tool": ("role", "content", "train", "tool_call_id", "name"),
}
"""The keys that a message of each role may have."""


def check_messages(
    found: Conversation,
    entries: Sequence[Entry],
    *,
    answered: bool,
    control: Sequence[str],
    carried: Iterable[str],
) -> None:
    """Add the messages, what they carry, and all that is wrong with them, to what was found."""
    roles, problems = [], found.problems
    for place, item, prompt in entries:
        # A Dataset fills keys that only other messages have with None.
        filled = {key: value for key, value in item.items() if value is not None}
        at_role = place.format("from" if "from" in item and "role" not in filled else "role")
        names = {"content": "value" if "value" in filled and "content" not in filled else "content"}
        problems += (wrong := _renamed(filled, place, names, prompt))
        roles.append(filled.get("role"))
        names["role"] = at_role.rpartition(".")[2]
        problems += _out_of_turn(roles, at_role)
        if not wrong:
            problems += _check_message(found, filled, place, names, control, carried)
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


def _check_message(
    found: Conversation,
    filled: dict[str, Any],
    place: str,
    names: Mapping[str, str],
    control: Sequence[str],
    carried: Iterable[str],
) -> list[Problem]:
    """Add a message in its own names, and what it carries; returns what is wrong with it."""

    def at(*path: Any) -> str:
        first, *rest = path
        inner = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in rest)
        return place.format(names.get(first, first)) + inner

    texts = [key for key in ("content", "reasoning_content", "tool_calls") if key in filled]
    wrong = {key: unsound(filled[key], control) for key in texts}
    problems = [problem(one[0], at(key), shown(one[1])) for key, one in wrong.items() if one]
    if problems and filled.get("role") in ROLES:
        return problems
    try:
        message = _ChatMessage.model_validate(filled)
    except pydantic.ValidationError as error:
        # The role comes first; where it is wrong, the rest of the message is not read.
        errors = error.errors()[: None if filled.get("role") in ROLES else 1]
        return [_invalid(one, at(*one["loc"])) for one in errors]
    kept = message.model_dump(exclude_unset=True, exclude=message.model_extra.keys())
    if not message.content.strip() and not {"reasoning_content", "tool_calls"} & kept.keys():
        problems.append(problem("empty", at("content"), shown(message.content)))
    if message.train and message.role != "assistant":
        problems.append(problem("train-role", at("train"), shown(message.role)))
    foreign = {key: kept.pop(key) for key in [*kept] if key not in _KEYS[message.role]}
    for key, value in {**foreign, **message.model_extra}.items():
        if key in carried or str(key).lower() in carried:
            found.meta[at(key)] = value
        elif not is_nothing(value):
            kind, name = "role-key" if key in foreign else "key", shown(key)
            problems.append(problem(kind, at(key), shown(value), name=name, role=message.role))
    if "tool_calls" in kept:
        kept["tool_calls"] = [{"type": "function", **call} for call in kept["tool_calls"]]
    column = place.partition("[")[0]
    own = {"role", "content"} if "train" in names else {"role", "content", "train"}
    found.used |= {f"{column}[].{key}" for key in kept.keys() - own}
    found.messages.append(kept)
    return problems


def _invalid(error: Mapping[str, Any], at: str) -> Problem:
    """The problem of an error of pydantic's."""
    (first, *inner), kind = error["loc"], error["type"]
    given = None if kind == "missing" else shown(error["input"])
    if kind == "missing" and not inner and "[" in at:  # else it is the cell of a column
        given = f"it has {shown(', '.join(map(str, error['input'])))}"
    if first == "tool_calls":
        kind = "call"
    elif kind == "missing" and not inner:
        kind = f"{first}-missing"
    return problem(kind if kind in PROBLEMS else "other", at, given, what=error["msg"])


def _renamed(
    filled: dict[str, Any], place: str, names: dict[str, str], prompt: bool
) -> list[Problem]:
    """Give the keys of a message their own names, in place; returns those that can't be read."""
    problems: list[Problem] = []
    for own, other in (("role", "from"), ("content", "value")):
        if own not in filled and other in filled:
            filled[own] = filled.pop(other)
    if "role" in filled:
        filled["role"] = normal_role(filled["role"])
    if isinstance(parts := filled.get("content"), list | tuple):
        filled["content"] = "".join(_text(part) or "" for part in parts)
        for index, part in enumerate(parts):
            if _text(part) is None:
                problems.append(problem("part", place.format(f"content[{index}]"), shown(part)))
    flags = {key: filled.pop(key) for key in FLAGS if key in filled}
    for key, value in flags.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            share = isinstance(value, float) and 0 < value < 1
            kind = "weight-share" if share else "bool_type"
            problems.append(problem(kind, place.format(key), shown(value)))
    if len({bool(value) for value in flags.values()}) > 1:
        problems.append(problem("flags-differ", place.format(next(iter(flags))), shown(flags)))
    elif flags:
        names["train"] = next(iter(flags))
        filled["train"] = bool(flags[names["train"]])
    if prompt and filled.get("role") == "assistant":
        if filled.get("train"):
            problems.append(problem("prompt-train", place.format(names["train"])))
        filled["train"] = False
    thoughts = {key: filled.pop(key) for key in REASONING if key in filled}
    thoughts = {k: value for k, value in thoughts.items() if not is_nothing(value)}
    thoughts = {k: value for k, value in thoughts.items() if str(value).strip()}
    twice = thoughts and str(filled.get("content")).lstrip().startswith("<think>")
    if twice or len({str(value) for value in thoughts.values()}) > 1:
        problems.append(problem("reasoning-twice", place.format(next(iter(thoughts)))))
    elif thoughts:
        names["reasoning_content"] = next(iter(thoughts))
        filled["reasoning_content"] = thoughts[names["reasoning_content"]]
    calls, other = filled.pop("tool_calls", None), None
    if filled.get("role") == "function_call":  # as ShareGPT writes a call
        other, names["tool_calls"] = filled.get("content"), names["content"]
        filled |= {"role": "assistant", "content": ""}
    elif not is_nothing(filled.get("function_call")):  # as OpenAI wrote it at first
        other, names["tool_calls"] = filled.pop("function_call"), "function_call"
    if other is not None:
        if not is_nothing(calls):
            problems.append(problem("call", place.format("tool_calls"), shown(calls)))
        calls = other
    if not is_nothing(calls):
        calls, wrong = parse_json(calls) if isinstance(calls, str) else (calls, [])
        calls = [calls] if isinstance(calls, Mapping) else calls
        if isinstance(calls, list | tuple):
            read = [_call(one) for one in calls]
            wrong += [one for _, found in read for one in found]
            calls = [call for call, _ in read]
        at = place.format(names.get("tool_calls", "tool_calls"))
        problems += [Problem(one.what, PROBLEMS["call"][1], at, one.value) for one in wrong]
        if not is_nothing(calls):  # the JSON text of null, or of an empty list
            filled["tool_calls"] = calls
    if "tool_calls" in filled or "reasoning_content" in filled:
        filled.setdefault("content", "")
    return problems


def _text(part: Any) -> str | None:
    """The text of a part of a content; None where it is anything else, or more than a text."""
    if not isinstance(part, Mapping):
        return None
    held = {key: value for key, value in part.items() if not is_nothing(value)}
    text = part.get("text")
    known = held.keys() <= {"type", "text"} and held.get("type", "text") == "text"
    return text if known and isinstance(text, str) else None


def _call(call: Any) -> tuple[Any, list[Problem]]:
    """A call in OpenAI's form, its arguments read from their JSON text."""
    if not isinstance(call, Mapping):
        return call, []
    held = {key: value for key, value in call.items() if value is not None}
    if "function" not in held:
        inner = {key: held.pop(key) for key in ("name", "arguments") if key in held}
        held["function"] = inner
    if not isinstance(held["function"], Mapping):
        return held, []
    function, wrong = dict(held["function"]), []
    arguments = function.get("arguments")
    if is_nothing(arguments):
        function["arguments"] = {}
    elif isinstance(arguments, str):
        function["arguments"], wrong = parse_json(arguments)
    return held | {"function": function}, wrong


def read_tools(value: Any, column: str) -> tuple[list[dict[str, Any]] | None, list[Problem]]:
    """Definitions of tools in OpenAI's form, or None; many files hold their JSON text."""
    wrong: list[Problem] = []
    if isinstance(value, str):
        value, wrong = parse_json(value) if value.strip() else (None, [])
    if wrong or not isinstance(value, list | tuple | None):
        return None, [problem("tools-type", column, wrong[0].value if wrong else shown(value))]
    tools = [_definition(one) for one in value or ()]
    bad = [index for index, tool in enumerate(tools) if tool is None]
    return tools or None, [problem("tools-type", f"{column}[{n}]", shown(value[n])) for n in bad]


def _definition(tool: Any) -> dict[str, Any] | None:
    if not isinstance(tool, Mapping):
        return None
    held = {key: value for key, value in tool.items() if value is not None}
    if "function" not in held:
        held = {"type": held.pop("type", "function"), "function": held}
    held = {"type": "function", **held}
    name = held["function"].get("name") if isinstance(held["function"], Mapping) else None
    named = isinstance(name, str) and bool(name.strip())
    return held if named and held["type"] == "function" else None


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
