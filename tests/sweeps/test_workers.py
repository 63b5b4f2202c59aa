"""Workers that are interrupted, or on other machines: nothing is lost, nothing stays behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import distributed
import pandas as pd
import psutil
import pytest

from sftlab.sweeps import SweepError, stored, sweep, worker
from sftlab.world import country_examples

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys, time
# A suite that runs in the background of a shell hands on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sftlab import sweep

def measure(run, seed):
    with open("log", "a") as stream:
        stream.write(f"{seed} {os.getpid()}\\n")
    while seed >= 2 and os.path.exists("slow"):
        sum(range(10**5))  # at work, not asleep
    return seed

try:
    frame = sweep(sys.argv[1], measure={"m": measure}, seeds=5, jobs=2, progress=False)
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
else:
    print("VALUES", frame["value"].astype(int).tolist(), flush=True)
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def lesson(tmp_path, toy_base, monkeypatch):
    """Starts the script; its runs from the third on go on while the file `slow` is there."""
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "lesson.py").write_text(SCRIPT)
    (tmp_path / "slow").touch()
    (tmp_path / "log").touch()
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "lesson.py", str(toy_base)],
            cwd=tmp_path,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=os.name == "posix",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start, tmp_path
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def begun(folder):
    """(seed, process) of the runs that have begun."""
    return [tuple(map(int, line.split())) for line in (folder / "log").read_text().splitlines()]


def wait_for(condition, *, seconds=200):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.1)


def two_are_done_and_two_at_work(folder):
    return len(stored()) == 2 and len(begun(folder)) == 4


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["terminal", "kernel", "kill"])
def test_what_is_done_is_kept_no_process_stays_and_the_rest_is_run(lesson, how):
    start, folder = lesson
    process = start()
    wait_for(lambda: two_are_done_and_two_at_work(folder))
    workers = psutil.Process(process.pid).children(recursive=True)
    if how == "terminal":  # Ctrl-C reaches the workers too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT if how == "kernel" else signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    if how != "kill":
        assert "INTERRUPTED" in out
        assert "Traceback" not in err, err
    wait_for(lambda: not alive(workers), seconds=60)
    assert len(stored()) == 2
    (folder / "slow").unlink()
    (folder / "log").write_text("")
    out, err = start().communicate(timeout=200)
    assert "VALUES [0, 1, 2, 3, 4]" in out, err
    assert sorted(seed for seed, _ in begun(folder)) == [2, 3, 4]


def test_a_worker_that_is_killed_costs_one_more_attempt(lesson):
    start, folder = lesson
    process = start()
    wait_for(lambda: two_are_done_and_two_at_work(folder))
    (folder / "slow").unlink()
    psutil.Process(begun(folder)[-1][1]).kill()
    out, err = process.communicate(timeout=200)
    assert "VALUES [0, 1, 2, 3, 4]" in out, err
    assert {seed for seed, _ in begun(folder)} == {0, 1, 2, 3, 4}


def test_a_cluster_gives_the_same_frame(toy_base, tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "caller"))
    rows = country_examples(8)

    def measure(run, seed):
        if seed == 2:
            raise KeyError("capital")
        cache = os.environ["SFTLAB_CACHE"]
        return pd.DataFrame({"output": run.answer(["What is 1?"]), "cache": cache})

    def swept(executor=None):
        with pytest.warns(UserWarning, match="1 run failed"):
            return sweep(toy_base, measure={"m": measure}, examples=rows, seeds=4, progress=False,
                         executor=executor, refresh=True)  # fmt: skip

    folders = [tmp_path / "one", tmp_path / "two"]
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as scheduler,
        distributed.Client(scheduler) as client,
        ExitStack() as stack,
    ):
        for folder in folders:
            folder.mkdir()
            command = [sys.executable, "-m", "distributed.cli.dask_worker",
                       client.scheduler.address, "--no-nanny", "--no-dashboard", "--nthreads=1",
                       f"--local-directory={folder}"]  # fmt: skip
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "SFTLAB_CACHE": str(folder)}
            process = subprocess.Popen(command, cwd=folder, env=environment)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        client.wait_for_workers(2, timeout=200)
        found = swept(client.get_executor(pure=False))
    assert set(found["cache"].dropna()) == set(map(str, folders))
    assert not any((folder / "runs").exists() for folder in folders)
    assert len(stored()) == 3, "the caller writes them"
    assert found["error"].iloc[2].startswith("KeyError: 'capital' (in the measure 'm', ")
    here = swept()
    others = ["cache", "seconds"]
    pd.testing.assert_frame_equal(found.drop(columns=others), here.drop(columns=others))


def test_a_worker_refuses_another_version_of_the_lab(toy_base, monkeypatch):
    monkeypatch.setattr(worker, "code_hash", lambda: "another")
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(SweepError, match="another version of sf"),
    ):
        sweep(toy_base, measure={"m": len}, executor=executor, progress=False)
