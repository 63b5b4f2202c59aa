"""Files of rows, read one row at a time: JSON Lines, JSON, CSV, TSV and Parquet.

Each row comes with the line on which it begins. A mistake costs its row; where a file can't be
followed any further, that is a problem of the file, and the reading stops.

[ {row}, {row}, ... ]                           the JSON documents that are read,
{"version": 1, "data": [ {row}, ... ]}          whole, up to LARGEST_JSON
{"messages": [...]}
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from sftlab.data.messages import Problem, RecordsError, shown
from sftlab.data.shapes import COLUMNS, explain, parse_json

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
LONGEST = 32 * 2**20
"""Bytes that a line may have: a file without line ends must not fill the memory."""
LARGEST_JSON = 256 * 2**20
"""Bytes of a JSON document, which is held as a whole."""
BATCH = 256
"""Rows of a Parquet file that become Python objects at once."""
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(slots=True)
class FileRow:
    """One row, or a problem of the file that belongs to no row (`counts` is false)."""

    line: int | None  # from 1; None in Parquet
    value: Any = None
    problems: list[Problem] = field(default_factory=list)  # what kept it from being read
    text: str | None = None  # of a row that could not be read, for the file of bad rows
    counts: bool = True


class DataFile:
    """Iterates over the rows of a file; the attributes are complete when all were taken.

    Raises:
        RecordsError: there is no such file, or its format is unknown.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.format = _format(self.path)
        self.notes: list[str] = []
        self.blank_lines = 0
        self.stopped_at: int | None = None  # the line from which on nothing could be read

    def __iter__(self) -> Iterator[FileRow]:
        self.notes, self.blank_lines, self.stopped_at = [], 0, None
        if self.path.stat().st_size == 0:
            yield _of_file(None, Problem("the file is empty", "give a file with rows"))
        elif self.format == "parquet":
            yield from self._parquet_rows()
        else:
            with self.path.open("rb") as file:
                yield from self._text_rows(file)

    def _text_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        head = file.read(2**20)
        file.seek(0)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
            remedy = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW"
            yield self._stop(1, Problem("the file is UTF-16, not UTF-8", remedy, "", shown(head)))
            return
        if head.startswith(b"\xef\xbb\xbf"):
            self.notes.append("the byte order mark at the start of the file was skipped")
        if self.format in ("csv", "tsv"):
            yield from self._csv_rows(file)
        elif self._is_document(head.decode("utf-8-sig", "replace")):
            yield from self._document_rows(file)
        else:
            yield from self._line_rows(file)

    def _stop(self, line: int, problem: Problem) -> FileRow:
        self.stopped_at = line
        return _of_file(line if self.format != "parquet" else None, problem)

    def _is_document(self, head: str) -> bool:
        """Whether JSON is one document, whatever the file's name says."""
        first, _, rest = head.strip().partition("\n")
        if first.startswith("["):
            if self.format == "jsonl":
                self.notes.append("the file is one JSON array, and was read as that")
            return True
        if self.format == "json" and rest and isinstance(parse_json(first)[0], dict):
            self.notes.append("the file has one JSON object a line, and was read as JSON Lines")
            return False
        return self.format == "json"

    def _line_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        number = 0
        while raw := file.readline(LONGEST + 1):
            number += 1
            if len(raw) > LONGEST:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(LONGEST)
                remedy = f"a row may have {LONGEST:,} bytes: split or drop it"
                yield FileRow(number, None, [Problem("a row is too long", remedy)], "")
            elif raw.strip():
                text = raw.decode("utf-8", "surrogateescape")
                yield _json_row(number, text.removeprefix("\ufeff").rstrip("\r\n"))
            else:
                self.blank_lines += 1

    def _document_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        if (size := self.path.stat().st_size) > LARGEST_JSON:
            what = f"a JSON document may have {LARGEST_JSON // 2**20} MiB"
            remedy = "write one row a line (jq -c '.[]' FILE > NEW.jsonl); JSON Lines have no limit"
            yield self._stop(1, Problem(what, remedy, "", f"it has {size / 2**20:,.0f}"))
            return
        # Bytes that are not UTF-8 become lone surrogates, so that they cost their row alone.
        text = file.read().decode("utf-8-sig", "surrogateescape")
        start = self._at = _skip(text, 0)
        try:
            yield from self._array(text) if text[start : start + 1] == "[" else self._object(text)
            if rest := text[_skip(text, self._at) :]:
                raise json.JSONDecodeError("Extra data", text, len(text) - len(rest))
        except (json.JSONDecodeError, RecursionError) as error:
            at = getattr(error, "pos", self._at)
            began = f"in what begins on line {text.count(chr(10), 0, self._at) + 1}"
            problem = replace(explain(error, text[: at + 60]), field=began)
            yield self._stop(text.count("\n", 0, at) + 1, problem)

    def _array(self, text: str) -> Iterator[FileRow]:
        """The elements of the array at `self._at`, each decoded by itself to keep its line."""
        line, counted, more = 1, 0, True
        self._at = _skip(text, self._at + 1)
        if text[self._at : self._at + 1] == "]":
            more, self._at = False, self._at + 1
        while more:
            start, end = self._at, _decode(text, self._at)[1]
            line, counted = line + text.count("\n", counted, start), start
            yield _json_row(line, text[start:end])
            end = _skip(text, end)
            if (mark := text[end : end + 1]) not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            more, self._at = mark == ",", _skip(text, end + 1)

    def _object(self, text: str) -> Iterator[FileRow]:
        """The rows of an object's one array of objects; without one, the object is the row."""
        start, (value, end) = self._at, _decode(text, self._at)
        members = value.items() if isinstance(value, dict) else ()
        arrays = [key for key, one in members if isinstance(one, list) and one
                  and isinstance(one[0], dict)]  # fmt: skip
        if not arrays or COLUMNS & value.keys():
            yield _json_row(text.count("\n", 0, start) + 1, text[start:end])
        elif len(arrays) > 1:
            what = "the object has more than one array of rows"
            yield _of_file(1, Problem(what, "keep one a file", "", shown(arrays)))
        else:
            if others := [key for key in value if key != arrays[0]]:
                self.notes.append(f"the object with the rows also has {shown(others)}")
            self._at = _skip(text, start + 1)
            while _decode(text, self._at)[0] != arrays[0]:  # on to the next key
                _, self._at = _decode(text, _colon(text, self._at))
                self._at = _skip(text, _skip(text, self._at) + 1)
            self._at = _colon(text, self._at)
            yield from self._array(text)
        self._at = end

    def _csv_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        first = text.readline(2**20)
        text.seek(0)
        mark = "\t" if self.format == "tsv" else max(",;\t", key=first.count)
        if self.format == "csv" and mark != ",":
            self.notes.append(f"cells are separated by {mark!r}")
        # strict: a quote that is never closed would else swallow the rest of the file.
        reader, header = csv.reader(text, delimiter=mark, strict=True), None
        before = csv.field_size_limit(LONGEST)  # of the process: others find it as they left it
        try:
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    remedy = 'write a cell with a quote as "like ""this""", and close every quote'
                    wrong = Problem("the row is not valid CSV", remedy, "", str(error))
                    yield FileRow(line, None, [wrong], "")
                    continue
                written = ",".join(cells)
                if wrong := _not_utf8(written):
                    yield FileRow(line, None, wrong, _escaped(written))
                elif not cells:
                    self.blank_lines += 1
                elif header is None:
                    header = cells
                    yield from (_of_file(line, problem) for problem in _header_problems(header))
                elif len(cells) != len(header):
                    value = f"{len(cells)} where the header has {len(header)}"
                    what = "a row has another number of cells than the header"
                    remedy = "put a cell with a comma, a quote or a line break in double quotes"
                    yield FileRow(line, None, [Problem(what, remedy, "", value)], written)
                else:
                    yield FileRow(line, dict(zip(header, cells, strict=True)))
        finally:
            csv.field_size_limit(before)

    def _parquet_rows(self) -> Iterator[FileRow]:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            # pre_buffer would hold a whole row group, and a file may be one row group.
            with parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as table:
                for problem in _header_problems(table.schema_arrow.names):
                    yield _of_file(None, problem)
                for batch in table.iter_batches(batch_size=BATCH):
                    yield from (FileRow(None, _plain(row)) for row in batch.to_pylist())
        except (pa.ArrowException, OSError, ValueError) as error:
            value = shown(" ".join(str(error).split()))
            remedy = "write or fetch it again: it may be cut off"
            yield self._stop(1, Problem("the file is not valid Parquet", remedy, "", value))


