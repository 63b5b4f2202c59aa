"""Mutated files of all formats: each gives a report that counts its rows, or a RecordsError."""

import csv
import datetime
import decimal
import io
import json
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from pyarrow import parquet

from sftlab.data import RecordsError, read, validate

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "ndjson")
TEXTS = [
    "2 + 2?", "é", "\u2028a\u0085b", "\ufeffa", "אב\u202e", "e\u0301", "😀", "\ue000", "null",
    "a\x7f\x1b[1m", 'say "a, b"; c', "a\r\nb\rc", "x" * 300, "\\ud800", "\U0010ffff", " ", "[]",
]  # fmt: skip
VALUES = [
    None, True, 0, -(2**63), 2**63 - 1, 0.1 + 0.2, 1e308, -0.0, 5e-324, [], {}, [[None, {}]],
    {"a": {"b": [1, "c"]}}, "train",
]  # fmt: skip
SPLICES = [
    b"\xff", b"\xed\xa0\x80", b"\\ud800", b'"', b'""', b"'", b"\\", b"\0", b"\n", b"\r\n", b"\r",
    b",", b";", b"\t", b"[", b"]", b"{", b"}", b":", b"NaN", b"-Infinity", b"1e999", b"9" * 30,
    b"9" * 5000, b"\xef\xbb\xbf", b"\xff\xfe", b"PAR1", b"null", b"[" * 2000, b'{"a":' * 700,
    b"[" * 200 + b"]" * 200, b'"id": "\\udfff", ', b'"\\ud83d": 1, ', "\u2028".encode(), b"[],",
    b"e", b"-",
]  # fmt: skip


def rows_of(rng: Random) -> list[dict]:
    """Sound rows of one shape, some with what is carried along."""
    say = lambda: rng.choice(TEXTS) + rng.choice(["", "a"])  # noqa: E731
    shape, rows = rng.randrange(3), []
    for _ in range(rng.randint(1, 5)):
        turns = [{"role": "user", "content": say()}, {"role": "assistant", "content": say()}]
        row = [
            {"messages": turns}, {"prompt": say(), "completion": say()},
            {"conversations": [{"from": "human", "value": say()}, {"from": "gpt", "value": say()}]},
        ][shape]  # fmt: skip
        row |= {"id": rng.choice([*TEXTS, *VALUES])} if rng.random() < 0.5 else {}
        row |= {"meta": {rng.choice(TEXTS): rng.choice(VALUES)}} if rng.random() < 0.3 else {}
        rows.append(row)
    return rows


def text_file(rng: Random, rows: list[dict], kind: str) -> bytes:
    ascii_ = rng.random() < 0.5
    if kind in ("csv", "tsv"):
        names = list(dict.fromkeys(name for row in rows for name in row))
        out = io.StringIO()
        writer = csv.writer(out, "excel" if kind == "csv" else "excel-tab")
        writer.writerow(names)
        for row in rows:
            cells = (row.get(name, "") for name in names)
            texts = [one if isinstance(one, str) else json.dumps(one) for one in cells]
            writer.writerow(texts)
        return out.getvalue().encode()
    if kind == "json":
        document = rng.choice([rows, {"data": rows}, {"version": 1, "rows": rows}, rows[0]])
        return json.dumps(document, ensure_ascii=ascii_, indent=rng.choice([None, 1])).encode()
    return "\n".join(json.dumps(row, ensure_ascii=ascii_) for row in rows).encode()


