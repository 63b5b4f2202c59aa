"""The command line, as a newcomer meets it."""

import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sftlab.cli import course
from sftlab.cli.app import WORDS
from sftlab.paths import NOTEBOOKS


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run", "--all"),
        ("run 77", "no"),
        ("run 01 -p seeds=three", "is int, such as"),
        ("run 00 -p profile=none", "is str, such as 'tiny'"),
        ("run 01 --profile small --record-minutes", "--record-minutes is for the profile tiny"),
        ("seen ''", "an argument is empty"),
        ("progress sideways", "say on, off, show or delete"),
        ("progress off --out x", "--out with show alone"),
        ("class nosuch.jsonl", "nosuch.jsonl"),
        ("kit --out .", "is there already"),
        ("preflight ~nobody-here/model", "~nobody-here"),
        ("doctor --template chatml --max-length 3", "--max-length counts"),
        ("corpus --kind poems", "poems"),
        ("preflight tiney", "tiney"),
        ("doctor", "--template"),
        ("doctor --tokenizer tiny", "template"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(call, arguments, said):
    code, out, err = call(*shlex.split(arguments))
    assert (code, out) == (2, "")
    assert err.startswith("sftlab: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_a_mistake(monkeypatch, call, tmp_path):
    (tmp_path / "file").write_text("")
    code, out, err = call("run", "00", "--out", tmp_path / "file" / "out")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"sftlab: .*Not a directory.*file.*\n", err)
    monkeypatch.setenv("SFTLAB_DEBUG", "1")
    with pytest.raises(ValueError, match="tiney"):
        call("preflight", "tiney")


@pytest.mark.parametrize(("failing", "code"), [([], 0), (["a record"], 1)])
def test_run_fails_when_a_claim_contradicts_its_lesson(monkeypatch, call, failing, code):
    result = SimpleNamespace(status="passed", failing_surprises=failing)
    monkeypatch.setattr("sftlab.course.run_notebooks", lambda *args, **options: [result])
    assert call("run", "01")[0] == code


def test_lab_opens_the_lessons_and_asks_for_no_news(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr("jupyterlab.labapp.main", opened.extend)
    course.lab()
    assert opened[0] == "--LabApp.news_url=None"
    assert opened[-2:] == ["--LabApp.default_url=/lab/tree/notebooks", str(NOTEBOOKS.parent)]
    # A wheel's lessons are copied once: what the learner writes into the copy stays.
    (tmp_path / "_notebooks").mkdir()
    (tmp_path / "_notebooks" / "00.ipynb").write_text("new")
    monkeypatch.setattr("sftlab.paths.NOTEBOOKS", tmp_path / "_notebooks")
    monkeypatch.chdir(tmp_path)
    course.lab()
    copy = tmp_path / "sftlab-course/notebooks/00.ipynb"
    assert (opened[-1], copy.read_text()) == (str(copy.parents[1]), "new")
    assert (tmp_path / "sftlab-course/recipes/05_loss_masks.py").is_file()  # lessons link to it
    copy.write_text("mine")
    course.lab()
    assert copy.read_text() == "mine"


def test_corpus_prints_documents_and_seen_counts(monkeypatch, call):
    code, out, _ = call("corpus", "--count", "3")
    assert (code, out.count("--- document ")) == (0, 3)
    monkeypatch.setattr("sftlab.world.seen", lambda text: 1234)
    assert call("seen", "x") == (0, "seen 1,234 times\n", "")


def test_preflight_exit_code_follows_the_table(monkeypatch, call):
    found = type("Found", (), {"ok": False, "__str__": lambda self: "Make room."})()
    monkeypatch.setattr("sftlab.planner.preflight", lambda profile, method: found)
    assert call("preflight", "tiny") == (1, "Make room.\n", "")


def test_claims_prints_a_table_that_fits(monkeypatch, call, tmp_path):
    from sftlab.course import claims, record
    from sftlab.measure import Estimate

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    gain = Estimate(
        value=0.34, low=0.28, high=0.41, inner=(0.29, 0.4), seeds=3, items=150, entities=40,
        by_seed=(0.3, 0.34, 0.38), wider=((0.27, 0.42),) * 4, method="cluster bootstrap",
    )  # fmt: skip
    record("B3", gain, profile="small")
    code, out, _ = call("claims", "--profile", "small")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 100
    (line,) = [line for line in out.splitlines() if line.strip().startswith("B3 ")]
    assert all(part in line for part in ("+34 points (+28 to +41)", "supported"))
    assert out.endswith(f"{len(claims()) - 1} not measured\n1 supported\n")
    assert f"{len(claims())} not measured" in call("claims")[1]  # nothing on tiny


def test_plan_says_what_is_needed_and_what_would_need_less(call):
    code, out, _ = call("plan", "--model", "llama-3.1-8b", "--method", "full", "--gpu", "rtx-3090")
    assert code == 0
    needed, *smaller = map(float, re.findall(r"(?:needs| {3,}) *([\d.]+) GB(?: of|  --)", out))
    assert "it does NOT fit" in out
    assert needed > 150
    assert [needed, *smaller] == sorted([needed, *smaller], reverse=True)
    assert len(smaller) == 3
    assert "-> smaller" not in call("plan", "--model", "tiny", "--memory", 8)[1]
    code, _, err = call("plan", "--model", "llama-3.1-8b", "--batch", 0)
    assert (code, "give a whole number above zero" in err) == (2, True)


def test_cache_says_what_sweeps_keep_and_deletes_it_alone(monkeypatch, call, tmp_path):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    runs, mine = tmp_path / "runs", tmp_path / "runs" / "mine"  # --out runs/mine, in the cache
    for folder in (runs / ("a" * 32), runs / ("b" * 32), mine):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(" " * 600_000)
    assert call("cache") == (0, f"2 runs, 1.2 MB, in {runs}\n", "")
    code, _, err = call("cache", "--clear", "--older-than", "inf")
    assert (code, "No such option" in err, len([*runs.iterdir()])) == (2, True, 3)
    assert call("cache", "--clear")[1].startswith("2 runs, 1.2 MB, deleted from")
    assert [*runs.glob("*/*")] == [mine / "run.json"]
    assert call("cache")[1].startswith("0 runs")


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_cache_that_can_be_no_folder_is_one_line(monkeypatch, call, tmp_path, name):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / name))
    code, out, err = call("cache")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.endswith("set SFTLAB_CACHE in the environment to another folder\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RuntimeError("DefaultCPUAllocator:\nnot enough memory"), 1, "smaller batches"),
        (json.JSONDecodeError("Expecting value", "", 0), 2, "SFTLAB_DEBUG=1"),
        (KeyError("x"), 1, "KeyError: 'x' (SFTLAB_DEBUG=1"),
        (ValueError("name it"), 2, "sftlab: name it\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_no_command_foresees_is_one_line(monkeypatch, call, error, code, said):
    def fail():
        raise error

    monkeypatch.setattr("sftlab.sweeps.stored_runs", fail)
    found, out, err = call("cache")
    assert (found, out, said in err) == (code, "", True)
    assert len(err.splitlines()) <= 1


@pytest.mark.parametrize("command", ["corpus --count 3000 | head -1", "mask --messages \u2603"])
def test_a_closed_pipe_and_a_terminal_of_ascii_end_no_command_in_a_traceback(command):
    line = f"PYTHONUTF8=0 PYTHONIOENCODING=ascii {sys.executable} -m sftlab {command}"
    ended = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert not re.search("Error|Traceback", ended.stderr)
    assert ended.stdout or "sftlab: " in ended.stderr
