"""The code that a run is made from, as hashes: the lab's files and the learner's."""

import ast
import hashlib
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sftlab.paths import DATA, cache_folder
from sftlab.sweeps.grid import SweepError
from sftlab.sweeps.notes import note, noted

LAB, INSTALLED, OWN = "lab", "installed", "own"
"""Where a module comes from: this package, somebody's release, or the learner's own folder."""

CODE = "code"
"""Name of the notes about the lab's files and the learner's."""


def origin(module: str) -> str:
    """LAB, INSTALLED or OWN; what was typed into a notebook or a script is OWN."""
    top = module.partition(".")[0]
    if top == "sftlab":
        return LAB
    if top == "__main__":
        return OWN
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return INSTALLED
    file = _file(top) or _file(module)
    if file is None:  # a module without a file: made by hand, or part of the interpreter
        return OWN if module in sys.modules or "." not in module else INSTALLED
    return INSTALLED if _is_installed(str(file)) else OWN


@cache
def _is_installed(file: str) -> bool:
    paths = sysconfig.get_paths()
    roots = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    inside = any(file.startswith(os.path.join(root, "")) for root in roots)
    return inside or bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _file(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    if name is None and loaded is None:
        try:
            spec = importlib.util.find_spec(module)
        except Exception:  # to find a part, its package is imported, and that may raise anything
            return None
        name = spec.origin if spec and spec.has_location else None
    return Path(name) if name else None


class Stamped(NamedTuple):
    """A file, with what tells that it has changed."""

    path: str
    size: int
    """In bytes."""
    time: int
    """Of the last change, in nanoseconds."""


def files_of(modules: Iterable[str]) -> dict[str, Stamped]:
    """The source files of modules, and of all that they import in turn, from LAB and OWN."""
    return _files_of(modules, _files_of_lab())


def _files_of(modules: Iterable[str], lab: Mapping[str, Stamped]) -> dict[str, Stamped]:
    waiting, found, seen = list(modules), {}, set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file = lab.get(name)
        if file is None and origin(name) == OWN:
            file = _stamped_own(name)
        if file is None:
            continue
        found[name] = file
        _, imported = _parsed(*file)
        package = name if Path(file.path).name == "__init__.py" else name.rpartition(".")[0]
        for level, base, names in imported:
            if level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - level + 1], *([base] if base else [])])
            waiting += [base, *(f"{base}.{n}" for n in names)] if base else []
    if _new:
        note(CODE, _new)
        _new.clear()
    return found


def _stamped_own(module: str) -> Stamped | None:
    path = _file(module)
    if path is None or path.suffix != ".py":
        return None
    try:
        return stamped(path)
    except OSError as error:
        raise SweepError(
            f"{path}, the file of the module {module!r}, can't be read ({error.strerror}); put it "
            "back, or restart Python and import what there is"
        ) from error


def _files_of_lab() -> dict[str, Stamped]:
    """All of this package's files by the names of their modules: one look at each folder."""
    found, folders = {}, [(Path(__file__).resolve().parents[2], "sftlab")]
    while folders:
        folder, package = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if entry.is_dir():
                    if entry.name != "__pycache__":
                        folders.append((entry.path, f"{package}.{entry.name}"))
                elif suffix == ".py":
                    name = package if stem == "__init__" else f"{package}.{stem}"
                    found[name] = stamped(entry)
    return found


def stamped(file: Path | os.DirEntry) -> Stamped:
    """Raises OSError when there is no such file."""
    status = file.stat()
    return Stamped(os.fspath(file), status.st_size, status.st_mtime_ns)


Parsed = tuple[str, list[tuple[int, str, list[str]]]]
"""Hash of a file's code without comments and docstrings; its imports: level, base, names."""

_PARSER = hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).digest()
"""Another Python, or another version of this file, may tell the same code in another way."""
_new: dict[str, Parsed] = {}
"""What this process has parsed and not yet noted, by the hash of the content."""


@cache
def _parsed(file: str, size: int, time: int) -> Parsed:
    content = Path(file).read_bytes()
    key = hashlib.sha256(_PARSER + content).hexdigest()[:32]
    with suppress(KeyError, TypeError, ValueError):
        digest, imported = _noted_code(cache_folder())[key]
        return digest, imported
    try:
        _new[key] = found = _parse(content, file)
    except SyntaxError as error:
        raise SweepError(
            f"{file}, line {error.lineno}: {error.msg}. The runs depend on this file: mend it, and "
            "import it anew"
        ) from error
    return found


@cache
def _noted_code(folder: Path) -> dict[str, Any]:
    """What there was in the cache folder when this process first asked."""
    return noted(CODE)


def _parse(content: bytes, file: str) -> Parsed:
    tree = ast.parse(content, filename=file)
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(0, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append((node.level, node.module or "", [a.name for a in node.names]))
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def _is_text(line: ast.AST) -> bool:
    """A docstring, or the text under a field."""
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def code_hash(modules: Iterable[str]) -> str:
    """SHA-256 over the code of modules and of all that they import, and over the world's facts.

    Raises:
        SweepError: a module of the learner's has a file that is gone, or no Python.
    """
    parts = {name: _parsed(*file)[0] for name, file in files_of(modules).items()}
    if any(name.startswith("sftlab.world") for name in parts):
        # A hidden file is a tool's, such as .DS_Store, and so is a folder.
        for file in sorted((DATA / "world").glob("[!.]*")):
            if file.is_file():
                parts[file.name] = file_hash(*stamped(file))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def stamp(modules: Iterable[str]) -> str:
    """SHA-256 over size and time of the lab's files and of those of the learner's modules."""
    lab = _files_of_lab()
    parts = sorted({*lab.values(), *_files_of(modules, lab).values()})
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@cache
def file_hash(file: str, size: int, time: int) -> str:
    """SHA-256 of a file's bytes; what a `Stamped` holds tells when to read it again."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
