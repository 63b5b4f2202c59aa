"""Check conversations before they train a model, and answer a mistake with its index and a remedy.

{"messages": [{"role": "system", "content": "Be brief."},        optional, only first
              {"role": "user", "content": "2 + 2?"},             user and assistant alternate
              {"role": "assistant", "content": "4"}]}            the last one is an assistant's
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROLES = ("system", "user", "assistant")
Message = Mapping[str, str]


class ExampleError(ValueError):
    """An example that can't be trained on; the message names its index, the value and a remedy."""


def check_examples(
    examples: Iterable[Mapping[str, Any]], *, control: Sequence[str] = ()
) -> list[dict[str, list[dict[str, str]]]]:
    """Plain copies of the examples, `messages` alone, when every one is sound.

    Args:
        examples: a list, or a `datasets.Dataset`, of rows with a column `messages`; other columns
            are dropped.
        control: tokens of the chat template that no content may hold.

    Raises:
        ExampleError: there is none, or one is wrong.
    """
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        raise ExampleError(
            f"examples is a {type(examples).__name__}; give a list of "
            '{"messages": [...]} or a Dataset with that column (one split of a DatasetDict)'
        )
    checked = []
    for index, example in enumerate(examples):
        if not isinstance(example, Mapping) or "messages" not in example:
            has = list(example) if isinstance(example, Mapping) else type(example).__name__
            raise ExampleError(
                f'example {index} has no "messages" (it has {has}); the form is {{"messages": '
                '[{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}'
            )
        where = f"example {index}"
        messages = check_messages(example["messages"], where=where, control=control)
        if messages[-1]["role"] != "assistant":
            raise ExampleError(
                f"{where} ends with the role {messages[-1]['role']!r}, so there is no answer to "
                "learn; end it with an assistant's message or drop it"
            )
        checked.append({"messages": messages})
    if not checked:
        raise ExampleError("there are no examples; give at least one conversation")
    return checked


def check_messages(
    messages: Any, *, where: str, control: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Plain copies of one conversation's messages when it is sound; `where` opens any error.

    Raises:
        ExampleError: a message, a role, the order of roles or a content is wrong.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ExampleError(f"{where}: messages is {messages!r}; give a list with one or more")
    plain: list[dict[str, str]] = []
    for position, message in enumerate(messages):
        at = f"{where}, message {position}"
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ExampleError(f'{at} is {message!r}; give {{"role": ..., "content": ...}}')
        # A Dataset fills the keys that only other rows have with None.
        extra = sorted(k for k in set(message) - {"role", "content"} if message[k] is not None)
        role, content = message["role"], message["content"]
        if extra:
            raise ExampleError(f"{at} has {extra} besides role and content; remove what is extra")
        if role not in ROLES:
            raise ExampleError(f"{at} has the role {role!r}; use one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise ExampleError(f"{at} has the content {content!r}; give some text or drop it")
        found = [token for token in control if token in content]
        if found:
            raise ExampleError(
                f"{at} holds {found[0]!r}, which the chat template itself writes; remove it, or "
                "the text would end its own turn"
            )
        spoken = [m["role"] for m in plain if m["role"] != "system"]
        expected = "assistant" if spoken and spoken[-1] == "user" else "user"
        if role == "system" and position:
            raise ExampleError(f"{at} is a system message; only the first message may be one")
        if role != "system" and role != expected:
            raise ExampleError(
                f"{at} has the role {role!r} where {expected!r} is due; user and assistant "
                "alternate and the user begins: merge or drop the message out of turn"
            )
        plain.append({"role": role, "content": content})
    return plain


def data_hash(examples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of checked examples, one line of JSON each, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
