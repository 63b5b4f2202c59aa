"""10,000 mutated rows: all that a row says is used, carried along, or refused by name; and what is
used is rendered, or counted as missing."""

import copy
import json
from random import Random

import pytest

from sftlab.chat import TemplateError, assistant_spans, find_template
from sftlab.data import read_row
from sftlab.data.messages import is_nothing
from sftlab.data.shapes import CARRIED, COLUMNS

CALL = {
    "id": "leaf1",
    "type": "function",
    "function": {"name": "leaf2", "arguments": {"a": "leaf3"}},
}
TOOLS = [{"type": "function", "function": {"name": "leaf4", "parameters": {"b": {"c": "leaf5"}}}}]
TURNS = [
    {"role": "system", "content": "leaf10"},
    {"role": "user", "content": [{"type": "text", "text": "leaf11"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "train": False},
    {"role": "tool", "content": "leaf12", "tool_call_id": "leaf1", "name": "leaf2"},
    {"role": "assistant", "content": "leaf13", "reasoning_content": "leaf14", "weight": 1},
]
SHARE = [
    {"from": "human", "value": "leaf20"},
    {"from": "function_call", "value": '{"name": "leaf2", "arguments": {"a": "leaf21"}}'},
    {"from": "observation", "value": "leaf22"},
    {"from": "gpt", "value": "leaf23"},
]
ROWS = [
    {"messages": TURNS, "tools": TOOLS, "id": "leaf30"},
    {"conversations": SHARE, "tools": json.dumps(TOOLS), "system": "leaf31", "split": "test"},
    {"prompt": "leaf32", "context": "leaf33", "completion": "leaf34", "meta": {"x": "leaf35"}},
    {"prompt": TURNS[:2], "completion": TURNS[2:], "url": "leaf36"},
    {"instruction": "leaf37", "input": "leaf8", "output": "leaf9", "history": [["leaf4", "leaf5"]]},
]  # fmt: skip
KEYS = [
    *sorted(COLUMNS), *sorted(CARRIED)[:5], "system", "tools", "context", "input", "history",
    "split",
    "role", "content", "from", "value", "train", "loss", "weight", "thinking", "tool_calls", "name",
    "function", "arguments", "type", "text", "image", "chosen", "label", "Prompt", "masked", "",
]  # fmt: skip
SAID = {
    *"user assistant system tool human gpt function_call observation function text test".split(),
    *"train held_out".split(), "",
}  # fmt: skip
"""Texts that say how to read a row, and do not come out of it."""


def places(value):
    """Every dictionary and list within a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) and value else []
    return own + [one for part in inner for one in places(part)]


def mutated(row, rng):
    """The row with one to three changes, and whether they are changes of order alone."""
    row, ordered = copy.deepcopy(row), True
    for number in range(rng.randint(1, 3)):
        new = f"new{number}leaf"
        values = [new, 7919 + number, None, True, 0.5, 0, [], {}, "", [new], {new: new}, [[new]]]
        place = rng.choice(places(row))
        change = rng.choice(["order", "rename", "add", "value", "wrap", "drop"])
        if isinstance(place, dict):
            key = rng.choice([*place])
            items = [*place.items()]
            if change == "order":
                rng.shuffle(items)
            elif change == "rename":
                name = rng.choice([*KEYS, new])
                items = [(name if k == key else k, v) for k, v in items if k != name]
            elif change == "add":
                items.append((rng.choice([*KEYS, new]), rng.choice(values)))
            elif change == "drop":
                items.remove((key, place[key]))
            else:
                wrapped = rng.choice([[place[key]], {"a": place[key]}])
                other = wrapped if change == "wrap" else rng.choice(values)
                items = [(k, other if k == key else v) for k, v in items]
            place.clear()
            place.update(items)
            ordered &= change == "order"
        else:
            at = rng.randrange(len(place))
            place.insert(rng.randrange(len(place) + 1), copy.deepcopy(place[at]))
            place[at] = rng.choice([place[at], *values])
            ordered = False
    return row, ordered


def leaves(value):
    """All texts and numbers of a value, those in a JSON text too, and names that we made up."""
    if isinstance(value, dict):
        for key, one in value.items():
            if "leaf" in str(key) and not is_nothing(one):
                yield key
            yield from leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, str) and value[:1] in ("[", "{"):
        yield from leaves(json.loads(value))
    elif not is_nothing(value) and not isinstance(value, bool) and value not in (0, 1):
        yield value


def unsaid(row, found):
    """What the row says and what was found does not."""
    said = json.dumps([found.messages, found.tools, found.meta])
    return [leaf for leaf in leaves(row) if leaf not in SAID and str(leaf) not in said]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_each_shape_is_read_whole(number):
    found = read_row(ROWS[number])
    assert found.problems == []
    assert unsaid(ROWS[number], found) == []


TEMPLATES = [find_template(name) for name in ("chatml", "qwen3", "glm4moe", "llama3_1")]


def unrendered(found, template):
    """Texts of messages, tools and calls that are neither in the render nor counted as missing."""
    try:
        made = assistant_spans(template, found.messages, tools=found.tools)
    except TemplateError:
        return []
    gone = {(one.message, one.part) for one in made.missing}
    parts = {"content": "content", "reasoning_content": "reasoning", "tool_calls": "tool call"}
    said = [
        (leaf, (n, part))
        for n, message in enumerate(found.messages)
        for key, part in parts.items()
        for leaf in leaves([one for one in (message.get(key),) if one])
    ]
    said += [(tool["function"]["name"], (None, "tool")) for tool in found.tools or ()]
    text = made.text.replace("\\n", "\n")
    return [
        leaf for leaf, at in said if "leaf" in str(leaf) and leaf not in text and at not in gone
    ]


@pytest.mark.parametrize("seed", range(10))
def test_what_a_mutated_row_says_is_used_carried_or_refused(seed):
    rng, accepted = Random(seed), 0
    for _ in range(1000):
        base = rng.choice(ROWS)
        row, ordered = mutated(base, rng)
        found = read_row(row)
        for problem in found.problems:
            assert problem.what, row
            assert problem.remedy, row
        if ordered:
            assert found == read_row(base), row
        if found.problems:
            continue
        accepted += 1
        assert unsaid(row, found) == [], (row, found)
        assert unrendered(found, rng.choice(TEMPLATES)) == [], (row, found)
        answers = [m for m in found.messages if m["role"] == "assistant"]
        assert any(m.get("train", True) for m in answers)
    assert accepted > 100
