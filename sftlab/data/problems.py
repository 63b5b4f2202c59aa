"""What is wrong with a data file, told so that a learner can mend it: where, what, and how.

data.jsonl, line 17, messages[1].content: the content is empty ('  '); write a text, or drop ...
file        line     field                what                value     remedy
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxlevel = 3, 4, 3


def shown(value: Any) -> str:
    """A value in at most some 60 characters, in Python's writing: control characters escaped."""
    if isinstance(value, bytes):
        value = value[:61].decode("utf-8", "backslashreplace")
    try:
        return _SHORT.repr(value)
    except RecursionError:
        return f"<a {type(value).__name__} of great depth>"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, with where it is and what to do about it."""

    what: str
    """What is wrong, in words that are the same for every row, so that they can be counted."""
    remedy: str
    """What to do about it."""
    field: str = ""
    """The column, message and key, as the file calls them: `conversations[2].value`."""
    value: str | None = None
    """What is there, shortened; `None` where there is nothing to show."""
    file: str = ""
    """The file's path as it was given."""
    line: int | None = None
    """The line on which the row begins, from 1; `None` in Parquet, which has no lines."""
    row: int | None = None
    """The row, from 1; `None` for what concerns the whole file."""

    @property
    def place(self) -> str:
        """`line 17`, or `row 17` where there are no lines, or nothing."""
        if self.line is not None:
            return f"line {self.line}"
        return f"row {self.row}" if self.row is not None else ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.file, self.place, self.field) if part)
        value = "" if self.value is None else f" ({self.value})"
        return f"{where}{': ' if where else ''}{self.what}{value}; {self.remedy}"


class RecordsError(ValueError):
    """Data that can't be used as it is; `problems` has each reason that is known.

    Args:
        problems: one or more, those to be shown first.
        total: how many there are, where only the first are handed over.
    """

    SHOWN = 5

    def __init__(self, problems: Sequence[Problem], *, total: int | None = None):
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        lines = [str(problem) for problem in self.problems[: self.SHOWN]]
        if self.total > len(lines):
            lines.append(f"... and {self.total - len(lines):,} more; `sftlab validate` lists them")
        super().__init__("\n".join(lines))

    def __reduce__(self):
        # A sweep hands errors from one process to another, by these arguments.
        return _remade, (self.problems, self.total)


def _remade(problems: Sequence[Problem], total: int) -> RecordsError:
    return RecordsError(problems, total=total)
