"""A row's conversation while it is converted: its messages, and what each is called in the file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftlab.data.json_text import Reader
from sftlab.data.messages import Message
from sftlab.data.problems import Problem, shown

ROLE_NAMES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "ai": "assistant", "model": "assistant", "developer": "system", "observation": "tool",
    "function": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
"""Names that other tools give to the roles; upper and lower case are taken for the same."""
CALLS = ("tool_calls", "function_call")


@dataclass
class Conversation:
    """One row, converted as far as that went."""

    messages: list[Message] = field(default_factory=list)
    """The messages; not to be used when there are problems."""
    shape: str | None = None
    """The shape that the row has; `None` when it has none that is known."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The other columns."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong; each names the row's own columns."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Keys of messages that neither `messages` nor `meta` holds: `messages[].name`."""
    places: list[tuple[str, str, str]] = field(default_factory=list)
    """For each message: what the file calls it, its role and its content, the latter two as ends
    of the former (`conversations[0]`, `.from`, `.value`; or `prompt` and twice nothing)."""

    def name(self, index: int, key: str) -> str:
        """What the file calls a message's key."""
        place, role, content = self.places[index]
        return place + {"role": role, "content": content}.get(key, f".{key}")

    def add(self, column: str, role: str, content: Any) -> None:
        """A column that is one message."""
        self.messages.append({"role": role, "content": content})
        self.places.append((column, "", ""))

    def fault(self, what: str, field: str, value: Any, remedy: str) -> None:
        """Note that something is wrong."""
        self.problems.append(Problem(what=what, field=field, value=shown(value), remedy=remedy))

    def add_list(self, column: str, value: Any) -> None:
        """A column with a list of messages; in a CSV, the JSON text of one."""
        if isinstance(value, str):
            reader = Reader()
            value = reader.decode_all(value)
            if reader.problems:
                remedy = "a cell with messages holds JSON: write it with json.dumps, not with str"
                self.problems += [replace(p, field=column, remedy=remedy) for p in reader.problems]
                return
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            empty = isinstance(value, Sequence) and not isinstance(value, str)
            what = "the list of messages is empty" if empty else "the messages are no list"
            remedy = 'give a list of {"role": ..., "content": ...}, or drop the row'
            self.fault(what, column, value, remedy)
            return
        for index, item in enumerate(value):
            place = f"{column}[{index}]"
            if isinstance(item, Mapping):
                self._add_message(column, place, item)
            else:
                remedy = 'write it as {"role": ..., "content": ...}'
                self.fault("a message is no object", place, item, remedy)

    def _add_message(self, column: str, place: str, item: Mapping[str, Any]) -> None:
        role_key = "from" if item.get("role") is None and "from" in item else "role"
        content_key = "value" if item.get("content") is None and "value" in item else "content"
        role, content = item.get(role_key), item.get(content_key)
        if isinstance(role, str):
            role = role.strip().lower()
            role = ROLE_NAMES.get(role, role)
        message = {"role": role, "content": _joined(content)}
        for key, value in item.items():
            if key in (role_key, content_key) or value is None:
                continue  # a Dataset fills the keys that only other messages have with None
            if key == "train" or (key == "weight" and value in (0, 1)):
                message["train"] = bool(value) if key == "weight" else value
            elif key in CALLS and value:
                remedy = "write the call into the content as text, or drop the row"
                self.fault("a message calls a tool outside its content", f"{place}.{key}", value,
                           remedy)  # fmt: skip
            else:
                self.left_out[f"{column}[].{key}"] += 1
        self.messages.append(message)
        self.places.append((place, f".{role_key}", f".{content_key}"))


def _joined(content: Any) -> Any:
    """The texts of a list of text parts, one after the other as chat templates print them.

    [{"type": "text", "text": "2 + 2"}, {"type": "text", "text": "?"}]  ->  "2 + 2?"

    Anything else comes back as it is: an image among the parts is for the rule to refuse.
    """
    if not isinstance(content, list) or not content:
        return content
    texts = [
        part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        for part in content
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content
