"""Files as people have them: what is told of each, and what is read."""

import csv
import json
import pickle
import re
import tracemalloc

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from sftlab.cli import main as cli
from sftlab.data.files import read, validate
from sftlab.data.messages import RecordsError

ROW = '{"prompt": "2 + 2?", "completion": "4"}'
MESSAGES = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]


def write(folder, content, name="data.jsonl"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def balanced(report):
    """Nothing is dropped uncounted."""
    assert report.good + report.bad == report.rows
    assert report.ok == (not report.problems_total)
    assert bool(report.bad) <= bool(report.problems_total)
    return report


@pytest.mark.parametrize(
    ("line", "field", "what"),
    [
        (b'{"prompt": "a", "completion": "tea\xc3', "byte 35", "bytes are not UTF-8"),
        (b'{"prompt": "\xff", "completion": "b"}', "byte 13", "bytes are not UTF-8"),
        (b'{"prompt": "a\0", "completion": "b"}', "column 14", "raw control character"),
        (b"\0\0\0\0", "column 1", "not JSON"),
        (rb'{"prompt": "a\u0000", "completion": "b"}', "prompt", "U+0000"),
        (rb'{"prompt": "a\ud800", "completion": "b"}', "", "half of a surrogate pair"),
        (rb'{"prompt": "a", "completion": "b", "\uDFFF": 1}', "", "half of a surrogate pair"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}', "'prompt'", "same key twice"),
        (b'{"prompt": "a", "completion": "b", "x": {"y": 1, "y": 1}}', "'y'", "same key twice"),
        (b'{"prompt": "a", "completion": NaN}', "", "NaN and Infinity"),
        (b'{"prompt": "a", "completion": "b", "score": -Infinity}', "", "NaN and Infinity"),
        (b'{"messages": [{"role": null, "content": null}]}', "messages[0].role", "role is missing"),
        (b'{"messages": [null]}', "messages[0]", "not an object"),
        (b'{"messages": [[null]]}', "messages[0]", "not an object"),
        (b'{"prompt": {"a": null}, "completion": "b"}', "prompt", "must be a string"),
        (b"null", "", "not an object"),
        (b"[1, 2]", "", "not an object"),
        (b"{'prompt': 'a', 'completion': 'b'}", "column 2", "not JSON"),
        (b'{"prompt": "a", "completion": "b",}', "column 35", "not JSON"),
        (b'{"prompt": "a", "completion": "b"', "column 34", "ends before it is complete"),
        (b'{"prompt": "a", "compl', "column 23", "ends before it is complete"),
        (b"{", "column 2", "ends before it is complete"),
        (b'{"prompt": "a", "completion": "b"} {}', "column 36", "text follows"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", "nesting is too deep"),
        (b'{"prompt": "a", "completion": "b", "n": ' + b"9" * 5000 + b"}", "", "is too large"),
        (b'{"prompt": "a", "completion": "b", "n": 1e999}', "", "is too large"),
        (b"prompt,completion", "column 1", "not JSON"),
    ],
)
def test_bad_line_of_jsonl_costs_that_line_and_no_other(tmp_path, line, field, what):
    good = ROW.encode()
    path = write(tmp_path, good + b"\n" + line + b"\n" + good)
    report = balanced(validate(path, bad=tmp_path / "bad"))
    assert (report.rows, report.good, report.bad) == (3, 2, 1)
    assert [(one.line, one.field) for one in report.problems] == [(2, field)]
    assert what in report.problems[0].what
    (rejected,) = map(json.loads, (tmp_path / "bad").read_text("utf-8").splitlines())
    assert rejected["line"] == 2
    assert rejected["problems"][0]["what"] == report.problems[0].what
    # As an element of an array the row is reported as well. What the array can't be followed behind
    # ends it, and the report says so.
    array = write(tmp_path, b"[" + good + b",\n" + line + b",\n" + good + b"]", "data.json")
    report = balanced(validate(array))
    told = report.problems[0]
    assert (told.row == 2 and report.rows == 3) or told.line == report.stopped_at > 1


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        (b"", "data.jsonl", "the file is empty"),
        (b"", "data.parquet", "the file is empty"),
        (b"\n \r\n\n", "data.jsonl", "no rows"),
        (b" \n", "data.json", "ends before"),
        (b"[]", "data.json", "no rows"),
        (b"prompt,completion\n", "data.csv", "no rows"),
        (ROW.encode("utf-16"), "data.jsonl", "UTF-16"),
        (ROW.encode("utf-16-le"), "data.json", "UTF-16"),
        ("prompt,completion\na,b\n".encode("utf-16"), "data.csv", "UTF-16"),
        (b"PAR1 and nothing else", "data.parquet", "not valid Parquet"),
        (b'{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "d.json", "more than one array"),
        (b'[{"prompt": "a", "completion": "b"}', "data.json", "ends before"),
        (b'[{"prompt": "a", "completion": "b"}] []', "data.json", "text follows"),
        (b'[{"prompt": "a", "completion": "b"},]', "data.json", "not JSON"),
        (b'{"data": [{}], "data": []}', "data.json", "same key twice"),
        (b"{1: 2}", "data.json", "not JSON"),
    ],
)
def test_file_that_is_wrong_as_a_whole(tmp_path, content, name, what):
    report = balanced(validate(write(tmp_path, content, name)))
    assert what in report.problems[-1].what
    for bad in ("raise", "drop"):
        with pytest.raises(RecordsError, match=re.escape(what)):
            read(tmp_path / name, bad=bad)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.jsonl", "no such file.*in that folder there are data.jsonl"),
        ("folder", "this is a folder; give one file of it: inner.csv"),
        ("data.txt", "the format is unknown; .jsonl"),
        ("data.jsonl.gz", "the format is unknown; .* are read: unpack the file"),
    ],
)
def test_what_is_no_file_of_rows(tmp_path, name, said):
    write(tmp_path, ROW)
    write(tmp_path, ROW, "data.txt")
    write(tmp_path, ROW, "data.jsonl.gz")
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", ROW, "inner.csv")
    for call in (validate, read):
        with pytest.raises(RecordsError, match=said):
            call(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "name", "note"),
    [
        (ROW, "data.jsonl", ""),
        (ROW + "\r\n\r\n" + ROW + "\r\n", "data.jsonl", ""),
        ("\ufeff" + ROW, "data.jsonl", "byte order mark"),
        ("\ufeff[" + ROW + "]", "data.json", "byte order mark"),
        ("\ufeffprompt,completion\n2 + 2?,4\n", "data.csv", "byte order mark"),
        (f"\n [{ROW},\n{ROW}]\n", "data.jsonl", "one JSON array"),
        (ROW + "\n" + ROW, "data.json", "one JSON object a line"),
        (ROW, "data.json", ""),
        (json.dumps(json.loads(ROW), indent=2), "data.json", ""),
        (f'{{"version": 1, "data": [{ROW}, {ROW}], "by": "me"}}', "data.json", "those of 'data'"),
        (f'{{"tags": ["a"], {ROW[1:]}', "data.json", ""),
        ("prompt;completion\r\n2 + 2?;4\r\n", "data.csv", "';'"),
        ("prompt\tcompletion\n2 + 2?\t4\n", "data.tsv", ""),
        ('id,prompt,completion\n\n1,"2 + 2?","4"\n', "data.csv", ""),
    ],
)
def test_sound_file_in_unexpected_clothes_is_read(tmp_path, content, name, note):
    path = write(tmp_path, content, name)
    report = balanced(validate(path))
    assert report.ok, str(report)
    assert note in "; ".join(report.notes)
    assert bool(note) == bool(report.notes)
    assert read(path)["messages"][:] == [MESSAGES] * report.rows


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("2 + 2?,4\n3 + 3?,6\n", 1, "names no known column"),
        ("prompt,prompt,completion\na,b,c\n", 1, "same name"),
        ("prompt,completion\na,b\na,b,c\n", 3, "number of cells"),
        ('prompt,completion\n"a\nb",c\n"a",""\n', 4, "content is empty"),
        ('prompt,completion\na,b\n"a"b,c\n', 3, "not valid CSV"),
        ('prompt,completion\na,b\n"a,c\nd,e\n', 3, "not valid CSV"),
        ("prompt,completion\na\0,b\n", 2, "U+0000"),
        (b"prompt,completion\na,b\ntea\xe9,c\nd,e\n", 3, "bytes are not UTF-8"),
        ("messages\n\"[{'role': 'user'}]\"\n", 2, "not JSON"),
        ('messages\n"[{""role"": ""user"", ""role"": ""user""}]"\n', 2, "same key twice"),
    ],
)
def test_bad_csv(tmp_path, content, line, what):
    report = balanced(validate(write(tmp_path, content, "data.csv")))
    assert report.problems[0].line == line
    assert what in report.problems[0].what


