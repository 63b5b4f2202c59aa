"""The index of the words in wheels: how it is made, what it finds, that the stored one is true."""

import json
import subprocess
import sys
import zipfile

import pytest

from sftlab.course.wheel_words import (
    INDEX,
    files_with,
    installed_lines,
    make_index,
    read_index,
    words_of,
    write_index,
)


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "toy-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "toy/order.py", "class EasyFirst:\n    hard_rows = []  # the harder ones\n"
        )
        archive.writestr("toy/copy.py", "class EasyFirst:\n    hard_rows = []  # the harder ones\n")
        archive.writestr("toy/shard.py", "def shardedFiles(): return 'x'\n")
    return path


def test_names_are_taken_apart():
    assert words_of("lengthSampler, length_sampler: HTTPServer x2") == [
        "http", "length", "sampler", "server"]  # fmt: skip


def test_a_word_inside_another_does_not_count():
    assert "hard" not in words_of("shardedFiles harded")
    assert "hard" in words_of("hard_rows")


def test_index_knows_each_file_and_keeps_equal_ones_once(wheel, tmp_path):
    index = make_index([wheel])
    assert len(index["wheels"]["1.2.0"]["files"]) == 3
    assert len(index["words"]) == 2
    path = write_index([wheel], tmp_path / "words.json")
    frame = read_index(path)
    assert files_with(frame, ["hard", "easy", "sampler"])["1.2.0"].tolist() == [2, 2, 0]


def test_what_is_no_wheel_is_refused(wheel, tmp_path):
    with pytest.raises(ValueError, match="no wheel"):
        make_index([tmp_path / "toy.zip"])
    with pytest.raises(ValueError, match="given twice"):
        make_index([wheel, wheel])


def test_lines_of_an_installed_package_are_found():
    found = installed_lines("sftlab", ["installed", "harder"])
    assert "course/wheel_words.py" in set(found["file"])
    assert found["text"].str.contains("installed|harder", case=False).all()
    assert len(installed_lines("trl", ["sampler"])) > 3
    with pytest.raises(ValueError, match="no package"):
        installed_lines("no_such_package", ["word"])


def test_stored_index_holds_all_releases_of_0_8():
    frame = read_index()
    assert sorted(frame["version"].unique()) == [f"0.8.{n}" for n in range(7)]
    sizes = frame.groupby("version").size()
    assert sizes.min() > 70
    # That the search finds what is there: every release trains, and speaks of samplers.
    assert files_with(frame, ["trainer", "sampler"]).min().min() > 5


@pytest.mark.slow
def test_stored_index_is_made_again_from_the_wheels(tmp_path):
    stored = json.loads(INDEX.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path]
    for version in stored["wheels"]:
        done = subprocess.run([*command, f"trl=={version}"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip("pip can't fetch the wheels of TRL 0.8 here")
    assert make_index(sorted(tmp_path.glob("*.whl"))) == stored
