"""Rows of CSV and Parquet: tables, whose rows are dicts by column."""

import csv
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

from sftlab.data.problems import Problem, shown
from sftlab.data.rows import LONGEST, Row, escaped, lines, not_utf8
from sftlab.data.shapes import SHAPES

BATCH = 256
"""Rows of a Parquet file that are turned into Python's values at once."""


def csv_rows(stream: Any, file: BinaryIO) -> Iterator[Row]:
    """The rows of a CSV with a header, or of a TSV.

    Args:
        stream: a `streams.Stream`, whose `notes` and `blank_lines` are added to.
        file: the file, open in bytes.
    """
    source = _Lines(file)
    first = file.readline(2**20).decode("utf-8", "replace")
    file.seek(0)
    mark = "\t" if stream.format == "tsv" else max(",;\t", key=first.count)
    if stream.format == "csv" and mark != ",":
        stream.notes.append(f"cells are separated by {mark!r}")
    # strict: a quote that is never closed would else swallow the rest of the file.
    reader = csv.reader(source, delimiter=mark, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        source.broken = None
        try:
            cells = _next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, problems=[_unreadable(error)], text="")
            continue
        if source.broken:
            yield Row(line, problems=[source.broken], text=_written(cells))
        elif not cells:
            stream.blank_lines += 1
        elif header is None:
            header = cells
            yield from (Row(line, problems=[p], counts=False) for p in _header_faults(header))
        elif len(cells) != len(header):
            problem = Problem(
                what="a row has not the header's number of cells",
                value=f"{len(cells)} where the header has {len(header)}",
                remedy="put a cell that holds a comma, a quote or a line end in double quotes",
            )
            yield Row(line, problems=[problem], text=_written(cells))
        else:
            yield Row(line, dict(zip(header, cells, strict=True)))


class _Lines:
    """Decoded lines for csv.reader; `broken` is the problem of one that could not be decoded."""

    def __init__(self, file: BinaryIO):
        self._lines = lines(file)
        self.broken: Problem | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, raw = next(self._lines)
        if isinstance(raw, Problem):
            self.broken = raw
            return "\n"
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            self.broken = not_utf8(raw, error)
            text = escaped(raw) + "\n"
        return text.removeprefix("\ufeff") if number == 1 else text


def _next(reader: Iterator[list[str]]) -> list[str]:
    # The limit belongs to the whole process: others find it as they left it.
    before = csv.field_size_limit(LONGEST)
    try:
        return next(reader)
    finally:
        csv.field_size_limit(before)


def _unreadable(error: csv.Error) -> Problem:
    return Problem(
        what="the row is no CSV",
        value=str(error),
        remedy='a cell with a quote in it is written "like ""this"""; close every quote',
    )


def _written(cells: list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def _header_faults(header: list[str]) -> Iterator[Problem]:
    known = {name for columns in SHAPES.values() for names in columns for name in names}
    if not known & set(header):
        yield Problem(
            what="the first line names no known column",
            value=shown(header),
            remedy='the first line of a CSV is its header, such as "prompt,completion"',
        )
    if len(set(header)) < len(header):
        yield Problem(
            what="two columns have the same name",
            value=shown([name for name in header if header.count(name) > 1]),
            remedy="rename one: of the two only the last is read",
        )


def parquet_rows(stream: Any) -> Iterator[Row]:
    """The rows of a Parquet file, as Python's values; what JSON has no form for becomes text."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # pre_buffer would hold a whole row group, and a file may be one row group.
        with parquet.ParquetFile(stream.path, buffer_size=2**20, pre_buffer=False) as table:
            names = table.schema_arrow.names
            yield from (Row(None, problems=[p], counts=False) for p in _header_faults(names))
            for batch in table.iter_batches(batch_size=BATCH):
                yield from _batch_rows(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        stream.stopped_at = 1
        problem = Problem(
            what="the file is no sound Parquet",
            value=shown(" ".join(str(error).split())),
            remedy="write or fetch it again: it may be cut off",
        )
        yield Row(None, problems=[problem], counts=False)


def _batch_rows(batch: Any) -> Iterator[Row]:
    try:
        values = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from _batch_rows(batch.slice(index, 1))
            return
        remedy = "write the column again from UTF-8 text"
        problem = Problem(what="bytes are not UTF-8", value="in a text column", remedy=remedy)
        yield Row(None, problems=[problem], text="")
        return
    for value in values:
        yield Row(None, _plain(value))


def _plain(value: Any) -> Any:
    """A value as JSON has it: dates, bytes and decimals as text, NaN as nothing."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