def _of_file(line: int | None, problem: Problem) -> FileRow:
    return FileRow(line, problems=[problem], counts=False)


def _skip(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()


# Python refuses to read integers of more than 4,300 digits.
_decode = json.JSONDecoder(parse_int=float).raw_decode


def _colon(text: str, key: int) -> int:
    """Where the value of the key at `key` begins."""
    return _skip(text, text.index(":", _decode(text, key)[1]) + 1)


def _json_row(line: int, text: str) -> FileRow:
    if wrong := _not_utf8(text):
        return FileRow(line, None, wrong, _escaped(text))
    value, problems = parse_json(text)
    return FileRow(line, value, problems, text if problems else None)


def _not_utf8(text: str) -> list[Problem]:
    """Bytes that are not UTF-8 were decoded to lone surrogates."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
        raw.decode()
    except UnicodeDecodeError as error:
        cut = "; the line ends within a character" if "end of data" in error.reason else ""
        near = shown(raw[max(0, error.start - 20) : error.end + 20]) + cut
        remedy = "save the file as UTF-8, or correct the line"
        return [Problem("bytes are not UTF-8", remedy, f"byte {error.start + 1}", near)]
    return []


def _escaped(text: str) -> str:
    r"""A text that can be written, with \x.. for each byte that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates, bytes and decimals as text, NaN as nothing."""

    def text(one: Any) -> str:
        return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one)

    return json.loads(json.dumps(value, default=text), parse_constant=lambda name: None)


def _header_problems(header: list[str]) -> Iterator[Problem]:
    if not COLUMNS & set(header):
        remedy = 'the first line of a CSV is its header, such as "prompt,completion"'
        yield Problem("the first line names no known column", remedy, "", shown(header))
    if len(set(header)) < len(header):
        twice = shown([name for name in header if header.count(name) > 1])
        remedy = "rename one: of the two only the last is read"
        yield Problem("two columns have the same name", remedy, "", twice)


def _format(path: Path) -> str:
    """The format by the file's name; RecordsError when it says none, or there is no file."""
    ending, known = path.suffix.lower(), ", ".join(FORMATS)
    folder = path if path.is_dir() else path.parent
    files = folder.iterdir() if folder.is_dir() else ()
    near = ", ".join(sorted(file.name for file in files if file.suffix in FORMATS)[:4])
    if path.is_dir():
        what, remedy = "this is a folder", f"give one file of it: {near or known}"
    elif not path.exists():
        what = "there is no such file"
        remedy = "check the path" + (f"; in that folder there are {near}" if near else "")
    elif ending in (".gz", ".zip", ".bz2", ".xz", ".zst"):
        what, remedy = "the file is packed", "unpack it first"
    elif ending not in FORMATS:
        what = "the format is unknown"
        remedy = f"{known} are read: give the file the ending of what it holds"
    else:
        return FORMATS[ending]
    raise RecordsError([Problem(what, remedy, file=str(path))])
