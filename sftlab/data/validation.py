"""Validate a file of examples as a stream, and load it.

    file -> formats (rows with lines) -> shapes (messages, meta) -> Report, or a Dataset

A row of the Dataset: {"messages": [{"role", "content"}, ...], "meta": {the other columns}}.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.data.formats import DataFile, FileRow
from sftlab.data.messages import Problem, RecordsError, shown
from sftlab.data.shapes import DEEP, Conversation, read_row

if TYPE_CHECKING:
    from datasets import Dataset

CHUNK = 2_000
"""Rows that are Python objects at once while a Dataset is built."""
DEEPEST = 100
"""Levels that a column in `meta` may have: writers of JSON and Arrow stop at some depth."""


@dataclass(kw_only=True)
class Report:
    """A file's rows, counted; `str` gives it for reading, `as_dict` for programs."""

    file: str
    format: str  # jsonl, json, csv, tsv or parquet
    limit: int  # how many problems are held
    rows: int = 0  # good and bad, without blank lines
    good: int = 0
    bad: int = 0
    broken: bool = False  # something is wrong with the file itself
    messages: int = 0  # of the good rows
    characters: int = 0  # of those messages
    has_train: bool = False  # a message of a good row has `train`
    shapes: Counter[str] = field(default_factory=Counter)  # rows of each, good or bad
    meta: Counter[str] = field(default_factory=Counter)  # good rows with each further column
    left_out: Counter[str] = field(default_factory=Counter)  # keys of messages not kept
    kinds: Counter[str] = field(default_factory=Counter)  # all problems, by what is wrong
    problems: list[Problem] = field(default_factory=list)  # the first, with one of each kind
    notes: list[str] = field(default_factory=list)  # worth knowing, not wrong
    blank_lines: int = 0
    stopped_at: int | None = None  # the line from which on the file could not be read

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.kinds

    @property
    def problems_total(self) -> int:
        """All problems, those that are not held included."""
        return self.kinds.total()

    def count(self, row: FileRow, found: Conversation) -> None:
        """Add one row, or a problem of the file, to the counts."""
        self.rows += row.counts
        for problem in found.problems:
            self._add(problem, row)
        if not row.counts:
            self.broken = True
            return
        if found.shape:
            self.shapes[found.shape] += 1
        if found.problems:
            self.bad += 1
            return
        self.good += 1
        self.messages += len(found.messages)
        self.characters += sum(len(message["content"]) for message in found.messages)
        self.has_train |= any("train" in message for message in found.messages)
        self.meta.update(found.meta.keys())
        self.left_out.update(found.left_out)

    def close(self, source: DataFile) -> None:
        """Take over what is known when the file has ended."""
        self.notes = list(source.notes)
        self.blank_lines, self.stopped_at = source.blank_lines, source.stopped_at
        if len(self.shapes) > 1:
            self.notes.append("the file mixes shapes; each row was read by its own")
        if not self.rows and not self.kinds:
            problem = Problem("the file has no rows", "give a file with rows")
            self.count(FileRow(None, counts=False), Conversation(problems=[problem]))

    def _add(self, problem: Problem, row: FileRow) -> None:
        self.kinds[problem.what] += 1
        if len(self.problems) == self.limit and self.kinds[problem.what] == 1:
            # Each kind is to be seen once: the last of a kind that is held twice makes room.
            held = Counter(one.what for one in self.problems)
            repeats = [n for n, one in enumerate(self.problems) if held[one.what] > 1]
            if repeats:
                del self.problems[repeats[-1]]
        if len(self.problems) < self.limit:
            number = self.rows if row.counts else None
            self.problems.append(replace(problem, file=self.file, line=row.line, row=number))

    def as_dict(self) -> dict[str, Any]:
        """The report for programs: keys that stay, values that JSON has."""
        plain = ("file", "format", "rows", "good", "bad", "messages", "characters",
                 "blank_lines", "stopped_at", "notes")  # fmt: skip
        counts = ("shapes", "meta", "left_out", "kinds")
        keys = ("line", "row", "field", "value", "what", "remedy")
        return {
            "ok": self.ok,
            **{key: getattr(self, key) for key in plain},
            **{key: dict(getattr(self, key).most_common()) for key in counts},
            "problems": [{key: getattr(one, key) for key in keys} for one in self.problems],
            "problems_not_shown": self.problems_total - len(self.problems),
        }

    def __str__(self) -> str:
        split = "all good" if self.ok else f"{self.good:,} good, {self.bad:,} bad"
        good = f"{_number(self.messages, 'message')}, {_number(self.characters, 'character')}"
        table = {
            "shapes": _listed(self.shapes),
            "good rows": good if self.good else "",
            "meta": _listed(self.meta),
            "left out": _listed(self.left_out),
            "blank lines": f"{self.blank_lines:,}, skipped" if self.blank_lines else "",
        }
        lines = [f"{self.file}: {_number(self.rows, 'row')}, {split}"]
        lines += [f"{name:<12} {value}" for name, value in table.items() if value]
        lines += [f"{'note':<12} {note}" for note in self.notes]
        if self.stopped_at is not None:
            at = f"at line {self.stopped_at:,}: what follows was not checked"
            lines.append(f"{'stopped':<12} {at}")
        for what, times in self.kinds.most_common():
            held = [problem for problem in self.problems if problem.what == what]
            lines += ["", f"{times:,} x {what}"]
            if held:
                lines += [f"     {held[0].remedy}", *_places(held)]
            if times > len(held):
                lines.append(f"     {times - len(held):,} more, not shown")
        if self.problems_total > len(self.problems):
            lines += ["", f"--limit {self.problems_total} shows all problems"]
        return "\n".join(lines)


