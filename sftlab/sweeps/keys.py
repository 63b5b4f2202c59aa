"""The key under which a run is stored: hashes of functions, of the lab's code, and of models."""

import hashlib
import json
import sys
import sysconfig
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Not `datasets.fingerprint.Hasher` itself, but the pickler behind it: a frozenset, such as the
# constant in `word in {"a", "b"}`, is hashed there in an order that changes from process to process
# (datasets 5.2), so that nothing would be found again. tests/sweeps guards this import.
from datasets.utils._dill import Pickler

from sftlab.models import load, weights_hash
from sftlab.paths import DATA
from sftlab.profiles import Profile, local_folder

WITHOUT_EFFECT = ("cli", "conversation.py", "course", "planner", "show", "sweeps")
"""Parts of the lab that decide no result of a run; all others, `sweeps/worker.py` too, do."""
_TOKENIZER = ("config.json", "generation_config.json", "token*", "special_tokens*", "vocab*",
              "merges*", "added_tokens*", "chat_template*", "*.model")  # fmt: skip
_CODE = ("co_code", "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars",
         "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags",
         "co_exceptiontable")  # fmt: skip


class FingerprintError(ValueError):
    """A measure, or a value of the grid, uses something that can't be hashed, such as a model."""


def fingerprint(value: Any, *, what: str) -> str:
    """A hash that equal values and functions share in every process.

    A function counts with its bytecode, its defaults, and all that it uses from outside, other
    functions included; comments and line breaks do not count. Functions of installed libraries and
    of the lab count by their names, those of the learner's own modules by the modules' files, and a
    `Path` by the content of its file.

    Args:
        value: anything that can be pickled, but no model.
        what: opens the message of an error, such as "the measure 'facts'".

    Raises:
        FingerprintError: it is, or uses, a model, an open file, a generator and the like.
    """
    pickled = BytesIO()
    pickler = _Pickler(pickled, recurse=True)
    try:
        pickler.dump(value)
    except FingerprintError as error:
        raise FingerprintError(f"{what} {error}") from None
    except Exception as error:  # pickle and dill raise what they like
        raise FingerprintError(
            f"{what} uses something that can't be hashed ({type(error).__name__}: {error}); make it"
            " inside the function, from numbers, texts, lists or frames"
        ) from error
    digest = hashlib.sha256(pickled.getvalue())
    for file in sorted(pickler.own_files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class _Pickler(Pickler):
    """Pickles for the hash alone: what is reduced here could not be unpickled."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.own_files: set[Path] = set()
        """Of the learner's own modules whose functions were met."""

    def reducer_override(self, value: Any) -> Any:
        """Called by pickle for each object; `NotImplemented` leaves it to the usual way."""
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.nn.Module):
            raise FingerprintError(
                f"uses a model from outside (a {type(value).__name__}). A run is found again by "
                "what it was made from, and all runs would share this one model: take it from the "
                "run that the measure is given (run.model, run.tokenizer, run.answer)"
            )
        if isinstance(value, frozenset):
            return frozenset, (sorted(fingerprint(one, what="a set") for one in value),)
        if isinstance(value, CodeType):  # without line numbers, file and name
            return CodeType, tuple(getattr(value, name) for name in _CODE)
        if isinstance(value, Path) and value.is_file():
            return Path, (str(value), hashlib.sha256(value.read_bytes()).hexdigest())
        if isinstance(value, FunctionType | type | ModuleType):
            name = value.__name__ if isinstance(value, ModuleType) else value.__module__
            if file := own_file(name):
                self.own_files.add(file)
        return NotImplemented


@cache
def _libraries() -> tuple[Path, ...]:
    places = sysconfig.get_paths()
    return tuple(Path(places[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def own_file(module: str) -> Path | None:
    """The file of a learner's own module; `None` for the lab's, for libraries and for cells."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or module == "__main__" or module.partition(".")[0] == "sftlab":
        return None
    file = Path(file)
    library = {"site-packages", "dist-packages"} & set(file.parts)
    return None if library or set(_libraries()) & set(file.parents) else file


def own_files() -> tuple[tuple[str, int], ...]:
    """The files of all own modules that are imported, and their times."""
    files = {file for name in list(sys.modules) if (file := own_file(name)) and file.is_file()}
    return tuple((str(file), file.stat().st_mtime_ns) for file in sorted(files))


@cache
def code_hash() -> str:
    """SHA-256 over the lab's code that decides the results of runs, and over the world's facts."""
    lab = Path(__file__).parents[1]
    files = [f for f in lab.rglob("*.py") if f.relative_to(lab).parts[0] not in WITHOUT_EFFECT]
    files += [f for f in (DATA / "world").iterdir() if f.is_file() and f.name[0] != "."]
    # As texts: Git may give the lines other ends on Windows.
    texts = [
        f"{file.name}\n{file.read_text(encoding='utf-8')}"
        for file in (*files, lab / "sweeps" / "worker.py")
    ]
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def base_hashes(profile: Profile) -> dict[str, str]:
    """Hashes of a base model: `weights`, and `files` (its configuration and its tokenizer).

    The first use of a hub profile downloads it.

    Raises:
        ModelNotAvailableError: the weights can't be had.
    """
    if (folder := local_folder(profile)) is None:
        load(profile)  # downloads, or says why it can't
        folder = local_folder(profile)
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _TOKENIZER for file in folder.glob(pattern)}):
        digest.update(file.name.encode() + file.read_bytes())
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.glob("*.safetens*")]
    return {"weights": _weights(folder, tuple(stamps)), "files": digest.hexdigest()}


@cache
def _weights(folder: Path, stamps: tuple) -> str:
    """Read again only when a file has changed."""
    return weights_hash(folder)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package in ("torch", "transformers", "trl", "peft"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def key_of(identity: dict[str, Any]) -> str:
    """The key of a run: a hash of all that makes it."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
