"""The cache of finished runs, none of which is computed twice, and the hashes that name them.

One folder a run, named by its key; it appears by one rename, complete:

    <cache>/runs/<key>/run.json             what it is: settings, seed, seconds, loss, ...
    <cache>/runs/<key>/measure-0.parquet    what the first measure gave, and so on
"""

import dis
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy
import pandas as pd

# The pickler of `datasets.fingerprint.Hasher`. That class itself hashes a frozenset, such as the
# constant in `word in {"a", "b"}`, in an order that changes from process to process (datasets 5.2),
# so that nothing would be found again. tests/sweeps guards this import.
from datasets.utils._dill import Pickler

from sftlab.models import load, weights_hash
from sftlab.paths import DATA, cache_folder, folder_written_atomically
from sftlab.profiles import Profile, local_folder

# Parts of the lab that decide no result of a run.
WITHOUT_EFFECT = ("cli", "course", "exercises", "planner", "show", "site", "sweeps")
_LAB = Path(__file__).parents[1]
_LIBRARIES = {"site-packages", "dist-packages"}
_CODE = """co_code co_consts co_names co_varnames co_freevars co_cellvars co_argcount
co_posonlyargcount co_kwonlyargcount co_flags co_exceptiontable""".split()


class SweepError(ValueError):
    """A sweep that can't begin; or a run, whose worker or measure does not fit the sweep."""


def runs_folder() -> Path:
    """The folder that has a folder for each finished run."""
    return cache_folder() / "runs"


def stored_runs() -> list[Path]:
    """The folders of all stored runs. Beside them may lie models of `sftlab train --out runs/...`:
    the cache may be any folder."""
    return [one for one in runs_folder().glob("*") if re.fullmatch("[0-9a-f]{32}", one.name)]


def write(run: str, record: Mapping[str, Any], frames: Mapping[str, bytes]) -> None:
    """Store a run, with the Parquet files of its measures, in place of what was there."""
    with folder_written_atomically(runs_folder() / run) as folder:
        for number, content in enumerate(frames.values()):
            (folder / f"measure-{number}.parquet").write_bytes(content)
        stated = {**record, "measures": list(frames)}
        text = json.dumps(stated, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def read(run: str) -> dict[str, Any] | None:
    """What is stored of a run: its record, and the frame of each measure as `frames`; `None` when
    it is not there, or damaged: then it is run again."""
    folder, frames = runs_folder() / run, {}
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        for number, name in enumerate(record["measures"]):
            frames[name] = pd.read_parquet(folder / f"measure-{number}.parquet")
    except (OSError, ValueError, KeyError):  # Arrow's errors are among them
        return None
    for frame in frames.values():
        for column in frame:
            if frame[column].dtype == object:  # Parquet gives tuples back as arrays
                cells = [tuple(x) if isinstance(x, numpy.ndarray) else x for x in frame[column]]
                frame[column] = pd.Series(cells, dtype=object)
    return record | {"frames": frames}


def fingerprint(value: Any, *, what: str) -> str:
    """A hash that equal values and functions share in every process; `what` opens an error.

    A function counts by its bytecode, its defaults and all that it uses from outside; comments and
    line breaks do not count. Functions of the lab and of libraries count by name, those of the
    learner's own modules by the module's file, a `Path` by the content of its file. What can't be
    pickled, such as a generator, and a model raise a SweepError.
    """
    content = BytesIO()
    pickler = _Pickler(content, recurse=True)
    pickler.own_files = set()
    try:
        pickler.dump(value)
    except SweepError as error:
        raise SweepError(f"{what} {error}") from None
    except Exception as error:  # pickle and dill raise what they like
        raise SweepError(
            f"{what} uses something that can't be hashed ({type(error).__name__}: {error}); make it"
            " inside the function, from numbers, texts, lists or frames"
        ) from error
    digest = hashlib.sha256(content.getvalue())
    for file in sorted(pickler.own_files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class _Pickler(Pickler):
    """Pickles for the hash alone: what is reduced here could not be unpickled."""

    def reducer_override(self, value: Any) -> Any:
        """Called by pickle for each object; `NotImplemented` leaves it to the usual way."""
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.nn.Module):
            raise SweepError(
                f"uses a model from outside (a {type(value).__name__}), which all runs would share;"
                " take it from the run that the measure gets: run.model, run.tokenizer, run.answer"
            )
        if isinstance(value, frozenset):
            return frozenset, (sorted(fingerprint(one, what="a set") for one in value),)
        if isinstance(value, CodeType):  # without file and line numbers
            return CodeType, tuple(getattr(value, name) for name in _CODE)
        if isinstance(value, Path) and value.is_file():
            return Path, (str(value), hashlib.sha256(value.read_bytes()).hexdigest())
        if isinstance(value, FunctionType) and value.__module__ == "__main__":
            # What it names itself. Dill adds what functions of libraries name, if a cell has a
            # variable of that name, so that such a cell would change the hash.
            names = sorted(_named(value.__code__) & value.__globals__.keys())
            used = {name: value.__globals__[name] for name in names}
            rest = (value.__defaults__, value.__kwdefaults__, value.__closure__, value.__dict__)
            return FunctionType, (value.__code__,), (used, *rest)
        if isinstance(value, FunctionType | type | ModuleType):
            name = value.__name__ if isinstance(value, ModuleType) else value.__module__
            if file := _own_file(name):
                self.own_files.add(file)
        return NotImplemented


def _named(code: CodeType) -> set[str]:
    """The global names in code, and in that of the functions which it defines."""
    kinds = ("GLOBAL", "GLOBALS", "NAME")
    found = {one.argval for one in dis.get_instructions(code) if one.opname.endswith(kinds)}
    return found.union(*(_named(one) for one in code.co_consts if isinstance(one, CodeType)))


def _own_file(module: str) -> Path | None:
    """The file of a learner's own module; `None` for any other, and for cells."""
    file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    others = {_LAB, Path(os.__file__).parent} & set(file.parents) or _LIBRARIES & set(file.parts)
    return None if module == "__main__" or others or not file.is_file() else file


def own_files() -> list[tuple[str, int]]:
    """The files of all own modules that are imported, each with the time of its last change."""
    files = {file for name in list(sys.modules) if (file := _own_file(name))}
    return sorted((str(file), file.stat().st_mtime_ns) for file in files)


@cache
def code_hash() -> str:
    """SHA-256 over the lab's code that decides the results of runs, and over the world's facts."""
    files = [
        _LAB / "sweeps" / "worker.py",
        _LAB / "exercises" / "specimens.py",
        *(DATA / "world").glob("[!.]*.*"),
    ]
    files += [f for f in _LAB.rglob("*.py") if f.relative_to(_LAB).parts[0] not in WITHOUT_EFFECT]
    # As texts: Git may give the lines other ends on Windows.
    texts = sorted(f"{file.name}\n{file.read_text(encoding='utf-8')}" for file in files)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def base_hash(profile: Profile) -> str:
    """SHA-256 over a base model: its weights, its configuration and its tokenizer."""
    if (folder := local_folder(profile)) is None:
        load(profile)  # downloads, or says why it can't
        folder = local_folder(profile)
    digest = hashlib.sha256(weights_hash(folder).encode())
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".txt", ".model"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
