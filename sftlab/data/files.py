"""Files of rows (JSON Lines, JSON, CSV, TSV, Parquet), read one by one, validated and loaded.

A mistake costs its row; where a file can't be followed any further, that is a problem of the file,
and the reading stops. Rows of a JSON array and of Parquet have a number, others also a line.
"""

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sftlab.data.messages import (
    COLUMNS,
    Conversation,
    Problem,
    RecordsError,
    explain,
    parse_json,
    problem,
    read_row,
    shown,
)

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet",
}  # fmt: skip
LARGEST_JSON = 256 * 2**20
"""Bytes of a JSON document, which is held in memory as a whole."""


@dataclass(slots=True)
class FileRow:
    """One row, or a problem of the file that belongs to no row (`counts` is false)."""

    line: int | None
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    text: str | None = None  # of a row that could not be read
    counts: bool = True


class DataFile:
    """Iterates over the rows of a file; the attributes are complete when all were taken.

    Raises RecordsError when the file's name says no format, or there is no such file.
    """

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        folder = path if path.is_dir() else path.parent
        files = folder.iterdir() if folder.is_dir() else ()
        near = ", ".join(sorted(file.name for file in files if file.suffix in FORMATS)[:4])
        known = ", ".join(FORMATS)
        wrong = None
        if path.is_dir():
            wrong = problem("folder", near=near or known)
        elif not path.exists():
            wrong = problem("no-file", near=f"; in that folder there are {near}" if near else "")
        elif path.suffix.lower() not in FORMATS:
            wrong = problem("format", known=known)
        if wrong:
            raise RecordsError([replace(wrong, file=str(path))])
        self.format = FORMATS[path.suffix.lower()]
        self.notes: list[str] = []
        self.blank_lines = 0
        self.stopped_at: int | None = None  # the line from which on nothing could be read

    def __iter__(self) -> Iterator[FileRow]:
        self.notes, self.blank_lines, self.stopped_at = [], 0, None
        if self.path.stat().st_size == 0:
            yield _of_file(None, "no-bytes")
        elif self.format == "parquet":
            yield from self._parquet_rows()
        else:
            with self.path.open("rb") as file:
                yield from self._text_rows(file)

    def _text_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        head = file.read(2**20)
        file.seek(0)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
            self.stopped_at = 1
            yield _of_file(1, "utf16", shown(head))
            return
        if head.startswith(b"\xef\xbb\xbf"):
            self.notes.append("the byte order mark at the start of the file was skipped")
        if self.format in ("csv", "tsv"):
            yield from self._csv_rows(file)
            return
        # JSON is one document or one row a line, whatever the file's name says.
        first, _, rest = head.decode("utf-8-sig", "replace").strip().partition("\n")
        array, lines = first.startswith("["), rest and isinstance(parse_json(first)[0], dict)
        if array and self.format == "jsonl":
            self.notes.append("the file is one JSON array, and was read as that")
        if lines and self.format == "json":
            self.notes.append("the file has one JSON object a line, and was read as JSON Lines")
        if array or (self.format == "json" and not lines):
            yield from self._document_rows(file)
            return
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                text = raw.decode("utf-8", "surrogateescape")
                yield _json_row(number, text.removeprefix("\ufeff").rstrip("\r\n"))
            else:
                self.blank_lines += 1

    def _document_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        """The elements of an array, or of the one array in an object; or one object as the row."""
        if (size := self.path.stat().st_size) > LARGEST_JSON:
            most = LARGEST_JSON // 2**20
            yield _of_file(None, "large-json", f"{size / 2**20:,.0f} MiB", most=most)
            return
        # Bytes that are not UTF-8 become lone surrogates, so that they cost their row alone.
        text = file.read().decode("utf-8-sig", "surrogateescape").rstrip()
        if text.lstrip().startswith("["):
            yield from self._array(text)
            return
        row = _json_row(None, text)
        members = row.value if isinstance(row.value, dict) and not COLUMNS & {*row.value} else {}
        arrays = [
            key
            for key, one in members.items()
            if isinstance(one, list) and one and isinstance(one[0], dict)
        ]
        if len(arrays) > 1:
            yield _of_file(None, "arrays", shown(arrays))
        elif arrays:
            self.notes.append(f"the rows are those of {arrays[0]!r} in the document's object")
            yield from (FileRow(None, one) for one in members[arrays[0]])
        else:
            yield row

    def _array(self, text: str) -> Iterator[FileRow]:
        mark, at = ",", _skip(text, text.index("[") + 1)
        if text[at:] == "]":
            return
        try:
            while mark == ",":
                start, at = at, _decode(text, at)[1]
                yield _json_row(None, text[start:at])
                at = _skip(text, at)
                if (mark := text[at : at + 1]) not in (",", "]"):
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
                at = _skip(text, at + 1)
            if text[at:]:
                raise json.JSONDecodeError("Extra data", text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            at = getattr(error, "pos", at)
            self.stopped_at = text.count("\n", 0, at) + 1
            wrong = replace(explain(error, text[: at + 60]), field="")
            yield FileRow(self.stopped_at, problems=[wrong], counts=False)

    def _csv_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        first = text.readline(2**20)
        text.seek(0)
        mark = "\t" if self.format == "tsv" else max(",;\t", key=first.count)
        if self.format == "csv" and mark != ",":
            self.notes.append(f"cells are separated by {mark!r}")
        csv.field_size_limit(2**31 - 1)  # of the process; by default a cell has 128 kB
        # strict: a quote that is never closed would else swallow the rest of the file.
        reader, header = csv.reader(text, delimiter=mark, strict=True), None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield FileRow(line, None, [problem("csv", value=str(error))], "")
                continue
            written = ",".join(cells)
            if bad := _not_utf8(line, written):
                yield bad
            elif not cells:
                self.blank_lines += 1
            elif header is None:
                header = cells
                yield from _header_problems(header, line)
            elif len(cells) != len(header):
                value = f"{len(cells)} where the header has {len(header)}"
                yield FileRow(line, None, [problem("cells", value=value)], written)
            else:
                yield FileRow(line, dict(zip(header, cells, strict=True)))

    def _parquet_rows(self) -> Iterator[FileRow]:
        import pyarrow as pa
        from pyarrow import parquet

        def text(one: Any) -> str:
            return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one)

        try:
            # pre_buffer would hold a whole row group, and a file may be one row group.
            with parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as table:
                yield from _header_problems(table.schema_arrow.names, None)
                for batch in table.iter_batches(batch_size=256):
                    for row in batch.to_pylist():
                        # As JSON has it: dates, bytes and decimals as text, NaN as nothing.
                        plain = json.dumps(row, default=text)
                        yield FileRow(None, json.loads(plain, parse_constant=lambda name: None))
        except (pa.ArrowException, OSError, ValueError) as error:
            yield _of_file(None, "parquet", shown(" ".join(str(error).split())))


