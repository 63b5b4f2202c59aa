"""The cache: what is written comes back, what is damaged counts as missing."""

import os
import re
import time
from pathlib import Path

import pandas as pd
import pytest

from sftlab.sweeps import cache, clear, stored

RUN = "0" * 32
ITEMS = pd.DataFrame(
    {"country": ["Austria", "Brazil"], "answers": [("Vienna",), ("Brasilia", "Brasília")],
     "right": [True, False], "n": [1, 2], "share": [0.5, float("nan")]}
)  # fmt: skip
RECORD = {"profile": "tiny", "settings": {"learning_rate": 1e-3, "seed": 4}, "seed": 4,
          "total_seconds": 2.5, "when": "2026-01-02T03:04:05+00:00"}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    return tmp_path / "runs"


def put(run=RUN, **changes):
    frames = {"facts": ITEMS, "loss": pd.DataFrame({"value": [1.5]})}
    frames = {name: cache.to_parquet(frame) for name, frame in frames.items()}
    cache.write(run, {**RECORD, **changes}, frames)


def test_what_was_written_comes_back():
    assert cache.read(RUN) is None
    put()
    found = cache.read(RUN)
    assert found.record["settings"] == RECORD["settings"]
    assert list(found.frames) == ["facts", "loss"]
    pd.testing.assert_frame_equal(found.frames["facts"], ITEMS)
    assert found.frames["loss"]["value"].tolist() == [1.5]
    put(seed=5)
    assert cache.read(RUN).record["seed"] == 5


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("run.json", "cut"),
        ("run.json", "gone"),
        ("measure-0.parquet", "cut"),
        ("measure-0.parquet", "flipped"),
        ("measure-1.parquet", "empty"),
        ("measure-1.parquet", "gone"),
    ],
)
def test_a_damaged_file_counts_as_missing_and_is_replaced(folder, file, damage):
    put()
    path = folder / RUN / file
    raw = bytearray(path.read_bytes())
    raw[20] ^= 255
    path.write_bytes({"cut": raw[: len(raw) // 2], "flipped": raw}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    assert cache.read(RUN) is None
    stored()
    put()
    assert cache.read(RUN)


def test_a_column_that_no_file_can_hold_is_an_error_and_bins_are_texts():
    with pytest.raises(ValueError, match="for column right"):
        cache.to_parquet(pd.DataFrame({"right": [1, "two"]}))
    with pytest.raises(ValueError, match="Duplicate column"):
        cache.to_parquet(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    bins = pd.DataFrame({"n": pd.cut(pd.Series([1, 2, 3]), [0, 2, 4])})
    cache.write(RUN, RECORD, {"facts": cache.to_parquet(bins)})
    assert cache.read(RUN).frames["facts"]["n"].tolist() == ["(0, 2]", "(0, 2]", "(2, 4]"]


def test_a_full_disk_is_an_error_with_the_folder_and_the_remedy(folder, monkeypatch):
    def full(file, raw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=rf"{re.escape(str(folder))}: No space left.*SFTLAB_CACHE"):
        cache.write(RUN, RECORD, {"facts": b""})
    assert not list(folder.iterdir())


def test_stored_lists_the_runs_the_newest_first(folder):
    assert len(stored()) == 0
    put()
    put(run="1" * 32, settings=None, when="2026-02-02T03:04:05+00:00")
    (folder / ("2" * 32)).mkdir()
    frame = stored()
    assert list(frame.columns) == [
        "run", "profile", "settings", "seed", "measures", "seconds", "bytes", "when"
    ]  # fmt: skip
    assert frame["run"].tolist() == ["1" * 32, RUN]
    assert frame["settings"].tolist() == ["untrained", "learning_rate=0.001"]
    assert frame["measures"].tolist() == ["facts, loss"] * 2
    on_disk = sum(file.stat().st_size for file in (folder / RUN).iterdir())
    assert frame["bytes"].tolist()[1] == on_disk


def test_clear_removes_all_or_the_old_ones(folder):
    assert clear() == 0
    for n in range(3):
        put(run=str(n) * 32)
    old = time.time() - 3 * 86400
    os.utime(folder / RUN, (old, old))
    assert clear(older_than_days=2) == 1
    assert len(stored()) == 2
    (folder / ".half-written").mkdir()
    assert clear() == 2
    assert not list(folder.iterdir())
    with pytest.raises(ValueError, match="older_than_days is -1"):
        clear(older_than_days=-1)
