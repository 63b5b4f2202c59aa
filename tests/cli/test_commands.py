"""The command line, as a newcomer meets it."""

import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sftlab.cli import course
from sftlab.cli import main as cli
from sftlab.cli.app import WORDS


def test_module_prints_help_without_loading_torch():
    code = "import sys; sys.argv = ['sftlab', '--help']\ntry:\n    import sftlab.__main__ as m\n"
    code += "    m.main()\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = done.stdout.partition("Commands:")[2]
    assert re.findall(r"^  ([a-z]+) ", listed, flags=re.M) == list(WORDS)
    assert "SFTLAB_DEBUG=1" in done.stdout


@pytest.mark.parametrize("command", WORDS)
def test_every_help_has_an_example_and_every_option(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"For example:\n    sftlab {command}" in out
    options = {name.strip("_").replace("_", "-") for name in WORDS[command].get("options", {})}
    assert set(re.findall(r"^  (?:-\w, )?--([\w-]+)", out, flags=re.M)) == options | {"help"}


def test_examples_of_run_fit_the_lessons():
    from sftlab.course import choose_parameters, find_lessons, parse_parameter
    from sftlab.models import find_profile

    lines = re.findall(r"sftlab run (.*?)(?:  .*)?$", WORDS["run"]["help"], flags=re.M)
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
        ("run", "--all"),
        ("run 00 --all", "not both"),
        ("run 77", "no"),
        ("corpus --kind poems", "poems"),
        ("preflight tiney", "tiney"),
        ("chat no-such-model", "no-such-model"),
        ("chat ./no-such-run", "no such folder"),
        ("run 00 --record-minutes -p seed=1", "without seed"),
        ("run 00 --record-minutes --profile small", "without profile"),
        ("run 00 --record-minutes -p profile=tiny-early", "as they stand"),
        ("seen ''", "empty"),
        ("claims --profile tiney", "tiney"),
        ("doctor", "--template"),
        ("doctor --template no-such-template", "no-such-template"),
        ("doctor --template chatml --max-length 10", "--max-length"),
        ("doctor --template chatml --tokenizer no-such-folder", "no-such-folder"),
        ("doctor --template chatml --data no-such-file.jsonl", "no-such-file.jsonl"),
        ("doctor --tokenizer tiny", "template"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, arguments, said):
    code, out, err = call(*shlex.split(arguments))
    assert (code, out) == (2, "")
    assert err.startswith("sftlab: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_folders_that_cannot_be_written_are_a_mistake_too(monkeypatch, call, tmp_path):
    from sftlab.world import corpus_text as corpus

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "file" / "cache"))
    corpus.corpus_text.cache_clear()
    for arguments in (["seen", "Paris"], ["run", "00", "--out", tmp_path / "file" / "out"]):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"sftlab: .*file.*--out .*SFTLAB_CACHE.*\n", err)


def test_errors_of_the_course_are_one_line_and_defects_are_not(monkeypatch, call, tmp_path):
    from sftlab.world import corpus_text as corpus

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))  # another test may have filled the shared one
    corpus.corpus_text.cache_clear()
    monkeypatch.setattr(corpus, "corpus", lambda: iter(["another text"]))
    code, out, err = call("seen", "Paris")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "make base" in err
    with monkeypatch.context() as patch:
        patch.setenv("SFTLAB_DEBUG", "1")
        with pytest.raises(Exception, match="make base"):
            cli.main()

    def defect(text):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr("sftlab.world.seen", defect)  # raised by this test, no module of the course
    with pytest.raises(RuntimeError, match="shape mismatch"):
        cli.main()


@pytest.mark.parametrize("profile", [[], ["--profile", "tiny"], ["-p", "profile=tiny"]])
def test_minutes_of_the_lessons_as_they_stand_are_recorded(monkeypatch, call, profile):
    monkeypatch.setattr("sftlab.course.run_notebooks", lambda *args, **options: [])
    monkeypatch.setattr("sftlab.course.record_minutes", lambda results: "minutes.json")
    code, out, _ = call("run", "00", "--record-minutes", *profile)
    assert (code, "Minutes recorded" in out) == (0, True)


