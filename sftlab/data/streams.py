"""The rows of a data file, one at a time, with the line each begins on and what can't be read.

Memory stays flat: a JSON array, too, is never held as a whole. What is wrong with a row costs that
row; where a file can't be followed any further, the stream says so and stops.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sftlab.data import json_array, tables
from sftlab.data.json_text import DEEP, Reader
from sftlab.data.problems import Problem, RecordsError, shown
from sftlab.data.rows import Row, escaped, lines, not_utf8

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Stream:
    """A file's rows; `notes`, `blank_lines` and `stopped_at` are complete when all were taken."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.format = _format(self.path)
        self.notes: list[str] = []
        self.blank_lines = 0
        self.stopped_at: int | None = None

    def __iter__(self) -> Iterator[Row]:
        self.notes, self.blank_lines, self.stopped_at = [], 0, None
        if self.path.stat().st_size == 0:
            yield Row(None, counts=False, problems=[
                Problem(what="the file is empty", remedy="give a file with rows")
            ])  # fmt: skip
        elif self.format == "parquet":
            yield from tables.parquet_rows(self)
        else:
            with self.path.open("rb") as file:
                yield from self._text_rows(file)

    def _text_rows(self, file: BinaryIO) -> Iterator[Row]:
        head = file.read(2**20)
        file.seek(0)
        if head.startswith(UTF16) or b"\0" in head[:4]:
            self.stopped_at = 1
            yield Row(1, counts=False, problems=[
                Problem(what="the file is UTF-16, not UTF-8", value=shown(head[:40]),
                        remedy="save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW")
            ])  # fmt: skip
            return
        if head.startswith(b"\xef\xbb\xbf"):
            self.notes.append("a byte order mark opens the file; it was skipped")
        if self.format in ("csv", "tsv"):
            yield from tables.csv_rows(self, file)
        elif self._is_document(head.removeprefix(b"\xef\xbb\xbf")):
            yield from self._document_rows(file)
        else:
            yield from self._line_rows(file)

    def _is_document(self, head: bytes) -> bool:
        """Whether JSON is one document, whatever the file's name says."""
        lines = head.strip().splitlines() or [b""]
        if lines[0].startswith(b"["):
            if self.format == "jsonl":
                self.notes.append("the file is one JSON array, and was read as that")
            return True
        if self.format == "jsonl" or len(lines) == 1:
            return self.format == "json"
        reader = Reader()
        whole = reader.decode_all(lines[0].decode("utf-8", "replace"))
        if isinstance(whole, dict):
            self.notes.append("the file has one JSON object a line, and was read as JSONL")
        return not isinstance(whole, dict)

    def _line_rows(self, file: BinaryIO) -> Iterator[Row]:
        reader = Reader()
        for line, raw in lines(file):
            if isinstance(raw, Problem):
                yield Row(line, problems=[raw], text="")
                continue
            if not raw.strip():
                self.blank_lines += 1
                continue
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                yield Row(line, problems=[not_utf8(raw, error)], text=escaped(raw))
                continue
            text = text.removeprefix("\ufeff").rstrip("\r\n")
            value = reader.decode_all(text)
            problems = reader.problems or _unwritable(value, text)
            yield Row(line, value, text if problems else None, problems)

    def _document_rows(self, file: BinaryIO) -> Iterator[Row]:
        window = json_array.Window(file)
        try:
            for line, value, text in json_array.rows(window):
                problems = window.reader.problems or _unwritable(value, text)
                yield Row(line, value, escaped(text) if problems else None, problems)
        except json_array.Broken as broken:
            self.stopped_at = broken.line
            yield Row(broken.line, problems=[broken.problem], counts=False)
        if window.beside:
            self.notes.append(f"beside the rows the object has {shown(list(window.beside))}")


def _unwritable(value: Any, text: str) -> list[Problem]:
    """Lone surrogates: from bytes that are not UTF-8, or from escapes such as backslash-ud800."""
    try:
        if not text.isascii():
            text.encode()
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 20) : error.end + 20]
        if "\udc80" <= error.object[error.start] <= "\udcff" and error.object is text:
            raw = near.encode("utf-8", "surrogateescape")
            return [Problem(what="bytes are not UTF-8", value=shown(raw),
                            remedy="save the file as UTF-8, or mend the row")]  # fmt: skip
        return [Problem(what="half of a surrogate pair is no character", value=shown(near),
                        remedy="write the character whole, or remove it")]  # fmt: skip
    except RecursionError:
        return [Problem(what=DEEP, value=shown(text[:61]), remedy="flatten or drop the row")]
    return []


def _format(path: Path) -> str:
    """The format that the file's name tells; RecordsError when it tells none, or there is none."""
    told = f"{', '.join(FORMATS)} are read"
    if path.is_dir():
        within = sorted(p.name for p in path.iterdir() if p.suffix in FORMATS)[:4]
        remedy = f"give one file of it{': ' + ', '.join(within) if within else f'; {told}'}"
        problem = Problem(file=str(path), what="this is a folder", remedy=remedy)
    elif not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        near = sorted(p.name for p in beside if p.suffix in FORMATS)[:4]
        remedy = f"check the path{'; beside it there are ' + ', '.join(near) if near else ''}"
        problem = Problem(file=str(path), what="there is no such file", remedy=remedy)
    elif path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz", ".zst"):
        problem = Problem(file=str(path), what="the file is packed", remedy="unpack it first")
    elif path.suffix.lower() not in FORMATS:
        remedy = f"{told}: give the file the ending of what it holds"
        problem = Problem(file=str(path), what="the format is unknown", remedy=remedy)
    else:
        return FORMATS[path.suffix.lower()]
    raise RecordsError([problem])
