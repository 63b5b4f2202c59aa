"""Processes that are forks of a server: each does as `python -m` would, and none outlives it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from sftlab.course.execution import OFFLINE, Result, _environment
from sftlab.course.forked.launch import ADDRESS, command
from sftlab.course.forked.server import server
from sftlab.course.lessons import find_lessons
from sftlab.course.runner import run_notebooks
from sftlab.sweeps import forking

ROOT = Path(__file__).resolve().parents[2]
TELL = """
import json, os, sys
TELLS, loaded = "itself", "torch" in sys.modules
from sftlab.sweeps import forking
import sftlab, torch
json.dump({"arguments": sys.argv[1:], "name": __name__, "folder": os.getcwd(), "loaded": loaded,
    "parent": os.getppid(), "mark": os.environ.get("MARK"), "said": sys.stdin.read(),
    "threads": torch.get_num_threads(), "path": sys.path[0],
    "lab": sftlab.__file__, "main": sys.modules["__main__"].__dict__.get("TELLS")}, sys.stdout)
"""
LESSON = """
import os, sys
LOADED = "torch" in sys.modules
import transformers
transformers.utils.logging.get_logger("transformers.lesson").warning("a note of a library")
print("LOADED", LOADED, "PARENT", os.getppid())
from sftlab.sweeps import prepare, sweep
prepare()
import datasets, matplotlib.pyplot, pandas, psutil, torch
print("SET", pandas.options.display.max_columns, matplotlib.get_backend(), sys.stdout.encoding,
      datasets.config.HF_HUB_OFFLINE, torch.get_num_threads(), [sys.argv[0][-11:]])
def born(run):
    return os.getppid()