@pytest.mark.parametrize(("failing", "code"), [([], 0), (["a record"], 1)])
def test_run_fails_when_a_claim_contradicts_its_lesson(monkeypatch, call, failing, code):
    result = SimpleNamespace(status="passed", failing_surprises=failing)
    monkeypatch.setattr("sftlab.course.run_notebooks", lambda *args, **options: [result])
    assert call("run", "01")[0] == code


def test_lab_opens_the_lessons_and_asks_for_no_news(monkeypatch):
    opened = []
    monkeypatch.setattr("jupyterlab.labapp.main", opened.extend)
    course.lab()
    assert opened[0] == "--LabApp.news_url=None"
    assert opened[-1].endswith("notebooks")


def test_copied_lessons_never_overwrite_the_learners(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "figures").mkdir(parents=True)
    (source / "00.ipynb").write_text("new")
    (source / "figures" / "a.txt").write_text("a")
    assert course.copy_lessons(source, target) == []
    (target / "00.ipynb").write_text("mine")
    assert course.copy_lessons(source, target) == ["00.ipynb", "a.txt"]
    assert (target / "00.ipynb").read_text() == "mine"


def test_corpus_prints_documents_and_counts(call):
    code, out, _ = call("corpus", "--count", "3")
    assert (code, out.count("--- document ")) == (0, 3)
    code, out, _ = call("corpus", "--count", "20", "--stats")
    assert (code, out.split()[:2]) == (0, ["documents", "20"])


@pytest.mark.parametrize(
    ("times", "said"), [(0, "never seen"), (1, "seen 1 time"), (1234, "seen 1,234 times")]
)
def test_seen_counts(monkeypatch, call, times, said):
    monkeypatch.setattr("sftlab.world.seen", lambda text: times)
    assert call("seen", "x") == (0, said + "\n", "")


def test_preflight_exit_code_follows_the_table(monkeypatch, call):
    found = type("Found", (), {"ok": False, "__str__": lambda self: "Make room."})()
    monkeypatch.setattr("sftlab.planner.preflight", lambda profile, method: found)
    assert call("preflight", "tiny") == (1, "Make room.\n", "")


def test_claims_prints_a_table_that_fits_and_every_column_as_json(monkeypatch, call, tmp_path):
    from sftlab.course import COLUMNS, record
    from sftlab.measure import Estimate

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    gain = Estimate(
        value=0.34, low=0.28, high=0.41, inner=(0.29, 0.4), seeds=3, items=150, entities=40,
        by_seed=(0.3, 0.34, 0.38), method="cluster bootstrap",
    )  # fmt: skip
    record("B3", gain, profile="small")
    code, out, _ = call("claims", "--profile", "small")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    (line,) = [line for line in out.splitlines() if line.strip().startswith("B3 ")]
    assert all(part in line for part in ("+34 points (+28 to +41)", "3 × 150", "supported"))
    assert "1 of 92 measured on small: 1 supported" in out
    assert "1 of" not in call("claims")[1]  # nothing on tiny

    rows = json.loads(call("claims", "--json", "--profile", "small")[1])
    assert all(list(row) == COLUMNS for row in rows)
    by_id = {row["id"]: row for row in rows}
    assert (by_id["B3"]["effect"], by_id["B3"]["seeds"]) == (0.34, 3)
    assert (by_id["B2"]["effect"], by_id["B2"]["verdict"]) == (None, "not measured")


def test_cache_says_what_sweeps_keep_and_deletes_it(monkeypatch, call, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    for run in ("one", "two"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "run.json").write_text(" " * 600_000)
    (tmp_path / "claims").mkdir()
    assert call("cache") == (0, f"2 runs, 1.2 MB, in {tmp_path / 'runs'}\n", "")
    assert call("cache", "--clear")[1].startswith("2 runs, 1.2 MB, deleted from")
    assert [folder.name for folder in tmp_path.iterdir()] == ["claims"]
    assert call("cache")[1].startswith("0 runs")
