"""Files of rows (JSON Lines, JSON, CSV, TSV, Parquet), read one by one, validated and loaded.

A mistake costs its row; where a file can't be followed any further, that is a problem of the file,
and the reading stops. Rows of a JSON document and of Parquet have a number, others also a line.
"""

import codecs
import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sftlab.data.messages import Conversation
from sftlab.data.problems import PROBLEMS, Problem, RecordsError, parse_json, problem, shown
from sftlab.data.shapes import CARRIED, COLUMNS, read_row

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

    value: Any = None
    line: int | None = None
    problems: list[Problem] = field(default_factory=list)
    text: str | None = None  # of a row that could not be read
    counts: bool = True

    def converted(self, meta: Sequence[str] = ()) -> Conversation:
        if self.problems:
            return Conversation(problems=self.problems)
        return read_row(self.value, meta=meta)


class DataFile:
    """Iterates over the rows of a file.

    Raises RecordsError when there is no such file, or its name says no format.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.format = FORMATS.get(self.path.suffix.lower())
        wrong = None
        if not self.path.is_file():
            wrong = problem("no-file")
        elif self.format is None:
            wrong = problem("format", known=", ".join(FORMATS))
        if wrong:
            raise RecordsError([replace(wrong, file=str(path))])

    def __iter__(self) -> Iterator[FileRow]:
        if self.path.stat().st_size == 0:
            yield _of_file("no-bytes")
        elif self.format == "parquet":
            yield from _parquet_rows(self.path)
        else:
            with self.path.open("rb") as file:
                yield from self._text_rows(file)

    def _text_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        head = file.read(2**20)
        file.seek(0)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
            yield _of_file("utf16", shown(head[:60]), line=1)
        elif self.format in ("csv", "tsv"):
            yield from _csv_rows(file, "\t" if self.format == "tsv" else ",;\t|")
        elif self._is_document(head.decode("utf-8-sig", "replace").strip()):
            yield from self._document_rows(file)
        elif _is_pretty(head.decode("utf-8-sig", "replace")):
            yield _of_file("pretty", line=1)
        else:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    text = raw.decode("utf-8", "surrogateescape")
                    yield _json_row(text.removeprefix("\ufeff").rstrip("\r\n"), number)

    def _is_document(self, head: str) -> bool:
        """Whether it is one JSON document or has one row a line, whatever the file's name says."""
        first, _, rest = head.partition("\n")
        one_a_line = rest and isinstance(parse_json(first)[0], dict)
        return first.startswith("[") or (self.format == "json" and not one_a_line)

    def _document_rows(self, file: BinaryIO) -> Iterator[FileRow]:
        """The elements of an array, or of the one array in an object; or one object as the row."""
        if (size := self.path.stat().st_size) > LARGEST_JSON:
            most = LARGEST_JSON // 2**20
            yield _of_file("large-json", f"{size / 2**20:,.0f} MiB", most=most)
            return
        text = file.read().decode("utf-8-sig", "surrogateescape").rstrip()
        row = _json_row(text, None)
        if row.problems and isinstance(row.value, list):
            yield from _elements(text, len(row.value))
            return
        if row.problems:
            yield replace(row, counts=False)
            return
        rows = _rows_in(row.value) if isinstance(row.value, dict) else row.value
        if isinstance(rows, FileRow):
            yield rows
        else:
            yield from map(FileRow, rows if isinstance(rows, list) else [rows])


def _is_pretty(head: str) -> bool:
    """Whether the first row goes on after its line, as JSON with an indent does."""
    first, _, rest = head.lstrip().partition("\n")
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
        return _of_file("arrays", shown(arrays))
    if arrays:
        beside = [key for key in found if key not in arrays and key.lower() not in CARRIED]
        return _of_file("beside", shown(beside)) if beside else found[arrays[0]]
    if found and all(isinstance(one, dict | list) for one in found.values()):
        return _of_file("table", shown(found))
    return [found]


def _has_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _elements(text: str, count: int) -> Iterator[FileRow]:
    """Each element of a JSON array read by itself, so that a mistake costs its row alone."""
    decode = json.JSONDecoder(parse_int=float).raw_decode  # int() refuses more than 4,300 digits
    end = text.index("[") + 1
    for _ in range(count):
        start = re.compile(r"[\s,]*").match(text, end).end()
        end = decode(text, start)[1]
        yield _json_row(text[start:end], None)


