"""The store: what is written comes back, what is damaged counts as missing."""

import errno
import json
import os
import re
import time
from pathlib import Path

import pandas as pd
import pytest

from sftlab.sweeps import note, noted, results

RUN = "0" * 32
ITEMS = pd.DataFrame(
    {"country": ["Austria", "Brazil"], "answers": [("Vienna",), ("Brasilia", "Brasília")],
     "right": [True, False], "n": [1, 2], "share": [0.5, float("nan")]}
)  # fmt: skip
RECORD = {"profile": "tiny", "settings": {"learning_rate": 1e-3, "num_train_epochs": 3, "seed": 4},
          "seed": 4, "total_seconds": 2.5, "when": "2026-01-02T03:04:05+00:00"}  # fmt: skip


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    return results.runs_folder()


def put(store, run=RUN, **changes):
    value = pd.DataFrame({"value": [1.5]})
    results.write(store, run, {**RECORD, **changes}, {"facts": ITEMS, "loss": value})


def test_what_was_written_comes_back(store):
    put(store)
    found = results.read(store, RUN)
    assert found.record["settings"] == RECORD["settings"]
    assert list(found.frames) == ["facts", "loss"]
    pd.testing.assert_frame_equal(found.frames["facts"], ITEMS)
    assert found.frames["loss"]["value"].tolist() == [1.5]


def test_a_run_that_is_not_there_is_none(store):
    assert results.read(store, RUN) is None
    assert len(results.stored()) == 0
    assert results.clear() == 0


@pytest.mark.parametrize("file", ["run.json", "measure-0.parquet", "measure-1.parquet"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(store, file, damage):
    put(store)
    path = store / RUN / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes({"cut": raw[: len(raw) // 2], "flipped": raw}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    if file == "run.json" and damage == "flipped":
        path.write_text('{"format": 1, "run": "' + RUN + '", "measures": 3}')
    assert results.read(store, RUN) is None
    results.stored()
    put(store)
    assert results.read(store, RUN)


def test_a_file_where_the_folder_belongs_is_replaced(store):
    store.mkdir()
    (store / RUN).write_text("?")
    assert results.read(store, RUN) is None
    put(store)
    assert results.read(store, RUN)


def test_a_second_write_replaces_the_first(store):
    put(store)
    put(store, seed=5)
    assert results.read(store, RUN).record["seed"] == 5
    assert [entry.name for entry in os.scandir(store)] == [RUN]


def test_nothing_is_left_of_a_write_that_failed(store):
    mixed = pd.DataFrame({"right": [1, "two"]})
    with pytest.raises(ValueError, match="'facts' gives a column 'right'"):
        results.write(store, RUN, RECORD, {"facts": mixed})
    assert not list(store.iterdir())


def test_a_column_given_twice_is_an_error(store):
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="'a' twice"):
        results.write(store, RUN, RECORD, {"facts": twice})


def test_a_full_disk_is_told_with_the_folder_and_the_remedy(store, monkeypatch):
    def full(file, raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    told = f"stored in {re.escape(str(store))}: No space left on device; free .* SFTLAB_CACHE"
    with pytest.raises(OSError, match=told):
        put(store)
    assert not list(store.iterdir())


def test_bins_are_kept_as_texts(store):
    bins = pd.DataFrame({"n": pd.cut(pd.Series([1, 2, 3]), [0, 2, 4])})
    results.write(store, RUN, RECORD, {"facts": bins})
    assert results.read(store, RUN).frames["facts"]["n"].tolist() == ["(0, 2]", "(0, 2]", "(2, 4]"]


def test_stored_lists_the_runs_the_newest_first(store):
    put(store)
    put(store, run="1" * 32, settings=None, when="2026-02-02T03:04:05+00:00")
    (store / ("2" * 32)).mkdir()
    frame = results.stored()
    assert list(frame.columns) == [
        "run", "profile", "settings", "seed", "measures", "seconds", "bytes", "when"
    ]  # fmt: skip
    assert frame["run"].tolist() == ["1" * 32, RUN]
    assert frame["settings"].tolist() == ["untrained", "learning_rate=0.001"]
    assert frame["measures"].tolist() == ["facts, loss"] * 2
    on_disk = sum(file.stat().st_size for file in (store / RUN).iterdir())
    assert frame["bytes"].tolist()[1] == on_disk
    assert frame["when"].iloc[0].isoformat() == "2026-02-02T03:04:05+00:00"


def test_clear_removes_all_or_the_old_ones(store):
    for n in range(3):
        put(store, run=str(n) * 32)
    old = time.time() - 3 * 86400
    os.utime(store / RUN, (old, old))
    assert results.clear(older_than_days=2) == 1
    assert len(results.stored()) == 2
    (store / ".half-written").mkdir()
    note("code", {"one": 1})
    assert results.clear() == 2
    assert not list(store.iterdir())
    assert noted("code") == {}
    with pytest.raises(ValueError, match="older_than_days is -1"):
        results.clear(older_than_days=-1)


def test_what_a_kill_left_is_swept_up_when_it_is_old(store):
    store.mkdir()
    (store / ".new").mkdir()
    (store / ".old").mkdir()
    os.utime(store / ".old", (0, 0))
    results.sweep_up()
    assert [path.name for path in store.iterdir()] == [".new"]
    assert json.dumps(results.stored().to_dict("records")) == "[]"
