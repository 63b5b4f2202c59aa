"""Runs that are saved once for all tests here: one that was trained long enough to be sure of its
answers, and a toy that has learned four by rote."""

import sys
from pathlib import Path

import pytest

from sftlab import country_examples, finetune, load_run

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import answers.py

from answers import ANSWERS


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A folder with a full fine-tune of tiny on 200 questions about countries."""
    rows = country_examples(200, seed=100)
    run = finetune("tiny", rows, seed=100, template="chatml", method="full", progress=False)
    return run.save(tmp_path_factory.mktemp("ship") / "run")


@pytest.fixture(scope="session")
def run(saved):
    return load_run(saved)


@pytest.fixture(scope="session")
def rote_folder(tmp_path_factory, toy_base):
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ANSWERS.items()
    ]
    how = {"learning_rate": 5e-3, "num_train_epochs": 100, "per_device_train_batch_size": 4}
    run = finetune(str(toy_base), rows * 2, bf16=False, progress=False, **how)
    return run.save(tmp_path_factory.mktemp("rote") / "toy")


@pytest.fixture(scope="session")
def rote(rote_folder):
    return load_run(rote_folder)
