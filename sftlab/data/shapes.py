"""A row of any shape as messages, tools and what it carries: `read_row` is the one way to read it.

shape               columns                                becomes
messages            messages: [{role, content}, ...]       as it is
sharegpt            conversations: [{from, value}, ...]    human -> user, gpt -> assistant,
                                                           function_call -> a call
prompt-completion   prompt, completion: texts, or lists    user, assistant (a list: its messages,
                    of messages as TRL takes them          of which the completion is learned)
alpaca              instruction, input, output             user (instruction, an empty line,
                                                           input), assistant

Each may have `system` and `tools`; a question may have `input` or `context`, which follows it after
an empty line, and `history` (pairs of question and answer), which comes before it. `split` says
which rows are held out. Columns of `CARRIED` go along in `meta`, as do those that the user names.
Any other column is refused, because nobody could tell whether the model should have learned it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sftlab.data.messages import (
    FLAGS,
    NAMES,
    REASONING,
    ROLES,
    Conversation,
    Entry,
    Message,
    check_messages,
    is_nothing,
    normal_role,
    read_tools,
    unsound,
)
from sftlab.data.problems import Problem, RecordsError, parse_json, problem, shown

SHAPES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("messages",),),
    "sharegpt": (("conversations", "conversation"),),
    "prompt-completion": (("prompt", "question"), ("completion", "response", "answer")),
    "alpaca": (("instruction",), ("output", "response")),
}
"""The columns that each shape needs, with the names that mean the same."""
COLUMNS = {name for columns in SHAPES.values() for names in columns for name in names}
CARRIED = frozenset(NAMES["carried"])
_INPUTS, _SYSTEMS = ("input", "context"), ("system", "system_prompt")
_TOOLS = ("tools", "functions")  # functions, as OpenAI called them at first
_ROLE = "|".join([*ROLES, *NAMES["roles"]])
_MESSAGES = re.compile(rf"""\s*\[\s*\{{[^{{}}]*["'](role|from)["']\s*:\s*["']({_ROLE})["']""", re.I)
"""How a list of messages begins in a cell of a CSV, as JSON or as Python writes it."""
_ANSWERS = re.compile("chosen|rejected|preferred_output")


def convert(row: Mapping[str, Any]) -> list[Message]:
    """The messages of a row in one of `SHAPES`; RecordsError with all that is wrong with it."""
    found = read_row(row)
    if found.problems:
        raise RecordsError(found.problems)
    return found.messages


def read_row(
    row: Any, *, answered: bool = True, control: Sequence[str] = (), meta: Sequence[str] = ()
) -> Conversation:
    """One row as messages, with all that is wrong with it.

    Args:
        answered: require an answer to learn at the end; a conversation to be continued needs none.
        control: tokens of a chat template, which no content may contain.
        meta: names of columns, and of keys of messages, that are carried along beside `CARRIED`.
    """
    if not isinstance(row, Mapping):
        return Conversation(problems=[problem("row-type", value=shown(row))])
    shape, columns = _detect(row)
    found = Conversation(shape=shape)
    if shape is None or None in columns:
        wrong = _unreadable(row, shape, columns)
        return Conversation(shape=shape if wrong.field in COLUMNS else None, problems=[wrong])
    carried, problems, used = {*CARRIED, *meta}, found.problems, {*columns}
    rest = {name: value for name, value in row.items() if name not in meta}  # that is read
    entries: list[Entry] = []
    for column, role in zip(columns, ("user", "assistant"), strict=False):
        value = row[column]
        pairs = isinstance(value, list | tuple) and value and isinstance(value[0], Mapping)
        pairs = pairs or (isinstance(value, str) and _MESSAGES.match(value))
        if len(columns) == 1 or (pairs and shape == "prompt-completion"):
            prompt = len(columns) == 2 and role == "user"
            entries += [Entry(*one, prompt) for one in _listed(column, value, problems)]
        elif _is_table(value):
            kind = "by-columns" if all(_is_table(row[name]) for name in columns) else "texts"
            problems.append(problem(kind, column, shown(value)))
        else:
            entries.append(Entry(column, {"role": role, "content": value}))
    asked = isinstance(row[columns[0]], str) and entries and entries[0].place == columns[0]
    if len(columns) == 2 and not problems and asked:
        entries = [*_history(rest, used, problems), *_with_input(rest, entries, used, problems)]
    if problems:
        return found
    system = next((name for name in _SYSTEMS if not is_nothing(rest.get(name))), None)
    first = entries[0].item
    if system is not None:
        if normal_role(first.get("role", first.get("from"))) != "system":
            entries.insert(0, Entry(system, {"role": "system", "content": row[system]}))
            used.add(system)
        elif row[system] != first.get("content", first.get("value")):
            problems.append(problem("two-systems", system, shown(row[system])))
            used.add(system)
    tools = next((name for name in _TOOLS if not is_nothing(rest.get(name))), _TOOLS[0])
    found.tools, wrong = read_tools(rest.get(tools), tools)
    problems += wrong
    if not wrong and (bad := unsound(found.tools, control)):
        problems.append(problem(bad[0], tools, shown(bad[1])))
    check_messages(found, entries, answered=answered, control=control, carried=carried)
    found.used |= {name for name in used if not is_nothing(row.get(name))}
    found.used |= {"tools"} if found.tools else set()
    used |= {tools} & rest.keys()
    _sort_out(found, {key: value for key, value in row.items() if key not in used}, carried)
    return found


def _sort_out(found: Conversation, others: Mapping[Any, Any], carried: set[str]) -> None:
    """Carry the other columns along, or refuse them."""
    for column in [key for key in others if str(key).lower() in ("meta", "metadata")]:
        nested = others[column]
        if isinstance(nested, Mapping) and all(isinstance(key, str) for key in nested):
            others = {key: value for key, value in others.items() if key != column}
            for key, value in nested.items():
                if key.lower() == "split" and "split" not in others:
                    others["split"] = value
                else:
                    taken = key in others or key in found.meta
                    found.meta[f"{column}.{key}" if taken else key] = value
    said = [message["content"] for message in found.messages]
    for key, value in others.items():
        lower = str(key).strip().lower()
        index = lower.startswith("unnamed: ") and str(value).isdigit()  # of pandas, in a CSV
        if lower == "split" and not is_nothing(value):
            name = str(value).strip().lower()
            side = next((one for one, names in NAMES["splits"].items() if name in names), None)
            found.problems += [] if side else [problem("split", str(key), shown(value))]
            found.meta["split"] = side
        elif isinstance(key, str) and (key in carried or lower in carried or index):
            found.meta[key] = value
        elif is_nothing(value):
            continue
        elif (
            (kind := _refusal(key, lower)) == "column" and isinstance(value, str) and value in said
        ):
            found.meta[key] = value  # a copy of what is there already
        else:
            name = shown(lower if kind == "capitals" else key)
            found.problems.append(problem(kind, str(key), shown(value), name=name))


def _refusal(key: Any, lower: str) -> str:
    """The kind of problem of a column that is not read, by its name."""
    if _ANSWERS.search(lower):
        return "preference-column"
    if "split" in lower:
        return "split-column"
    if lower != key and lower in {*_INPUTS, *_SYSTEMS, *_TOOLS, "history"}:
        return "capitals"
    if lower in {*FLAGS, *REASONING}:
        return "message-column"
    return next((kind for kind, names in NAMES["refused"].items() if lower in names), "column")


def _detect(row: Mapping[str, Any]) -> tuple[str | None, list[str | None]]:
    """The shape and the row's names of its columns, `None` for one that is missing: by cells with a
    value, or else by columns."""
    filled = {name for name in COLUMNS & row.keys() if not isinstance(row[name], str) or row[name]}
    filled -= {name for name in filled if row[name] is None}
    for present in (filled.__contains__, row.__contains__):
        found = {s: [next(filter(present, n), None) for n in SHAPES[s]] for s in SHAPES}
        for shape, columns in found.items():
            if None not in columns:
                return shape, columns
    shape, columns = max(found.items(), key=lambda one: sum(map(bool, one[1])))
    return (shape, columns) if any(columns) else (None, [])


def _unreadable(
    row: Mapping[str, Any], shape: str | None, columns: Sequence[str | None]
) -> Problem:
    """Why a row can't be read: what it is, where that is known, and how to rename its columns."""
    there = f"it has {shown(', '.join(map(str, row)) or 'no column')}"
    names = {str(key).strip().lower(): key for key in row if not is_nothing(row[key])}
    tree = row if "replies" in row else row.get("prompt")
    if isinstance(tree, Mapping) and "replies" in tree:
        return problem("tree", "", there)
    if any(map(_ANSWERS.search, names)):
        return problem("preference", "", there)
    if {"role", "from"} & names.keys() and {"content", "value", "text"} & names.keys():
        return problem("one-message", "", there)
    same = next((n for n in names if n in COLUMNS and names[n] != n), None)
    texts = {name: key for name, key in names.items() if not isinstance(row[key], Mapping)}
    asks = (NAMES["asked"], NAMES["answered"])
    pair = [next((name for name in one if name in texts), None) for one in asks]
    if None not in pair:
        asked, answered = (texts[name] for name in pair)
        fits = any(pair[0] in one[0] and pair[1] in one[-1] for one in SHAPES.values())
        into = zip((asked, answered), pair if fits else ("prompt", "completion"), strict=True)
        names = ", ".join(f"{shown(old)} to {new}" for old, new in into if old != new)
        words = {"asked": shown(asked), "answered": shown(answered), "names": names}
        return problem("rename", "", there, **words)
    if same is not None:
        return problem("capitals", str(names[same]), there, name=shown(same))
    if {*names} <= {"text", *CARRIED} and "text" in names:
        return problem("plain-text", "text", shown(row[names["text"]]))
    if shape is None:
        return problem("no-shape", "", there)
    lacking = SHAPES[shape][columns.index(None)][0]
    return problem("column-missing", lacking, there, shape=shape, name=lacking)


def _is_table(value: Any) -> bool:
    """Whether a cell holds many texts: the rows of a table that is written by its columns."""
    if isinstance(value, Mapping):  # pandas writes {"0": ..., "1": ...}
        value = [*value.values()] if all(str(key).isdigit() for key in value) else None
    many = isinstance(value, list | tuple) and len(value) > 0
    return many and all(isinstance(one, str) for one in value)


def _history(row: Mapping, used: set[str], problems: list[Problem]) -> list[Entry]:
    """Earlier turns, [[question, answer], ...]; their answers are learned, as by LLaMA-Factory."""
    turns = row.get("history")
    if is_nothing(turns):
        return []
    used.add("history")
    if isinstance(turns, str):
        turns = parse_json(turns)[0]
    entries = []
    for index, pair in enumerate(turns if isinstance(turns, list | tuple) else [None]):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            problems.append(problem("history", f"history[{index}]", shown(pair)))
            continue
        for place, (role, text) in enumerate(zip(("user", "assistant"), pair, strict=True)):
            entries.append(Entry(f"history[{index}][{place}]", {"role": role, "content": text}))
    return entries


def _with_input(
    row: Mapping, entries: list[Entry], used: set[str], problems: list[Problem]
) -> list[Entry]:
    """The question with its input or context after an empty line."""
    name = next((name for name in _INPUTS if not is_nothing(row.get(name))), _INPUTS[0])
    used.add(name)
    added = "" if is_nothing(row.get(name)) else row[name]
    if not isinstance(added, str):
        problems.append(problem("input-type", name, shown(added)))
    elif added.strip() and entries[0].item["content"].strip():
        asked = entries[0].item
        text = f"{asked['content']}\n\n{added}"
        return [entries[0]._replace(item=asked | {"content": text}), *entries[1:]]
    return entries


def _listed(column: str, value: Any, problems: list[Problem]) -> list[tuple[str, Mapping]]:
    """The messages of a list, each with its place; in a CSV the list is the JSON text of one."""
    if isinstance(value, str):
        value, wrong = parse_json(value)
        if wrong:
            if value is None:  # not JSON at all
                remedy = "a cell with messages holds JSON: write it with json.dumps, not with str"
                wrong = [replace(one, remedy=remedy) for one in wrong]
            problems += [replace(one, field=column, line=None) for one in wrong]
            return []
    listed = isinstance(value, list | tuple)
    if not listed or not value:
        kind = "no-messages" if listed else "messages-type"
        problems.append(problem(kind, column, shown(value)))
        return []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            problems.append(problem("message-type", f"{column}[{index}]", shown(item)))
    return [(f"{column}[{index}].{{}}", item) for index, item in enumerate(value)]
