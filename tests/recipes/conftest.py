"""What the tests of the recipes need: rows in a file, and a recipe run as a learner runs it."""

import json
import runpy
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import datasets
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


@pytest.fixture(scope="session")
def run_recipe_in(country_file: Path) -> Callable[..., str]:
    """Run `recipes/NAME.py` with arguments in a folder; returns what it printed.

    `--model` is the embedded `tiny`, `--data` the country file, `--out` is `out` in that folder;
    arguments that are given come after these and win. It runs as `__main__` in this process: one
    of its own would take longer to import the libraries than most recipes take to train.
    """

    def run(folder: Path, name: str, *arguments: object) -> str:
        script = str(ROOT / "recipes" / f"{name}.py")
        defaults = ["--model", TINY, "--data", country_file, "--out", folder / "out"]
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
            patch.setattr(sys, "argv", [script, *map(str, [*defaults, *arguments])])
            patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
            patch.chdir(folder)
            runpy.run_path(script, run_name="__main__")
        return printed.getvalue()

    return run


@pytest.fixture
def run_recipe(run_recipe_in: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Run a recipe in `tmp_path`, such as `run_recipe("06_training", "--max_steps", 4)`."""
    return lambda name, *arguments: run_recipe_in(tmp_path, name, *arguments)
