"""The meter that a run carries."""

import pandas as pd
import pytest

from sftlab.train.finetuning import finetune, untrained
from sftlab.train.run import load_run
from sftlab.world import country_examples


@pytest.fixture(scope="module")
def run(toy_base):
    return finetune(
        toy_base, country_examples(8), num_train_epochs=4, learning_rate=0.05, progress=False
    )


def test_a_run_reads_its_meter_once_and_keeps_it(run, monkeypatch, tmp_path):
    taken = run.meter()
    monkeypatch.setattr("sftlab.train.run.read_meter", lambda *a, **k: pytest.fail("read twice"))
    pd.testing.assert_frame_equal(run.meter(), taken)
    taken["nats"] = 0.0
    assert (run.meter()["nats"] > 0).all(), "a caller's change is not the run's"
    opened = load_run(run.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(opened.meter(), run.meter())


def test_a_run_without_a_reading_is_saved_without_one(toy_base, tmp_path):
    run = untrained(toy_base)
    folder = run.save(tmp_path / "run")
    assert not (folder / "meter.parquet").exists()


def test_training_moves_the_meter(run, toy_base):
    moved = run.meter()["nats"] - untrained(toy_base).meter()["nats"]
    assert moved.abs().max() > 0.1
