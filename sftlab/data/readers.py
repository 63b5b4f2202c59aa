"""Rows of a file, one by one: JSON Lines, a JSON document, CSV, TSV and Parquet.

A mistake costs its row; where a file can't be followed any further, that is a problem of the file,
and the reading stops. Rows of a JSON document and of Parquet have a number, others also a line.

What is held in memory is bounded by bytes, since a row may be all of a file: one row has at most
`LARGEST_ROW`, and objects that Python makes of it take about 35 times as much ([[],[],...]).
"""

import codecs
import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from sftlab.data.messages import Conversation
from sftlab.data.problems import (
    PROBLEMS,
    Problem,
    RecordsError,
    deeper,
    not_json,
    parse_json,
    problem,
    shown,
)
from sftlab.data.shapes import CARRIED, COLUMNS, read_row

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
LARGEST_ROW = 4 * 2**20
"""Bytes of a row's text (characters in CSV and JSON documents), about a million tokens."""
LARGEST_JSON = 32 * 2**20
"""Bytes of a JSON document that is one object, held as a whole; an array is read row by row."""
MOST_VALUES = 2**21
"""Commas and brackets in such an object: a value takes up to 250 bytes as a Python object."""
MOST_COLUMNS = 1000
LARGEST_GROUP = 256 * 2**20
"""Bytes of a row group of Parquet, unpacked, above which it must not be a few bytes repeated."""
DEEPEST_ROW = 100
"""Levels of nesting in a row as it is written; Python's json gives up at about 1,000."""


@dataclass(slots=True)
class FileRow:
    """One row, or a problem of the file that belongs to no row (`counts` is false)."""

    value: Any = None
    line: int | None = None
    problems: list[Problem] = field(default_factory=list)
    text: str | None = None  # of a row that could not be read
    counts: bool = True
    size: int = 0  # characters of its text

    def converted(self, meta: Sequence[str] = ()) -> Conversation:
        if self.problems:
            return Conversation(problems=self.problems)
        found = read_row(self.value, meta=meta)
        if not found.problems:  # a good row is good when it is written and read again
            row = written(found)
            if deeper(row, DEEPEST_ROW):
                found.problems.append(problem("deep", value=shown(found.meta)))
            elif self.size > LARGEST_ROW // 10:  # JSON escapes, and short turns take more room
                size = len(json.dumps(row, ensure_ascii=False).encode())
                found.problems += [_large(size)] if size >= LARGEST_ROW else []
        return found


def written(found: Conversation) -> dict[str, Any]:
    """A good row as it is written: its messages, and tools and meta where there are any."""
    row = {"messages": found.messages, "tools": found.tools, "meta": found.meta}
    return {key: value for key, value in row.items() if value}


class DataFile:
    """Iterates over the rows of a file.

    Raises RecordsError when there is no such file, or its name says no format.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.format = FORMATS.get(self.path.suffix.lower())
        wrong = None
        if not os.path.isfile(path):  # false, too, where a name is too long or holds U+0000
            wrong = problem("no-file")
        elif self.format is None:
            wrong = problem("format", known=", ".join(FORMATS))
        if wrong:
            raise RecordsError([replace(wrong, file=str(path))])

    def __iter__(self) -> Iterator[FileRow]:
        try:
            if self.path.stat().st_size == 0:
                yield of_file("no-bytes")
            elif self.format == "parquet":
                yield from _parquet_rows(self.path)
            else:
                with self.path.open("rb") as file:
                    yield from self._text_rows(file)
        except OSError as error:
            yield of_file("unreadable", error.strerror or str(error))

    def _text_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        head = file.read(2**20)
        file.seek(0)
        text = head.decode("utf-8-sig", "replace").strip()
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
            yield of_file("utf16", shown(head[:60]), line=1)
        elif self.format in ("csv", "tsv"):
            yield from _csv_rows(file, "\t" if self.format == "tsv" else ",;\t|")
        elif text.startswith("["):
            yield from _Document(file).elements()
        elif self._is_object(text):
            yield from _object_rows(file)
        elif _is_pretty(text):
            yield of_file("pretty", line=1)
        else:
            yield from _json_lines(file)

    def _is_object(self, head: str) -> bool:
        """Whether it is one JSON document or has one row a line, whatever the file's name says."""
        first, _, rest = head.partition("\n")
        return self.format == "json" and not (rest and isinstance(parse_json(first)[0], dict))


