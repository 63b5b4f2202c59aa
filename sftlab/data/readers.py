"""Rows of a file, one by one: JSON Lines, a JSON document, CSV, TSV and Parquet.

A mistake costs its row; where a file can't be followed any further, that is a problem of the file,
and the reading stops. Rows of a JSON document and of Parquet have a number, others also a line.

Memory is bounded by bytes, not rows: a row of text, and a JSON document, have a largest size. Not
bounded is a Parquet file of some kB that unpacks to one cell of more than 200 MiB.
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
from sftlab.data.problems import PROBLEMS, Problem, RecordsError, deeper, parse_json, problem, shown
from sftlab.data.shapes import CARRIED, COLUMNS, read_row

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
LARGEST_ROW = 4 * 2**20
"""Bytes of a row (in CSV characters of a line and of a cell): about a million tokens."""
LARGEST_JSON = 48 * 2**20
"""Bytes of a JSON document, held in memory as a whole: with an emoji in each row some 14 times."""
MOST_VALUES = 2**21
"""Commas and brackets in a JSON document: a value takes up to 250 bytes as a Python object."""
MOST_COLUMNS = 1000
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

    def converted(self, meta: Sequence[str] = ()) -> Conversation:
        if self.problems:
            return Conversation(problems=self.problems)
        found = read_row(self.value, meta=meta)
        if not found.problems:  # a good row is good when it is written and read again
            row = written(found)
            if deeper(row, DEEPEST_ROW):
                found.problems.append(problem("deep", value=shown(found.meta)))
            elif len(json.dumps(row, ensure_ascii=False).encode()) >= LARGEST_ROW:
                found.problems.append(_large())
        return found


def written(found: Conversation) -> dict[str, Any]:
    """A good row as it is written: its messages, and tools and meta where there are any."""
    row = {"messages": found.messages, "tools": found.tools, "meta": found.meta}
    return {key: value for key, value in row.items() if value}


class DataFile:
    """Iterates over the rows of a file; a RecordsError where there is none of a known format."""

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
        elif self._is_document(text):
            yield from _document_rows(file)
        elif _is_pretty(text):
            yield of_file("pretty", line=1)
        else:
            yield from _json_lines(file)

    def _is_document(self, head: str) -> bool:
        """Whether it is one JSON document or has one row a line, whatever the file's name says."""
        first, _, rest = head.partition("\n")
        one_a_line = rest and isinstance(parse_json(first)[0], dict)
        return first.startswith("[") or (self.format == "json" and not one_a_line)


def _json_lines(file: BinaryIO) -> Iterator[FileRow]:
    number = 0
    while raw := file.readline(LARGEST_ROW + 1):
        number += 1
        if len(raw) > LARGEST_ROW:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(2**20)
            yield FileRow(None, number, [_large()], text="")
        elif raw.strip():
            text = raw.decode("utf-8", "surrogateescape")
            yield _json_row(text.removeprefix("\ufeff").rstrip("\r\n"), number)


def _document_rows(file: BinaryIO) -> Iterator[FileRow]:
    """The elements of an array, or of the one array in an object; or one object as the row."""
    raw = file.read(LARGEST_JSON + 1)
    if len(raw) > LARGEST_JSON or sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        yield of_file("large-json", most=LARGEST_JSON // 2**20, values=f"{MOST_VALUES:,}")
        return
    text = raw.decode("utf-8-sig", "surrogateescape").rstrip()
    del raw  # one emoji, and the text takes four times as much
    value, problems = parse_json(text)
    problems += _not_utf8(text)
    rows = _rows_in(value) if isinstance(value, dict) else value
    keys = [key for key, one in value.items() if one is rows] if isinstance(value, dict) else []
    if isinstance(rows, FileRow) and not problems:
        yield rows
    elif not problems:
        yield from map(FileRow, rows if isinstance(rows, list) else [rows])
    elif isinstance(value, list) or keys:
        yield from _elements(text, *keys)
    else:
        yield FileRow(problems=problems, text=_as_bytes(text), counts=rows == [value])


def _elements(text: str, key: str | None = None) -> Iterator[FileRow]:
    """The rows of a document (of the array under a key of it), each read by itself, so that a
    mistake costs its row alone."""
    decode = json.JSONDecoder(parse_int=float).raw_decode  # int() refuses more than 4,300 digits
    between = re.compile(r"[ \t\r\n,:]*")
    begin, name = between.match(text).end(), None
    at = begin + 1
    while key != name or text[begin] != "[":
        name, at = decode(text, between.match(text, at).end())
        begin = between.match(text, at).end()
        at = decode(text, begin)[1]
    at = begin + 1
    while text[at := between.match(text, at).end()] != "]":
        end = decode(text, at)[1]
        yield _json_row(text[at:end], None)
        at = end
    if beside := _json_row(text[: begin + 1] + text[at:], None).problems:
        yield FileRow(problems=beside, counts=False)


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
    lines = 0  # of the file so far

    def read_line() -> str:
        nonlocal lines
        one = text.readline(LARGEST_ROW + 1)
        lines += bool(one)
        if len(one) <= LARGEST_ROW:
            return one
        while one and not one.endswith(("\n", "\r")):
            one = text.readline(2**20)
        raise csv.Error("line larger than field limit")

    csv.field_size_limit(LARGEST_ROW)  # of the process; by default a cell has 128 kB
    # strict: a quote that is never closed would else swallow the rest of the file.
    how = {"delimiter": max(delimiters, key=first.count), "strict": True}
    reader = csv.reader(iter(read_line, ""), **how)
    header = None
    while True:
        line = lines + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            large = "field limit" in str(error)
            if large and lines > line:  # nobody knows where the row should have ended
                yield of_file("quote", line=line)
                return
            wrong = _large() if large else problem("csv", value=str(error))
            yield FileRow(line=line, problems=[wrong], text="")
            continue
        written = ",".join(cells)
        if wrong := _not_utf8(written):
            yield FileRow(None, line, wrong, _as_bytes(written))
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
            yield FileRow(dict(zip(header, cells, strict=True)), line)


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
            else:
                # One by one: a row may refer to a large text in the dictionary of its column.
                for batch in table.iter_batches(batch_size=1, use_threads=False):
                    yield _parquet_row(names, batch.columns)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        yield of_file("parquet", shown(" ".join(str(error).split())))


def _parquet_row(names: Sequence[str], columns: Sequence[Any]) -> FileRow:
    # A column of categories carries all of its texts with every row.
    columns = [one.dictionary_decode() if hasattr(one, "dictionary") else one for one in columns]
    if sum(one.nbytes for one in columns) > LARGEST_ROW:
        return FileRow(problems=[_large()], text="")
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


def _large() -> Problem:
    return problem("large-row", most=LARGEST_ROW // 2**20)


def _json_row(text: str, line: int | None) -> FileRow:
    if wrong := _not_utf8(text):
        return FileRow(None, line, wrong, _as_bytes(text))
    value, problems = parse_json(text)
    return FileRow(value, line, problems, text if problems else None)


def _not_utf8(text: str) -> list[Problem]:
    """The problem, where bytes that are not UTF-8 were decoded to lone surrogates."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        near = shown(raw[max(0, error.start - 20) : error.end + 20])
        return [problem("not-utf8", f"byte {error.start + 1}", near)]
    return []


def _as_bytes(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