def test_cells_with_line_ends_and_beyond_the_csv_module_s_limit(tmp_path):
    long = "x" * (2**17 + 1)
    content = f'prompt,completion\n"a\n\nb","c, ""d"""\n{long},e\n'
    first, second = read(write(tmp_path, content, "data.csv"))["messages"]
    assert [m["content"] for m in first] == ["a\n\nb", 'c, "d"']
    assert second[0]["content"] == long


def test_parquet_with_nested_columns_dates_and_nan(tmp_path):
    import datetime

    rows = [
        {"messages": MESSAGES, "when": datetime.date(2024, 1, 2), "score": float("nan")},
        {"messages": [MESSAGES[0]], "when": None, "score": 1.0},
        {"messages": None, "when": None, "score": None},
    ]
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    report = balanced(validate(path, good=tmp_path / "good"))
    assert [(p.line, p.row, p.field) for p in report.problems] == [
        (None, 2, "messages[0].role"),
        (None, 3, "messages"),
    ]
    assert "row 2" in str(report)
    kept = {"messages": MESSAGES, "when": "2024-01-02", "score": None}
    assert json.loads((tmp_path / "good").read_text()) == kept
    data = path.read_bytes()
    for cut in (len(data) // 2, len(data) - 5):
        path.write_bytes(data[:cut])
        assert "not valid Parquet" in validate(path).problems[0].what


def test_blank_lines_and_mixed_shapes_are_counted_and_no_error(tmp_path):
    lines = ["", ROW + "\r", "\r", '{"instruction": "a", "output": "b", "id": 1}', ROW]
    report = validate(write(tmp_path, "\n".join(lines)))
    assert (report.ok, report.rows, report.blank_lines) == (True, 3, 2)
    assert report.shapes == {"prompt-completion": 2, "alpaca": 1}
    assert report.meta == {"id": 1}
    assert any("mixes shapes" in note for note in report.notes)
    assert "blank lines  2, skipped" in str(report)
    assert validate(write(tmp_path, "\n\nprompt,completion\na,b\n", "a.csv")).blank_lines == 2


def test_problems_are_all_counted_and_each_kind_is_shown_once(tmp_path):
    empty = '{"prompt": "a", "completion": ""}'
    report = validate(write(tmp_path, "\n".join([empty] * 50 + ["{"] + [ROW])), limit=5)
    assert (report.rows, report.good, report.bad, report.problems_total) == (52, 1, 51, 51)
    assert [one.line for one in report.problems] == [1, 2, 3, 4, 51]
    assert report.as_dict()["problems_not_shown"] == 46
    assert report.kinds == {"the content is empty": 50, "the JSON ends before it is complete": 1}
    assert validate(tmp_path / "data.jsonl", limit=0).problems == []
    with pytest.raises(ValueError, match="limit=-1"):
        validate(tmp_path / "data.jsonl", limit=-1)


def test_good_and_bad_rows_are_written_apart(tmp_path):
    again = [*MESSAGES, MESSAGES[0], MESSAGES[1] | {"train": False}]
    lines = [ROW, '{"prompt": "a"}', json.dumps({"messages": again, "id": "é"}), "{"]
    path = write(tmp_path, "\n".join(lines))
    report = validate(path, good=tmp_path / "good.jsonl", bad=tmp_path / "bad.jsonl")
    good = [json.loads(line) for line in (tmp_path / "good.jsonl").open(encoding="utf-8")]
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").open(encoding="utf-8")]
    assert good == [{"messages": MESSAGES}, {"messages": again, "id": "é"}]
    assert [(row["line"], row.get("value"), row.get("text")) for row in bad] == [
        (2, {"prompt": "a"}, None),
        (4, None, "{"),
    ]
    assert (len(good), len(bad)) == (report.good, report.bad)
    assert validate(tmp_path / "good.jsonl").ok


def test_no_file_is_written_over_what_is_read(tmp_path):
    path = write(tmp_path, ROW)
    (tmp_path / "link.jsonl").symlink_to(path)
    for outputs in (
        {"good": path},
        {"bad": tmp_path / "link.jsonl"},
        {"good": tmp_path / "a", "bad": tmp_path / "a"},
    ):
        with pytest.raises(RecordsError, match="over each other"):
            validate(path, **outputs)
    assert path.read_text() == ROW


def test_read_raises_drops_or_writes_apart(tmp_path):
    path = write(tmp_path, f'{ROW}\n{{"prompt": "a"}}\n{ROW}')
    with pytest.raises(RecordsError, match=r"data.jsonl, line 2, completion: ") as error:
        read(path)
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.problems, again.total) == (str(error.value), error.value.problems, 1)
    assert len(read(path, bad="drop")) == len(read(path, bad=tmp_path / "bad.jsonl")) == 2
    assert json.loads((tmp_path / "bad.jsonl").read_text())["line"] == 2