def _of_file(line: int | None, kind: str, value: str | None = None, **words: Any) -> FileRow:
    return FileRow(line, problems=[problem(kind, "", value, **words)], counts=False)


_decode = json.JSONDecoder(parse_int=float).raw_decode  # int() refuses more than 4,300 digits


def _skip(text: str, at: int) -> int:
    return re.compile(r"[ \t\r\n]*").match(text, at).end()


def _json_row(line: int | None, text: str) -> FileRow:
    if wrong := _not_utf8(line, text):
        return wrong
    value, problems = parse_json(text)
    return FileRow(line, value, problems, text if problems else None)


def _not_utf8(line: int | None, text: str) -> FileRow | None:
    """The row with its problem, where bytes that are not UTF-8 were decoded to lone surrogates."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        cut = "; the line ends within a character" if "end of data" in error.reason else ""
        near = shown(raw[max(0, error.start - 20) : error.end + 20]) + cut
        wrong = problem("not-utf8", f"byte {error.start + 1}", near)
        return FileRow(line, None, [wrong], raw.decode("utf-8", "backslashreplace"))
    return None


def _header_problems(header: list[str], line: int | None) -> Iterator[FileRow]:
    if not COLUMNS & set(header):
        yield _of_file(line, "header", shown(header))
    if twice := [name for name in header if header.count(name) > 1]:
        yield _of_file(line, "same-column", shown(twice))


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
    messages: int = 0  # of the good rows, as the characters
    characters: int = 0
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
        return not self.kinds

    @property
    def problems_total(self) -> int:
        return self.kinds.total()

    def of(self, source: DataFile) -> Iterator[tuple[FileRow, Conversation]]:
        """Each row with what it became, counted; the report is complete when all were taken."""
        for row in source:
            found = Conversation(problems=row.problems) if row.problems else read_row(row.value)
            self._count(row, found)
            yield row, found
        self.notes += source.notes
        self.blank_lines, self.stopped_at = source.blank_lines, source.stopped_at
        if len(self.shapes) > 1:
            self.notes.append("the file mixes shapes; each row was read by its own")
        if not self.rows and not self.kinds:
            row = _of_file(None, "no-rows")
            self._count(row, Conversation(problems=row.problems))

    def _count(self, row: FileRow, found: Conversation) -> None:
        self.rows += row.counts
        self.broken |= not row.counts
        self.bad += row.counts and bool(found.problems)
        self.shapes.update([found.shape] if found.shape else [])
        if not found.problems:
            self.good += 1
            self.messages += len(found.messages)
            self.characters += sum(len(message["content"]) for message in found.messages)
            self.has_train |= any("train" in message for message in found.messages)
            self.meta.update(found.meta.keys())
            self.left_out.update(found.left_out)
        for one in found.problems:
            self.kinds[one.what] += 1
            if len(self.problems) == self.limit and self.kinds[one.what] == 1:
                # Each kind is to be seen once: the last of a kind that is held twice makes room.
                held = Counter(other.what for other in self.problems)
                repeats = [n for n, other in enumerate(self.problems) if held[other.what] > 1]
                self.problems = [o for n, o in enumerate(self.problems) if n not in repeats[-1:]]
            if len(self.problems) < self.limit:
                number = self.rows if row.counts else None
                self.problems.append(replace(one, file=self.file, line=row.line, row=number))

    def as_dict(self) -> dict[str, Any]:
        """The report for programs: keys that stay, values that JSON has."""
        plain = "file format rows good bad messages characters blank_lines stopped_at notes"
        counts = ("shapes", "meta", "left_out", "kinds")
        keys = ("line", "row", "field", "value", "what", "remedy")
        return {
            "ok": self.ok,
            **{key: getattr(self, key) for key in plain.split()},
            **{key: dict(getattr(self, key).most_common()) for key in counts},
            "problems": [{key: getattr(one, key) for key in keys} for one in self.problems],
            "problems_not_shown": self.problems_total - len(self.problems),
        }

    def __str__(self) -> str:
        split = "all good" if self.ok else f"{self.good:,} good, {self.bad:,} bad"
        good = f"{_number(self.messages, 'message')}, {_number(self.characters, 'character')}"
        at = f"at line {self.stopped_at:,}: what follows was not checked" if self.stopped_at else ""
        table = [
            ("shapes", _listed(self.shapes)),
            ("good rows", good if self.good else ""),
            ("meta", _listed(self.meta)),
            ("left out", _listed(self.left_out)),
            ("blank lines", f"{self.blank_lines:,}, skipped" if self.blank_lines else ""),
            *(("note", note) for note in self.notes),
            ("stopped", at),
        ]
        lines = [f"{self.file}: {_number(self.rows, 'row')}, {split}"]
        lines += [f"{name:<12} {value}" for name, value in table if value]
        for what, times in self.kinds.most_common():
            lines += ["", f"{times:,} x {what}"]
            held = [one for one in self.problems if one.what == what]
            places = max((len(one.place) for one in held), default=0)
            fields = max((len(one.field) for one in held), default=0)
            lines += [f"     {one.remedy}" for one in held[:1]]
            for one in held:
                where = f"{one.place:<{min(30, places)}}  {one.field:<{min(30, fields)}}"
                found = f"     {where}  {one.value or ''}".rstrip()
                lines += [found] if found else []
            if times > len(held):
                lines.append(f"     {times - len(held):,} more, not shown")
        if self.problems_total > len(self.problems):
            lines += ["", f"--limit {self.problems_total} shows all problems"]
        return "\n".join(lines)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(counts: Counter[str]) -> str:
    names = [f"{name} {times:,}" for name, times in counts.most_common(6)]
    return ", ".join(names) + (f", and {len(counts) - 6} more" if len(counts) > 6 else "")


def validate(
    path: str | Path,
    *,
    limit: int = 100,
    good: str | Path | None = None,
    bad: str | Path | None = None,
) -> Report:
    """Check every row of a file, in memory that does not grow with it (apart from one JSON array).

    Args:
        limit: how many problems the report holds; all are counted.
        good: write the good rows here, as JSONL with `messages` and the other columns.
        bad: write the bad rows here, as JSONL with `line` (or `row`, where there are no lines),
            `problems`, and `value`, or `text` where it could not be read.

    Raises RecordsError for a file that can't be read, or an output that is the file itself.
    """
    if limit < 0:
        raise ValueError(f"limit={limit}: give 0 or more")
    source = DataFile(path)
    report = Report(file=str(path), format=source.format, limit=limit)
    outputs = [target for target in (path, good, bad) if target is not None]
    if len({os.path.realpath(target) for target in outputs}) < len(outputs):
        wrong = problem("overwritten", value=", ".join(map(str, outputs)))
        raise RecordsError([replace(wrong, file=str(path))])
    with ExitStack() as files:
        keep, reject = (
            target and files.enter_context(Path(target).open("w", encoding="utf-8", newline="\n"))
            for target in (good, bad)
        )
        for row, found in report.of(source):
            if not found.problems and keep:
                kept = {"messages": found.messages, **found.meta}
                print(json.dumps(kept, ensure_ascii=False), file=keep)
            elif row.counts and found.problems and reject:
                where = {"row": report.rows} if row.line is None else {"line": row.line}
                keys = ("field", "value", "what", "remedy")
                wrong = [{key: getattr(one, key) for key in keys} for one in found.problems]
                held = {"value": row.value} if row.text is None else {"text": row.text}
                rejected = {**where, "problems": wrong, **held}
                print(json.dumps(rejected, ensure_ascii=False), file=reject)
    return report


CHUNK = 2_000  # rows that are Python objects at once while a Dataset is built


def read(path: str | Path, *, bad: str | Path = "raise") -> "Dataset":
    """The rows of a file as a `datasets.Dataset` of `messages` and `meta`, in memory.

    `bad` is "raise", "drop", or the path of a JSONL file for the bad rows with their problems.
    Where a message has `train`, all have: true for what is trained on.

    Raises RecordsError when a row is wrong and `bad` is "raise", no row is good, or the file itself
    is not sound: it is cut off, say.
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
        for _, found in Report(file="", format="", limit=0).of(DataFile(path)):
            if not found.problems:
                # Arrow fills what is missing with None, which would pass for "not trained on".
                filled = [{"train": m["role"] == "assistant"} | m for m in found.messages]
                messages = filled if report.has_train else found.messages
                yield {"messages": messages, "meta": found.meta}

    every = rows()
    chunks = iter(lambda: list(islice(every, CHUNK)), [])
    return concatenate_datasets([Dataset.from_list(chunk, features=features) for chunk in chunks])
