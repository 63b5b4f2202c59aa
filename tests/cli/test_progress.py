"""Attempts: kept after opting in alone, summed up for one learner and for a class."""

import json

import pytest

from sftlab.exercises import class_report, exercise, record_attempt

MISTAKE, DIAGNOSIS = next(iter(exercise("05.1").diagnoses.items()))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "mine"))
    return tmp_path / "mine"


def test_nothing_is_kept_before_opting_in_and_after_opting_out(call, folder):
    record_attempt("05.1", "right")
    assert "Progress is off" in call("progress")[1]
    assert not folder.exists()
    assert call("progress", "on")[1].startswith("Progress is on. Nothing is kept yet in")
    record_attempt("05.1", "misconception", MISTAKE, 3.5)
    call("progress", "off")
    record_attempt("05.1", "right")
    line = json.loads((folder / "progress.jsonl").read_text())
    kept = {"exercise": "05.1", "verdict": "misconception", "misconception": MISTAKE}
    assert line == kept | {"seconds": 3.5, "time": line["time"]}
    assert "1 learner" in call("progress", "show")[1]
    assert call("progress", "delete")[0] == 0
    assert [*folder.iterdir()] == []


def test_no_lesson_fails_for_its_file_and_a_torn_line_costs_no_other(call, folder):
    call("progress", "on")
    file = folder / "progress.jsonl"
    file.write_text('{"exercise": "05.1", "ver')
    for name in ("stub", "right", "right"):
        exercise("05.1").check(exercise("05.1").functions[name])  # an untouched stub is no attempt
    assert [line[:6] for line in file.read_text().splitlines()] == ['{"exer', '{"time', '{"time']
    code, out, _ = call("progress")
    assert (code, "1, left out: " in out) == (0, True)
    file.unlink()
    file.mkdir()
    record_attempt("05.1", "right")


@pytest.fixture
def learners(call, folder, tmp_path):
    """The files of two learners: the first needs three attempts, the second gives up."""
    mistaken = ("05.1", "misconception", MISTAKE)
    ann = [("05.1", "wrong", "", 1.0), (*mistaken, 20.0), ("05.1", "solution shown")]
    attempts = {"ann": [*ann, ("05.1", "right", "", 40.0), ("77.1", "right")]}
    attempts["bob"] = [(*mistaken, 60.0)]
    for name, made in attempts.items():
        call("progress", "on")
        for attempt in made:
            record_attempt(*attempt)
        assert call("progress", "show", "--out", tmp_path / f"{name}.jsonl")[0] == 0
        call("progress", "delete")
    return [tmp_path / "ann.jsonl", tmp_path / "bob.jsonl"]


def test_a_class_is_summed_up_and_nobody_is_named_or_counted_twice(call, learners, tmp_path):
    assert "share lines; leave one of them out" in call("class", *learners, learners[0])[2]
    assert call("class", *learners, "--out", tmp_path / "class.html")[0] == 0
    assert "is there already" in call("class", *learners, "--out", learners[0])[2]
    report, named = class_report(learners), class_report(learners, names=True)
    title = exercise("05.1").title
    assert f"| 05.1 {title} | 4 | 0 of 2 | 1 of 2 | 50 |" in report.markdown
    assert f"| 05.1 | 2 | {DIAGNOSIS} |" in report.markdown
    assert "| 77.1 | 1 | 1 of 1 | 1 of 1 | 0 |" in report.markdown
    assert (tmp_path / "class.html").read_text() == report.html
    assert not any(name in report.html + report.markdown for name in (">ann<", "| ann |", "bob"))
    assert "| ann | 4 | 2 of 2 | 0 of 0 |" in named.markdown
    assert "| bob | 1 | 0 of 1 | 0 of 0 |" in named.markdown


def test_lines_that_cannot_be_read_are_named_and_left_out(learners):
    line = json.loads(learners[1].read_text())
    odd = [line | {"new": 1}, line | {"seconds": -1}, line | {"verdict": "\x1b[2J"}, [], 3]
    with learners[1].open("a") as file:
        file.write("\n".join(map(json.dumps, odd)) + "\n\nnot JSON\n")
    report = class_report(learners).markdown
    assert "6, left out: " in report
    assert all(f"bob.jsonl, line {n}" in report for n in (2, 3, 4, 5, 6, 8))
    assert "| 4 | 0 of 2 | 1 of 2 |" in report
