"""Which words the files of a package hold: how a statement about its source is looked up.

The lab is offline, and old releases of TRL are not installed. `data/trl-0.8/words.json` says for
each file of their wheels its hash and the words in it, without their order: enough to tell in which
files a word never stands. It is made by

    pip download --no-deps trl==0.8.0            (and the other releases of 0.8)
    python -m sftlab.course.wheel_words trl-0.8.*.whl

and a test makes it again where pip can fetch the wheels.
"""

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from sftlab.paths import DATA

INDEX = DATA / "trl-0.8" / "words.json"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def words_of(text: str) -> list[str]:
    """The different words of a source text, code and comments alike, lower-case and sorted.

    Names are taken apart: `lengthSampler` and `length_sampler` hold `length` and `sampler`. Words
    of one letter are left out.
    """
    return sorted({word.lower() for word in _WORD.findall(text) if len(word) > 1})


def make_index(wheels: Iterable[str | Path]) -> dict:
    """The index of some wheels, by version; files of equal content share their words.

        {"wheels": {"0.8.0": {"sha256": ..., "files": {"trl/core.py": HASH}}},
         "words": {HASH: "about accelerate all ..."}}

    Raises:
        ValueError: a file's name is none of a wheel, or two are of one version.
    """
    found, words = {}, {}
    for wheel in map(Path, wheels):
        parts = wheel.name.split("-")
        if wheel.suffix != ".whl" or len(parts) < 5:
            raise ValueError(f"{wheel.name} is no wheel: its name is NAME-VERSION-...-any.whl")
        if parts[1] in found:
            raise ValueError(f"{wheel.name}: version {parts[1]} was given twice")
        files = {}
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                content = archive.read(name)
                files[name] = hashlib.sha256(content).hexdigest()
                words[files[name]] = " ".join(words_of(content.decode("utf-8", "replace")))
        sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
        found[parts[1]] = {"wheel": wheel.name, "sha256": sha, "files": files}
    return {"wheels": found, "words": dict(sorted(words.items()))}


def read_index(path: Path = INDEX) -> pd.DataFrame:
    """The stored index, one row a file of a wheel: version, file, sha256, words (a set)."""
    index = json.loads(path.read_text(encoding="utf-8"))
    words = {sha: frozenset(text.split()) for sha, text in index["words"].items()}
    return pd.DataFrame(
        {"version": version, "file": file, "sha256": sha, "words": words[sha]}
        for version, wheel in index["wheels"].items()
        for file, sha in wheel["files"].items()
    )


def files_with(index: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """In how many files of each version a word stands: a row a word, a column a version."""
    columns = {
        version: [sum(word in held for held in files["words"]) for word in words]
        for version, files in index.groupby("version")
    }
    return pd.DataFrame(columns, index=list(words))


def installed_lines(package: str, words: Sequence[str]) -> pd.DataFrame:
    """The lines of an installed package's Python files that hold one of the words.

    Columns: file, line (its number), text.

    Raises:
        ValueError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"no package {package!r} is installed here")
    folder, wanted = Path(spec.submodule_search_locations[0]), set(words)
    rows = [
        {"file": file.relative_to(folder).as_posix(), "line": number, "text": line.strip()}
        for file in sorted(folder.rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if wanted & set(words_of(line))
    ]
    return pd.DataFrame(rows, columns=["file", "line", "text"])


def write_index(wheels: Iterable[str | Path], path: Path = INDEX) -> Path:
    """Write the index of some wheels; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(make_index(wheels), indent=0) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write_index(sys.argv[1:]))
