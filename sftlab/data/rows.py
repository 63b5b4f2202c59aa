"""What every reader gives: rows with their lines; and the lines of a text file, one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from sftlab.data.problems import Problem, shown

LONGEST = 32 * 2**20
"""Bytes that a row may have: a file without line ends must not fill the memory."""


@dataclass(slots=True)
class Row:
    """One row, or a problem of the file that belongs to no row (`counts` is false)."""

    line: int | None
    """The line on which it begins, from 1; `None` in Parquet."""
    value: Any = None
    """The row as it was read."""
    text: str | None = None
    """The text of a row that could not be read, for the file of bad rows."""
    problems: list[Problem] = field(default_factory=list)
    """What kept it from being read."""
    counts: bool = True
    """Whether it is a row."""


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | Problem]]:
    """The lines of a file with their numbers; a `Problem` for one that is too long."""
    number, longest = 0, LONGEST
    while raw := file.readline(longest + 1):
        number += 1
        if len(raw) <= longest:
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(longest)
        yield number, too_long()


def too_long() -> Problem:
    """The problem of a row of more than LONGEST bytes."""
    remedy = f"a row may have {LONGEST:,} bytes: split or drop it"
    return Problem(what="a row is too long", remedy=remedy)


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> Problem:
    """The problem of a line that is not UTF-8, with the bytes around the spot."""
    cut = "; the line ends within a character" if "end of data" in error.reason else ""
    return Problem(
        what="bytes are not UTF-8",
        field=f"byte {error.start + 1}",
        value=shown(raw[max(0, error.start - 20) : error.end + 20]) + cut,
        remedy="save the file as UTF-8, or mend the line",
    )


def escaped(raw: bytes | str) -> str:
    r"""A text that can be written, with \x.. for each byte that is not UTF-8."""
    raw = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
    return raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
