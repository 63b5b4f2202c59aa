"""What was found in a data file: counts of everything, and the first problems of it."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from sftlab.data.problems import Problem
from sftlab.data.rows import Row
from sftlab.data.streams import Stream
from sftlab.data.turns import Conversation

NAMES = 100
"""Names of columns and keys that are counted apart: a file can have as many as it has rows."""
OTHERS = "(further names)"


@dataclass(kw_only=True)
class Report:
    """A file's rows, counted; `str` gives it for reading, `as_dict` for programs."""

    file: str
    """The path as it was given."""
    format: str
    """jsonl, json, csv, tsv or parquet."""
    limit: int
    """How many problems are held."""
    rows: int = 0
    """Rows that were read, good and bad; blank lines are none."""
    good: int = 0
    """Rows with nothing wrong."""
    bad: int = 0
    """Rows with one problem or more."""
    broken: bool = False
    """Whether something is wrong with the file itself, beside its rows."""
    messages: int = 0
    """Messages of the good rows."""
    characters: int = 0
    """Characters of those messages."""
    has_train: bool = False
    """Whether a message of a good row says if it is trained on."""
    shapes: Counter[str] = field(default_factory=Counter)
    """Rows of each shape that was recognised, good or bad."""
    meta: Counter[str] = field(default_factory=Counter)
    """Good rows that carry each further column, kept as `meta`."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Keys of messages in good rows that were not kept, with how many messages had them."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How often each problem was found."""
    problems: list[Problem] = field(default_factory=list)
    """The first problems, in the order of the file, with one of each kind."""
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and not wrong."""
    blank_lines: int = 0
    """Empty lines, which were skipped."""
    stopped_at: int | None = None
    """The line from which on the file could not be read; `None` when it was read to its end."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.kinds

    @property
    def problems_total(self) -> int:
        """All problems, those that are not held included."""
        return self.kinds.total()

    def count(self, row: Row, found: Conversation) -> None:
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
        for message in found.messages:
            self.characters += len(message["content"])
            self.has_train |= "train" in message
        _tally(self.meta, dict.fromkeys(found.meta, 1))
        _tally(self.left_out, found.left_out)

    def close(self, stream: Stream) -> None:
        """Take over what the stream knows when it has ended."""
        self.notes = list(stream.notes)
        self.blank_lines, self.stopped_at = stream.blank_lines, stream.stopped_at
        if len(self.shapes) > 1:
            self.notes.append("the file mixes shapes; each row was read by its own")
        if not self.rows and not self.kinds:
            self.broken = True
            problem = Problem(what="the file has no rows", remedy="give a file with rows")
            self._add(problem, Row(None, counts=False))

    def _add(self, problem: Problem, row: Row) -> None:
        self.kinds[problem.what] += 1
        if len(self.problems) == self.limit and self.kinds[problem.what] == 1:
            self._make_room()
        if len(self.problems) < self.limit:
            number = self.rows if row.counts else None
            self.problems.append(replace(problem, file=self.file, line=row.line, row=number))

    def _make_room(self) -> None:
        """Give up the last problem of a kind that is held twice: each kind is to be seen once."""
        held = Counter(problem.what for problem in self.problems)
        for index in reversed(range(len(self.problems))):
            if held[self.problems[index].what] > 1:
                del self.problems[index]
                return

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
            "problems": [{key: getattr(p, key) for key in keys} for p in self.problems],
            "problems_not_shown": self.problems_total - len(self.problems),
        }

    def __str__(self) -> str:
        from sftlab.data.report_text import written

        return written(self)


def _tally(counter: Counter[str], names: dict[str, int]) -> None:
    for name, times in names.items():
        known = name in counter or len(counter) < NAMES
        counter[name if known else OTHERS] += times
