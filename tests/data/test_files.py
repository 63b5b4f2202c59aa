"""Files as people have them: what is told of each, and what is read."""

import datetime
import json
import pickle
import re
import tomllib
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from sftlab.data.files import read, validate
from sftlab.data.problems import RecordsError

WRONG = tomllib.loads(Path(__file__).with_name("wrong.toml").read_text(encoding="utf-8"))
ROW = '{"prompt": "2 + 2?", "completion": "4"}'
MESSAGES = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]


def write(folder, content, name="data.jsonl"):
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
    (folder / name).write_bytes(raw)
    return folder / name


def balanced(report):
    """Nothing is dropped uncounted."""
    assert report.good + report.bad == report.rows
    assert report.ok == (not report.problems_total)
    assert bool(report.bad) <= bool(report.problems_total)
    return report


DEEP = (f'{{"a":{"[" * 100_000}{"]" * 100_000}}}', "", "nesting is too deep")
LONG = (f'{{"prompt": "a", "completion": "b", "n": {"9" * 5000}}}', "", "is too large")


@pytest.mark.parametrize(("line", "field", "what"), [*WRONG["lines"], DEEP, LONG])
def test_bad_line_of_jsonl_costs_that_line_and_no_other(tmp_path, line, field, what):
    line, good = line.encode("latin-1"), ROW.encode()
    path = write(tmp_path, good + b"\n" + line + b"\n" + good)
    report = balanced(validate(path, bad=tmp_path / "bad"))
    assert (report.rows, report.good, report.bad) == (3, 2, 1)
    assert [(one.line, one.field) for one in report.problems] == [(2, field)]
    assert what in report.problems[0].what
    (rejected,) = map(json.loads, (tmp_path / "bad").read_text("utf-8").splitlines())
    assert rejected["line"] == 2
    assert rejected["problems"][0]["what"] == report.problems[0].what
    # In a JSON array its row is named, or its place where the array can't be followed.
    array = write(tmp_path, b"[" + good + b",\n" + line + b",\n" + good + b"]", "data.json")
    report = balanced(validate(array))
    first = report.problems[0]
    assert (first.row == 2 and report.rows == 3) or (report.broken and first.value)


@pytest.mark.parametrize(("content", "name", "what"), WRONG["files"])
def test_file_that_is_wrong_as_a_whole(tmp_path, content, name, what):
    report = balanced(validate(write(tmp_path, content.encode("latin-1"), name)))
    assert what in report.problems[-1].what
    for bad in ("raise", "drop"):
        with pytest.raises(RecordsError, match=re.escape(what)):
            read(tmp_path / name, bad=bad)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.jsonl", "there is no such file"),
        ("folder", "there is no such file; check the path; of a folder give one file"),
        ("data.txt", "the format is unknown; .jsonl"),
        ("data.jsonl.gz", "the format is unknown; .* are read: unpack the file"),
    ],
)
def test_what_is_no_file_of_rows(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    for file in ("data.txt", "data.jsonl.gz"):
        write(tmp_path, ROW, file)
    for call in (validate, read):
        with pytest.raises(RecordsError, match=said):
            call(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (ROW, "data.jsonl"),
        (ROW + "\r\n\r\n" + ROW + "\r\n", "data.jsonl"),
        ("\ufeff" + ROW, "data.jsonl"),
        ("\ufeff[" + ROW + "]", "data.json"),
        ("\ufeffprompt,completion\n2 + 2?,4\n", "data.csv"),
        (f"\n [{ROW},\n{ROW}]\n", "data.jsonl"),
        (ROW + "\n" + ROW, "data.json"),
        (ROW, "data.json"),
        (json.dumps(json.loads(ROW), indent=2), "data.json"),
        (f'{{"version": 1, "data": [{ROW}, {ROW}], "url": "u"}}', "data.json"),
        (f'{{"tags": ["a"], {ROW[1:]}', "data.json"),
        ('{"prompt": ["2 + 2?", "2 + 2?"], "completion": ["4", "4"]}', "data.json"),
        (pd.DataFrame([json.loads(ROW)] * 2).to_json(), "data.json"),
        ("prompt;completion\r\n2 + 2?;4\r\n", "data.csv"),
        ("prompt\tcompletion\n2 + 2?\t4\n", "data.tsv"),
        ("prompt|completion\n2 + 2?|4\n", "data.csv"),
        (",prompt,completion,\n0,2 + 2?,4,\n,,,\n", "data.csv"),
        (f"messages\n{json.dumps(MESSAGES)}\n", "data.tsv"),
        ('id,prompt,completion\n\n1,"2 + 2?","4"\n', "data.csv"),
        (f'id,prompt,completion\n"{"a" * 2**17}\n""",2 + 2?,4\n', "data.csv"),
    ],
)
def test_sound_file_in_unexpected_clothes_is_read(tmp_path, content, name):
    path = write(tmp_path, content, name)
    report = balanced(validate(path))
    assert report.ok, str(report)
    assert read(path)["messages"][:] == [MESSAGES] * max(1, content.count("2 + 2?"))


@pytest.mark.parametrize(("content", "line", "what"), WRONG["csv"])
def test_bad_csv(tmp_path, content, line, what):
    report = balanced(validate(write(tmp_path, content.encode("latin-1"), "data.csv")))
    assert report.problems[0].line == line
    assert what in report.problems[0].what