def _json_lines(file: BinaryIO) -> Iterator[FileRow]:
    number = 0
    while raw := file.readline(LARGEST_ROW + 1):
        number += 1
        if len(raw) > LARGEST_ROW:
            size = len(raw)
            while not raw.endswith(b"\n") and (raw := file.readline(2**20)):
                size += len(raw)
            yield FileRow(None, number, [_large(size)], text="")
        elif raw.strip():
            text = raw.decode("utf-8", "surrogateescape")
            yield _json_row(text.removeprefix("\ufeff").rstrip("\r\n"), number)


class _Document:
    """The text of a JSON document, of which it holds little more than the value that comes next."""

    def __init__(self, file: BinaryIO):
        self.file = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        self.text, self.at = "", 0
        self.lines = self.column = 0  # before the text

    def elements(self, inside: bool = False) -> Iterator[FileRow]:
        """The elements of the array that comes next; `inside` an object, text may follow it."""
        try:
            self._take("[")
            more = self._next() != "]"
            while more:
                yield _json_row(self.value(), None)
                if more := self._next() == ",":
                    self._take(",")
            self._take("]", "',' or ']'")
            if not inside and self._next():
                raise json.JSONDecodeError("Extra data", self.text, self.at)
        except json.JSONDecodeError as error:
            wrong = not_json(error, self.text, self.lines, self.column)
            if error.msg == "large":
                wrong = replace(_large(len(self.text) - self.at), line=wrong.line)
            yield FileRow(line=wrong.line, problems=[wrong], counts=False)
        except RecursionError:
            yield of_file("deep", shown(self.text[self.at : self.at + 61]))

    def skip_to(self, key: str) -> None:
        """Go to the value of a key of the object that comes next."""
        self._take("{")
        while json.loads(self.value()) != key:
            self._take(":")
            self.value()
            self._take(",")
        self._take(":")

    def value(self) -> str:
        """The text of the next value."""
        self._next()
        decode, ended = json.JSONDecoder(parse_int=float).raw_decode, False
        while True:
            try:
                end = decode(self.text, self.at)[1]
                if ended or end < len(self.text) - 20:
                    break
            except json.JSONDecodeError as error:
                # Near the end of what is held, a number or a word may be cut.
                if ended or ("Unterm" not in error.msg and error.pos < len(self.text) - 20):
                    raise
            if len(self.text) - self.at > LARGEST_ROW:
                raise json.JSONDecodeError("large", self.text, self.at)
            ended = not self._fill()
        text, self.at = self.text[self.at : end], end
        return text

    def _next(self) -> str:
        """The next character that is not white space, which is not taken; nothing at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()
            if self.at < len(self.text) or not self._fill():
                return self.text[self.at : self.at + 1]

    def _take(self, token: str, expected: str = "") -> None:
        if self._next() != token:
            raise json.JSONDecodeError(f"Expecting {expected or token}", self.text, self.at)
        self.at += 1

    def _fill(self) -> bool:
        """Forget what was taken, and read on; False at the end of the file."""
        lines = self.text.count("\n", 0, self.at)
        last = self.text.rfind("\n", 0, self.at)
        self.column = self.at - last - 1 if lines else self.column + self.at
        self.lines += lines
        held = self.text[self.at :]
        self.text, self.at = held + (more := self.file.read(max(2**20, len(held)))), 0
        return bool(more)


_SPACE = re.compile(r"[ \t\r\n]*")


def _object_rows(file: BinaryIO) -> Iterator[FileRow]:
    """The rows of the one array in an object, of a table by columns, or the object as the row."""
    raw = file.read(LARGEST_JSON + 1)
    if len(raw) > LARGEST_JSON or sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        yield of_file("large-json", most=LARGEST_JSON // 2**20, values=f"{MOST_VALUES:,}")
        return
    row = _json_row(raw.decode("utf-8-sig", "surrogateescape").rstrip(), None, LARGEST_JSON)
    rows = _rows_in(row.value) if isinstance(row.value, dict) else [row.value]
    if isinstance(rows, FileRow):
        yield replace(row, counts=False) if row.problems else rows
    elif not row.problems:
        yield from (FileRow(one, size=len(raw)) for one in rows)
    elif key := next((k for k, one in (row.value or {}).items() if one is rows), None):
        document = _Document(io.BytesIO(raw))
        document.skip_to(key)
        said = set()
        for one in document.elements(inside=True):
            said |= {(o.what, o.field, o.field and o.value) for o in one.problems}
            yield one
        beside = [o for o in row.problems if (o.what, o.field, o.field and o.value) not in said]
        if beside:
            yield FileRow(problems=beside, counts=False)
    else:
        yield replace(row, counts=bool(row.value) and rows[0] is row.value)


def _is_pretty(head: str) -> bool:
    """Whether the first row goes on after its line, as JSON with an indent does."""
    first, _, rest = head.partition("\n")
    return first.startswith("{") and first.rstrip()[-1] in "{[,:" and rest[:1] in (" ", "\t")


def _rows_in(found: dict[str, Any]) -> list | FileRow:
    """The rows of an object: of its one array, of a table by columns, or the object as the row."""
    if COLUMNS & found.keys():
        indexes = {tuple(one) if isinstance(one, dict) else () for one in found.values()}
        values = [list(one.values()) if isinstance(one, dict) else one for one in found.values()]
        even = all(isinstance(one, list) for one in values) and len({*map(len, values)}) == 1
        texts = (found[name] for name in COLUMNS & found.keys())
        if even and len(indexes) == 1 and not any(_has_objects(one) for one in texts):
            return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]
        return [found]
    arrays = [key for key, one in found.items() if _has_objects(one)]
    if len(arrays) > 1:
        return of_file("arrays", shown(arrays))
    if arrays:
        beside = [key for key in found if key not in arrays and key.lower() not in CARRIED]
        return of_file("beside", shown(beside)) if beside else found[arrays[0]]
    if found and all(isinstance(one, dict | list) for one in found.values()):
        return of_file("table", shown(found))
    return [found]


def _has_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _csv_rows(file: BinaryIO, delimiters: str) -> Iterator[FileRow]:
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    first = text.readline(2**20)
    text.seek(0)
    held = lines = 0  # characters of the row so far; lines of the file

    def read_line() -> str:
        nonlocal held, lines
        one = text.readline(LARGEST_ROW + 1)
        held, lines = held + len(one), lines + bool(one)
        if held > LARGEST_ROW:
            while one and not one.endswith(("\n", "\r")):
                one = text.readline(2**20)
                held += len(one)
            raise csv.Error("limit")
        return one

    csv.field_size_limit(LARGEST_ROW)  # of the process; by default a cell has 128 kB
    # strict: a quote that is never closed would else swallow the rest of the file.
    how = {"delimiter": max(delimiters, key=first.count), "strict": True}
    reader = csv.reader(iter(read_line, ""), **how)
    header = None
    while True:
        held, line = 0, lines + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = _large(held) if "limit" in str(error) else problem("csv", value=str(error))
            if held > LARGEST_ROW and lines > line:  # nobody knows where the row should have ended
                yield of_file("quote", f"{lines - line:,} lines", line=line)
                return
            yield FileRow(line=line, problems=[wrong], text="")
            continue
        written = ",".join(cells)
        if bad := _not_utf8(written, line):
            yield bad
        elif not any(cells):
            continue  # a blank line, as spreadsheets write it
        elif len(cells) > MOST_COLUMNS:
            yield of_file("columns", f"{len(cells):,}", line=line, most=MOST_COLUMNS)
            return
        elif header is None:
            header = [cell or f"Unnamed: {n}" for n, cell in enumerate(cells)]
            if not COLUMNS & {*header}:
                (wrong,) = read_row(dict(zip(header, header, strict=False))).problems
                if wrong.what == PROBLEMS["no-shape"][0]:
                    wrong = problem("header", "", shown(cells))
                yield FileRow(line=line, problems=[wrong], counts=False)
                return
            if len({*header}) < len(header):
                yield of_file("same-column", shown(cells), line=line)
        elif len(cells) != len(header):
            value = f"{len(cells)} where the header has {len(header)}"
            yield FileRow(line=line, problems=[problem("cells", value=value)], text=written)
        else:
            yield FileRow(dict(zip(header, cells, strict=True)), line, size=len(written))


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # pre_buffer would hold a whole row group, and a file may be one row group.
        with parquet.ParquetFile(path, buffer_size=2**16, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                yield of_file("same-column", shown(names))
            if (count := table.metadata.num_columns) > MOST_COLUMNS:
                yield of_file("columns", f"{count:,}", most=MOST_COLUMNS)
            elif wrong := _large_group(table.metadata, path.stat().st_size):
                yield wrong
            else:
                # One by one: a row may refer to a large text in the dictionary of its column.
                for batch in table.iter_batches(batch_size=1, use_threads=False):
                    yield _parquet_row(names, batch.columns)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        yield of_file("parquet", shown(" ".join(str(error).split())))


def _large_group(metadata: Any, file_size: int) -> FileRow | None:
    """The problem of a row group of which a page or a row may not fit into memory.

    By its own numbers: asked for those of its columns in a damaged file, pyarrow 26.0 ends the
    process ("Repetition level histogram size mismatch"; among 18 files with bytes changed).
    """
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        size, rows = group.total_byte_size, group.num_rows
        # Texts are compressed 2 to 10 times, constants 20 times (Snappy) to 10,000 (Zstandard).
        if size > LARGEST_GROUP and (size > 15 * file_size or size > LARGEST_ROW * rows):
            return of_file("large-parquet", f"{size / 2**20:,.0f} MiB, {rows:,} rows")
    return None


def _parquet_row(names: Sequence[str], columns: Sequence[Any]) -> FileRow:
    if (size := sum(map(_held, columns))) > LARGEST_ROW:
        return FileRow(problems=[_large(size)], text="")
    row, problems = {}, []
    for name, column in zip(names, columns, strict=True):
        try:
            (cell,) = column.to_pylist()
            row[name] = _plain(cell)
        # Dates beyond the year 9999, bytes that are not UTF-8, time zones that nobody knows.
        except (ValueError, ArithmeticError, LookupError, TypeError, NotImplementedError) as error:
            problems.append(problem("cell", name, shown(f"{column.type}: {error}")))
    text = json.dumps(row, ensure_ascii=False)
    found = _json_row(text, None)
    return replace(found, problems=[*problems, *found.problems], text=text) if problems else found


def _held(array: Any) -> int:
    """About the bytes of an Arrow array's values in Python: a list has eight for each."""
    inner = array.flatten() if hasattr(array, "flatten") else []
    inner = inner if isinstance(inner, list) else [inner]
    return 8 * len(array) + (sum(map(_held, inner)) if inner else array.nbytes)


