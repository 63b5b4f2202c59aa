"""The one message type of the lab, and the one rule of what a conversation must be.

{"role": "system",    "content": "Be brief."}     optional, only first
{"role": "user",      "content": "2 + 2?"}        user and assistant take turns, the user begins
{"role": "assistant", "content": "4"}             `"train": False` keeps an answer out of the loss
{"role": "tool",      "content": "..."}           only between two turns of the assistant
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sftlab.data.problems import Problem, shown

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
_MAY_FOLLOW = {
    "user": (None, "assistant"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def _as_listed(index: int, key: str) -> str:
    return f"messages[{index}].{key}"


def faults(
    messages: Sequence[Message],
    *,
    answered: bool = True,
    control: Sequence[str] = (),
    name: Callable[[int, str], str] = _as_listed,
) -> Iterator[Problem]:
    """Everything that is wrong with one conversation, in the order of its messages.

    Args:
        messages: each with `role` and `content`, and perhaps `train`.
        answered: ask for an answer to learn: an assistant's message at the end, and one at least
            without `train: False`. A conversation that a model shall continue needs none.
        control: tokens of a chat template that no content may hold.
        name: how to call a message's key, given its index and the key; a file has its own names.
    """
    before: str | None = None
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in ROLES:
            yield Problem(
                what="the role is unknown",
                field=name(index, "role"),
                value=shown(role),
                remedy=f"use one of {', '.join(ROLES)}",
            )
        elif role == "system":
            if index:
                yield Problem(
                    what="a system message stands after the first place",
                    field=name(index, "role"),
                    remedy="only the first message may be one: move or drop it",
                )
        elif before not in _MAY_FOLLOW[role]:
            yield _out_of_turn(role, before, name(index, "role"))
        if role != "system":
            before = role if role in ROLES else None
            if role not in ROLES:
                return  # who speaks next can't be told any more
        yield from _content_faults(message["content"], name(index, "content"), control)
        if not isinstance(message.get("train", True), bool):
            yield Problem(
                what="train is neither true nor false",
                field=name(index, "train"),
                value=shown(message["train"]),
                remedy="write true or false, or leave it out",
            )
    if answered:
        yield from _answer_faults(messages, name)


def _out_of_turn(role: str, before: str | None, field: str) -> Problem:
    told = {
        "user": "the user and the assistant take turns: merge the two messages, or drop one",
        "assistant": "the user begins, then they take turns: merge, move or drop the message",
        "tool": "a tool answers what the assistant asked of it: put it after that message",
    }
    if before is None:
        what = f"the conversation begins with the role {role}"
    elif before == role:
        what = f"two {role} messages stand in a row"
    else:
        what = f"a message of the role {role} follows one of the role {before}"
    return Problem(what=what, field=field, remedy=told[role])


def _content_faults(content: Any, field: str, control: Sequence[str]) -> Iterator[Problem]:
    if content is None:
        yield Problem(
            what="the content is missing", field=field, remedy="write a text, or drop the row"
        )
        return
    if not isinstance(content, str):
        yield Problem(
            what="the content is no text",
            field=field,
            value=f"{shown(content)}, a {type(content).__name__}",
            remedy='write it as a string, or as a list of {"type": "text", "text": ...}',
        )
        return
    if not content or content.isspace():
        yield Problem(
            what="the content is empty",
            field=field,
            value=shown(content),
            remedy="write a text, or drop the message or the row",
        )
    if "\0" in content:
        at = content.index("\0")
        yield Problem(
            what="the content holds the character U+0000",
            field=field,
            value=shown(content[max(0, at - 20) : at + 20]),
            remedy="remove it: no text needs it, and some libraries end the text there",
        )
    for token in control:
        if token in content:
            yield Problem(
                what="the content holds what the chat template itself writes",
                field=field,
                value=shown(token),
                remedy="remove it, or the text would end its own turn",
            )


def _answer_faults(
    messages: Sequence[Message], name: Callable[[int, str], str]
) -> Iterator[Problem]:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        yield Problem(
            what="there is no message of the assistant",
            field=name(max(0, len(messages) - 1), "role"),
            remedy="add the answer that is to be learned, or drop the row",
        )
    elif messages[-1]["role"] != "assistant":
        yield Problem(
            what="the conversation ends without an answer",
            field=name(len(messages) - 1, "role"),
            value=shown(messages[-1]["role"]),
            remedy="end it with a message of the assistant: drop what comes after the last answer",
        )
    elif all(message.get("train") is False for message in answers):
        yield Problem(
            what="every answer has train: false, so nothing would be learned",
            field=name(len(messages) - 1, "train"),
            remedy="let one answer at least be trained on, or drop the row",
        )