def test_parquet_with_nested_columns_dates_and_nan(tmp_path):
    rows = [
        {"messages": MESSAGES, "date": datetime.date(2024, 1, 2), "version": float("nan")},
        {"messages": [MESSAGES[0]], "date": None, "version": 1.0},
        {"messages": None, "date": None, "version": None},
    ]
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    report = balanced(validate(path, good=tmp_path / "good"))
    places = [(one.line, one.row, one.field) for one in report.problems]
    assert places == [(None, 2, "messages[0].role"), (None, 3, "messages")]
    assert "row 2" in str(report)
    kept = {"messages": MESSAGES, "meta": {"date": "2024-01-02", "version": None}}
    assert json.loads((tmp_path / "good").read_text()) == kept
    path.write_bytes(path.read_bytes()[:-5])
    assert "not valid Parquet" in validate(path).problems[0].what


def test_mixed_shapes_and_further_columns_are_counted(tmp_path):
    lines = [ROW + "\r", "\r", '{"instruction": "a", "output": "b", "id": 1}', ROW]
    report = validate(write(tmp_path, "\n".join(lines)))
    assert (report.ok, report.rows) == (True, 3)
    assert report.shapes == {"prompt-completion": 2, "alpaca": 1}
    assert report.meta == {"id": 1}


def test_good_and_bad_rows_are_written_apart(tmp_path):
    again = [*MESSAGES, MESSAGES[0], MESSAGES[1] | {"train": False}]
    lines = [ROW, '{"prompt": "a"}', json.dumps({"messages": again, "id": "é"}), "{"]
    path = write(tmp_path, "\n".join(lines))
    report = validate(path, good=tmp_path / "good.jsonl", bad=tmp_path / "bad.jsonl")
    good = [json.loads(line) for line in (tmp_path / "good.jsonl").open(encoding="utf-8")]
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").open(encoding="utf-8")]
    assert good == [{"messages": MESSAGES}, {"messages": again, "meta": {"id": "é"}}]
    held = [(row["line"], row.get("value"), row.get("text")) for row in bad]
    assert held == [(2, {"prompt": "a"}, None), (4, None, "{")]
    assert (len(good), len(bad)) == (report.good, report.bad)
    assert validate(tmp_path / "good.jsonl").ok


def test_read_raises_or_drops(tmp_path):
    path = write(tmp_path, f'{ROW}\n{{"prompt": "a"}}\n{ROW}')
    with pytest.raises(RecordsError, match=r"data.jsonl, line 2, completion: ") as error:
        read(path)
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.problems, again.total) == (str(error.value), error.value.problems, 1)
    assert len(read(path, bad="drop")) == 2


def test_dataset_keeps_meta_of_any_type_and_leaves_nothing_in_a_cache(tmp_path):
    metas = [{"id": 1}, {"id": "a"}, {"id": [1, {"b": None}]}, {}, {"version": -(2**63)}]
    metas += [{"version": 0.3}, {"version": 3.14159265358979}]
    again = [*MESSAGES, MESSAGES[0], MESSAGES[1] | {"train": False}]
    rows = [json.loads(ROW) | meta for meta in metas] + [{"messages": again}]
    data = read(write(tmp_path, "\n".join(map(json.dumps, rows))))
    assert data["meta"][:] == [*metas, {}]
    assert data.column_names == ["messages", "meta"]
    assert data.cache_files == []
    assert data[len(metas)]["messages"] == again
    assert data[0]["messages"] == MESSAGES
    assert data.map(lambda row: {"messages": row["messages"][:1]})[0]["messages"] == MESSAGES[:1]


def test_the_report_says_each_mistake_with_line_field_value_and_remedy(tmp_path):
    path = write(tmp_path, f"{ROW}\n" * 1200)
    assert str(validate(path)).splitlines() == [
        f"{path}: 1,200 rows, all good",
        "shapes       prompt-completion 1,200",
        "good rows    2,400 messages, 8,400 characters",
        "used         completion 1,200, prompt 1,200",
    ]
    empty = '{"prompt": "a\\u001b[31m", "completion": " "}\n'
    write(tmp_path, f'{ROW}\n{empty * 3}{{"a": "b"}}\n')
    report = validate(path, limit=2)
    assert str(report).partition("\n\n")[2].splitlines() == [
        "3 x the content is empty",
        "     write a text, or drop the message or the row",
        "     line 2  completion  ' '",
        "     line 3  completion  ' '",
        f"     1 more, not shown: `sftlab validate {path} --limit 3` shows all",
        "",
        "1 x the row has no known shape",
        '     a row needs "messages", "conversations", "prompt" and "completion", or "instruction" '
        'and "output": rename the columns, or write the turns as '
        '{"messages": [{"role": ..., "content": ...}]}',
        "     line 5  it has 'a'",
    ]
    assert (report.problems_total, len(report.problems)) == (4, 3)


def write_rows(path, rows):
    """Rows in the format of the file's name."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)


@pytest.mark.parametrize("path", ["", "a\0b.jsonl", "x" * 300 + ".jsonl", "\udcff.jsonl"])
def test_what_is_no_name_of_a_file(path):
    with pytest.raises(RecordsError, match="no such file") as error:
        validate(path)
    assert "\0" not in str(error.value)
    str(error.value).encode()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    peaks = []
    for count in (300, 1500):
        path = tmp_path / f"{count}.{ending}"
        write_rows(path, [{"prompt": "x" * 5000, "completion": "y"}] * count)
        tracemalloc.start()
        assert validate(path).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_a_json_document_says_where_it_is_wrong_and_has_a_limit(tmp_path, monkeypatch):
    file = write(tmp_path, f"[{ROW},\n{ROW}\n{ROW}]", "a.json")
    (problem,) = validate(file).problems
    assert (problem.line, problem.field) == (3, "column 1")
    monkeypatch.setattr("sftlab.data.readers.LARGEST_JSON", 20)
    file.write_text(f'{{"data": [{ROW}]}}', encoding="utf-8")
    (problem,) = validate(file).problems
    assert "is read whole" in problem.what
    assert "jq -c '.[]' FILE > NEW.jsonl" in problem.remedy