def _plain(value: Any) -> Any:
    """A cell as JSON has it: dates, bytes and decimals as text, NaN as nothing. Of nested objects
    all have the keys of all, with nulls: those say nothing."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if value is None or isinstance(value, str | int) else str(value)


def of_file(kind: str, value: str | None = None, line: int | None = None, **words: Any) -> FileRow:
    return FileRow(line=line, problems=[problem(kind, "", value, **words)], counts=False)


def _large(size: int) -> Problem:
    return problem("large-row", "", f"it has {size / 2**20:,.1f} MiB", most=LARGEST_ROW // 2**20)


def _json_row(text: str, line: int | None, most: int = LARGEST_ROW) -> FileRow:
    if len(text) > most:
        return FileRow(None, line, [_large(len(text))], text="")
    if wrong := _not_utf8(text, line):
        return wrong
    value, problems = parse_json(text)
    return FileRow(value, line, problems, text if problems else None, size=len(text))


def _not_utf8(text: str, line: int | None) -> FileRow | None:
    """The row with its problem, where bytes that are not UTF-8 were decoded to lone surrogates."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        near = shown(raw[max(0, error.start - 20) : error.end + 20])
        wrong = problem("not-utf8", f"byte {error.start + 1}", near)
        return FileRow(None, line, [wrong], raw.decode("utf-8", "backslashreplace"))
    return None