def odd_column(rng: Random, count: int) -> pa.Array:
    """A column of a type that other tools write, with values at its limits."""
    big = [rng.choice([0, 1, -1, 2**40, 2**62, -(2**62), 2**63 - 1]) for _ in range(count)]
    near = [value % 2**31 for value in big]
    unit = rng.choice(["ms", "us", "ns"])
    made = [
        lambda: pa.array(big).cast(pa.timestamp(unit)),
        lambda: pa.array(big).cast(pa.timestamp(unit, tz=rng.choice(["UTC", "Mars/Olympus"]))),
        lambda: pa.array(big).cast(pa.duration(unit)),
        lambda: pa.array(near, pa.int32()).cast(pa.date32()),
        lambda: pa.array([value % 86400 for value in near], pa.int32()).cast(pa.time32("s")),
        lambda: pa.array([value + 2**63 for value in near], pa.uint64()),
        lambda: pa.array([decimal.Decimal(10) ** rng.randint(0, 70)] * count, pa.decimal256(76, 2)),
        lambda: pa.array([b"a\xff", b"\xed\xa0\x80"] * count)[:count].view("string"),
        lambda: pa.array([b"a\xff"] * count),
        lambda: pa.array([float("nan"), float("inf")] * count)[:count],
        lambda: pa.array([[("a", 1), ("a", 2)]] * count, pa.map_("string", "int64")),
        lambda: pa.array(["a", "b"] * count)[:count].dictionary_encode(),
        lambda: pa.array([{"a": None, "b": [datetime.date(2024, 1, 2)]}] * count),
        lambda: pa.nulls(count),
    ]  # fmt: skip
    return rng.choice(made)()


def parquet_file(rng: Random, rows: list[dict]) -> bytes:
    named = [name for name in rows[0] if name not in ("id", "meta")]
    table = {name: [row.get(name) for row in rows] for name in named}
    columns = {name: pa.array(values) for name, values in table.items()}
    for name in rng.sample(["id", "prompt", "source", "meta", "\x1b[1m"], rng.randint(0, 3)):
        columns[name] = odd_column(rng, len(rows))
    out = io.BytesIO()
    how = {"compression": rng.choice(["snappy", "zstd", "none"])}
    how["use_dictionary"] = rng.random() < 0.5
    parquet.write_table(pa.table(columns), out, row_group_size=rng.choice([1, 2, 100]), **how)
    return out.getvalue()


def damaged(rng: Random, content: bytes) -> bytes:
    """The bytes with a change: one flipped, a part cut, repeated or moved, something put in."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    b = rng.choice([b, min(b, a + 8)])
    return rng.choice([
        content[:a] + bytes([rng.randrange(256)]) + content[a + 1 :], content[:a],
        content[:a] + content[b:], content[:b] + content[a:], content[b:] + content[:b],
        *[content[:a] + rng.choice(SPLICES) + content[rng.choice([a, b]) :]] * 3,
    ]) or b" "  # fmt: skip


def check(seed: int, folder: Path) -> str:
    rng = Random(seed)
    kind, rows = rng.choice(FORMATS), rows_of(rng)
    content = parquet_file(rng, rows) if kind == "parquet" else text_file(rng, rows, kind)
    for _ in range(rng.choice([0, 0, 0, 1] if kind == "parquet" else [0, 1, 1, 2, 4])):
        content = damaged(rng, content)
    name = rng.choice(["data", "a b", "é", "\x1b[1mred", "\udcff"])
    path, good, bad = folder / f"{name}.{kind}", folder / "good.jsonl", folder / "bad.jsonl"
    path.write_bytes(content)
    case = f"seed {seed}: {kind}, {content[:1000]!r}"
    try:
        report = validate(path, limit=3, good=good, bad=bad)
    except RecordsError as error:
        str(error).encode()
        return f"{kind}, refused"
    assert report.rows == report.good + report.bad, case
    assert report.ok == (not report.kinds) == (not report.bad and not report.broken), case
    json.dumps(report.as_dict(), allow_nan=False, ensure_ascii=False).encode()
    assert "\x1b" not in str(report).encode().decode(), case
    if kind in ("jsonl", "ndjson") and not report.broken:
        assert report.rows == sum(bool(line.strip()) for line in content.split(b"\n")), case
    if not report.ok:
        with pytest.raises(RecordsError):
            read(path)
    kept, left = (file.read_bytes().splitlines() for file in (good, bad))
    assert (len(kept), len(left)) == (report.good, report.bad), case
    assert all(json.loads(line)["problems"] for line in left), case
    if kept:
        again = read(good)
        found = [{key: one for key, one in row.items() if one} for row in again]
        assert found == [json.loads(line) for line in kept], case
        assert validate(good, good=folder / "again.jsonl").ok, case
        assert (folder / "again.jsonl").read_bytes() == good.read_bytes(), case
    return f"{kind}, " + ("broken" if report.broken else "bad rows" if report.bad else "all good")
