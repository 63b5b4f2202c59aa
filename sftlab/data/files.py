"""A file of rows validated, with a report, and loaded."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftlab.data.messages import Conversation
from sftlab.data.problems import Problem, RecordsError, printable, problem
from sftlab.data.readers import DataFile, FileRow, of_file, written
from sftlab.machine import free_ram
from sftlab.paths import file_written_atomically

if TYPE_CHECKING:
    from datasets import Dataset

MOST_NAMES = 1000
"""Different names and problems that a report counts apart; rows may each have their own."""


@dataclass(kw_only=True)
class Report:
    """A file's rows, counted; `str` gives it for reading, `as_dict` for programs."""

    file: str
    limit: int  # how many problems of a kind are held
    rows: int = 0  # good and bad, without blank lines
    good: int = 0
    bad: int = 0
    broken: bool = False  # something is wrong with the file itself
    messages: int = 0  # of the good rows, as the characters
    characters: int = 0
    shapes: Counter[str] = field(default_factory=Counter)  # rows of each, good or bad
    used: Counter[str] = field(default_factory=Counter)  # good rows that have what is read: tools
    meta: Counter[str] = field(default_factory=Counter)  # good rows with what is carried along
    kinds: Counter[str] = field(default_factory=Counter)  # all problems, by what is wrong
    problems: list[Problem] = field(default_factory=list)  # the first of each kind

    @property
    def ok(self) -> bool:
        return not self.kinds

    @property
    def problems_total(self) -> int:
        return self.kinds.total()

    def add(self, row: FileRow, meta: Sequence[str] = ()) -> Conversation:
        """Count a row; returns what it became, its problems with their place."""
        found = row.converted(meta)
        self.rows += row.counts
        self.broken |= not row.counts
        self.bad += row.counts and bool(found.problems)
        self.shapes.update([found.shape] if found.shape else [])
        if not found.problems:
            self.good += 1
            self.messages += len(found.messages)
            self.characters += sum(len(message["content"]) for message in found.messages)
            self.used.update(sorted(found.used))
            # `messages[3].id` counts as `messages[].id`.
            names = (printable(re.sub(r"\[\d+\]", "[]", name), 100) for name in found.meta)
            self.meta.update(dict.fromkeys((_known(self.meta, name) for name in names), 1))
        at = {"file": self.file, "row": self.rows if row.counts else None}
        found.problems = [replace(o, line=row.line or o.line, **at) for o in found.problems]
        for one in found.problems:
            what = _known(self.kinds, one.what)
            self.kinds[what] += 1
            if self.kinds[what] <= self.limit:
                self.problems.append(replace(one, what=what))
        return found

    def as_dict(self) -> dict[str, Any]:
        """The report for programs: keys that stay, values that JSON has."""
        return {"ok": self.ok, **vars(self), "problems": [vars(one) for one in self.problems]}

    def __str__(self) -> str:
        split = "all good" if self.ok else f"{self.good:,} good, {self.bad:,} bad"
        good = f"{self.messages:,} messages, {self.characters:,} characters" if self.good else ""
        table = {"shapes": _listed(self.shapes), "good rows": good}
        table |= {"used": _listed(self.used), "carried": _listed(self.meta)}
        lines = [f"{self.file}: {self.rows:,} rows, {split}"]
        lines += [f"{name:<12} {value}" for name, value in table.items() if value]
        for what, times in self.kinds.most_common():
            held = [one for one in self.problems if one.what == what]
            lines += ["", f"{times:,} x {what}", *(f"     {one.remedy}" for one in held[:1])]
            places = [filter(None, (one.place, one.field, one.value)) for one in held]
            lines += [f"     {'  '.join(place)}" for place in places]
            if times > self.limit:
                all_of_them = f"`sftlab validate {self.file} --limit {times}` shows all"
                lines.append(f"     {times - self.limit:,} more, not shown: {all_of_them}")
        return "\n".join(lines)


def _known(counts: Counter[str], name: str) -> str:
    return name if name in counts or len(counts) < MOST_NAMES else "(further ones)"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {times:,}" for name, times in counts.most_common())


def validate(
    path: str | Path,
    *,
    limit: int = 100,
    good: str | Path | None = None,
    bad: str | Path | None = None,
    meta: Sequence[str] = (),
) -> Report:
    """Check every row of a file, in memory that does not grow with it (but for a JSON document).

    Args:
        limit: how many problems of a kind the report holds; all are counted.
        good: a file for the good rows, as JSONL with `messages`, `tools` and `meta`.
        bad: one for the bad rows, each with its `line` (or `row`), `problems` and what is there.
        meta: names of columns, and of keys of messages, to carry along in `meta`.

    RecordsError: the file can't be read, or an output not written. That takes its place at the end.
    """
    report = Report(file=printable(str(path)), limit=limit)
    for _ in _checked_rows(path, report, good, bad, meta):
        pass
    return report


