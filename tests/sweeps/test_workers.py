"""Workers that are interrupted, or on other machines: nothing is lost, nothing stays behind."""

import os
import shutil
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

from sftlab.sweeps import Experiment, runs_folder, worker
from sftlab.world import country_examples

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, signal, sys
# A suite that runs in the background of a shell hands on that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from sftlab import Experiment

def measure(run, seed):
    with open("log", "a") as stream:
        stream.write(f"{seed}\\n")
    while seed >= 2 and os.path.exists("slow"):
        sum(range(10**5))  # at work, not asleep
    return seed

try:
    frame = Experiment(sys.argv[1], measure={"m": measure}).run({"": {}}, jobs=1).frame
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
else:
    print("VALUES", frame["value"].astype(int).tolist(), flush=True)
"""
pytestmark = pytest.mark.slow


def stored():
    return len(list(runs_folder().glob("*/run.json")))


def wait_for(condition, *, seconds=200):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_is_done_is_kept_no_process_stays_and_the_rest_is_run(
    tmp_path, toy_base, monkeypatch, request
):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "lesson.py").write_text(SCRIPT)
    log, slow = tmp_path / "log", tmp_path / "slow"

    def start():
        log.write_text("")
        command = [sys.executable, "lesson.py", str(toy_base)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes)
        request.addfinalizer(process.kill)
        return process

    def alive(process):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

    slow.touch()  # while it is there, the runs from the third on do not end
    for how in ("interrupt", "kill"):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        process = start()
        wait_for(lambda: stored() == 2 and len(log.read_text().split()) == 3)
        workers = psutil.Process(process.pid).children(recursive=True)
        if (
            how == "interrupt"
        ):  # Ctrl-C reaches the worker too, which leaves the answer to its parent
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        out, err = process.communicate(timeout=60)
        if how == "interrupt":
            assert "INTERRUPTED" in out
            assert "Traceback" not in err, err
        wait_for(lambda them=workers: not any(map(alive, them)), seconds=60)
        assert stored() == 2
    slow.unlink()
    out, err = start().communicate(timeout=200)
    assert "VALUES [0, 1, 2, 3, 4]" in out, err
    assert sorted(log.read_text().split()) == ["2", "3", "4"]


def test_a_cluster_gives_the_same_frame(toy_base, tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "caller"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def measure(run, seed):
        if seed == 2:
            raise KeyError("capital")
        cache = os.environ["SFTLAB_CACHE"]
        return pd.DataFrame({"output": run.answer(["What is 1?"]), "cache": cache})

    def swept(executor=None):
        given = {"measure": {"m": measure}, "examples": country_examples(8), "seeds": 4}
        how = {"executor": executor, "refresh": True, "progress": False}
        with pytest.warns(UserWarning, match="1 runs failed"):
            return Experiment(toy_base, **given).run({"": {}}, **how).frame

    (folder := tmp_path / "worker").mkdir()
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as scheduler,
        distributed.Client(scheduler) as client,
        ExitStack() as stack,
    ):
        command = [sys.executable, "-m", "distributed.cli.dask_worker", client.scheduler.address]
        command += ["--no-nanny", "--no-dashboard", "--nthreads=1"]
        environment = {**os.environ, "SFTLAB_CACHE": str(folder)}
        local = f"--local-directory={folder}"
        process = subprocess.Popen([*command, local], cwd=folder, env=environment)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        client.wait_for_workers(1, timeout=200)
        found = swept(client.get_executor(pure=False))
    assert set(found["cache"].dropna()) == {str(folder)}
    assert not (folder / "runs").exists()
    assert stored() == 3, "the caller writes them"
    assert found["error"].iloc[2].startswith("KeyError: 'capital' (in the measure 'm', ")
    here = swept()
    others = ["cache", "seconds"]
    pd.testing.assert_frame_equal(found.drop(columns=others), here.drop(columns=others))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("code_hash", lambda: "another", "another version of sftlab"),
        ("base_hash", lambda profile: "another", "other weights of"),
    ],
)
def test_a_worker_refuses_another_lab_and_other_weights(toy_base, monkeypatch, name, value, said):
    monkeypatch.setattr(worker, name, value)
    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match=said):
        Experiment(toy_base, measure={"m": len}).run({"": {}}, executor=pool, progress=False)
