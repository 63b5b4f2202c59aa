"""What is wrong with data, with its place and what to do about it, and JSON read strictly.

data.jsonl, line 17, messages[1].content: the content is empty ('  '); write a text, or ...
"""

import json
import math
import reprlib
import string
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PROBLEMS = tomllib.loads(Path(__file__).with_name("problems.toml").read_text(encoding="utf-8"))
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 4, 3


def shown(value: Any) -> str:
    """A value in about 60 characters as Python writes it, control characters escaped."""
    return _SHORT.repr(value)


def printable(text: str, most: int = 1000) -> str:
    """A name as it can be printed and encoded: a terminal obeys control characters."""
    text = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested in more levels."""
    level = [value]
    for _ in range(levels + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        level = [o for one in level for o in (one.values() if isinstance(one, dict) else one)]
    return bool(level)


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

    def __post_init__(self):
        object.__setattr__(self, "file", printable(self.file))
        object.__setattr__(self, "field", printable(self.field, 100))

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
    what, remedy = (string.Template(text).substitute(words) for text in PROBLEMS[kind])
    return Problem(what, remedy, field, value)


class RecordsError(ValueError):
    """Data that can't be used as it is: its problems, or the first of `total`."""

    def __init__(self, problems: Sequence[Problem], total: int | None = None):
        self.problems, self.total = tuple(problems), total or len(problems)
        lines = [str(problem) for problem in self.problems[:5]]
        if self.total > len(lines):
            lines.append(f"... and {self.total - len(lines):,} more; `sftlab validate` lists them")
        super().__init__("\n".join(lines))

    def __reduce__(self):  # a sweep sends errors from one process to another
        return type(self), (self.problems, self.total)


def parse_json(text: str) -> tuple[Any, list[Problem]]:
    """The value of a JSON text, and what is wrong with it that Python's decoder lets pass."""
    found: dict[str, Problem] = {}  # the first of each kind: a row may have a million

    def note(kind: str, value: str, field: str = "") -> None:
        if kind not in found:
            found[kind] = problem(kind, field, value)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            value = shown([value for other, value in pairs if other == key])
            note("same-key", value, shown(key))
        return made

    def number(digits: str) -> int | float | None:
        whole = digits.lstrip("-").isdigit()
        value = int(digits) if whole and len(digits) < 21 else float(digits)
        if math.isfinite(value) and (not whole or -(2**63) <= value < 2**63):
            return value
        note("large-number", shown(digits))
        return None

    hooks = {"object_pairs_hook": unique, "parse_constant": lambda name: note("nan", name)}
    try:
        value = json.loads(text, **hooks, parse_int=number, parse_float=number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        # What is read can be written: json needs some levels of Python's stack for each of its own.
        if text.count("[") + text.count("{") > 500 and deeper(value, 500):
            raise RecursionError
        return value, [*found.values()]
    except UnicodeEncodeError as error:
        near = shown(error.object[max(0, error.start - 20) : error.end + 20])
        return value, [*found.values(), problem("string_unicode", value=near)]
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