def _checked_rows(
    path: str | Path,
    report: Report,
    good: str | Path | None,
    bad: str | Path | None,
    meta: Sequence[str],
) -> Iterator[Conversation]:
    """Each row as it is read, counted in the report and written to where it belongs."""
    source, outputs = DataFile(path), _checked_outputs(path, good, bad)
    try:
        with ExitStack() as files:
            keep, reject = (
                target and files.enter_context(file_written_atomically(target))
                for target in outputs
            )
            for row in source:
                found = report.add(row, meta)
                if keep and not found.problems:
                    print(json.dumps(written(found), ensure_ascii=False), file=keep)
                elif reject and found.problems and row.counts:
                    where = {"row": report.rows} if row.line is None else {"line": row.line}
                    held = {"value": row.value} if row.text is None else {"text": row.text}
                    rejected = {**where, "problems": [vars(one) for one in found.problems], **held}
                    print(json.dumps(rejected, ensure_ascii=False), file=reject)
                yield found
    except OSError as error:  # a full disk, say; of the file that is read it is a problem
        wrong = problem("output", value=error.strerror or str(error))
        raise RecordsError(
            [replace(wrong, file=", ".join(map(str, filter(None, outputs))))]
        ) from None
    if not report.rows and report.ok:
        report.add(of_file("no-rows"))


def _checked_outputs(path: str | Path, *outputs: str | Path | None) -> list[Path | None]:
    """The files that links lead to; RecordsError where one is not a file of its own."""
    # Names that differ in case alone are one file on some systems.
    taken, found = [os.path.realpath(path).casefold()], []
    for output in outputs:
        target, wrong = None if output is None else Path(os.path.realpath(output)), None
        # /dev/stdout may lead to a file of the shell's, which would be replaced.
        stream = target and os.path.abspath(output).startswith(("/dev/std", "/dev/fd/", "/proc/"))
        if stream or (target and os.path.exists(target) and not target.is_file()):
            wrong = problem("output", value="it is a folder, a pipe or a device")
        elif target and os.path.exists(target) and not os.access(target, os.W_OK):
            wrong = problem("output", value="it is write-protected")
        elif target and str(target).casefold() in taken:
            wrong = problem("overwritten")
        if wrong:
            raise RecordsError([replace(wrong, file=str(output))])
        taken += [str(target).casefold()] if target else []
        found.append(target)
    return found


def read(path: str | Path, *, bad: str = "raise", meta: Sequence[str] = ()) -> "Dataset":
    """The rows of a file as a `datasets.Dataset` of `messages` and `meta`, all in memory.

    `bad` rows "raise" an error, or "drop" out; `meta` is as for `validate`. Where a row has tools,
    there is a column `tools` too. The Dataset stores JSON text, which its rows are read from.
    RecordsError also where no row is good, the file is not sound (it is cut off, say), or its rows
    take more memory than is free.
    """
    from datasets import Dataset

    report, free, held = Report(file=printable(str(path)), limit=100), free_ram(), 0
    # JSON, because Arrow would give all messages the keys of all. Not the feature `Json`: that of
    # datasets 5.2 reads 0.3 as 0.30000000000000004, and keeps ten decimals.
    texts: dict[str, list[str]] = {name: [] for name in _COLUMNS}
    for one in _checked_rows(path, report, None, None, meta):
        if not one.problems and not (report.bad and bad == "raise"):
            for name, column in texts.items():
                column.append(json.dumps(getattr(one, name)))
                held += len(column[-1])
            if 3 * held > free:  # as texts here, and in Arrow twice while it is made
                wrong = problem("large-file", value=f"{3 * held / 1e9:,.1f} GB")
                raise RecordsError([replace(wrong, file=str(path))])
    if (report.bad and bad == "raise") or report.broken or not report.good:
        # What is wrong with the file comes first: five problems are shown.
        problems = sorted(report.problems, key=lambda one: one.row is not None)
        raise RecordsError(problems, report.problems_total)
    if not report.used["tools"]:
        del texts["tools"]
    return Dataset.from_dict(texts).with_transform(_from_json)


_COLUMNS = ("messages", "tools", "meta")


def _from_json(batch: dict[str, list]) -> dict[str, list]:
    return {
        name: [json.loads(v) if name in _COLUMNS and isinstance(v, str) else v for v in values]
        for name, values in batch.items()
    }
