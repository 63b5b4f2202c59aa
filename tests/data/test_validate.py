"""`sftlab validate`, as a learner with files of their own meets it."""

import json

import pytest
import typer

from sftlab.cli import data
from sftlab.cli import main as cli

GOOD = '{"prompt": "2 + 2?", "completion": "4"}\n'


@pytest.fixture
def validate(monkeypatch, capsys):
    """Exit code, stdout and stderr of `sftlab validate ARGUMENTS`."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(lambda: None)  # with one command alone, typer would take no name for it
    app.command()(data.validate)
    monkeypatch.setattr(cli, "app", app)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["sftlab", "validate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


def test_sound_file_is_told_in_few_lines(tmp_path, validate):
    path = tmp_path / "my.jsonl"
    path.write_text(GOOD * 1200)
    code, out, err = validate(path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{path}: 1,200 rows, all good",
        "shapes       prompt-completion 1,200",
        "good rows    2,400 messages, 8,400 characters",
    ]


def test_mistakes_are_told_by_kind_with_line_field_value_and_remedy(tmp_path, validate):
    path = tmp_path / "my.jsonl"
    path.write_text(GOOD + '{"prompt": "a\x1b[31m", "completion": " "}\n' * 3 + '{"text": "b"}\n')
    path.write_text(path.read_text().replace("\x1b[31m", r"\u001b[31m"))
    code, out, err = validate(path, "--limit", "3")
    assert (code, err) == (1, "")
    assert out.splitlines()[3:] == [
        "",
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


def test_json_has_the_same_keys_whatever_the_file(tmp_path, validate):
    keys = []
    for number, content in enumerate((GOOD, GOOD + "{", "")):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(content)
        code, out, _ = validate(path, "--json")
        report = json.loads(out)
        keys.append(list(report))
        assert code == (0 if report["ok"] else 1)
    assert keys[0] == keys[1] == keys[2]
    assert set(keys[0]) >= {"file", "format", "rows", "good", "bad", "shapes", "problems",
                            "problems_not_shown", "characters"}  # fmt: skip
    report = json.loads(validate(tmp_path / "1.jsonl", "--json")[1])
    (problem,) = report["problems"]
    assert list(problem) == ["line", "row", "field", "value", "what", "remedy"]
    assert (report["rows"], report["good"], report["bad"], problem["line"]) == (2, 1, 1, 2)


@pytest.mark.parametrize("name", ["none.jsonl", "data.txt", "data.jsonl.gz", "."])
def test_what_can_not_be_read_is_one_line_and_exit_code_2(tmp_path, validate, name):
    (tmp_path / "data.txt").write_text(GOOD)
    (tmp_path / "data.jsonl.gz").write_text(GOOD)
    code, out, err = validate(tmp_path / name)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert str(tmp_path) in err
