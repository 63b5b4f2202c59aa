"""Where the course keeps its files: in a clone, in an installed wheel, and in the user's cache."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    """A folder that a clone keeps next to the package and a wheel carries inside it."""
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


DATA = _shipped("data")
NOTEBOOKS = _shipped("notebooks")


def cache_folder() -> Path:
    """The folder for what can be made again; `SFTLAB_CACHE` overrides the platform's own."""
    folder = Path(os.environ.get("SFTLAB_CACHE") or platformdirs.user_cache_dir("sftlab"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: after a crash the old content is there, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(unfinished, path)


@contextmanager
def file_written_atomically(path: Path) -> Iterator[TextIO]:
    """A temporary text file that takes the name `path` when the block ends without an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `path` when the block ends without an error.

    A folder that is already there is replaced; of two processes that write it, the last wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, Path(scratch) / "old")
        os.replace(new, path)
