"""The meter that a run carries, and the base's own reading in the cache."""

import pandas as pd
import pytest

from sftlab.paths import cache_folder
from sftlab.train.baseline import base_meter
from sftlab.train.finetuning import finetune, untrained
from sftlab.train.saved_run import load_run
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


def test_the_bases_reading_is_taken_once(toy_base, monkeypatch):
    found = base_meter(toy_base)
    pd.testing.assert_frame_equal(found, untrained(toy_base).meter())
    monkeypatch.setattr("sftlab.train.run.read_meter", lambda *a, **k: pytest.fail("read twice"))
    pd.testing.assert_frame_equal(base_meter(toy_base), found)


def test_a_broken_file_is_read_again(toy_base):
    found = base_meter(toy_base)
    files = list((cache_folder() / "meters").glob("*.parquet"))
    for file in files:
        file.write_bytes(b"no parquet")
    pd.testing.assert_frame_equal(base_meter(toy_base), found)


def test_training_moves_the_meter(run, toy_base):
    moved = run.meter()["nats"] - base_meter(toy_base)["nats"]
    assert moved.abs().max() > 0.1