def _places(problems: list[Problem]) -> list[str]:
    rows = [(one.place, one.field, one.value or "") for one in problems]
    first, second = (min(30, max(len(row[column]) for row in rows)) for column in (0, 1))
    return [f"     {a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows if a or b or c]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(counts: Counter[str], most: int = 6) -> str:
    names = [f"{name} {times:,}" for name, times in counts.most_common(most)]
    more = len(counts) - len(names)
    return ", ".join(names) + (f", and {more} more" if more > 0 else "")


def validate(
    path: str | Path,
    *,
    limit: int = 100,
    good: str | Path | None = None,
    bad: str | Path | None = None,
) -> Report:
    """Check every row of a file, in memory that does not grow with it (apart from one JSON array).

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet; the name's ending decides.
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
    source = DataFile(path)
    report = Report(file=str(path), format=source.format, limit=limit)
    outputs = {"the file that is read": path, "good": good, "bad": bad}
    real = [os.path.realpath(target) for target in outputs.values() if target is not None]
    if len(set(real)) < len(real):
        value = ", ".join(f"{name}: {target}" for name, target in outputs.items() if target)
        what = "rows would be written over each other"
        raise RecordsError([Problem(what, "give each its own file", "", value, str(path))])
    with ExitStack() as files:
        keep, reject = (
            target and files.enter_context(Path(target).open("w", encoding="utf-8", newline="\n"))
            for target in (good, bad)
        )
        for row, found in _checked(source, report):
            if row.counts and found.problems and reject:
                _write(reject, _rejected(row, report.rows, found))
            elif row.counts and not found.problems and keep:
                _write(keep, {"messages": found.messages, **found.meta})
    report.close(source)
    return report


def read(path: str | Path, *, bad: str | Path = "raise") -> "Dataset":
    """The rows of a file as a `datasets.Dataset` of `messages` and `meta`.

    The file is read twice: to check it whole, then to load it into memory, as Arrow; nothing is
    written to a cache. Where a message of the file has `train`, all have: true for what is trained
    on. `meta` has the type `datasets.Json`: its values may differ in type from row to row.

    Args:
        path: as for `validate`.
        bad: "raise" when a row is wrong, "drop" such rows, or the path of a JSONL file that they
            are written to, each with its problems.

    Raises:
        RecordsError: a row is wrong and `bad` is "raise", no row is good, or the file itself is
            not sound: it is cut off, say.
    """
    from datasets import Dataset, Features, Json, List, Value, concatenate_datasets

    report = validate(path, bad=None if bad in ("raise", "drop") else bad)
    if (report.bad and bad == "raise") or report.broken or not report.good:
        raise RecordsError(report.problems, report.problems_total)
    message = {"role": Value("string"), "content": Value("string")}
    if report.has_train:
        message["train"] = Value("bool")
    features = Features({"messages": List(message), "meta": Json()})

    def rows() -> Iterator[dict[str, Any]]:
        for row, found in _checked(DataFile(path), Report(file="", format="", limit=0)):
            if row.counts and not found.problems:
                if report.has_train:
                    # Arrow fills what is missing with None, which would pass for "not trained on".
                    found.messages = [
                        {"train": m["role"] == "assistant"} | m for m in found.messages
                    ]
                yield {"messages": found.messages, "meta": found.meta}

    every = rows()
    chunks = iter(lambda: list(islice(every, CHUNK)), [])
    return concatenate_datasets([Dataset.from_list(chunk, features=features) for chunk in chunks])


def _checked(source: DataFile, report: Report) -> Iterator[tuple[FileRow, Conversation]]:
    """Each row with what it became; the report has counted it."""
    for row in source:
        found = Conversation(problems=row.problems) if row.problems else read_row(row.value)
        deep = next((name for name, item in found.meta.items() if _too_deep(item, DEEPEST)), None)
        if deep is not None:
            found.problems.append(replace(DEEP, field=deep, value=shown(row.value)))
        report.count(row, found)
        yield row, found


def _too_deep(value: Any, left: int) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list):
        return False
    return left == 0 or any(_too_deep(item, left - 1) for item in inside)


def _write(file, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rejected(row: FileRow, number: int, found: Conversation) -> dict[str, Any]:
    keys = ("field", "value", "what", "remedy")
    problems = [{key: getattr(one, key) for key in keys} for one in found.problems]
    where = {"row": number} if row.line is None else {"line": row.line}
    held = {"text": row.text} if row.text is not None else {"value": row.value}
    try:
        json.dumps(held, ensure_ascii=False).encode()
    except (RecursionError, UnicodeEncodeError):
        held = {"text": shown(row.value)}
    return {**where, "problems": problems, **held}