parent = int(sweep("tiny", measure={"parent": born}, seeds=2, jobs=2, refresh=True)["value"].max())
print("SWEEP", psutil.Process(parent).ppid() == os.getpid(), psutil.Process(parent).cmdline())
import tempfile
print("TEMPORARY", tempfile.gettempdir())
"""


pytestmark = pytest.mark.skipif(
    forking.context is None, reason="processes are forks on Linux alone, and without a card"
)


@pytest.fixture(scope="module")
def address():
    with server() as address:
        yield address


@pytest.fixture
def start(tmp_path):
    """Starts a module, written here, by `launch.py`; with or without a server."""
    started = []

    def start(module, code, *arguments, address=None, **variables):
        (tmp_path / f"{module}.py").write_text(code)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        environment.pop(ADDRESS, None)
        if address:
            environment[ADDRESS] = address
        process = subprocess.Popen(
            command(module, *arguments), cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def gone(pid, *, seconds=10):
    deadline = time.time() + seconds
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != "zombie":
            if time.time() > deadline:
                return False
            time.sleep(0.05)
    return True


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fork_sees_what_python_m_would_see(start, address, tmp_path, threads):
    variables = {"MARK": "ü", "OMP_NUM_THREADS": threads}
    told = {}
    for way, where in {"itself": None, "fork": address}.items():
        process = start("tell", TELL, "-f", "a b", address=where, **variables)
        out, err = process.communicate("spoken", timeout=120)
        assert process.returncode == 0, err
        told[way] = json.loads(out)
    differing = {name for name in told["fork"] if told["fork"][name] != told["itself"][name]}
    assert differing == {"parent", "loaded"}
    assert told["fork"]["loaded"], "it had the libraries from its server"
    assert not told["itself"]["loaded"]
    assert told["fork"]["arguments"] == ["-f", "a b"]
    assert told["fork"]["threads"] == int(threads)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("print('done')", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('in words')", 1, "in words\n"),
        ("import atexit, sys; atexit.register(sys.stderr.write, 'at exit')", 0, "at exit"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os; os.kill(os.getpid(), 9)", 137, ""),
    ],
)
def test_its_end_is_that_of_launch(start, address, code, status, said):
    process = start("ends", code, address=address)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.endswith(said)


def passes_on(pid, number):
    """Wait until a process answers a signal itself: before, it ends by it, and its fork with it."""
    deadline = time.time() + 30
    while time.time() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
        if caught >> number - 1 & 1:
            return True
        time.sleep(0.05)
    return False


def test_a_signal_reaches_the_fork(start, address):
    code = (
        "import os, signal, sys, time\n"
        "def end(number, frame):\n    print('ended by', number, flush=True)\n    os._exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print(os.getpid(), flush=True)\ntime.sleep(100)\n"
    )
    process = start("waits", code, address=address)
    pid = int(process.stdout.readline())
    assert pid != process.pid
    # The fork may be at work before launch.py is told of it.
    assert passes_on(process.pid, signal.SIGTERM)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert "ended by 15" in out
    assert process.returncode == 5
    assert gone(pid)


def test_whoever_says_nothing_keeps_the_others_waiting_for_a_moment_only(start, address):
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as gone:
        silent.connect(address)
        gone.connect(address)
        gone.close()
        process = start("ends", "import sys; print('torch' in sys.modules)", address=address)
        assert process.communicate(timeout=60)[0] == "True\n"


def test_elsewhere_python_itself_is_started(monkeypatch):
    assert command("module", "a b")[1:3] == ["-I", "-S"]
    monkeypatch.setattr(sys, "platform", "win32")  # where execv leaves nobody to wait for
    assert command("module", "a b") == [sys.executable, "-m", "module", "a b"]


SLEEP = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)\n"


def test_a_fork_ends_with_its_launch(start, address):
    process = start("sleeps", SLEEP, address=address)
    pid = int(process.stdout.readline())
    process.kill()
    assert gone(pid)


def test_a_fork_ends_with_whoever_started_its_launch(start, address, tmp_path):
    (tmp_path / "sleeps.py").write_text(SLEEP)
    code = (
        "import subprocess\n"
        "from sftlab.course.forked.launch import command\n"
        "subprocess.run(command('sleeps'))\n"
    )
    process = start("starts", code, address=address)
    pid = int(process.stdout.readline())
    process.kill()
    assert gone(pid, seconds=20)


def make_notebook(folder, name, *code):
    cells = [nbformat.v4.new_markdown_cell("# A lesson"), *map(nbformat.v4.new_code_cell, code)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def is_server(process):
    return "sftlab.course.forked.server" in process.cmdline()


def test_all_end_with_the_server_which_leaves_nothing(start):
    with server() as address:
        process = start("sleeps", SLEEP, address=address)
        pid = int(process.stdout.readline())
        assert is_server(psutil.Process(psutil.Process(pid).ppid()))
    assert gone(pid)
    assert process.wait(timeout=20) != 0
    assert not Path(address).parent.exists()


def test_a_server_that_dies_takes_its_forks_along_and_is_done_without(start):
    with server() as address:
        process = start("sleeps", SLEEP, address=address)
        pid = int(process.stdout.readline())
        psutil.Process(pid).parent().kill()
        assert gone(pid)
        assert process.wait(timeout=20) != 0
        process = start("ends", "print('done')", address=address)
        assert process.communicate(timeout=60)[0] == "done\n"


def test_lessons_are_forks_of_one_server_and_so_are_their_sweeps(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # by which a kernel knows that it is tested
    monkeypatch.setattr(tempfile, "tempdir", tempfile.mkdtemp(prefix="s-"))  # paths of sockets
    for name in ("00_one", "01_two", "02_three"):
        make_notebook(tmp_path, name, LESSON)
    results = run_notebooks([], folder=tmp_path / "build", notebooks=tmp_path, progress=False)
    assert [result.status for result in results] == ["passed"] * 3
    for result in results:
        (cell,) = nbformat.read(result.executed, as_version=4).cells[1:]
        errors = [out.text for out in cell.outputs if out.get("name") == "stderr"]
        assert "a note of a library" in "".join(errors)
    told = [re.search(r"SET .+?]", result.executed.read_text()) for result in results]
    assert len({found[0] for found in told}) == 1, "what libraries take from where they begin"
    first, *others = [result.executed.read_text(encoding="utf-8") for result in results]
    assert "LOADED False" in first, "it does not wait for the server"
    assert "sftlab.course.forked.server" not in first
    assert len({re.search(r"LOADED True PARENT (\d+)", text)[1] for text in others}) == 1
    folders = {re.search(r"TEMPORARY ([^\\]+)", text)[1] for text in (first, *others)}
    assert len(folders) == 3, "each lesson has a folder of its own for temporary files"
    assert not os.listdir(tempfile.tempdir), "and nothing is left, of sweeps' sockets neither"
    os.rmdir(tempfile.tempdir)
    for text in others:
        assert "SWEEP True" in text
        assert "sftlab.course.forked.server" in text


@pytest.mark.parametrize(("profile", "forks"), [("tiny", True), ("owner/model", False)])
def test_a_lesson_that_may_ask_the_hub_is_no_fork_of_what_is_offline(
    tmp_path, monkeypatch, profile, forks
):
    make_notebook(tmp_path, "00_one", "1")
    (lesson,) = find_lessons(folder=tmp_path)
    monkeypatch.setenv(ADDRESS, "another")
    variables = _environment(
        Result(lesson, {"profile": profile}), tmp_path, threads=None, all_stored=False, server="it"
    )
    assert variables.get(ADDRESS) == ("it" if forks else None)
    assert (OFFLINE.items() <= variables.items()) is forks
