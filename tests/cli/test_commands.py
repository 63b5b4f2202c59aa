"""The command line, as a newcomer meets it."""

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest

from sftlab.cli import course
from sftlab.cli import main as cli

COMMANDS = (
    "run",
    "lab",
    "claims",
    "cache",
    "corpus",
    "seen",
    "validate",
    "doctor",
    "mask",
    "train",
    "chat",
    "preflight",
    "plan",
)


def call(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of `sftlab ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["sftlab", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, *capsys.readouterr()


def test_module_prints_help_without_loading_torch():
    code = "import sys; sys.argv = ['sftlab', '--help']\ntry:\n    import sftlab.__main__ as m\n"
    code += "    m.main()\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(monkeypatch, capsys, command):
    code, out, _ = call(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert "For example:" in out
    assert f"\n    sftlab {command}" in out


def test_examples_of_run_fit_the_lessons():
    from sftlab.course import choose_parameters, find_lessons, parse_parameter
    from sftlab.models import find_profile

    lines = re.findall(r"sftlab run (.*?)(?:  .*)?$", inspect.getdoc(course.run), flags=re.M)
    assert len(lines) >= 4
    for line in lines:
        names, parameters, words = [], {}, iter(shlex.split(line))
        for word in words:
            if word == "-p":
                parameters.update([parse_parameter(next(words))])
            elif word == "--profile":
                parameters["profile"] = find_profile(next(words)).name
            elif word != "--all":
                names.append(word)
        choose_parameters(find_lessons(names), parameters)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "--all"),
        (["run", "00", "--all"], "not both"),
        (["run", "77"], "no"),
        (["corpus", "--kind", "poems"], "poems"),
        (["preflight", "tiney"], "tiney"),
        (["chat", "no-such-model"], "no-such-model"),
        (["chat", "./no-such-run"], "no such folder"),
        (["run", "00", "--record-minutes", "-p", "seed=1"], "without seed"),
        (["run", "00", "--record-minutes", "--profile", "small"], "without profile"),
        (["run", "00", "--record-minutes", "-p", "profile=tiny-early"], "as they stand"),
        (["seen", ""], "empty"),
        (["claims", "--profile", "tiney"], "tiney"),
        (["cache", "--older-than", "3"], "--clear"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, said):
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("sftlab: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_folders_that_cannot_be_written_are_a_mistake_too(monkeypatch, capsys, tmp_path):
    from sftlab.world import corpus_text as corpus

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "file" / "cache"))
    corpus.corpus_text.cache_clear()
    for arguments in (["seen", "Paris"], ["run", "00", "--out", str(tmp_path / "file" / "out")]):
        code, out, err = call(monkeypatch, capsys, *arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"sftlab: .*file.*--out .*SFTLAB_CACHE.*\n", err)


def test_errors_of_the_course_are_one_line_and_defects_are_not(monkeypatch, capsys, tmp_path):
    from sftlab.world import corpus_text as corpus

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))  # another test may have filled the shared one
    corpus.corpus_text.cache_clear()
    monkeypatch.setattr(corpus, "corpus", lambda: iter(["another text"]))
    code, out, err = call(monkeypatch, capsys, "seen", "Paris")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "make base" in err
    with monkeypatch.context() as patch:
        patch.setenv("SFTLAB_DEBUG", "1")
        patch.setattr(sys, "argv", ["sftlab", "seen", "Paris"])
        with pytest.raises(Exception, match="make base"):
            cli.main()

    def defect(text):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr("sftlab.world.seen", defect)  # raised by this test, no module of the course
    monkeypatch.setattr(sys, "argv", ["sftlab", "seen", "Paris"])
    with pytest.raises(RuntimeError, match="shape mismatch"):
        cli.main()


def test_help_tells_how_to_see_a_traceback(monkeypatch, capsys):
    assert "SFTLAB_DEBUG=1" in call(monkeypatch, capsys, "--help")[1]


def test_minutes_of_the_lessons_as_they_stand_are_recorded(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sftlab.course.run_notebooks", lambda *args, **options: [])
    monkeypatch.setattr("sftlab.course.record_minutes", lambda results: "minutes.json")
    for profile in ([], ["--profile", "tiny"], ["-p", "profile=tiny"]):
        code, out, _ = call(monkeypatch, capsys, "run", "00", "--record-minutes", *profile)
        assert code == 0
        assert "Minutes recorded" in out


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to interrupt")
def test_interrupted_lab_ends_in_its_own_time(tmp_path):
    child = tmp_path / "child.py"
    child.write_text(
        "import sys, time\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(20)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(0.6); print('saved', flush=True); sys.exit(3)\n"
    )
    parent = "import sys; from sftlab.cli.course import _call_patiently as call\n"
    parent += f"print('code', call([sys.executable, {str(child)!r}]))"
    started = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert started.stdout.readline() == "ready\n"
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does
        assert started.communicate(timeout=15)[0] == "saved\ncode 3\n"
    finally:
        started.kill()


def test_corpus_prints_documents_and_counts(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "corpus", "--count", "3")
    assert code == 0
    assert out.count("--- document ") == 3
    code, out, _ = call(monkeypatch, capsys, "corpus", "--count", "20", "--stats")
    assert code == 0
    assert out.split()[:2] == ["documents", "20"]


@pytest.mark.parametrize(
    ("times", "said"), [(0, "never seen"), (1, "seen 1 time"), (1234, "seen 1,234 times")]
)
def test_seen_counts(monkeypatch, capsys, times, said):
    monkeypatch.setattr("sftlab.world.seen", lambda text: times)
    assert call(monkeypatch, capsys, "seen", "x") == (0, said + "\n", "")


def test_preflight_exit_code_follows_the_table(monkeypatch, capsys):
    from sftlab.planner import Preflight, PreflightRow, preflight

    def lacking(profile, *, method=None):
        row = PreflightRow(what="disk", needed="2 GB", found="1 GB", ok=False, remedy="Make room.")
        found = preflight("tiny")
        return Preflight(profile=found.profile, method=found.method, rows=(row,))

    monkeypatch.setattr("sftlab.planner.preflight", lacking)
    code, out, _ = call(monkeypatch, capsys, "preflight", "tiny")
    assert code == 1
    assert "Make room." in out


def test_copied_lessons_never_overwrite_the_learners(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "figures").mkdir(parents=True)
    (source / "00.ipynb").write_text("new")
    (source / "figures" / "a.txt").write_text("a")
    assert course.copy_lessons(source, target) == []
    (target / "00.ipynb").write_text("mine")
    assert course.copy_lessons(source, target) == ["00.ipynb", "a.txt"]
    assert (target / "00.ipynb").read_text() == "mine"


def test_claims_prints_a_table_that_fits_and_every_column_as_json(monkeypatch, capsys, tmp_path):
    from sftlab.course import COLUMNS, record
    from sftlab.measure import Estimate

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    gain = Estimate(
        value=0.34, low=0.28, high=0.41, inner=(0.29, 0.4), seeds=3, items=150, entities=40,
        by_seed=(0.3, 0.34, 0.38), method="cluster bootstrap",
    )  # fmt: skip
    record("B3", gain, profile="small")
    code, out, _ = call(monkeypatch, capsys, "claims", "--profile", "small")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    (line,) = [line for line in out.splitlines() if line.strip().startswith("B3 ")]
    assert "+34 points (+28 to +41)" in line
    assert "3 × 150" in line
    assert "supported" in line
    assert "1 of 92 measured on small: 1 supported" in out
    assert "1 of" not in call(monkeypatch, capsys, "claims")[1]  # nothing on tiny

    rows = json.loads(call(monkeypatch, capsys, "claims", "--json", "--profile", "small")[1])
    assert all(list(row) == COLUMNS for row in rows)
    by_id = {row["id"]: row for row in rows}
    assert (by_id["B3"]["effect"], by_id["B3"]["seeds"]) == (0.34, 3)
    assert (by_id["B2"]["effect"], by_id["B2"]["verdict"]) == (None, "not measured")


def test_cache_shows_and_clears_what_sweeps_keep(monkeypatch, capsys):
    import pandas as pd

    from sftlab import sweeps

    run = {"profile": "tiny", "settings": "rate=0.002", "measures": "right", "seconds": 6.0}
    runs = [
        {**run, "run": str(n), "seed": n, "bytes": 1_500_000, "when": pd.Timestamp(f"2026-01-0{n}")}
        for n in (1, 2, 3)
    ]
    kept, asked = list(runs), []

    def clear(*, older_than_days=None):
        asked.append(older_than_days)
        gone = 2 if older_than_days else len(kept)
        del kept[:gone]
        return gone

    monkeypatch.setattr(sweeps, "stored", lambda: pd.DataFrame(kept, columns=list(runs[0])))
    monkeypatch.setattr(sweeps, "clear", clear)
    code, out, _ = call(monkeypatch, capsys, "cache")
    assert code == 0
    assert re.search(r"tiny +rate=0.002 +right +3 +18.0 +4.5 +2026-01-03", out)
    assert "3 runs, 4.5 MB" in out
    code, out, _ = call(monkeypatch, capsys, "cache", "--clear", "--older-than", "7")
    assert (code, out) == (0, "2 runs deleted, 3.0 MB freed\n")
    assert call(monkeypatch, capsys, "cache", "--clear")[1] == "1 run deleted, 1.5 MB freed\n"
    assert asked == [7.0, None]
    assert "no runs are kept" in call(monkeypatch, capsys, "cache")[1]


@pytest.mark.parametrize(("failing", "code"), [([], 0), (["a record"], 1)])
def test_run_fails_when_a_claim_contradicts_its_lesson(monkeypatch, capsys, failing, code):
    from types import SimpleNamespace

    result = SimpleNamespace(status="passed", failing_surprises=failing)
    monkeypatch.setattr("sftlab.course.run_notebooks", lambda *args, **options: [result])
    assert call(monkeypatch, capsys, "run", "01")[0] == code
