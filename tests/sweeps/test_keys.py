"""Keys of runs, what changes them, and the cache: what is damaged counts as missing."""

import functools
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sftlab.measure import code_drawn
from sftlab.sweeps import cache, clear, stored
from sftlab.sweeps.keys import fingerprint
from sftlab.world import countries

ROOT = Path(__file__).resolve().parents[2]
hash_of = functools.partial(fingerprint, what="it")
CELL = """
WORDS, STEP, OTHER = ["a"], 1, 1
def helper(n):
    return n + STEP
def measure(run, form=0):
    return helper(len(WORDS)) + form
"""


def test_all_that_a_function_is_and_uses_counts_and_its_comments_do_not():
    def cell(old="", new=""):
        space = {"__name__": "__main__"}
        assert old in CELL
        exec(compile(CELL.replace(old, new), "<cell>", "exec"), space)
        return space["measure"]

    def closed(value):
        return lambda run: value

    def taking(run, way):
        return way(run)

    same = [cell(), cell("(run, form=0):", "(\n    run,  # A remark.\n    form=0,\n):")]
    same += [cell(), cell("1, 1", "1, 2")]  # what is not used does not count
    assert len(set(map(hash_of, same))) == 1
    assert hash_of(closed({"a": 1, "b": 2})) == hash_of(closed({"b": 2, "a": 1}))

    values = [1, 2, 2.5, "2", [1, 2], [2, 1], {"a": 1}, None, *countries()[:2]]
    values += [pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]}), pd.DataFrame({"y": [1]})]
    functions = [cell(), cell("+ form", "- form"), cell("form=0", "form=1")]
    functions += [cell('["a"]', '["b"]'), cell("1, 1", "2, 1")]
    functions += [lambda run: 1, lambda run: 2, *map(closed, values)]
    functions += [functools.partial(taking, way=way) for way in (len, sum)]
    functions += map(code_drawn, (0.2, 0.7))
    assert len(set(map(hash_of, functions))) == len(functions)


SCRIPT = """
import functools, re
import pandas as pd
from sftlab.sweeps.keys import fingerprint
from sftlab.world import countries
WORDS, AMONG = frozenset(["a", "b", "c", "d"]), countries()
FRAME = pd.DataFrame({"x": ["a", None], "y": [1, 2.5]})
class Judge:
    known = {"p", "q", "r"}
    def __call__(self, word): return word in {"x", "y", "z"} or word in WORDS
judge = Judge()
@functools.cache
def helper(n): return helper(n - 1) if n else re.compile("a+")
def measure(run, n=len(AMONG)): return judge(run) or [helper(x) for x in FRAME]
print(fingerprint([measure, AMONG], what="it"))
"""


def test_every_process_gives_the_same_hash():
    found = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed}
        found.add(subprocess.check_output([sys.executable, "-c", SCRIPT], env=environment))
    assert len(found) == 1


def test_a_path_and_an_own_module_count_by_the_content_of_the_file(tmp_path, monkeypatch):
    file, module = tmp_path / "words.txt", tmp_path / "helpers_of_mine.py"
    module.write_text("def help(run): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("helpers_of_mine")
    hashes = set()
    for text in ("one", "two"):
        file.write_text(text)
        for function in (lambda run: file.read_text(), helpers.help, lambda run: helpers.help(run)):
            hashes.add(hash_of(function))
        module.write_text("def help(run): return 2")
    del sys.modules["helpers_of_mine"]
    assert len(hashes) == 6


RUN, LATER = "0" * 32, "1" * 32
ITEMS = pd.DataFrame(
    {"answers": [("Vienna",), ("Brasilia", "Brasília")], "n": [1, 2], "share": [0.5, float("nan")]}
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path))
    return tmp_path / "runs"


def put(run=RUN, **changes):
    record = {"profile": "tiny", "settings": {"learning_rate": 1e-3, "seed": 4}, "seed": 4}
    record |= {"total_seconds": 2.5, "when": "2026-01-02T03:04:05+00:00", **changes}
    frames = {"facts": ITEMS, "loss": pd.DataFrame({"value": [1.5]})}
    cache.write(run, record, {name: cache.to_parquet(frame) for name, frame in frames.items()})


@pytest.mark.parametrize("file", ["run.json", "measure-0.parquet", "measure-1.parquet"])
def test_what_was_written_comes_back_and_what_is_damaged_is_replaced(folder, file):
    assert cache.read(RUN) is None
    put()
    path = folder / RUN / file
    raw = path.read_bytes()
    flipped = raw[:20] + bytes([raw[20] ^ 255]) + raw[21:]
    for seed, damaged in enumerate(("gone", raw[: len(raw) // 2], flipped, b"")):
        put(seed=seed)
        found = cache.read(RUN)
        assert found.record["seed"] == seed
        assert list(found.frames) == ["facts", "loss"]
        pd.testing.assert_frame_equal(found.frames["facts"], ITEMS)
        assert found.frames["loss"]["value"].tolist() == [1.5]
        path.unlink()
        if damaged != "gone":
            path.write_bytes(damaged)
        assert cache.read(RUN) is None
        stored()


def test_a_full_disk_is_an_error_with_the_folder_and_the_remedy(folder, monkeypatch):
    def full(file, raw):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"runs: No space left.*SFTLAB_CACHE") as error:
        put()
    assert str(folder) in str(error.value)
    assert not list(folder.iterdir())


def test_stored_lists_the_newest_first_and_clear_removes_all_or_the_old_ones(folder):
    assert (len(stored()), clear()) == (0, 0)
    put()
    put(LATER, settings=None, when="2026-02-02T03:04:05+00:00")
    (folder / ".half-written").mkdir()
    frame = stored()
    assert " ".join(frame.columns) == "run profile settings seed measures seconds bytes when"
    assert frame["run"].tolist() == [LATER, RUN]
    assert frame["settings"].tolist() == ["untrained", "learning_rate=0.001"]
    assert frame["measures"].tolist() == ["facts, loss"] * 2
    on_disk = sum(file.stat().st_size for file in (folder / RUN).iterdir())
    assert frame["bytes"].tolist()[1] == on_disk
    old = time.time() - 3 * 86400
    os.utime(folder / RUN, (old, old))
    assert clear(older_than_days=2) == 1
    assert stored()["run"].tolist() == [LATER]
    assert clear() == 1
    assert not list(folder.iterdir())
    with pytest.raises(ValueError, match="older_than_days is -1"):
        clear(older_than_days=-1)
