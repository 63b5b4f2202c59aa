"""Attempts: kept after opting in alone, summed up for one learner and for a class."""

import json

import pytest

from sftlab.exercises import class_report, exercises, record_attempt

EXERCISE = exercises("05")[0]
MISTAKE = next(iter(EXERCISE.diagnoses))


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SFTLAB_PROGRESS", str(tmp_path / "mine"))
    return tmp_path / "mine"


def lines_of(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def test_nothing_is_kept_before_opting_in_and_after_opting_out(call, folder):
    record_attempt(EXERCISE.id, "right")
    assert "Progress is off" in call("progress")[1]
    assert not folder.exists()
    assert call("progress", "on")[1].startswith("Progress is on. Nothing is kept yet in")
    record_attempt(EXERCISE.id, "misconception", MISTAKE, 3.5)
    call("progress", "off")
    record_attempt(EXERCISE.id, "right")
    (line,) = lines_of(folder)
    assert line.pop("time").startswith("20")
    assert line == {
        "exercise": EXERCISE.id, "verdict": "misconception", "misconception": MISTAKE, "seconds": 3.5,
    }  # fmt: skip
    assert EXERCISE.title.split()[0] in call("progress", "show")[1]
    assert call("progress", "delete")[0] == 0
    assert [*folder.iterdir()] == []


def test_a_check_is_kept_and_an_untouched_stub_is_not(call, folder):
    call("progress", "on")
    for function in (EXERCISE.functions["stub"], EXERCISE.functions["right"]):
        EXERCISE.check(function)
    assert [line["verdict"] for line in lines_of(folder)] == ["right"]


def test_no_lesson_fails_for_its_file_and_a_torn_line_costs_no_other(call, folder):
    call("progress", "on")
    (folder / "progress.jsonl").write_text('{"exercise": "05.1", "ver')
    record_attempt(EXERCISE.id, "right")
    record_attempt(EXERCISE.id, "right")
    code, out, _ = call("progress")
    assert code == 0
    assert "1, left out: " in out
    assert out.rstrip().endswith("progress.jsonl")
    assert len((folder / "progress.jsonl").read_text().splitlines()) == 3
    record_attempt("x" * 200 + "\x1b", "right")
    (folder / "progress.jsonl").unlink()
    (folder / "progress.jsonl").mkdir()
    record_attempt(EXERCISE.id, "right")


@pytest.mark.parametrize("arguments", ["sideways", "off --out x", "show --out nosuch/x"])
def test_a_mistake_changes_nothing(call, folder, arguments):
    call("progress", "on")
    code, _, err = call("progress", *arguments.split())
    assert (code, len(err.splitlines()), (folder / "on").exists()) == (2, 1, True)


@pytest.fixture
def learners(call, folder, tmp_path):
    """The files of two learners: the first needs three attempts, the second gives up."""
    shown = ("05.1", "solution shown", "", 0.0)
    ann = [("05.1", "wrong", "", 1.0), ("05.1", "misconception", MISTAKE, 20.0), shown]
    ann += [("05.1", "right", "", 40.0), ("77.1", "right", "", 0.0)]
    files = []
    for name, attempts in {"ann": ann, "bob": [("05.1", "misconception", MISTAKE, 60.0)]}.items():
        call("progress", "on")
        for attempt in attempts:
            record_attempt(*attempt)
        files.append(tmp_path / f"{name}.jsonl")
        assert call("progress", "show", "--out", files[-1])[0] == 0
        call("progress", "delete")
    return files


def test_a_class_is_summed_up_and_nobody_is_named(call, learners, tmp_path):
    code, out, _ = call("class", *learners, "--out", tmp_path / "class.html")
    assert code == 0
    report = class_report(learners)
    title, diagnosis = f"05.1 {EXERCISE.title}", EXERCISE.diagnoses[MISTAKE]
    assert f"| {title} | 4 | 0 of 2 | 1 of 2 | 2 × {diagnosis} | 50 |" in report.markdown
    assert "| 77.1 | 1 | 1 of 1 | 1 of 1 |  | 0 |" in report.markdown
    page = (tmp_path / "class.html").read_text()
    assert not any(name in text for name in ("ann", "bob") for text in (out, page, report.markdown))
    named = class_report(learners, names=True).markdown
    assert "| ann | 4 | 2 of 2 | 0 of 0 |" in named
    assert "| bob | 1 | 0 of 1 | 0 of 0 |" in named


def test_lines_that_cannot_be_read_are_named_and_left_out(learners):
    line = json.loads(learners[1].read_text())
    odd = [line | {"new": 1}, line | {"seconds": -1}, line | {"verdict": "\x1b[2J"}, [], 3]
    text = "\n".join(json.dumps(one) for one in odd) + "\n\nnot JSON\n"
    learners[1].write_text(learners[1].read_text() + text)
    report = class_report(learners)
    assert "6, left out: " in report.markdown
    assert all(f"bob.jsonl, line {n}" in report.markdown for n in (2, 3, 4, 5, 6, 8))
    assert "ann.jsonl, line" not in report.markdown
    assert "| 4 | 0 of 2 | 1 of 2 |" in report.markdown


def test_one_learner_is_not_counted_twice(call, learners, tmp_path):
    (tmp_path / "copy.jsonl").write_bytes(learners[0].read_bytes())
    for again in (learners[0], tmp_path / "copy.jsonl"):
        code, out, err = call("class", *learners, again)
        assert (code, out) == (2, "")
        assert "share lines; leave one of them out" in err
    assert call("class", tmp_path / "nosuch.jsonl")[0] == 2
