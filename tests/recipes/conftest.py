"""What the tests of the recipes need: rows in a file, and a recipe run as a learner runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sftlab import country_examples

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "data" / "models" / "tiny"


@pytest.fixture(scope="session")
def country_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL of 24 conversations of one turn: {"messages": [user, assistant]}."""
    rows = [{"messages": row["messages"]} for row in country_examples(24)]
    file = tmp_path_factory.mktemp("rows") / "countries.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def run_recipe(tmp_path: Path, country_file: Path) -> Callable[..., str]:
    """Run `recipes/NAME.py` in a process of its own, offline; returns what it printed.

        printed = run_recipe("06_training", "--max_steps", 4)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")

    `--model` is the embedded `tiny`, `--data` the country file, `--out` is `tmp_path / "out"`;
    arguments that are given come after these and win. The test fails where the recipe fails.
    """
    # The libraries' caches are the test's own, and the lab cannot be imported from there.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | offline

    def run(name: str, *arguments: object, timeout: float = 300) -> str:
        defaults = ["--model", TINY, "--data", country_file, "--out", tmp_path / "out"]
        command = [sys.executable, ROOT / "recipes" / f"{name}.py", *defaults, *arguments]
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path, env=environment, timeout=timeout, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    return run
