"""What is read within bounds of memory, what is refused, and where rows may be written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sftlab.data import RecordsError, files, read, readers, validate

ROW = b'{"prompt": "2 + 2?", "completion": "4"}\n'
HEADER = b"prompt,completion\n"
MIB = 2**20
TEXT_FILES = [  # name, beginning, what is repeated, MiB, end, what is said
    ("commas.jsonl", ROW, b",", 30, b"\n" + ROW, "a row is larger than 4 MiB"),
    ("row.jsonl", ROW + b'{"a":[', b"[],", 3, b"0]}\n" + ROW, "no known shape"),
    ("cell.jsonl", ROW + b'{"prompt":"', b"a", 200, b"", "a row is larger"),
    ("array.json", b"[", b"[],", 30, b"[]]", "is read whole"),
    ("values.json", b"[", b'{"a":0},', 7, b"", "ends before it is complete"),
    ("numbers.json", b'{"a":[', b"NaN,", 7, b"0]}", "NaN and Infinity"),
    ("cell.csv", HEADER, b"a", 60, b"\n2 + 2?,4\n", "a row is larger"),
    ("quote.csv", HEADER + b'"', b"a,b\n", 8, b"", "not closed within 4 MiB"),
    ("columns.csv", HEADER[:-1], b",", 3, b"\n", "more than 1000 columns"),
]
PARQUET_FILES = {  # column, what is said
    "dictionary": (pa.array(["x" * (5 * MIB)] * 20), "a row is larger"),
    "categories": (pa.array([str(n) * 5000 for n in range(400)]).dictionary_encode(), ""),
    "cell": (["x" * (200 * MIB)], "a row is larger"),
}
MEASURE = r"""
import re, sys
from sftlab.data import validate
for path in sys.argv[1:]:
    kinds = validate(path, good="good", bad="bad").kinds
    # ru_maxrss would begin with the memory of the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]
    print(peak, *kinds, "", sep=" | ")
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read in /proc")
def test_a_file_that_is_one_huge_row_is_told_of_under_1_gb(tmp_path):
    said = []
    for name, begin, unit, size, end, what in TEXT_FILES:
        with (tmp_path / name).open("wb") as file:
            file.write(begin)
            for _ in range(size):
                file.write(unit * (MIB // len(unit)))
            file.write(end)
        said.append((name, what))
    for name, (column, what) in PARQUET_FILES.items():
        table = pa.table({"prompt": column, "completion": ["b"] * len(column)})
        parquet.write_table(table, tmp_path / f"{name}.parquet", dictionary_pagesize_limit=2**30)
        said.append((f"{name}.parquet", what))
    command = [sys.executable, "-c", MEASURE, *(name for name, _ in said)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (name, what), line in zip(said, done.stdout.splitlines(), strict=True):
        assert what in line if what else line.endswith("| "), name
        assert int(line.split()[0]) * 1024 < 1e9, (name, done.stdout)


@pytest.mark.parametrize(("unit", "good"), [("a", 1), ("é", 0), ("\x01", 0)])
def test_a_row_that_is_too_large_as_json_is_told_when_it_is_read(tmp_path, monkeypatch, unit, good):
    monkeypatch.setattr(readers, "LARGEST_ROW", 1000)
    (tmp_path / "a.csv").write_text(f"prompt,completion\n{unit * 600},b\n", encoding="utf-8")
    report = validate(tmp_path / "a.csv", good=tmp_path / "a.jsonl")
    assert (report.good, report.bad) == (good, 1 - good)
    assert not good or validate(tmp_path / "a.jsonl").ok


def test_read_says_that_rows_take_too_much_memory(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(ROW * 100)
    monkeypatch.setattr(files, "free_ram", lambda: 10_000)
    with pytest.raises(RecordsError, match="more memory than is free"):
        read(tmp_path / "a.jsonl")


def test_outputs_under_another_name_of_the_input_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, other = tmp_path / "a.jsonl", tmp_path / "other"
    path.write_bytes(ROW)
    (tmp_path / "soft").symlink_to("a.jsonl")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    other.write_text("before")
    for good in ("soft", "folder/../a.jsonl", "other"):
        with pytest.raises(RecordsError, match="over each other"):
            validate("a.jsonl", good=good, bad="other" if good == "other" else None)
    with pytest.raises(RecordsError, match="over each other"):
        validate(path, good="A", bad="a")
    for good in ("folder", "pipe", "none/x", "/dev/null", "/dev/stdout", "", "x" * 300):
        with pytest.raises(RecordsError, match="can't be written to this place"):
            validate(path, good=good)
    assert (path.read_bytes(), other.read_text()) == (ROW, "before")
    assert {one.name for one in tmp_path.iterdir()} == {
        *("a.jsonl", "soft", "folder", "pipe", "other")
    }


def test_what_was_there_stays_when_the_writing_is_interrupted(tmp_path, monkeypatch):
    path, good = tmp_path / "a.jsonl", tmp_path / "good"
    path.write_bytes(ROW * 3)
    good.write_text("before")

    def interrupted(self):
        yield readers.FileRow(json.loads(ROW), 1)
        assert len([*tmp_path.iterdir()]) == 3
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(readers.DataFile, "__iter__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            validate(path, good=good)
    assert good.read_text() == "before"
    assert len([*tmp_path.iterdir()]) == 2
    assert validate(path, good=good).ok
    assert good.read_bytes().count(b"\n") == 3