def _csv_rows(file: BinaryIO, delimiters: str) -> Iterator[FileRow]:
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    first = text.readline(2**20)
    text.seek(0)
    csv.field_size_limit(2**31 - 1)  # of the process; by default a cell has 128 kB
    # strict: a quote that is never closed would else swallow the rest of the file.
    reader = csv.reader(text, delimiter=max(delimiters, key=first.count), strict=True)
    header = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield FileRow(line=line, problems=[problem("csv", value=str(error))], text="")
            continue
        written = ",".join(cells)
        if bad := _not_utf8(written, line):
            yield bad
        elif not any(cells):
            continue  # a blank line, as spreadsheets write it
        elif header is None:
            header = [cell or f"Unnamed: {n}" for n, cell in enumerate(cells)]
            if not COLUMNS & {*header}:
                (wrong,) = read_row(dict(zip(header, header, strict=False))).problems
                if wrong.what == PROBLEMS["no-shape"][0]:
                    wrong = problem("header", "", shown(cells))
                yield FileRow(line=line, problems=[wrong], counts=False)
                return
            if len({*header}) < len(header):
                yield _of_file("same-column", shown(cells), line=line)
        elif len(cells) != len(header):
            value = f"{len(cells)} where the header has {len(header)}"
            yield FileRow(line=line, problems=[problem("cells", value=value)], text=written)
        else:
            yield FileRow(dict(zip(header, cells, strict=True)), line)


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    import pyarrow as pa
    from pyarrow import parquet

    def text(one: Any) -> str:
        return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else str(one)

    try:
        # pre_buffer would hold a whole row group, and a file may be one row group.
        with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                yield _of_file("same-column", shown(names))
            for batch in table.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    # As JSON has it: dates, bytes and decimals as text, NaN as nothing. Of nested
                    # objects all have the keys of all, with nulls: those say nothing.
                    plain = json.loads(json.dumps(row, default=text), parse_constant=lambda n: None)
                    yield FileRow({key: _without_nulls(one) for key, one in plain.items()})
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        yield _of_file("parquet", shown(" ".join(str(error).split())))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _of_file(kind: str, value: str | None = None, line: int | None = None, **words: Any) -> FileRow:
    return FileRow(line=line, problems=[problem(kind, "", value, **words)], counts=False)


def _json_row(text: str, line: int | None) -> FileRow:
    if wrong := _not_utf8(text, line):
        return wrong
    value, problems = parse_json(text)
    return FileRow(value, line, problems, text if problems else None)


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
            names = (re.sub(r"\[\d+\]", "[]", name) for name in found.meta)
            self.meta.update(dict.fromkeys(names, 1))
        at = {"file": self.file, "row": self.rows if row.counts else None}
        found.problems = [replace(o, line=row.line or o.line, **at) for o in found.problems]
        for one in found.problems:
            self.kinds[one.what] += 1
            if self.kinds[one.what] <= self.limit:
                self.problems.append(one)
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
        good: write the good rows here, as JSONL with `messages`, `tools` and `meta`.
        bad: write the bad rows here, as JSONL with `line` (or `row`, where there are no lines),
            `problems`, and `value`, or `text` where it could not be read.
        meta: names of columns, and of keys of messages, to carry along in `meta`.

    Raises RecordsError for a file that can't be read, or an output that is the file itself.
    """
    source, report = DataFile(path), Report(file=str(path), limit=limit)
    outputs = [target for target in (path, good, bad) if target is not None]
    if len({os.path.realpath(target) for target in outputs}) < len(outputs):
        wrong = problem("overwritten", value=", ".join(map(str, outputs)))
        raise RecordsError([replace(wrong, file=str(path))])
    with ExitStack() as files:
        keep, reject = (
            target and files.enter_context(Path(target).open("w", encoding="utf-8", newline="\n"))
            for target in (good, bad)
        )
        for row in source:
            found = report.add(row, meta)
            if keep and not found.problems:
                kept = {"messages": found.messages, "tools": found.tools, "meta": found.meta}
                kept = {key: value for key, value in kept.items() if value}
                print(json.dumps(kept, ensure_ascii=False), file=keep)
            elif reject and found.problems and row.counts:
                where = {"row": report.rows} if row.line is None else {"line": row.line}
                held = {"value": row.value} if row.text is None else {"text": row.text}
                rejected = {**where, "problems": [vars(one) for one in found.problems], **held}
                print(json.dumps(rejected, ensure_ascii=False), file=reject)
    if not report.rows and report.ok:
        report.add(_of_file("no-rows"))
    return report


def read(path: str | Path, *, bad: str | Path = "raise", meta: Sequence[str] = ()) -> "Dataset":
    """The rows of a file as a `datasets.Dataset` of `messages` and `meta`, in memory.

    `bad` is "raise", "drop", or the path of a JSONL file for the bad rows with their problems;
    `meta` is as for `validate`. Where a row has tools, there is a column `tools` too. The Dataset
    stores JSON text, which its rows are read from: `to_pandas` gives the text.

    Raises RecordsError when a row is wrong and `bad` is "raise", no row is good, or the file itself
    is not sound: it is cut off, say.
    """
    from datasets import Dataset

    report = validate(path, bad=None if bad in ("raise", "drop") else bad, meta=meta)
    if (report.bad and bad == "raise") or report.broken or not report.good:
        raise RecordsError(report.problems, report.problems_total)
    found = (row.converted(meta) for row in DataFile(path))
    rows = [vars(one) for one in found if not one.problems]
    columns = [name for name in _COLUMNS if name != "tools" or report.used["tools"]]
    # JSON, because Arrow would give all messages the keys of all. Not the feature `Json`: that of
    # datasets 5.2 reads 0.3 as 0.30000000000000004, and keeps ten decimals.
    texts = {name: [json.dumps(row[name]) for row in rows] for name in columns}
    return Dataset.from_dict(texts).with_transform(_from_json)


_COLUMNS = ("messages", "tools", "meta")


def _from_json(batch: dict[str, list]) -> dict[str, list]:
    return {
        name: [json.loads(v) if name in _COLUMNS and isinstance(v, str) else v for v in values]
        for name, values in batch.items()
    }
