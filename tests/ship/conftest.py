"""A toy run that has learned four answers by rote, saved once for all tests of servers."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can import answers.py

from answers import ANSWERS


@pytest.fixture(scope="session")
def rote_folder(tmp_path_factory, toy_base):
    from sftlab.train import finetune

    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ANSWERS.items()
    ]
    how = {"learning_rate": 5e-3, "num_train_epochs": 100, "per_device_train_batch_size": 4}
    run = finetune(str(toy_base), rows * 2, bf16=False, progress=False, **how)
    return run.save(tmp_path_factory.mktemp("rote") / "toy")


@pytest.fixture(scope="session")
def rote(rote_folder):
    from sftlab.train import load_run

    return load_run(rote_folder)