def test_dataset_keeps_meta_of_any_type_and_leaves_nothing_in_a_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("sftlab.data.files.CHUNK", 2)
    metas = [{"id": 1}, {"id": "a"}, {"id": [1, {"b": None}]}, {}, {"other": -(2**63)}]
    again = [*MESSAGES, MESSAGES[0], MESSAGES[1] | {"train": False}]
    rows = [json.loads(ROW) | meta for meta in metas] + [{"messages": again}]
    data = read(write(tmp_path, "\n".join(map(json.dumps, rows))))
    assert data["meta"][:] == [*metas, {}]
    assert data.column_names == ["messages", "meta"]
    assert data.cache_files == []
    # Where one message has `train`, all have.
    assert [m["train"] for m in data[5]["messages"]] == [False, True, False, False]
    assert [m["train"] for m in data[0]["messages"]] == [False, True]


@pytest.fixture
def command(monkeypatch, capsys):
    """Exit code, stdout and stderr of `sftlab validate ARGUMENTS`."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["sftlab", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


def test_a_sound_file_is_reported_in_few_lines(tmp_path, command):
    path = write(tmp_path, f"{ROW}\n" * 1200)
    assert command(path) == (
        0,
        f"""\
{path}: 1,200 rows, all good
shapes       prompt-completion 1,200
good rows    2,400 messages, 8,400 characters
""",
        "",
    )


def test_mistakes_are_reported_by_kind_with_line_field_value_and_remedy(tmp_path, command):
    empty = '{"prompt": "a\\u001b[31m", "completion": " "}\n'
    path = write(tmp_path, f'{ROW}\n{empty * 3}{{"text": "b"}}\n')
    code, out, err = command(path, "--limit", "3")
    assert (code, err) == (1, "")
    assert out.partition("\n\n")[2].splitlines() == [
        "3 x the content is empty",
        "     write a text, or drop the message or the row",
        "     line 2  completion  ' '",
        "     line 3  completion  ' '",
        "     1 more, not shown",
        "",
        "1 x the row has no known shape",
        '     a row needs "messages", "conversations", "prompt" and "completion", or "instruction" '
        'and "output": rename the columns',
        "     line 5    it has 'text'",
        "",
        "--limit 4 shows all problems",
    ]


def test_json_has_the_same_keys_whatever_the_file(tmp_path, command):
    keys = set()
    for content in (ROW, f"{ROW}\n{{", ""):
        code, out, _ = command(write(tmp_path, content), "--json")
        report = json.loads(out)
        keys.add(tuple(report))
        assert code == (0 if report["ok"] else 1)
        for problem in report["problems"]:
            assert list(problem) == ["line", "row", "field", "value", "what", "remedy"]
    assert len(keys) == 1
    code, out, err = command(tmp_path / "none.jsonl")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
spoken = text.filter(lambda value: not value.isspace())


@st.composite
def conversations(draw):
    system = draw(st.none() | spoken)
    messages = [] if system is None else [{"role": "system", "content": system}]
    for asked, answer in draw(st.lists(st.tuples(spoken, spoken), min_size=1, max_size=3)):
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
    return messages


def as_pair(messages):
    opening = {"system": messages[0]["content"]} if messages[0]["role"] == "system" else {}
    return {**opening, "prompt": messages[-2]["content"], "completion": messages[-1]["content"]}


def write_jsonl(path, rows):
    lines = (json.dumps(row, ensure_ascii=len(rows) % 2 == 0) for row in rows)
    path.write_bytes("\n".join(lines).encode())


def write_json(path, rows):
    document = rows if len(rows) % 2 else {"version": 1, "rows": rows}
    path.write_text(json.dumps(document, indent=len(rows) % 3 or None), encoding="utf-8")


def write_csv(path, rows):
    cells = [{k: v if isinstance(v, str) else json.dumps(v) for k, v in r.items()} for r in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(cells)


def write_parquet(path, rows):
    pd.DataFrame(rows).to_parquet(path)


FORMATS = {"jsonl": write_jsonl, "json": write_json, "csv": write_csv, "parquet": write_parquet}
checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
relaxed = settings(max_examples=15, deadline=None, suppress_health_check=checks)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("paired", [True, False])
@relaxed
@given(rows=st.lists(conversations(), min_size=1, max_size=4))
def test_any_sound_rows_read_back_to_the_same_messages(tmp_path, ending, paired, rows):
    if paired:
        rows = [[m for m in row[:1] if m["role"] == "system"] + row[-2:] for row in rows]
    path = tmp_path / f"data.{ending}"
    FORMATS[ending](path, [as_pair(row) if paired else {"messages": row} for row in rows])
    report = balanced(validate(path))
    assert report.ok, str(report)
    assert report.characters == sum(len(m["content"]) for row in rows for m in row)
    assert read(path)["messages"][:] == rows


pieces = st.lists(
    st.sampled_from([
        b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud83d", b",", b":", b"\n", b"\r\n", b" ",
        b"\0", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"NaN", b"null", b"1e999", b"-", b"a",
        b'"messages"', b'"prompt"', b'"completion"', b'"role"', b'"user"', b'"content"', b"prompt",
        b"completion", b";", b"\t", b"PAR1", ROW.encode(), ROW.encode() + b"\n",
    ])
).map(b"".join)  # fmt: skip


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@settings(parent=relaxed, max_examples=60)
@given(content=st.binary() | pieces)
@example(content=b"[" * 100_000)
@example(content=b'{"a":' * 100_000)
@example(content=b'[{"a":1},' * 10 + b"{")
def test_random_bytes_give_a_report(tmp_path, ending, content):
    path = write(tmp_path, content, f"data.{ending}")
    outputs = {"good": tmp_path / "good.jsonl", "bad": tmp_path / "bad.jsonl"}
    report = balanced(validate(path, limit=3, **outputs))
    assert len(report.problems) == min(3, report.problems_total)
    json.dumps(report.as_dict(), allow_nan=False).encode()
    str(report).encode()
    written = [out.read_text("utf-8").count("\n") for out in outputs.values()]
    assert written == [report.good, report.bad]
    if report.ok:
        assert len(read(path)) == report.rows
        assert validate(outputs["good"]).ok
    else:
        with pytest.raises(RecordsError):
            read(path)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path, ending):
    peaks = []
    for count in (300, 1500):
        path = tmp_path / f"{count}.{ending}"
        FORMATS[ending](path, [{"prompt": "x" * 5000, "completion": "y"}] * count)
        tracemalloc.start()
        assert validate(path).ok
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_a_json_document_has_a_limit_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("sftlab.data.files.LARGEST_JSON", 2**20)
    file = write(tmp_path, f"[{', '.join([ROW] * 30_000)}]", "large.json")
    report = validate(file)
    assert not report.ok
    assert report.rows == 0
    assert "may have 1 MiB" in str(report)
    assert "JSON Lines have no limit" in str(report)
    lines = write(tmp_path, f"{ROW}\n" * 30_000, "large.jsonl")
    assert validate(lines).good == 30_000


def test_parquet_is_read_in_parts(tmp_path):
    file = tmp_path / "large.parquet"
    text = "x" * 1000
    rows = pa.table(
        {"prompt": [text + str(n) for n in range(40_000)], "completion": ["4"] * 40_000}
    )
    parquet.write_table(rows, file, row_group_size=1000)
    del rows
    tracemalloc.start()
    report = validate(file)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.good == 40_000
    assert most < 20e6, "the file has 40 MB of text"
