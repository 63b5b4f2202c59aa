"""Check conversations before they train a model, and answer a mistake with its index and a remedy.

{"messages": [{"role": "system", "content": "Be brief."},        optional, only first
              {"role": "user", "content": "2 + 2?"},             user and assistant alternate
              {"role": "assistant", "content": "4"}]}            the last one is an assistant's
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftlab.data import Message, read_row

VALIDATION = "validation example"
"""What an error calls an example that is not trained on."""


class ExampleError(ValueError):
    """An example that can't be trained on; the message names its index, the value and a remedy."""


def check_examples(
    examples: Iterable[Mapping[str, Any]], *, control: Sequence[str] = (), name: str = "example"
) -> list[dict[str, list[Message]]]:
    """Plain copies of the examples, `messages` alone, when every one is sound.

    Args:
        examples: a list, or a `datasets.Dataset`, of rows in any shape that `sftlab.data.read`
            reads, such as `{"messages": [...]}`; other columns are dropped.
        control: tokens of the chat template that no content may hold.
        name: what an error calls one of them.

    Raises:
        ExampleError: there is none, or one is wrong.
    """
    if isinstance(examples, str | bytes | Mapping) or not isinstance(examples, Iterable):
        raise ExampleError(
            f"{name}s is a {type(examples).__name__}; give a list of "
            '{"messages": [...]} or a Dataset with that column (one split of a DatasetDict)'
        )
    checked = [
        {"messages": _sound(example, where=f"{name} {index}", control=control, answered=True)}
        for index, example in enumerate(examples)
    ]
    if not checked:
        raise ExampleError(f"there are no {name}s; give at least one conversation")
    return checked


def check_messages(messages: Any, *, where: str, control: Sequence[str] = ()) -> list[Message]:
    """Plain copies of a conversation that waits for its next answer; `where` opens any error.

    Raises:
        ExampleError: a message, a role, the order of roles or a content is wrong.
    """
    return _sound({"messages": messages}, where=where, control=control, answered=False)


def _sound(row: Any, *, where: str, control: Sequence[str], answered: bool) -> list[Message]:
    found = read_row(row, answered=answered, control=control)
    if found.problems:
        first = found.problems[0]
        at = ", ".join(filter(None, [where, first.field]))
        value = f" ({first.value})" if first.value else ""
        raise ExampleError(f"{at}: {first.what}{value}; {first.remedy}")
    if found.left_out:
        key = next(iter(found.left_out))
        raise ExampleError(
            f"{where}, {key}: nothing is learned from this key of a message; remove it"
        )
    return found.messages


def data_hash(examples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of checked examples, one line of JSON each, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
