"""Sweeps that are killed, interrupted, or lose their parent, each in a process of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from sftlab.sweeps import ALL_CACHED, prepare, processes, results

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, time, sys
# A suite that runs in the background of a shell hands on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sftlab.sweeps import sweep

def measure(run, seed):
    with open(LOG, "a") as stream:
        stream.write(f"{seed} {os.getpid()}\\n")
    if seed >= 2 and os.path.exists(SLOW):
        deadline = time.time() + 100
        while time.time() < deadline:
            sum(range(10**5))  # at work, not asleep
    return seed

LOG, SLOW, BASE = sys.argv[1:]
try:
    frame = sweep(BASE, measure={"m": measure}, seeds=5, jobs=2)
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
else:
    print("VALUES", frame["value"].tolist(), flush=True)
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def lesson(tmp_path, toy_base, monkeypatch):
    """Starts the script; its runs from the third on hang as long as the file `slow` is there."""
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lesson.py").write_text(SCRIPT)
    (tmp_path / "slow").touch()
    (tmp_path / "log").touch()
    started = []

    def start():
        command = [sys.executable, "lesson.py", "log", "slow", str(toy_base)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        group = {"start_new_session": True} if os.name == "posix" else {}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **group,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        started.append(process)
        return process

    yield start, tmp_path
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def seeds(folder):
    return sorted(int(line.split()[0]) for line in (folder / "log").read_text().splitlines())


def workers(folder):
    """Those that have begun a run and are still there."""
    pids = {int(line.split()[1]) for line in (folder / "log").read_text().splitlines()}
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != "zombie"]


def wait_for(condition, what, *, seconds=100):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, f"waited in vain until {what}"
        time.sleep(0.1)


def two_are_done_and_two_at_work(folder):
    return len(results.stored()) == 2 and len(seeds(folder)) == 4


def test_after_a_kill_only_the_rest_is_run_and_no_process_stays(lesson):
    start, folder = lesson
    process = start()
    wait_for(lambda: two_are_done_and_two_at_work(folder), "two runs are done")
    children = psutil.Process(process.pid).children(recursive=True)  # a server of them too
    process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()
    wait_for(lambda: not workers(folder), "the processes ended themselves", seconds=20)
    wait_for(lambda: not any(c.is_running() for c in children), "all have ended", seconds=20)
    (folder / "slow").unlink()
    (folder / "log").write_text("")
    out, _ = start().communicate(timeout=200)
    assert "VALUES [0, 1, 2, 3, 4]" in out.replace(".0", "")
    assert seeds(folder) == [2, 3, 4]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kernel"])
def test_an_interrupt_ends_the_processes_and_keeps_what_is_done(lesson, whole_group):
    start, folder = lesson
    process = start()
    wait_for(lambda: two_are_done_and_two_at_work(folder), "two runs are done")
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert "INTERRUPTED" in out
    assert process.returncode == 0
    assert "Traceback" not in err, err
    assert not workers(folder)
    assert len(results.stored()) == 2


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_while_the_processes_start_is_quiet(lesson):
    start, _folder = lesson
    process = start()
    parent = psutil.Process(process.pid)
    wait_for(lambda: len(parent.children()) >= 2, "processes start")
    children = parent.children(recursive=True)
    # While the processes start, Ctrl-C is ignored, so that they are born deaf to it; whoever hits
    # that tenth of a second presses again.
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        try:
            out, err = process.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 0, "three interrupts did not end it"
    assert "INTERRUPTED" in out
    assert "Traceback" not in err, err
    # The server of the processes first ends its imports.
    wait_for(lambda: not any(c.is_running() for c in children), "all have ended", seconds=60)


def test_a_process_that_is_killed_from_outside_costs_one_more_attempt(lesson):
    start, folder = lesson
    process = start()
    wait_for(lambda: two_are_done_and_two_at_work(folder), "two runs are done")
    (folder / "slow").unlink()
    psutil.Process(workers(folder)[0]).kill()
    out, _ = process.communicate(timeout=200)
    assert "VALUES [0, 1, 2, 3, 4]" in out.replace(".0", "")
    assert sorted(set(seeds(folder))) == [0, 1, 2, 3, 4]


@pytest.mark.skipif(sys.platform != "linux", reason="a server that forks, on Linux alone")
def test_processes_are_forks_of_one_server_and_see_what_their_caller_sees(tmp_path, toy_base):
    (tmp_path / "lesson.py").write_text(
        "import os, sys\n"
        "import pandas as pd\n"
        "from sftlab.sweeps import prepare, sweep\n"
        "print('BEGUN', flush=True)\n"
        "prepare()\n"
        "os.environ['LATE'] = '7'\n"
        "def born(run, seed):\n"
        "    here = {'parent': os.getppid(), 'own': os.getpid(), 'late': os.environ['LATE']}\n"
        "    return pd.DataFrame([here])\n"
        "frame = sweep(sys.argv[1], measure={'born': born}, seeds=6, jobs=2)\n"
        "os.environ['LATE'] = '8'\n"
        "again = sweep(sys.argv[1], measure={'born': born}, seeds=6, jobs=2, refresh=True)\n"
        "parents = {*frame['parent'], *again['parent']}\n"
        "print('PARENTS', len(parents), os.getpid() in parents, frame['own'].nunique() <= 2,\n"
        "      set(frame['late']), set(again['late']), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SFTLAB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "lesson.py", str(toy_base)], env=environment, text=True,
                          cwd=tmp_path, capture_output=True, timeout=300)  # fmt: skip
    assert "PARENTS 1 False True {'7'} {'8'}" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("BEGUN") == 1, "the script is not run again in its processes"
    assert "Warning" not in done.stderr


def test_a_lesson_whose_runs_are_all_stored_starts_no_server(monkeypatch):
    begun = []
    monkeypatch.setattr(processes.forking, "start_server", lambda: begun.append(1))
    monkeypatch.setenv(ALL_CACHED, "1")
    prepare()
    assert not begun
    monkeypatch.delenv(ALL_CACHED)
    prepare()
    assert begun


@pytest.mark.skipif(sys.platform != "linux", reason="a server that forks, on Linux alone")
def test_without_a_server_each_process_imports_for_itself(tmp_path, toy_base):
    (tmp_path / "breaks.py").write_text("raise RuntimeError('in the server alone')\n")
    (tmp_path / "lesson.py").write_text(
        "import os, sys\n"
        "from sftlab.sweeps import prepare, sweep\n"
        "from sftlab.sweeps import forking\n"
        "forking.LIBRARIES = ('breaks',)\n"
        "def parent(run):\n    return os.getppid()\n"
        "frame = sweep(sys.argv[1], measure={'parent': parent}, seeds=2, jobs=2)\n"
        "print('OWN', set(frame['value']) == {os.getpid()}, frame['error'].isna().all())\n"
    )
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": paths, "SFTLAB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "lesson.py", str(toy_base)], env=environment, text=True,
                          cwd=tmp_path, capture_output=True, timeout=300)  # fmt: skip
    assert "OWN True True" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="a server that forks, on Linux alone")
def test_a_machine_with_a_card_has_no_server(tmp_path):
    look = (
        "import pathlib\n"
        "there = pathlib.Path.exists\n"
        "pathlib.Path.exists = lambda one: str(one) == '/dev/nvidiactl' or there(one)\n"
        "from sftlab.sweeps import forking\n"
        "forking.start_server()\n"
        "print('CONTEXT', forking.context, forking.ready(0))\n"
    )
    done = subprocess.run([sys.executable, "-c", look], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert "CONTEXT None True" in done.stdout, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_of_the_wait_for_the_server_does_not_make_it_ready(monkeypatch):
    imported = threading.Event()

    class Process:
        def __init__(self, target):
            self.join = lambda: None

        def start(self):
            assert imported.wait(60)

    def interrupt(*_):
        raise KeyboardInterrupt

    forking = processes.forking
    monkeypatch.setattr(forking, "context", SimpleNamespace(Process=Process))
    monkeypatch.setattr(forking, "start_server", lambda: None)
    monkeypatch.setattr(forking, "_asking", None)
    monkeypatch.setattr(forking, "_forked", threading.Event())
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            forking.ready(60)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not forking.ready(0)
    imported.set()
    assert forking.ready(60)
