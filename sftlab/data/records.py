"""Read supervised examples from a file: validated as a stream first, then loaded.

    file -> streams (rows with lines) -> shapes (messages, meta) -> Report, or a Dataset

A row of the Dataset: {"messages": [{"role", "content"}, ...], "meta": {the other columns}}.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.data.json_text import DEEP
from sftlab.data.problems import Problem, RecordsError, shown
from sftlab.data.report import Report
from sftlab.data.rows import Row
from sftlab.data.shapes import convert, read_row
from sftlab.data.streams import Stream
from sftlab.data.turns import Conversation

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Problem", "RecordsError", "Report", "convert", "read", "validate"]

CHUNK = 2_000
"""Rows that are Python's objects at once while a Dataset is built."""
DEEPEST = 100
"""Levels that a column in `meta` may have: writers of JSON and Arrow stop at some depth."""


def validate(
    path: str | Path,
    *,
    limit: int = 100,
    good: str | Path | None = None,
    bad: str | Path | None = None,
) -> Report:
    """Check every row of a file, in memory that does not grow with it.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet, told by its name's ending.
        limit: how many problems the report holds; all are counted.
        good: write the good rows here, as JSONL with `messages` and the other columns.
        bad: write the bad rows here, as JSONL with `line`, `problems`, and `value`, or `text`
            where it could not be read.

    Raises:
        RecordsError: there is no such file, its format is not known, or `good` or `bad` is the
            file itself.
    """
    if limit < 0:
        raise ValueError(f"limit={limit}: give 0 or more")
    stream = Stream(path)
    report = Report(file=str(path), format=stream.format, limit=limit)
    with ExitStack() as open_files:
        keep, reject = _outputs(open_files, path, good, bad)
        for row, found in _checked(stream, report):
            if found.problems and row.counts and reject:
                reject(_rejected(row, report.rows, found))
            elif row.counts and not found.problems and keep:
                keep(_kept(found))
    report.close(stream)
    return report


def read(path: str | Path, *, bad: str | Path = "raise") -> "Dataset":
    """The rows of a file as a `datasets.Dataset` of `messages` and `meta`.

    The file is read twice: once to check it whole, once to load it. The Dataset is in memory, as
    Arrow; nothing is written to a cache. Where a message of the file has `train`, all have: true
    for what is trained on. `meta` has the type `datasets.Json`, so that its values may differ in
    type from row to row.

    Args:
        path: as for `validate`.
        bad: "raise" when a row is wrong, "drop" such rows, or the path of a JSONL file that they
            are written to, each with its problems.

    Raises:
        RecordsError: a row is wrong and `bad` is "raise", no row is good, or the file itself is
            not sound: it is cut off, say.
    """
    aside = None if bad in ("raise", "drop") else bad
    report = validate(path, bad=aside)
    if (report.bad and bad == "raise") or report.broken or not report.good:
        raise RecordsError(report.problems, total=report.problems_total)
    return _load(path, report)


def _load(path: str | Path, report: Report) -> "Dataset":
    from datasets import Dataset, Features, Json, List, Value, concatenate_datasets

    message = {"role": Value("string"), "content": Value("string")}
    if report.has_train:
        message["train"] = Value("bool")
    features = Features({"messages": List(message), "meta": Json()})
    parts, rows = [], []
    for row, found in _checked(Stream(path), Report(file=str(path), format="", limit=0)):
        if found.problems or not row.counts:
            continue
        if report.has_train:
            # Arrow fills what is missing with None, which would pass for "not trained on".
            found.messages = [{"train": m["role"] == "assistant"} | m for m in found.messages]
        rows.append({"messages": found.messages, "meta": found.meta})
        if len(rows) == CHUNK:
            parts.append(Dataset.from_list(rows, features=features))
            rows = []
    if rows or not parts:
        parts.append(Dataset.from_list(rows, features=features))
    return concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _checked(stream: Stream, report: Report) -> Iterator[tuple[Row, Conversation]]:
    """Each row with what it became; the report has counted it."""
    for row in stream:
        found = Conversation(problems=row.problems) if row.problems else _read(row.value)
        report.count(row, found)
        yield row, found


def _read(value: Any) -> Conversation:
    try:
        found = read_row(value)
        deep = [name for name, item in found.meta.items() if _too_deep(item, DEEPEST)]
    except RecursionError:
        found, deep = Conversation(), [""]
    if deep:
        found.fault(DEEP, deep[0], value, "flatten or drop it")
    return found


def _too_deep(value: Any, left: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return left == 0 or any(_too_deep(item, left - 1) for item in value)


def _outputs(
    stack: ExitStack, path: str | Path, good: str | Path | None, bad: str | Path | None
) -> tuple[Callable | None, ...]:
    given = {"the file that is read": path, "good": good, "bad": bad}
    resolved = {name: os.path.realpath(p) for name, p in given.items() if p is not None}
    if len(set(resolved.values())) < len(resolved):
        problem = Problem(
            file=str(path),
            what="rows would be written over each other",
            value=", ".join(f"{name}: {given[name]}" for name in resolved),
            remedy="give each its own file",
        )
        raise RecordsError([problem])

    def opened(target: str | Path | None) -> Callable | None:
        if target is None:
            return None
        file = Path(target).open("w", encoding="utf-8", newline="\n")  # noqa: SIM115
        stack.callback(file.close)
        return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return opened(good), opened(bad)


def _kept(found: Conversation) -> dict[str, Any]:
    return {"messages": found.messages, **found.meta}


def _rejected(row: Row, number: int, found: Conversation) -> dict[str, Any]:
    told = [
        {"field": p.field, "value": p.value, "what": p.what, "remedy": p.remedy}
        for p in found.problems
    ]
    where = {"row": number} if row.line is None else {"line": row.line}
    held = {"text": row.text} if row.text is not None else {"value": row.value}
    try:
        json.dumps(held, ensure_ascii=False).encode()
    except (RecursionError, UnicodeEncodeError):
        held = {"text": shown(row.value)}
    return {**where, "problems": told, **held}
